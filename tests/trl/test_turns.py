"""Tools and turns: TRL's real tool loop, with scripted words in the model's mouth."""

import numpy as np
import pytest
import torch
from chat import add, scripted
from datasets import Dataset

import credit
from credit.adapters.trl import rollouts


def low(completions, **_):
    return [sum(c in "01234" for c in messages[-1]["content"]) / 9 for messages in completions]


@pytest.mark.releases
@pytest.mark.parametrize("within", ["turn", "response"])
def test_credit_stays_on_the_policys_tokens_and_in_its_turn(make_trainer, chat_model, within):
    path, tokenizer = chat_model
    trainer = make_trainer(
        "dgpo",
        {"tau": 0.003, "within": within},
        model=path,
        reward=low,
        dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "1+2"}]] * 8}),
        max_completion_length=300,
        extra={"tools": [add], "processing_class": tokenizer},
    )
    trainer._generate_single_turn = scripted(trainer)
    trainer.train()
    (batch,) = trainer._buffered_inputs
    tools = (batch["tool_mask"] == 0) & batch["completion_mask"].bool()
    assert (tools.any(dim=1).sum(), len(tools)) == (4, 8)
    text = trainer._tokenizer.decode(batch["completion_ids"][tools.any(dim=1)][0])
    assert "<tool_response>\n3\n</tool_response>" in text
    mask = rollouts.token_mask(batch)
    assert batch["num_items_in_batch"] == mask.sum()
    advantages = batch["advantages"] * batch["completion_mask"]
    assert (advantages[tools] == 0).all()
    rows = advantages.sum(dim=1) / mask.sum(dim=1)
    assert (advantages - rows[:, None] * mask).abs().max() > 1e-2 * rows.abs().max()  # something moved
    turns = credit.tokens.turns(mask)
    for row in torch.nonzero(tools.any(dim=1) & (rows != 0)).flatten():
        means = [advantages[row][(turns[row] == turn) & mask[row].bool()].mean() for turn in (0, 1)]
        kept = [torch.isclose(mean, rows[row], rtol=1e-4).item() for mean in means]
        assert kept == ([True, True] if within == "turn" else [False, False])


def test_without_tools_a_response_is_one_turn(train):
    _, whole = train("dgpo", {"tau": 0.01})
    _, turned = train("dgpo", {"tau": 0.01, "within": "turn"})
    np.testing.assert_allclose([e["loss"] for e in turned], [e["loss"] for e in whole], atol=1e-6)
    assert whole[2]["credit/weight_std"] > 0


@pytest.mark.releases
def test_a_rollout_functions_environment_counts_as_a_tool(train):
    def rollout(prompts, trainer):
        generator = torch.Generator().manual_seed(trainer.state.global_step)
        ids = torch.randint(3, 10, (len(prompts), 9), generator=generator).tolist()
        given = trainer._tokenizer(prompts)["input_ids"]
        outside = [[1, 1, 0, 0, 1, 1, 1, 0, 1]] * len(prompts)
        return {"prompt_ids": given, "completion_ids": ids, "logprobs": None, "env_mask": outside}

    settings = {"extra": {"rollout_func": rollout}, "dynamic_sampling": "resample"}
    trainer, log = train("dgpo", {"tau": 0.01, "within": "turn"}, **settings)
    batch = trainer._buffered_inputs[0]
    assert ((batch["advantages"] == 0) | (batch["tool_mask"] == 1)).all()
    assert log[2]["credit/weight_std"] > 0
    assert isinstance(trainer.credit_estimator, credit.DGPO)
