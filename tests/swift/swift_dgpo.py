"""What a user writes to train with DGPO: for --external_plugins."""

import credit
from credit.adapters.swift import train_with

train_with(credit.DGPO(tau=0.05))
