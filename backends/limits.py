"""Every tuning constant of the backends in one table: its unit, and the reason for its value.

They trade memory for speed and set the order of sums; no formula depends on them. Code reads `limits.NAME`
when it runs, so that a test can replace one here. An entry is one number of an array; a row is one token.
"""

# The reference, and torch where it has no faster path.
REFERENCE_CHUNK_ENTRIES = 16_384
"""Vocabulary entries per fold of one row. Below 512 entries the sequential folds lose accuracy."""
REFERENCE_TILE_ENTRIES = 2**18
"""Entries of all rows of a tile of logits: large enough for threads, small enough for a cache."""
REFERENCE_HEAD_TILE_ENTRIES = 2**22
"""Entries of a tile that is multiplied from hidden states: a matmul pays off at larger sizes than a sum."""
TORCH_ACCELERATOR_TILE_ENTRIES = 2**26
"""Entries of a tile off the CPU, where the launch of an operation costs more than its memory."""

# numpy, and torch on a CPU.
NUMPY_BLOCK_ENTRIES = 2**18
"""Entries of a block: large beside the cost of a call, and a few of them fit a cache."""
NUMPY_SINGLE_THREAD_ENTRIES = 2**20
"""Entries of all logits below which one thread is faster than several."""
NUMPY_DOT_ENTRIES = 512
"""Entries per dot product, which sums sequentially; the products of a row are summed pairwise."""
TORCH_SERIAL_ENTRIES = 2**15
"""Entries of an operation that torch leaves to the thread that calls it, its grain size."""
COMPILED_TILE_ENTRIES = 2**11
"""Entries of a tile of the compiled path: two of them, and what is read, fit the first cache of a core."""
CPU_HEAD_CHUNK_ENTRIES = 2**13
"""Vocabulary entries per tile of log-probs from hidden states, off CUDA: 4096 rows of them are 134 MB."""

# Estimators, which take the rows [N, T] of a batch in blocks.
CPU_ROW_BLOCK_ENTRIES = 2**18
"""Entries of one [rows, T] array of a block on a CPU, whose temporaries then stay in a cache."""
ACCELERATOR_ROW_BLOCK_ENTRIES = 2**24
"""The same on an accelerator, where a launch costs more; it bounds the memory of the temporaries."""
LARGE_FREED_ENTRIES = 2**21
"""float32 entries of an array that is freed once, so that glibc keeps freed memory of up to that size."""

# torch on CUDA.
CUDA_HEAD_CHUNK_ENTRIES = 8192
"""Vocabulary entries per tile from hidden states; with CUDA_HEAD_ROWS 134 MB of float32 per model."""
CUDA_HEAD_ROWS = 4096
"""Rows per tile from hidden states."""
TRITON_LANES = 128
"""Threads of a program that folds logits: four warps, each thread with a state of its own."""
TRITON_WARPS = 4
"""Warps per program: as many as TRITON_LANES fill."""
TRITON_REGISTERS = 80
"""Registers per thread, for 6 programs on a multiprocessor; with fewer, the loop spills or loads late."""
TRITON_DIVERGENCE_REGISTERS = 128
"""The same where a KL is asked for, whose terms spill with fewer: for 4 programs."""
TRITON_GRADIENT_ENTRIES = 4096
"""Logits per program of the gradient: enough to hide the launch, few enough for the registers."""
TRITON_POSTPROCESS_ROWS = 256
"""Tokens per program of the postprocessing, whose work per token is tiny."""
TRITON_TWO_PARTS_ENTRIES = 65_536
"""Vocabulary size from which a row has two programs, so that few tokens keep a GPU busy."""
TRITON_FOUR_PARTS_ENTRIES = 196_608
"""Vocabulary size from which a row has four programs."""

# JAX.
JAX_CHUNK_ENTRIES = 2**21
"""Entries of all rows of a chunk together: its temporaries are some 8 MB each in float32."""
JAX_SMALLEST_CHUNK = 512
"""Vocabulary entries per chunk at least: shorter folds lose accuracy."""
JAX_LARGEST_CHUNK = 2048
"""Vocabulary entries per chunk at most: XLA may sum a row one by one, which costs the entropy accuracy."""
JAX_GPU_CHUNK_ENTRIES = 2**24
"""JAX_CHUNK_ENTRIES on a GPU, where a round costs launches: 8192 rows take 75, with temporaries of 67 MB."""
JAX_GPU_LARGEST_CHUNK = 16_384
"""JAX_LARGEST_CHUNK on a GPU, which sums a row as a tree."""
JAX_FORM_ON_GPU = ""
"""Default of CREDIT_JAX_FORM on a GPU: "" as elsewhere, a number of entries per chunk, or "whole"."""
PALLAS_ROWS = 8
"""Rows per block: a float32 tile of a TPU is 8 x 128."""
PALLAS_COLUMNS = 2048
"""Vocabulary entries per block: its float32 temporaries and two models' inputs fit VMEM."""
PALLAS_LANES = 128
"""Lanes over which each number of the state is spread, the width of a TPU's tile."""
