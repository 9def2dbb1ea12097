"""The example, its files, and the page about them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import slime_batch
import yaml
from commands import run_to_end
from slime_actor import HERE

from credit.adapters import slime

PAGE = (HERE.parents[1] / "docs/slime.md").read_text()
CHECKOUT = os.environ.get("SLIME_CHECKOUT")


def test_the_example_trains(tmp_path):
    """On two batches, with another estimator than the file's."""
    found = run_to_end(
        [sys.executable, str(HERE / "on_cpu.py"), "--estimator", "gtpo", "--rollouts", "2"],
        os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        tmp_path,
    )
    assert len(re.findall(r"^rollout \d: reward 0\.\d+", found, re.MULTILINE)) == 2


def test_the_page_shows_the_file():
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    assert yaml.safe_load(block) == yaml.safe_load((HERE / "credit.yaml").read_text())


def test_the_page_shows_the_module_of_the_tests():
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    own = (Path(__file__).parent / "own_run.py").read_text()
    names = [line for line in block.splitlines() if line.startswith(("import", "from", "advantages"))]
    assert all(line in own for line in names)


def test_the_file_names_functions_that_there_are():
    for option, path in yaml.safe_load((HERE / "credit.yaml").read_text()).items():
        if option.startswith("custom_"):
            package, _, name = path.rpartition(".")
            assert package == slime_batch.PACKAGE
            assert callable(getattr(slime, name))


def test_the_command_for_gpus_is_a_script():
    subprocess.run(["bash", "-n", str(HERE / "train.sh")], check=True)


@pytest.mark.skipif(CHECKOUT is None, reason="needs slime's source (SLIME_CHECKOUT)")
def test_slime_knows_the_flags_of_the_command_for_gpus():
    """By its own parser or, for Megatron's and SGLang's flags, by its scripts."""
    text = (HERE / "train.sh").read_text()
    flags = re.findall(r"(--[a-z0-9-]+)", re.sub(r"#.*", "", text[text.index("flags=(") : text.index("cd ")]))
    known = (Path(CHECKOUT) / "slime/utils/arguments.py").read_text()
    known += "".join(path.read_text() for path in (Path(CHECKOUT) / "scripts").glob("*.sh"))
    assert not [flag for flag in flags if not re.search(rf"{flag}\b(?!-)", known)]
