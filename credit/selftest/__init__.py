"""Compares every estimator and backend of this machine with float64; `python -m credit.check` runs it."""
