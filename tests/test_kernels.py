"""The Triton kernels: in Triton's interpreter (a process of its own) or, by `pytest -m gpu`, on a GPU.

Triton reads TRITON_INTERPRET when it is imported. So a plain run starts this file again with it set, and
compiles the kernels for the GPUs that they are meant for, which takes no GPU.
"""

import os
import re
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

import logit_cases
import numpy as np
import pytest
import statistics_oracle as oracle
from interpreting import keep_the_language_patched

import credit

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else torch warns of it, and warnings are errors
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
PARTS = (1, 2, 4, 8)
FURTHER = ("sum_squares", "kl", "reverse_kl")
if INTERPRETED:
    keep_the_language_patched()

numerical = partial(
    pytest.param,
    marks=[pytest.mark.gpu, pytest.mark.skipif(not INTERPRETED and DEVICE == "cpu", reason="no GPU")],
)
on_device = pytest.mark.parametrize("device", [numerical(DEVICE)])


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture(autouse=True)
def kernels_only(monkeypatch):
    """Every tensor takes the kernels' path, and memory that a kernel should fill holds NaN before."""
    from credit.backends.torch import paths

    monkeypatch.setattr(paths, "uses_kernels", lambda *tensors: tensors[0].dtype != torch.float64)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


# What is run of this file, and more than how many tests that is: in halves, which two workers share.
FIRST = "case or parts or gradient or temperature"
HALVES = {FIRST: 40, f"not ({FIRST})": 20}


@pytest.mark.skipif(INTERPRETED, reason="this is the process that it starts")
@pytest.mark.parametrize(("half", "least"), HALVES.items(), ids=["cases", "others"])
def test_in_the_interpreter(half, least):
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider -W default {__file__} -k".split()
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, half], env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > least, done.stdout[-4000:]


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize(("logits", "vector"), [("bf16", 8), ("fp16", 8), ("fp32", 4)])
def test_the_loop_compiles_to_wide_loads_and_two_exponentials(architecture, logits, vector):
    (loop,) = loops(compiled("fold_kernel", architecture, logits, vector))
    assert loop.count("ld.global.v4") == 4
    assert loop.count("ex2.approx") == 4 * vector + 2
    assert "bar.sync" not in loop
    assert "shfl" not in loop


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize(("logits", "vector"), [("bf16", 8), ("fp32", 4)])
def test_rows_that_start_anywhere_are_read_wide(architecture, logits, vector):
    """In the loop; the steps at both ends, which are masked, are read entry by entry."""
    result = built("fold_kernel", architecture, logits, vector, aligned=False, shifted=True)
    assert resources(result)[1] == 0
    edges, loop = loops(result["ptx"])
    assert [text.count("ld.global.v4") for text in (edges, loop)] == [0, 4]
    for text in (edges, loop):
        assert text.count("ex2.approx") == 4 * vector + 2
        assert "bar.sync" not in text
        assert "shfl" not in text


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize(
    ("logits", "vector", "dense"),
    [("bf16", 8, True), ("fp32", 4, True), ("bf16", 4, False), ("fp32", 4, False)],
)
def test_rows_apart_and_columns_apart_need_no_exchange_between_threads(logits, vector, dense):
    result = built("fold_kernel", 90, logits, vector, aligned=False, dense=dense)
    assert resources(result)[1] == 0
    for text in loops(result["ptx"]):
        assert len(re.findall(r"ld\.global\.b\d+", text)) == 4 * vector
        assert text.count("ex2.approx") == 4 * vector + 2
        assert text.count("mul.lo.s64") <= 4  # of each tile, not of each entry
        assert "bar.sync" not in text
        assert "shfl" not in text


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize(("logits", "vector"), [("bf16", 8), ("fp16", 8), ("fp32", 4)])
@pytest.mark.parametrize("further", [False, True])
def test_six_programs_fit_a_multiprocessor_without_spilling(logits, vector, further):
    """Four with the divergences."""
    registers, stack = resources(built("fold_kernel", 90, logits, vector, also=FURTHER if further else ()))
    assert stack == 0
    assert (4 if further else 6) * 128 * registers <= 65_536


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize(("logits", "vector"), [("bf16", 8), ("fp32", 4)])
@pytest.mark.parametrize("bias", ["bf16", "fp32"])
def test_a_heads_bias_scale_and_soft_cap_fit_beside_the_fold(logits, vector, bias):
    result = built("fold_kernel", 90, logits, vector, bias=bias)
    registers, stack = resources(result)
    assert stack == 0
    assert 6 * 128 * registers <= 65_536
    (loop,) = loops(result["ptx"])
    assert loop.count("ex2.approx") == (4 + 4) * vector + 2
    assert "div." not in loop
    assert "bar.sync" not in loop
    assert "shfl" not in loop


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
def test_what_is_asked_for_adds_no_exponential_and_what_is_not_is_not_computed():
    vector, sixth = 8, "0f3E2AAAAB"  # a coefficient of the series
    plain, squares, loop = (
        next(loops(compiled("fold_kernel", 90, "bf16", vector, also=also)))
        for also in ((), FURTHER[:1], FURTHER)
    )
    for text in (plain, squares, loop):
        assert text.count("ex2.approx") == 4 * vector + 2
        assert "bar.sync" not in text
        assert "shfl" not in text
    assert plain.count("mul") < squares.count("mul") < loop.count("mul")
    assert [sixth in text for text in (plain, squares, loop)] == [False, False, True]
    assert ".entry merge_parts_kernel(" in compiled("merge_parts_kernel", 90, "bf16", vector, also=FURTHER)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize("name", ["merge_parts_kernel", "grad_logits_kernel", "postprocess_kernel"])
