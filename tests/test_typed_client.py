"""A client's project, as type checkers see it: right uses pass, and a wrong setting is an error at its line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RIGHT = """\
from typing import Any

import credit

mixed = credit.Mix(parts=[(0.7, credit.GRPO()), (0.3, credit.DGPO(tau=0.1))])
nested = credit.Mix(parts=((1, mixed), (2, credit.DAPO())))
kept = [(0.7, credit.GRPO()), (0.3, credit.RLOO())]
of_a_list = credit.Mix(parts=kept)
found: credit.Estimator = credit.get("dgpo", tau=0.1, loss={"kl_coefficient": 0.1})
parsed: credit.Estimator = credit.parse({"name": "dgpo", "tau": 0.1})
scheduled = credit.DGPO(tau=credit.Schedule(start=1.0, end=0.1), kappa=2)
of_integers = credit.DGPO(kappa=credit.Schedule(start=0, end=1, kind="cosine"), effective_fraction=None)
aimed = credit.DGPO(effective_fraction=credit.Schedule(start=0.9, end=0.5), tau_min=1)
with_loss = credit.DAPO(eps=0, loss=credit.PolicyLoss(kl_coefficient=0, horizon=None, dual_clip=3))
on_a_name = credit.DGPO(base="rloo", tau=0.1)
on_an_estimator = credit.DGPO(base=credit.RLOO())
on_a_mapping = credit.TopEntropy(base={"name": "gdpo", "reward_weights": [1, 0.5]})
weighed = credit.GDPO(reward_weights=(1, 2.0))
everything: list[str] = credit.__all__
x: Any = None
four: credit.TokenStatistics = credit.token_statistics(x, x, x, mask=x)
four, more = credit.token_statistics(x, x, x, also=("kl", "entropy"))
four, more = credit.token_statistics_from_hidden(x, x, x, x, x, also=["kl"])
logged: dict[str, Any] = more
"""
WRONG = {
    'credit.DGPO(tau="hot")': "tau",
    'credit.DGPO(kappa="2")': "kappa",
    "credit.DGPO(base=0.5)": "base",
    'credit.Mix(parts=[(0.7, "hot", 3)])': "Estimator",
    'credit.Mix(parts=[("hot", credit.GRPO())])': "float",
    'credit.PolicyLoss(ratio="row")': "ratio",
    'credit.Schedule(start="a", end=1)': "start",
    'credit.token_statistics(x, x, x, also=("KL",))': "token_statistics",
}
CLIENT = RIGHT + "".join(f"wrong_{k} = {line}\n" for k, line in enumerate(WRONG))
CHECKERS = {
    "mypy": ("-m", "mypy", "--strict", "client.py"),
    # The package index has pyright only as a downloader; basedpyright is the same checker as a wheel.
    "pyright": ("-m", "basedpyright", "--level", "error"),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_settings_are_the_only_errors_of_a_client(checker, tmp_path, monkeypatch):
    (tmp_path / "client.py").write_text(CLIENT)
    config = (
        f'{{"extraPaths": ["{ROOT.as_posix()}"], "typeCheckingMode": "strict", "include": ["client.py"]}}'
    )
    (tmp_path / "pyrightconfig.json").write_text(config)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    command = [sys.executable, *CHECKERS[checker]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = re.findall(r"client\.py:(\d+).* error", done.stdout)
    first = RIGHT.count("\n") + 1
    assert sorted(set(map(int, errors))) == list(range(first, first + len(WRONG))), done.stdout + done.stderr
    for word in WRONG.values():
        assert word in done.stdout
