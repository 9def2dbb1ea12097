"""Estimators compared under equal compute, on small models made on the spot."""