def test_the_other_kernels_compile(name):
    assert f".entry {name}(" in compiled(name, 90, "bf16", 8)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize(
    "name", ["fold_kernel", "merge_parts_kernel", "grad_logits_kernel", "postprocess_kernel"]
)
def test_the_kernels_compile_for_an_amd_gpu(name):
    assembly = built(name, "gfx942", "bf16", 8)["amdgcn"]
    assert int(re.search(r"vgpr_spill_count: +(\d+)", assembly)[1]) == 0
    if name == "fold_kernel":
        assert assembly.count("global_load_dwordx4") == 12


@pytest.mark.skipif(INTERPRETED, reason="the interpreter has no options")
@pytest.mark.parametrize(("kind", "architecture", "threads"), [("hip", "gfx942", 64), ("cuda", 90, 32)])
def test_each_backend_knows_the_options_of_the_fold(kind, architecture, threads):
    """Triton refuses a launch with others."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    from credit.backends.torch import kernels

    options = kernels.choose_options(80, threads if kind == "hip" else None)
    known = make_backend(GPUTarget(kind, architecture, threads)).parse_options(dict(options)).__dict__
    assert options.items() <= known.items()


def compiled(*arguments, **options):
    """PTX of a kernel."""
    return built(*arguments, **options)["ptx"]


def resources(result):
    """Registers per thread, and bytes of its stack."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(result["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    return tuple(map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout).groups()))


