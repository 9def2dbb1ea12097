"""Adapters to training frameworks; each imports its framework when it is imported itself."""
