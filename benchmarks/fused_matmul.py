# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"
"""Two models' hidden states times their heads, with the library's fold as the epilogue: no logits in memory.

A prototype: `fused_matmul.md` says what was counted. Run, it checks the kernel against float64 in Triton's
interpreter, compiles it for sm_90 and sm_100, and prints the counts; no GPU is needed.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from credit.backends.torch import kernels
from credit.backends.torch.state_kernel import add_tiles, store_state

ROWS, COLUMNS, DEPTH, WARPS, STAGES = 128, 128, 64, 8, 3


@triton.jit
def _multiply(
    hidden, head, row, column, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr
):
    """hidden [ROWS, width] head [COLUMNS, width]^T, summed in float32."""
    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(0, width, DEPTH):
        product = tl.dot(hidden.load([row, k]), head.load([column, k]).T, product)
    return product


@triton.jit
def _halves(product, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Even and odd columns, which a thread has side by side: the fold takes two tiles, in any order."""
    return tl.split(tl.reshape(product, [ROWS, COLUMNS // 2, 2]))


@triton.jit
def fused_kernel(
    x_ptr, x_head_ptr, y_ptr, y_head_ptr, ids_ptr, out_ptr, half, rows, size, x_width, y_width, parts,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """The states [rows, parts, 8] of logits that are only ever in registers; one temperature for all rows."""
    row, part = tl.program_id(0) * ROWS, tl.program_id(1)
    x = tl.make_tensor_descriptor(x_ptr, [rows, x_width], [x_width, 1], [ROWS, DEPTH])
    x_head = tl.make_tensor_descriptor(x_head_ptr, [size, x_width], [x_width, 1], [COLUMNS, DEPTH])
    y = tl.make_tensor_descriptor(y_ptr, [rows, y_width], [y_width, 1], [ROWS, DEPTH])
    y_head = tl.make_tensor_descriptor(y_head_ptr, [size, y_width], [y_width, 1], [COLUMNS, DEPTH])
    c = half * 1.4426950408889634
    lanes = row + tl.arange(0, ROWS)
    there = lanes < rows
    token = tl.load(ids_ptr + lanes, mask=there, other=-1).to(tl.int32)
    m = tl.full([ROWS], -3.4028234663852886e38, tl.float32)
    a = tl.zeros([ROWS], tl.float32)
    n, e, b, d, f, k, r, selected, reference_selected = m, a, a, a, a, a, a, a, a
    length = tl.cdiv(tl.cdiv(size, COLUMNS), parts) * COLUMNS
    low = part * length
    for column in range(low, tl.minimum(low + length, size), COLUMNS):
        p = _multiply(x, x_head, row, column, x_width, ROWS, COLUMNS, DEPTH)
        q = _multiply(y, y_head, row, column, y_width, ROWS, COLUMNS, DEPTH)
        places = column + tl.arange(0, COLUMNS)[None, :]
        hit = places == token[:, None]
        selected += tl.sum(tl.where(hit, p, 0.0), 1)
        reference_selected += tl.sum(tl.where(hit, q, 0.0), 1)
        p, q = tl.where(places < size, p, -float("inf")), tl.where(places < size, q, -float("inf"))
        p0, p1 = _halves(p, ROWS, COLUMNS)
        q0, q1 = _halves(q, ROWS, COLUMNS)
        m, a, e, n, b, d, f, k, r = add_tiles(
            m, a, e, n, b, d, f, k, r, p0, p1, q0, q1, c, True, False, False, False
        )
    out = out_ptr + (lanes.to(tl.int64) * parts + part) * 8
    store_state(out, m, a, selected, e, n, b, reference_selected, d)


def fold(x: Any, x_head: Any, y: Any, y_head: Any, ids: Any, half: float, parts: int, **block: int) -> Any:
    """The states [N, parts, 8] of hidden states [N, D] and heads [V, D]; ids are of the whole vocabulary."""
    rows, size = x.shape[0], x_head.shape[0]
    out = torch.empty((triton.cdiv(rows, block["ROWS"]) * block["ROWS"], parts, 8), device=x.device)
    fused_kernel[(triton.cdiv(rows, block["ROWS"]), parts)](
        x, x_head, y, y_head, ids, out, half, rows, size, x.shape[1], y.shape[1], parts, **block,
        num_warps=WARPS, num_stages=STAGES, **kernels.UNFUSED,
    )  # fmt: skip
    return out[:rows]


def check() -> None:
    """Small shapes with ragged ends, against float64; equal models must deviate by exactly 0."""
    generator = torch.Generator().manual_seed(0)
    for rows, size, widths, parts in ((5, 150, (48, 16), 1), (37, 401, (32, 64), 3)):
        tensors = [
            torch.randn(shape, generator=generator).half()  # the interpreter multiplies the bits of bfloat16
            for width in widths
            for shape in ((rows, width), (size, width))
        ]
        ids = torch.randint(size, (rows,), generator=generator)
        x, y = (
            (hidden.double() @ head.double().T).log_softmax(-1) for hidden, head in (tensors[:2], tensors[2:])
        )
        block = {"ROWS": 16, "COLUMNS": 32, "DEPTH": 16}
        half = torch.full((rows,), 0.5)
        found = kernels.merge_parts(fold(*tensors, ids, 0.5, parts, **block), half, pair=True).double()
        expected = torch.stack(
            (
                x.gather(1, ids[:, None])[:, 0],
                y.gather(1, ids[:, None])[:, 0],
                -(x.exp() * x).sum(-1),
                0.5 * ((x / 2).exp() - (y / 2).exp()).square().sum(-1),
            )
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
        same = kernels.merge_parts(fold(*tensors[:2] * 2, ids, 0.5, parts, **block), half, pair=True)
        assert (same[3] == 0.0).all()
        print(
            f"{rows} x {size}: largest error {(found - expected).abs().max():.1e}; equal models deviate by 0"
        )


def build(architecture: int) -> Any:
    """The kernel as Triton compiles it for contiguous bfloat16 whose widths are multiples of 16."""
    from triton.backends.compiler import GPUTarget

    constants = {"ROWS": ROWS, "COLUMNS": COLUMNS, "DEPTH": DEPTH}
    types = {"ids_ptr": "*i64", "out_ptr": "*fp32", "half": "fp32"}
    signature, known, hints = {}, {}, {}
    for place, name in enumerate(fused_kernel.arg_names):
        if name in constants:
            signature[name], known[(place,)] = "constexpr", constants[name]
            continue
        signature[name] = types.get(name, "*bf16" if name.endswith("_ptr") else "i32")
        if name.endswith("_ptr") or name.endswith("width"):
            hints[(place,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(fused_kernel, signature, constexprs=known, attrs=hints)
    options = {"num_warps": WARPS, "num_stages": STAGES, **kernels.UNFUSED}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def disassemble(kernel: Any) -> tuple[str, list[str], dict[str, int]]:
    """Registers and stack as cuobjdump says them, the instructions, and where labels stand among them."""
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, text = (
            subprocess.run([tools / tool, flag, file.name], capture_output=True, text=True, check=True).stdout
            for tool, flag in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    resources = re.search(r"REG:\d+ STACK:\d+", usage)
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_\S+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
    return resources[0] if resources else "", instructions, labels


def count(architecture: int) -> None:
    """Prints what a program executes per tile beside its two loops over the width."""
    kernel = build(architecture)
    resources, instructions, labels = disassemble(kernel)
    loops = sorted(
        (labels[target[1]], place)
        for place, text in enumerate(instructions)
        if (target := re.search(r"BRA.*`\((\.L_\S+)\)", text)) and labels.get(target[1], place) < place - 10
    )
    products = [loop for loop in loops if loop[1] - loop[0] < 200]
    last = max(end for _, end in products)
    outer = min(end for start, end in loops if start < products[0][0] and end > last)
    pairs = ROWS * COLUMNS / (32 * WARPS)  # of a thread
    fold = instructions[last + 1 : outer + 1]
    special = sum("MUFU" in text for text in fold)
    print(
        f"sm_{architecture}: {resources}, {kernel.metadata.shared} bytes shared; loops over the width "
        f"{[end - start + 1 for start, end in products]}; fold of a tile {len(fold)} instructions, "
        f"{len(fold) / pairs:.1f} per pair, {special / pairs:.2f} of them special functions, "
        f"{sum('SHFL' in text for text in fold)} shuffles, "
        f"{sum('LDL' in text or 'STL' in text for text in instructions)} accesses to the stack in all"
    )


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        check()
    else:
        subprocess.run([sys.executable, __file__], env=os.environ | {"TRITON_INTERPRET": "1"}, check=True)
        for architecture in (90, 100):
            count(architecture)