@cache
def built(name, architecture, logits, vector, aligned=True, also=(), bias=None, shifted=False, dense=True):
    """What Triton makes of a kernel for contiguous logits whose rows are aligned to 16 bytes, or are not.

    With the type of a bias, what is read are a head's products, which have a scale and a soft cap too.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    from credit.backends import limits
    from credit.backends.torch import further_kernel, gradient_kernel, kernels, postprocess_kernel

    modules = {"grad_logits_kernel": gradient_kernel, "postprocess_kernel": postprocess_kernel}
    kernel = getattr(modules.get(name, kernels), name)
    constants = {"x_column": 1, "y_column": 1} if dense else {}
    constants |= {
        "PARTS": 1,
        "LANES": limits.TRITON_LANES,
        "VEC": vector,
        "PAIR": True,
    } | further_kernel.make_flags(also)
    constants |= {
        "DENSE": dense,
        "WIDE": aligned or shifted,
        "SHIFTED": shifted,
        "FINISH": True,
        "UNREAD": -(2**31),
        "BLOCK": 2 if name == "merge_parts_kernel" else 1024,
        "MASKED": True,
    }
    head = (
        () if name == "postprocess_kernel" else ("bias_ptr", "x_bias_ptr", "y_bias_ptr", "scale", "soft_cap")
    )
    constants |= {} if bias else dict.fromkeys(head)
    pointers = {"ids_ptr": "*i64"} | dict.fromkeys(("x_ptr", "y_ptr", "grad_logits_ptr"), f"*{logits}")
    pointers |= dict.fromkeys(("bias_ptr", "x_bias_ptr", "y_bias_ptr"), f"*{bias}")
    signature, known, hints = {}, {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument], known[(place,)] = "constexpr", constants[argument]
        else:
            real = argument in ("scale", "soft_cap")
            default = "*fp32" if argument.endswith("_ptr") else "fp32" if real else "i32"
            signature[argument] = pointers.get(argument, default)
            if not real and (aligned or argument.endswith("_ptr")):
                hints[(place,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(kernel, signature, constexprs=known, attrs=hints)
    amd = isinstance(architecture, str)
    registers = limits.TRITON_DIVERGENCE_REGISTERS if "kl" in also else limits.TRITON_REGISTERS
    options = kernels.choose_options(registers, 64 if amd else None)
    if name != "fold_kernel":
        options = {**kernels.UNFUSED, "num_warps": limits.TRITON_WARPS}
    target = GPUTarget("hip", architecture, 64) if amd else GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options=options).asm


def loops(ptx):
    """The text from each label to a later branch back to it."""
    for chunk in ptx.split("\n$")[1:]:
        label = "$" + chunk.split(":")[0]
        start = ptx.index(f"\n{label}:")
        end = ptx.find(f"bra \t{label};", start)
        end = ptx.find(f"bra.uni \t{label};", start) if end < 0 else end
        if end > 0:
            yield ptx[start:end]


def statistics(x, y, ids, device, temperature=1.0, parts=None):
    """As numpy, with the entropy normalised, from the launcher that lets the parts be chosen."""
    from credit.backends.torch import kernels

    x, y, ids = (torch.as_tensor(array, device=device) for array in (x, y, ids))
    half = torch.full(ids.shape, 0.5 / temperature, device=device)
    log_p, log_q, entropy, deviation = kernels.statistics(x, y, ids, half, parts).cpu().numpy()
    return log_p, log_q, entropy / max(np.log(x.shape[-1]), 1e-30), deviation


def dispatched(function):
    """The operators that a call runs."""
    from torch.utils._python_dispatch import TorchDispatchMode

    calls = []

    class Listening(TorchDispatchMode):
        def __torch_dispatch__(self, call, types, args=(), kwargs=None):
            calls.append(call)
            return call(*args, **(kwargs or {}))

    with Listening():
        function()
    return calls


@on_device
def test_few_operators_surround_the_kernels(device):
    """Each costs a launch, and dozens of launches outlast the logits of few tokens."""
    x, ids = torch.randn(2, 3, 64, device=device), torch.zeros(2, 3, dtype=torch.int64, device=device)
    views = ("unbind", "view", "detach", "alias", "device", "select")
    calls = map(str, dispatched(lambda: credit.token_statistics(x, x + 1.0, ids, mask=None)))
    own = [call for call in calls if not any(view in call for view in views)]
    own = own[own.index("aten.full_like.default") :]  # on a CPU the ids are looked at before
    assert own == ["aten.full_like.default", "credit.token_statistics.default", "credit.postprocess.default"]


def draw(rng, x):
    ids = rng.integers(x.shape[-1], size=x.shape[:-1])
    return np.where(np.arange(len(ids)) % 3 == 0, x.argmax(-1) if x.size else ids, ids)


def assert_within_bounds(actual, x, y, ids, temperature=1.0):
    used = oracle.errors(actual, oracle.statistics(x, y, ids, temperature), x.shape[-1])
    assert max(used.values()) <= 1.0, used


@on_device
@pytest.mark.parametrize("case", logit_cases.CASES)
def test_every_case_is_within_bounds(device, rng, case):
    x, y = logit_cases.CASES[case](rng)
    ids = draw(rng, x)
    assert_within_bounds(statistics(x, y, ids, device), x, y, ids)


@on_device
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(
    "case", ["three_entries", "masked_differently", "long_heads_and_tails", "one_hots_apart"]
)
def test_parts_of_a_row_are_joined(device, rng, case, parts):
    x, y = (logits[::3] for logits in logit_cases.CASES[case](rng))
    ids = draw(rng, x)
    assert_within_bounds(statistics(x, y, ids, device, 0.7, parts), x, y, ids, 0.7)


def further(x, y, ids, device, temperature=1.0, parts=None):
    """The fields that are asked for."""
    from credit.backends.torch import kernels

    x, y, ids = (torch.as_tensor(array, device=device) for array in (x, y, ids))
    half = torch.full(ids.shape, 0.5 / temperature, device=device)
    found = kernels.statistics(x, y, ids, half, parts, also=FURTHER)
    return dict(zip(FURTHER, found[4:].cpu().numpy(), strict=True))


def assert_further_within_bounds(actual, x, y, temperature=1.0):
    used = oracle.further_errors(actual, oracle.further(x, y, temperature))
    assert max(used.values()) <= 1.0, used


@on_device
@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("three_entries", 1),
        ("masked_differently", 1),
        ("finite_heads", 4),
        ("offsets", 1),
        ("one_hots_apart", 4),
    ],
)
def test_divergences_of_parts(device, rng, case, parts):
    x, y = (logits[::3] for logits in logit_cases.CASES[case](rng))
    ids = draw(rng, x)
    assert_further_within_bounds(further(x, y, ids, device, 0.7, parts), x, y, 0.7)


@on_device
@pytest.mark.parametrize("parts", [1, 4])
def test_sum_of_squares_of_one_model(device, rng, parts):
    from credit.backends.torch import kernels

    x = torch.as_tensor(logit_cases.masked_policy(rng)[0][:2], device=device)
    ids, half = torch.zeros(2, dtype=torch.int64, device=device), torch.full((2,), 0.5, device=device)
    *alone, squares = kernels.statistics(x, None, ids, half, parts, also=FURTHER[:1])
    assert torch.equal(torch.stack(alone), kernels.statistics(x, None, ids, half, parts))
    assert torch.equal(squares, kernels.statistics(x, x, ids, half, parts, also=FURTHER[:1])[4])
    with pytest.raises(ValueError, match="kl of one model; expected nothing but sum_squares"):
        kernels.statistics(x, None, ids, half, parts, also=("kl",))


@on_device
def test_divergences_of_near_and_of_identical_models(device, rng):
    x, y = (logits[:1, :60_000] for logits in logit_cases.near(rng, 1e-3))
    ids = draw(rng, x)
    assert_further_within_bounds(further(x, y, ids, device), x, y)
    x = logit_cases.masked_policy(rng)[0][:1]
    for parts in (1, 4):
        found = further(x, x.copy(), draw(rng, x), device, 0.3, parts)
        np.testing.assert_array_equal([found["kl"], found["reverse_kl"]], 0.0)


@on_device
def test_divergences_of_poisoned_masked_and_low_precision_tokens(device, rng):
    x, y = logit_cases.ordinary(rng, rows=9, size=3001)
    x[1, 7], x[2, -1], x[3], x[8, ::2], y[8, 1::2] = np.nan, np.inf, -np.inf, -np.inf, -np.inf
    y[4, -1], y[5, 7], y[6] = np.nan, np.inf, -np.inf
    x, y = (torch.as_tensor(array, device=device).bfloat16() for array in (x, y))
    mask = torch.arange(9, device=device) != 7
    ids = torch.where(mask, 0, -7)
    also = ("reverse_kl", "entropy", "kl", "sum_squares")
    four, found = credit.token_statistics(x, y, ids, mask=mask, also=also)
    assert tuple(found) == also
    for field, alone in zip(four, credit.token_statistics(x, y, ids, mask=mask), strict=True):
        torch.testing.assert_close(field, alone, rtol=0, atol=0, equal_nan=True)
    found = {name: field.cpu().numpy() for name, field in found.items()}
    expected = oracle.further(x.float().cpu().numpy(), y.float().cpu().numpy())
    assert all(field[7] == 0.0 for field in found.values())
    kept = mask.cpu().numpy()
    used = oracle.further_errors(
        {name: field[kept] for name, field in found.items()}, {name: expected[name][kept] for name in also}
    )
    assert max(used.values()) <= 1.0, used
    assert found["kl"][8] == found["reverse_kl"][8] == np.inf


@on_device
@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2])
def test_deviation_of_near_models_is_relatively_accurate(device, rng, noise):
    x, y = logit_cases.near(rng, noise)
    ids = draw(rng, x)
    assert_within_bounds(statistics(x, y, ids, device), x, y, ids)


@on_device
@pytest.mark.parametrize("delta", [0.1, 1.0])
def test_flat_row_whose_top_token_moves(device, rng, delta):
    x, y = logit_cases.moved_top(rng, delta, 100_000)
    ids = draw(rng, x)
    assert_within_bounds(statistics(x, y, ids, device), x, y, ids)


@on_device
@pytest.mark.parametrize("temperature", [0.05, 10.0])
@pytest.mark.parametrize("case", ["finite_heads", "large", "offsets"])
def test_temperature(device, rng, case, temperature):
    x, y = (logits[::2] for logits in logit_cases.CASES[case](rng))
    ids = draw(rng, x)
    assert_within_bounds(statistics(x, y, ids, device, temperature), x, y, ids, temperature)


@on_device
@pytest.mark.parametrize("parts", PARTS)
def test_identical_models_deviate_by_exactly_zero(device, rng, parts):
    x = logit_cases.masked_policy(rng)[0][:2]
    log_p, log_q, _, deviation = statistics(x, x.copy(), draw(rng, x), device, 0.3, parts)
    np.testing.assert_array_equal(deviation, 0.0)
    np.testing.assert_array_equal(log_p, log_q)


@on_device
@pytest.mark.parametrize("parts", [1, 4])
def test_poisoned_tokens_hurt_only_themselves_and_their_model(device, rng, parts):
    x, y = logit_cases.ordinary(rng, rows=8)
    x[1, 7], x[2, -1], x[3] = np.nan, np.inf, -np.inf
    y[4, -1], y[5, 7], y[6] = np.nan, np.inf, -np.inf
    ids = draw(rng, x)
    actual = statistics(x, y, ids, device, parts=parts)
    policy, reference = np.isin(np.arange(8), (1, 2, 3)), np.isin(np.arange(8), (4, 5, 6))
    for field, bad in zip(actual, (policy, reference, policy, policy | reference), strict=True):
        np.testing.assert_array_equal(np.isnan(field), bad)
    assert_within_bounds(actual, x, y, ids)


@on_device
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision(device, rng, kind):
    x, y = (torch.as_tensor(array).to(kind) for array in logit_cases.masked_differently(rng))
    ids = draw(rng, x.float().numpy())
    wide = x.float().numpy(), y.float().numpy()
    assert_within_bounds(statistics(x, y, ids, device), *wide, ids)
    assert_within_bounds(statistics(x, wide[1], ids, device), *wide, ids)


@on_device
def test_repeated_runs_are_equal_and_rows_do_not_depend_on_their_batch(device, rng):
    x, y = logit_cases.near(rng, 0.1)
    x, y = (np.concatenate([side, side[:1]])[:, :70_001] for side in (x, y))
    ids = np.asarray([5, 70_000, 5])
    first, again = (statistics(x, y, ids, device) for _ in range(2))
    alone = statistics(x[2:], y[2:], ids[2:], device)
    for one, other, single in zip(first, again, alone, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one[0] == one[2] == single[0]


@on_device
@pytest.mark.parametrize("view", ["next token", "padded", "transposed", "expanded", "three axes"])
def test_strided_rows_are_read_in_place(device, rng, view, monkeypatch):
    base = torch.as_tensor(rng.normal(size=(2, 3, 4, 777)).astype(np.float32), device=device)
    x = {
        "next token": base[0, :, :-1],
        "padded": base[..., 3:-3],
        "transposed": base[0, 0].t().contiguous().t(),
        "expanded": base[:1].expand(2, 3, 4, 777),
        "three axes": base[:, :-1, 1:],
    }[view]
    y = x + 0.1
    y[..., :100] += 1.0
    monkeypatch.setattr(torch.Tensor, "contiguous", refuse_logits(torch.Tensor.contiguous))
    ids = torch.zeros(x.shape[:-1], dtype=torch.int64, device=device)
    actual = [field.cpu().numpy() for field in credit.token_statistics(x, y, ids)]
    assert_within_bounds(actual, x.cpu().numpy(), y.cpu().numpy(), ids.cpu().numpy())


@pytest.mark.parametrize("views", [("all", "first"), ("first", "all"), ("first", "last"), ("turned", "all")])
def test_the_strides_of_rows_lead_to_every_row_of_both_models(views):
    """Their axes are one only where they are in both; the values here are places in memory."""
    from credit.backends.torch import strides

    base = torch.arange(2 * 4 * 5).reshape(2, 4, 5)
    sides = [
        {
            "all": torch.arange(2 * 3 * 5).reshape(2, 3, 5),
            "first": base[:, :3],
            "last": base[:, 1:, 1:],
            "turned": torch.arange(2 * 3 * 5).reshape(3, 2, 5).transpose(0, 1),
        }[view]
        for view in views
    ]
    inner, steps = strides.row_strides(*sides)
    for side, (outer_stride, inner_stride) in zip(sides, steps, strict=True):
        places = [row // inner * outer_stride + row % inner * inner_stride for row in range(6)]
        assert places == (side[..., 0] - side[0, 0, 0]).flatten().tolist()


@on_device
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("size", "lead", "other"), [(1, 3, 3), (2050, 0, 8), (4999, 7, 7), (4999, 2, 3)])
def test_rows_that_start_anywhere(device, rng, kind, size, lead, other):
    """What lies around them is not read: it is NaN."""
    from credit.backends.torch import strides

    drawn = torch.as_tensor(rng.normal(size=(2, 3, size)).astype(np.float32)).to(kind)
    ids, expected = draw(rng, drawn[0].float().numpy()), drawn.float().numpy()
    sides = []
    for logits, first in zip(drawn, (lead, other), strict=True):
        around = torch.full((3, size + 17 + size % 2 * 2), np.nan, dtype=kind, device=device)
        sides.append(around[:, first : first + size])
        sides[-1].copy_(logits)
    x, y = sides
    rows = [strides.row_strides(x, y)[1][0]] * 2
    assert strides.is_shifted(x, y, *rows) == ((lead - other) % 8 == 0)
    assert_within_bounds(statistics(x, y, ids, device, parts=2), *expected, ids)
    assert (statistics(x, x, ids, device)[3] == 0.0).all()


def refuse_logits(contiguous):
    def only_small(tensor, *arguments, **options):
        assert tensor.is_contiguous() or tensor.numel() < 700, "logits are copied"
        return contiguous(tensor, *arguments, **options)

    return only_small


@on_device
def test_masked_tokens_are_not_read(device, rng):
    x, y = (torch.as_tensor(array, device=device) for array in logit_cases.ordinary(rng))
    mask = torch.tensor([True, False, True, False, True, True], device=device)
    ids = torch.tensor([3, -7, 5, 10**6, 0, 20_010], device=device)
    x[1], y[3] = float("nan"), float("inf")
    actual = credit.token_statistics(x, y, ids, mask=mask)
    kept = mask.cpu().numpy()
    assert all((field[~mask] == 0).all() for field in actual)
    fields = [field.cpu().numpy()[kept] for field in actual]
    assert_within_bounds(fields, x.cpu().numpy()[kept], y.cpu().numpy()[kept], ids.cpu().numpy()[kept])


@on_device
def test_ids_outside_the_vocabulary_read_nothing(device, rng):
    x, y = logit_cases.ordinary(rng, rows=3, size=5000)
    ids = np.asarray([-1, 5000, 2**40])
    _, _, entropy, deviation = statistics(x, y, ids, device)
    expected = oracle.statistics(x, y, np.zeros(3, int))
    np.testing.assert_allclose(entropy * np.log(5000), expected.entropy, atol=5e-6)
    np.testing.assert_allclose(deviation, expected.deviation, atol=1e-6)


@on_device
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["masked_policy", "three_entries", "one_hots", "offsets", "no_tokens"])
def test_gradient(device, rng, case, kind):
    logits = torch.as_tensor(logit_cases.CASES[case](rng)[0]).to(kind)
    x = logits.to(device).clone().requires_grad_()
    logits = logits.float()
    ids = draw(rng, logits.numpy())
    temperature = np.geomspace(0.3, 3.0, len(ids)).astype(np.float32)
    weights = rng.normal(size=(2, len(ids)))
    outputs = credit.log_probs_and_entropy(
        x, torch.as_tensor(ids, device=device), temperature=torch.as_tensor(temperature, device=device)
    )
    grads = tuple(torch.as_tensor(w, dtype=torch.float32, device=device) for w in weights)
    torch.autograd.backward(outputs, grads)
    of_log_prob, of_entropy = oracle.gradients(logits.numpy(), ids, temperature)
    expected = weights[0][:, None] * of_log_prob + weights[1][:, None] * of_entropy
    assert x.grad.dtype == kind
    tolerance = {"rtol": 1e-4, "atol": 3e-6} if kind == torch.float32 else {"rtol": 1e-2, "atol": 1e-5}
    np.testing.assert_allclose(x.grad.float().cpu().numpy(), expected, **tolerance)


@on_device
def test_gradient_of_strided_rows_and_of_tokens_without_weight(device, rng):
    x = torch.as_tensor(rng.normal(size=(2, 4, 5001)).astype(np.float32), device=device).requires_grad_()
    ids = torch.as_tensor(rng.integers(5001, size=(2, 3)), device=device)
    weights = torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.5, 0.0]], device=device)
    (credit.selected_log_probs(x[:, :-1], ids) * weights).sum().backward()
    wide = x.detach().double().requires_grad_()
    (wide[:, :-1].log_softmax(-1).gather(-1, ids[..., None])[..., 0] * weights).sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-4, atol=1e-6)
    assert (x.grad[:, :-1][weights == 0] == 0).all()


@on_device
@pytest.mark.parametrize("chunk", [None, 900])
def test_tiles_from_hidden_states(device, rng, chunk):
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 16), (3001, 16), (3001,)) * 2]
    hidden, head, bias, *reference = (torch.as_tensor(array, device=device) for array in arrays)
    ids = torch.as_tensor(rng.integers(3001, size=(2, 3)), device=device)
    options = {"scale": 0.5, "soft_cap": 3.0, "chunk": chunk}
    given = hidden, head, reference[0], reference[1], ids
    biases = {"policy_bias": bias, "reference_bias": reference[2]}
    also = ("entropy", "reverse_kl", "sum_squares")
    actual, more = credit.token_statistics_from_hidden(
        *given, temperature=0.7, **biases, **options, also=also
    )
    x, y = (oracle.head_logits(*side, scale=0.5, soft_cap=3.0) for side in (arrays[:3], arrays[3:]))
    assert_within_bounds([field.cpu().numpy() for field in actual], x, y, ids.cpu().numpy(), 0.7)
    assert tuple(more) == also
    assert_further_within_bounds({name: field.cpu().numpy() for name, field in more.items()}, x, y, 0.7)
    names = ("sum_squares", "entropy")
    given = {"temperature": 0.7, "policy_bias": bias, **options, "also": names}
    four, own = credit.token_statistics_from_hidden(hidden, head, None, None, ids, **given)
    beside = [more[name] for name in names]
    for one, other in zip((four[0], four[2], *own.values()), (actual[0], actual[2], *beside), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert four[1] is None
    assert four[3] is None


@on_device
def test_gradients_through_tiles_from_hidden_states(device, rng):
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 16), (3001, 16), (3001,))]
    leaves = [torch.tensor(array, device=device, requires_grad=True) for array in arrays]
    wide = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    ids, weights = torch.as_tensor(rng.integers(3001, size=(2, 3))), torch.linspace(-1, 1, 6).reshape(2, 3)
    options = {"temperature": 0.7, "scale": 0.5, "soft_cap": 3.0}
    hidden, head, bias = leaves
    values = credit.selected_log_probs_from_hidden(
        hidden, head, ids.to(device), bias=bias, chunk=900, **options
    )
    (values * weights.to(device)).sum().backward()
    x = 3.0 * torch.tanh(0.5 * (wide[0] @ wide[1].T + wide[2]) / 3.0) / 0.7
    expected = x.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    (expected * weights).sum().backward()
    torch.testing.assert_close(values.double().cpu(), expected, rtol=1e-6, atol=1e-5)
    for leaf, other in zip(leaves, wide, strict=True):
        torch.testing.assert_close(leaf.grad.double().cpu(), other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not INTERPRETED, reason="test_on_gpu.py has it with tensor cores")
def test_slopes_are_written_once_in_the_type_of_the_products(rng, monkeypatch):
    """As with tensor cores, whose product in float32 a CPU has not: 4 + 4 + 2 bytes per entry of a tile."""
    from credit.backends.torch import head_tiles

    multiplied = []

    def project(hidden, head, dtype):
        multiplied.append((hidden.dtype, head.dtype))
        return hidden.to(dtype) @ head.to(dtype).t()

    monkeypatch.setattr(head_tiles, "project", project)
    monkeypatch.setattr(head_tiles, "uses_tensor_cores", lambda hidden, head: True)
    arrays = [torch.as_tensor(rng.normal(size=shape)).bfloat16() for shape in ((7, 16), (3001, 16), (3001,))]
    leaves, wide = ([t.clone().to(dtype).requires_grad_() for t in arrays] for dtype in (None, torch.float64))
    ids, weights = torch.as_tensor(rng.integers(3001, size=7)), torch.linspace(-1, 1, 7)
    options = {"temperature": 0.7, "scale": 0.5, "soft_cap": 3.0}
    values = credit.selected_log_probs_from_hidden(*leaves[:2], ids, bias=leaves[2], chunk=1001, **options)
    loss = (values * weights).sum()
    calls = [str(call) for call in dispatched(loss.backward)]
    assert calls.count("credit.grad_logits.default") == 3
    assert set(multiplied) == {(torch.bfloat16, torch.bfloat16)}
    x = 3.0 * torch.tanh(0.5 * (wide[0] @ wide[1].T + wide[2]) / 3.0) / 0.7
    (x.log_softmax(-1).gather(-1, ids[:, None])[:, 0] * weights).sum().backward()
    for leaf, other in zip(leaves, wide, strict=True):
        error = (leaf.grad.double() - other.grad).norm() / other.grad.norm()
        assert error < 5e-3  # the slope and the result are rounded to bfloat16


HEADS = {
    "bias": {"bias": torch.float32, "scale": -0.7},
    "cap": {"soft_cap": 3.0},
    "all": {"bias": torch.bfloat16, "scale": 0.2, "soft_cap": 30.0},
}


def products_of_a_head(rng, head, device, rows=5, size=4101):
    """Products of two models, some of them tiny or infinite, with a head's options and the logits in float64."""
    products = torch.as_tensor(rng.normal(size=(2, rows, size)), dtype=torch.float32) * 4.0
    products[1, 1] = products[0, 1] * 1.001
    products[:, 2], products[:, 3, ::5] = (
        products[:, 2] * 1e-3,
        -np.inf if head.get("scale", 1.0) > 0.0 else np.inf,
    )
    options = {"scale": 1.0, "soft_cap": None} | head
    biases = [torch.randn(size).to(options["bias"]) for _ in range(2)] if "bias" in options else [None] * 2
    options["bias"] = None
    logits = []
    for z, bias in zip(products.double(), biases, strict=True):
        z = options["scale"] * (z if bias is None else z + bias.double())
        logits.append(
            z if options["soft_cap"] is None else options["soft_cap"] * torch.tanh(z / options["soft_cap"])
        )
    biases = [None if bias is None else bias.to(device) for bias in biases]
    return products.to(device), biases, {key: options[key] for key in ("scale", "soft_cap")}, logits


