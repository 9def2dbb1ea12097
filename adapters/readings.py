"""What an estimator takes `rewards` for, where rewards of tokens or turns lie beside them."""

from typing import Literal

from credit.adapters import traits
from credit.estimators.base import Estimator
from credit.estimators.token_rewards import TokenRewarded

Reading = Literal["total", "outcome", "tokens"]
NAME = "token_rewards"


def find_reading(estimator: Estimator) -> Reading:
    """What the estimator takes `rewards` for, beside rewards of tokens.

    "total": all that there is, since it does not read token_rewards; "outcome": what is not in token_rewards;
    "tokens": nothing, since token_rewards have all that there is.
    """
    if NAME not in estimator.required_fields:
        return "total"
    sourced = isinstance(estimator, TokenRewarded) and estimator.rewards_from == "tokens"
    return "tokens" if sourced else "outcome"


def find_shared_reading(estimator: Estimator, given: str, way_out: str) -> Reading:
    """The reading of an estimator that reads token_rewards, or of all parts of a mix.

    Raises:
        ValueError: the parts read the rewards differently; it says what is `given`, and the way out.
    """
    parts = [part.estimator for part in traits.list_parts(estimator)]
    found = {find_reading(part) for part in parts}
    if "outcome" in found and len(found) > 1:
        named = ", ".join(f"{part.name} ({find_reading(part)})" for part in parts)
        raise ValueError(
            f"{given}, and the parts of the mix read different rewards beside them: {named}; {way_out}"
        )
    return "outcome" if "outcome" in found else "tokens"
