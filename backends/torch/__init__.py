"""torch: Triton kernels on CUDA, numpy's blocks on a CPU; `backend.py` is the entry."""