@on_device
@pytest.mark.parametrize("head", HEADS)
def test_the_logits_of_a_heads_products(device, rng, head):
    from credit.backends.torch import ops

    (x, y), (x_bias, y_bias), options, logits = products_of_a_head(rng, HEADS[head], device)
    ids, half = torch.arange(0, 4101, 1000, device=device), torch.full((5,), 0.5, device=device)
    given = {"x_bias": x_bias, "y_bias": y_bias, **options}
    wide = [side.numpy() for side in logits]

    def merged(x, y, **given):
        states = ops.token_states(x, y, ids, half, 0, 2, "", **given)
        log_p, log_q, entropy, deviation = ops.merge_parts(states, half, y is not None).cpu().numpy()
        return log_p, log_q, entropy / np.log(4101), deviation

    assert_within_bounds(merged(x, y, **given), *wide, ids.cpu().numpy())
    assert (merged(x, x, **given | {"y_bias": x_bias})[3] == 0.0).all()
    log_p, entropy, *_ = merged(x, None, x_bias=x_bias, **options)
    expected = oracle.statistics(wide[0], wide[0], ids.cpu().numpy())
    np.testing.assert_allclose([log_p, entropy], [expected.log_probs, expected.entropy], rtol=1e-6, atol=5e-6)


@on_device
@pytest.mark.parametrize(
    ("head", "dtype"), [("bias", torch.float32), ("cap", torch.float32), ("all", torch.bfloat16)]
)
def test_gradient_in_a_heads_products(device, rng, head, dtype):
    from credit.backends.torch import ops

    (x, _), (bias, _), options, _ = products_of_a_head(rng, HEADS[head], device)
    x = x[:3]
    ids, half = torch.tensor([7, 4100, -1], device=device), torch.tensor([0.5, 0.7, 0.5], device=device)
    states = ops.token_states(x, None, ids, half, 0, 1, "", bias, **options)
    residuals = ops.merge_parts(states, half, False)
    weights = torch.as_tensor(rng.normal(size=(2, 3)), dtype=torch.float32, device=device)
    actual = ops.grad_logits(x, ids, half, residuals, weights, 0, dtype, bias, **options)
    leaf = x.double().requires_grad_()
    z = options["scale"] * (leaf if bias is None else leaf + bias.double())
    cap = options["soft_cap"]
    logits = 2.0 * half.double()[:, None] * (z if cap is None else cap * torch.tanh(z / cap))
    log_p = logits.log_softmax(-1)
    hit = torch.nn.functional.one_hot(ids.clamp(0), x.shape[1]) * (ids >= 0)[:, None]
    # An id outside of the tile has no logit in it, but its log-prob falls with the total.
    selected = (hit * logits).sum(-1) - logits.logsumexp(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    (selected * weights[0] + entropy * weights[1]).sum().backward()
    assert actual.dtype == dtype
    tolerance = {"rtol": 1e-4, "atol": 3e-6} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-5}
    torch.testing.assert_close(actual.double(), leaf.grad, **tolerance)


