"""The estimator of a run of ms-swift: --external_plugins reward.py credit_plugin.py

Copy this file, and name your estimator. The paper's tau of 0.5 leaves nearly all weights at 1 while policy
and reference are close; 0.05 does not.
"""

import credit
from credit.adapters.swift import train_with

train_with(credit.DGPO(tau=0.05), record_steps=10)
