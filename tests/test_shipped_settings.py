"""What users copy is not what the project's own study found worse, and says where it was measured."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUDY = json.loads((ROOT / "examples/study/results/summary.json").read_text())
FOR_USERS = {  # each file with what stands before its tau
    "examples/trl/gsm8k.yaml": r"tau: ",
    "examples/trl/train.py": r'SETTINGS_OF_YOURS = \{"dgpo": \'\{"tau": ',
    "examples/tunix/train.py": r'SETTINGS_OF_YOURS = \{"dgpo": \'\{"tau": ',
    "examples/verl/config/dgpo.yaml": r"tau: ",
    "examples/openrlhf/estimators/dgpo.txt": r"--credit.tau ",
    "examples/slime/credit.yaml": r"tau: ",
    "examples/skyrl/train.sh": r"credit\.tau=",
    "examples/swift/credit_plugin.py": r"DGPO\(tau=",
}
IN_WORDS = ("README.md", "docs/trl.md", "docs/verl.md", "docs/openrlhf.md", "docs/tunix.md", "docs/swift.md")
COMMAND = r"(?:DGPO\(tau=|credit\.tau[= ]|\"dgpo\", \"tau\": |credit: \{tau: |_kwargs=\{\"tau\": )([\d.]+)"


def find_verdict(tau):
    """What the study found of DGPO's accuracy at that tau, against GRPO's."""
    found = STUDY["differences from"]["grpo"]["all tasks"]["accuracy"]
    (name,) = (name for name, own in STUDY["estimators"].items() if own == {"name": "dgpo", "tau": tau})
    return found[name]["verdict"]


def test_the_study_found_something_worse():
    assert find_verdict(0.05) == "lower"
    assert STUDY["differences from"]["grpo"]["all tasks"]["accuracy"]["dgpo adaptive"]["verdict"] == "lower"


@pytest.mark.parametrize("name", FOR_USERS)
def test_a_file_that_users_copy_cites_the_study_and_is_not_worse_there(name):
    text = (ROOT / name).read_text()
    (tau,) = re.findall(FOR_USERS[name] + r"([\d.]+)", text)
    assert find_verdict(float(tau)) == "no difference found"
    assert "docs/study.md" in text
    assert not re.search(r"^\s*effective_fraction:", text, re.MULTILINE)


@pytest.mark.parametrize("name", IN_WORDS)
def test_commands_in_the_docs_are_not_worse_either(name):
    taus = re.findall(COMMAND, (ROOT / name).read_text())
    assert taus
    assert {find_verdict(float(tau)) for tau in taus} == {"no difference found"}