@on_device
def test_a_second_derivative_and_forward_mode_are_refused(device):
    """The loss is linear in the log-probs, where torch alone would answer that the derivative is 0."""
    ids = torch.tensor([0, 2], device=device)
    for function, shape in (
        (lambda x: credit.selected_log_probs(x, ids), (2, 5)),
        (lambda w: credit.selected_log_probs_from_hidden(torch.ones(2, 3, device=device), w, ids), (5, 3)),
    ):
        leaf = torch.ones(shape, device=device, requires_grad=True)
        (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match="a second derivative .* CREDIT_BACKEND=array_api"):
            gradient.pow(2).sum().backward()
        leaf = leaf.detach()
        with pytest.raises(NotImplementedError, match="forward-mode .* CREDIT_BACKEND=array_api"):
            torch.func.jvp(function, (leaf,), (leaf,))


@on_device
def test_compiled_without_graph_breaks(device, rng):
    x, y = (torch.as_tensor(array, device=device) for array in logit_cases.ordinary(rng, rows=3, size=3001))
    ids = torch.tensor([0, 7, 3000], device=device)
    mask = torch.tensor([True, True, False], device=device)

    def both(x, y):
        statistics = credit.token_statistics(x, y, ids, mask=mask, temperature=0.7, vocab_size=3001)
        return *statistics, credit.selected_log_probs(x, ids)

    x.requires_grad_()
    eager, compiled = both(x, y), torch.compile(both, fullgraph=True, backend="aot_eager")(x, y)
    for one, other in zip(eager, compiled, strict=True):
        assert torch.equal(one, other)
    gradients = [torch.autograd.grad(outputs[-1].sum(), x)[0] for outputs in (eager, compiled)]
    assert torch.equal(*gradients)


