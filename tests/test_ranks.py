"""How the tests' jobs of several ranks end."""

import pytest
import ranks

WAITING = "import time; time.sleep(100_000)"
SCRIPT = """
import os, sys
print(os.environ["DEEPSPEED_TIMEOUT"], file=sys.stderr)
if os.environ["RANK"] == sys.argv[1]:
    {failure}
{otherwise}
"""


def start(path, failing, failure, otherwise="pass"):
    path.write_text(SCRIPT.format(failure=failure, otherwise=otherwise))
    ranks.run(str(path), 2, failing)


@pytest.mark.parametrize("failing", ["0", "1"])
@pytest.mark.parametrize(
    "failure", ["raise ValueError('it broke')", "print('it broke', file=sys.stderr, flush=True); os.abort()"]
)
def test_the_rank_that_failed_is_named_and_nobody_waits_for_it(tmp_path, failing, failure):
    with pytest.raises(AssertionError, match=rf"^rank {failing} printed: 60\n(.*\n)*.*it broke"):
        start(tmp_path / "script.py", failing, failure, WAITING)


def test_a_job_whose_time_is_over_says_so_and_what_every_rank_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "TIMEOUT", 0)
    with pytest.raises(AssertionError, match=r"^the ranks were not done after 0 s\nrank 0 (.*\n)*rank 1 "):
        start(tmp_path / "script.py", "0", WAITING, WAITING)


def test_a_job_whose_ranks_all_succeed_passes(tmp_path):
    start(tmp_path / "script.py", "0", "pass")
