"""docs/own-loop.md: its quoted code is the example's, and the rest of its code runs and does what the page says."""

import re
import textwrap
from pathlib import Path

import counting
import numpy as np
import pytest
import ranks

import credit

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own-loop.md").read_text()
QUOTED = re.findall(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
OTHER = re.findall(r"(?<!-->\n)```python\n(.*?)```", PAGE, re.DOTALL)


def find_code(words):
    (code,) = [block for block in OTHER if words in block]
    return code


def test_the_page_has_the_code_that_is_tested_here():
    assert len(QUOTED) == 4
    assert len(OTHER) == 3


@pytest.mark.parametrize(("file", "block"), QUOTED, ids=lambda text: text.splitlines()[0])
def test_quoted_code_is_the_examples(file, block):
    lines = [line.strip() for line in (ROOT / "examples/loops" / file).read_text().splitlines()]
    wanted = [line.strip() for line in block.splitlines()]
    starts = [at for at, line in enumerate(lines) if line == wanted[0]]
    assert any(lines[at : at + len(wanted)] == wanted for at in starts)
    indents = {len(line) - len(line.lstrip()) for line in textwrap.dedent(block).splitlines()}
    assert min(indents) == 0


def test_turns_are_the_runs_of_the_mask():
    torch = pytest.importorskip("torch")
    exec(find_code("credit.tokens.turns"), {"torch": torch, "credit": credit})


def list_names(line):
    return [name.strip() for name in re.findall(r"[a-z][a-zA-Z ]+(?= [\d.]+)", line)]


def test_the_log_has_what_the_page_names(capsys):
    torch_loop = pytest.importorskip("torch_loop")
    flags = counting.parse_flags(None, ["--steps", "1", "--compare", "grpo"])
    for number, step in enumerate(torch_loop.train(flags), start=1):
        counting.show(number, step, flags.compare(step.rollouts))
    names = list_names(capsys.readouterr().out)
    (printed,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(printed.splitlines()) == 3
    for line in printed.splitlines():
        assert list_names(line) == names


@pytest.mark.parametrize("estimator", [credit.DGPO(tau=0.05), credit.LitePPO()], ids=lambda each: each.name)
def test_the_gradient_of_the_parts_is_that_of_the_whole(estimator):
    torch = pytest.importorskip("torch")
    torch_loop = pytest.importorskip("torch_loop")
    torch.manual_seed(0)
    policy, reference = torch_loop.TinyModel(), torch_loop.TinyModel()
    ids, mask = torch_loop.sample(policy, torch.arange(4).repeat_interleave(5)[:, None])
    mask[3] = False  # a response without tokens, in one of three parts of unequal size
    states = [model(ids)[:, :-1].detach() for model in (policy, reference)]
    statistics = credit.token_statistics_from_hidden(
        states[0], policy.head.weight, states[1], reference.head.weight, ids[:, 1:], mask=mask
    )
    groups = torch.arange(4).repeat_interleave(5)
    result = estimator(credit.Rollouts(torch.rand(20), groups, mask, **statistics._asdict()))

    def compute_log_probs(policy, ids):
        return credit.selected_log_probs_from_hidden(policy(ids)[:, :-1], policy.head.weight, ids[:, 1:])

    whole, _ = estimator.loss(compute_log_probs(policy, ids), statistics.log_probs, result.advantages, mask)
    whole.backward()
    expected = [parameter.grad.clone() for parameter in policy.parameters()]
    code = find_code("normalizer=count")
    if estimator.loss.aggregation == "token_mean":
        code = code.replace("mask.any(dim=1).sum()", "mask.sum()")
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    exec(code, locals() | {"torch": torch})
    for parameter, gradient in zip(policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


PROCESS = """
import copy
import datetime
import numpy as np, torch, torch.distributed as dist
import credit
import ranks

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=ranks.TIMEOUT))
random = np.random.default_rng(0)
shape = 8, 5
whole = credit.Rollouts(
    rewards=torch.from_numpy(random.normal(size=8)),
    groups=torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]),  # each group is on both processes
    mask=torch.from_numpy(random.random(shape) < 0.8),
    deviation=torch.from_numpy(random.random(shape)),
    normalized_entropy=torch.from_numpy(random.random(shape)),
)
rank = dist.get_rank()
here = slice(4 * rank, 4 * rank + 4)
rollouts = credit.Rollouts(*(None if field is None else field[here] for field in whole))
mask = rollouts.mask
for estimator in (credit.DGPO(tau=0.1), credit.LitePPO(), credit.TopEntropy()):
{code}
    torch.testing.assert_close(advantages, estimator(whole).advantages[here], rtol=1e-12, atol=1e-12)
    assert advantages.abs().max() > 0.1

# DDP averages gradients: the loss of the whole step's count, times the number of processes, is the whole's.
states, estimator = torch.from_numpy(random.normal(size=(*shape, 3))).float(), credit.DGPO(tau=0.1)
whole_model = torch.nn.Linear(3, 1)
dist.broadcast(whole_model.weight.data, 0)
dist.broadcast(whole_model.bias.data, 0)
model = torch.nn.parallel.DistributedDataParallel(copy.deepcopy(whole_model))
old, advantages, count = torch.zeros(shape), estimator(whole).advantages, whole.mask.any(dim=1).sum()
loss, _ = estimator.loss(-model(states[here])[..., 0] ** 2, old[here], advantages[here], mask, normalizer=count)
(dist.get_world_size() * loss).backward()
estimator.loss(-whole_model(states)[..., 0] ** 2, old, advantages, whole.mask)[0].backward()
torch.testing.assert_close(model.module.weight.grad, whole_model.weight.grad)
assert whole_model.weight.grad.abs().max() > 0.01
"""


def test_processes_that_gather_their_rows_get_the_advantages_and_the_gradient_of_the_whole(tmp_path):
    pytest.importorskip("torch")
    code = textwrap.indent(find_code("all_gather"), "    ")
    script = tmp_path / "process.py"
    script.write_text(PROCESS.replace("{code}", code))
    ranks.run(str(script), 2, PYTHONPATH=f"{ROOT}:{ROOT / 'tests/support'}")


def test_every_file_that_the_page_names_is_there():
    linked = [target.partition("#")[0] for target in re.findall(r"\]\(([^)#][^)]*)\)", PAGE)]
    named = re.findall(r"examples/loops/\w+\.py", PAGE)
    assert len(linked) > 4
    assert len(named) > 4
    for path in [*(ROOT / "docs" / target for target in linked), *(ROOT / name for name in named)]:
        assert path.exists(), path


def test_the_estimators_that_the_page_calls_exact_read_nothing_else():
    known = {"log_probs", "reference_log_probs"}
    for estimator in (
        credit.Delightful(),
        credit.OPD(teacher="reference"),
        credit.RLSD(teacher="reference"),
        credit.GRPO(),
    ):
        assert set(estimator.needs) <= known


def test_the_batch_wide_estimators_of_the_page_are_so():
    random = np.random.default_rng(0)
    fields = {"normalized_entropy": random.random((8, 4)), "log_probs": -random.random((8, 4))}
    rewards, groups, mask = random.normal(size=8), np.arange(8) // 4, np.ones((8, 4), bool)
    rewards[:2] = rewards[2:4] = 0.5  # one of two groups has equal rewards
    whole = credit.Rollouts(rewards, groups, mask, **fields)
    second = credit.Rollouts(
        rewards[4:], groups[4:] - 1, mask[4:], **{name: field[4:] for name, field in fields.items()}
    )
    for name in ("lite_ppo", "reinforce_plus_plus", "gpg", "top_entropy"):
        assert f"`{name}`" in PAGE
        alone, together = credit.get(name)(second).advantages, credit.get(name)(whole).advantages[4:]
        assert not np.allclose(alone, together, rtol=1e-3), name
