"""JAX: a loop over chunks that XLA compiles once, Pallas on a TPU; `backend.py` is the entry."""