@on_device
def test_operators_are_well_formed(device):
    from credit.backends.torch import ops

    x = torch.randn(2, 3, 33, device=device)
    ids, half = torch.zeros(2, 3, dtype=torch.int64, device=device), torch.full((2, 3), 0.5, device=device)
    torch.library.opcheck(ops.token_statistics, ([x, x.clone()], ids, half, "sum_squares kl"))
    torch.library.opcheck(ops.log_probs_and_entropy, (x.clone().requires_grad_(), ids, half))
    residuals, grad_output = torch.randn(4, 2, 3, device=device), torch.randn(2, 2, 3, device=device)
    torch.library.opcheck(ops.grad_logits, (x, ids, half, residuals, grad_output, 0, torch.float32))
    states = ops.token_states(x, x.clone(), ids, half, 0, 2, "reverse_kl")
    torch.library.opcheck(ops.token_states, (x, None, ids, half, 0, 2))
    bias = torch.ones(33, device=device)
    torch.library.opcheck(ops.token_states, (x, x.clone(), ids, half, 0, 2, "", bias, None, 0.5, 3.0))
    gradient = x, ids, half, residuals, grad_output, 0, torch.bfloat16, bias, 0.5, 3.0
    torch.library.opcheck(ops.grad_logits, gradient)
    torch.library.opcheck(ops.merge_parts, (states, half, True, "reverse_kl"))
    torch.library.opcheck(ops.postprocess, (*torch.randn(4, 2, 3, device=device), ids, 33, True))


