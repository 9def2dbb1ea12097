"""A module of the user's own, as docs/slime.md has it."""

import credit
from credit.adapters.slime import Hooks

hooks = Hooks(credit.DGPO(tau=0.05))
advantages, before_log_prob, check = hooks.advantages, hooks.before_log_prob, hooks.check
