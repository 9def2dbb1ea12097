"""The estimator of a run of ms-swift: --external_plugins reward.py credit_plugin.py

Copy this file, and name your estimator. At a tau of 0.1 DGPO was as accurate as GRPO in docs/study.md, and at
0.05 it was worse; that page says when a lower one may pay.
"""

import credit
from credit.adapters.swift import train_with

train_with(credit.DGPO(tau=0.1), record_steps=10)
