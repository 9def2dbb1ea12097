"""Compares every estimator and backend of this machine with float64; `python -m credit.check` runs it.

The oracles here share no code with what they check; the tests use them too.
"""
