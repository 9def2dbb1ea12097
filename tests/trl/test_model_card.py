"""The model card that a trainer writes."""

import json
import re
from pathlib import Path
from typing import Literal

import pytest
from trl import GRPOConfig, GRPOTrainer

import credit
from credit.adapters.trl import model_card

ON_BASE = {"tau": 0.1, "base": {"name": "gdpo", "reward_weights": [2.0]}}
CASES = {
    ("dgpo", '{"tau": 0.1}'): ["`dgpo`", "2605.03327"],
    ("dgpo", json.dumps(ON_BASE)): ["`dgpo`", "2605.03327", "`gdpo`", "2601.05242"],
    ("mix", '{"parts": [[0.5, "dapo"], [0.5, "rloo"]]}'): ["`mix`", "2503.14476", "2402.14740"],
}


def write_card(trainer):
    trainer.create_model_card("mine")
    return (Path(trainer.args.output_dir) / "README.md").read_text()


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_card_names_estimator_settings_and_papers(make_trainer, name, settings):
    trainer = make_trainer(name, settings)
    card = write_card(trainer)
    assert [text for text in CASES[name, settings] if text not in card] == []
    found = credit.parse(re.search(r"```json\n(.*)\n```", card)[1])
    assert found == trainer.credit_estimator
    assert write_card(trainer) == card  # and not a second section


def test_the_rest_of_the_card_is_trls(make_trainer):
    """Beside the tags, which stand above the text."""
    theirs, without, ours = (
        write_card(trainer).split("---\n", 2)[2]
        for trainer in (
            make_trainer(kind=GRPOTrainer, config=GRPOConfig),
            make_trainer(),
            make_trainer("dgpo"),
        )
    )
    assert without == theirs
    before, section = ours.split("### Advantages")
    rest = before + section[section.index("### Framework versions") :]
    assert rest.split() == theirs.split()


class Undescribed(credit.GRPO):
    name: Literal["undescribed"] = "undescribed"


def test_an_estimator_of_the_users_is_not_described_as_the_one_that_it_extends():
    section = model_card.write_section(Undescribed())
    assert "- `undescribed`\n" in section
    assert "arXiv" not in section
