"""The estimator of a run of ms-swift: --external_plugins reward.py credit_plugin.py

Copy this file, and name your estimator. At a tau of 0.1 no difference from GRPO was found, and 0.05
was worse; docs/study.md says when DGPO pays.
"""

import credit
from credit.adapters.swift import train_with

train_with(credit.DGPO(tau=0.1), record_steps=10)