@on_device
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1, 50])
def test_postprocessing_is_as_the_reference_says(device, masked, size):
    from credit.backends import array_api
    from credit.backends.torch import backend
    from credit.backends.vocab import tiles

    fields = torch.rand(4, 3, 200, device=device) * 6.0
    fields[:, 1, ::7] = float("nan")
    ids = torch.randint(-2, size + 2, (3, 200), device=device)
    chosen = torch.rand(3, 200, device=device) < 0.5 if masked else None
    ids = torch.where(chosen, ids, tiles.UNREAD) if masked else ids
    actual = backend.postprocess(fields.unbind(), ids, chosen, size)
    expected = array_api.postprocess(fields.unbind(), ids, chosen, size)
    torch.testing.assert_close(torch.stack(actual), torch.stack(expected), equal_nan=True)
    calls = [
        str(event) for event in dispatched(lambda: backend.postprocess(fields.unbind(), ids, chosen, size))
    ]
    assert [call for call in calls if "credit" in call] == ["credit.postprocess.default"]


@on_device
def test_vmap_autocast_and_meta(device, rng):
    x, y = (torch.as_tensor(rng.normal(size=(2, 3, 50)).astype(np.float32), device=device) for _ in range(2))
    ids = torch.zeros(2, 3, dtype=torch.int64, device=device)
    whole = credit.token_statistics(x, y, ids)
    mapped = torch.vmap(credit.token_statistics, in_dims=(0, 0, None))(x, y, ids[0])

    def kl(x, y, ids):
        return credit.token_statistics(x, y, ids, also=("kl",))[1]["kl"]

    assert torch.equal(torch.vmap(kl)(x, y, ids), kl(x, y, ids))
    assert kl(x.to("meta"), y.to("meta"), ids.to("meta")).shape == ids.shape
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = credit.token_statistics(x, y, ids)
    on_meta = credit.token_statistics(x.to("meta"), y.to("meta"), ids.to("meta"))
    for field, by_vmap, by_autocast, empty in zip(whole, mapped, cast, on_meta, strict=True):
        assert torch.equal(field, by_vmap)
        assert torch.equal(field, by_autocast)
        assert empty.is_meta
        assert empty.shape == ids.shape
    gradient = torch.func.grad(lambda x: credit.selected_log_probs(x, ids).sum())(x)
    x.requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(credit.selected_log_probs(x, ids).sum(), x)[0])


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")
def test_cuda_graph():
    x, y = (torch.randn(8, 5000, device="cuda") for _ in range(2))
    ids = torch.zeros(8, dtype=torch.int64, device="cuda")
    credit.token_statistics(x, y, ids)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = credit.token_statistics(x, y, ids)
    x.copy_(torch.randn_like(x))
    graph.replay()
    for field, fresh in zip(captured, credit.token_statistics(x, y, ids), strict=True):
        assert torch.equal(field, fresh)


@pytest.mark.skipif(INTERPRETED, reason="no subprocess within a subprocess")
def test_a_broken_triton_is_an_error_that_names_its_cause(monkeypatch):
    import credit.backends.torch as package

    monkeypatch.setitem(sys.modules, "credit.backends.torch.ops", None)
    monkeypatch.delattr(package, "ops", raising=False)
    x, ids = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ImportError, match=r"need Triton.*CREDIT_BACKEND=array_api"):
        credit.token_statistics(x, x, ids)
