"""Batches that serve several steps, evaluation, resuming, the log and records for the lens."""

import json

import numpy as np
import pytest
import torch
from swift_oracle import largest_gap

import credit
from credit import lens

CLOSE = 2e-5
DGPO = credit.DGPO(tau=0.05)


def test_a_batch_keeps_its_advantages_over_several_steps(train):
    witness = train(DGPO, num_iterations=2, max_steps=4, beta=0.04)
    assert len(witness.batches) == 2
    assert all(largest_gap(DGPO, batch) < CLOSE for batch in witness.batches)
    first, second, third, _ = witness.metric("loss")
    assert first == pytest.approx(0.0, abs=1e-6)
    assert min(abs(second), abs(third)) > 1e-4


def test_evaluation_has_advantages_of_its_own_groups(train, models):
    witness = train(
        DGPO,
        beta=0.04,
        val_dataset=models / "data.jsonl",
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
        num_generations_eval=2,
        max_steps=1,
    )
    evaluated = [batch for batch in witness.batches if not batch.training]
    assert evaluated
    assert all(largest_gap(DGPO, batch, size=2) < CLOSE for batch in evaluated)
    log = [json.loads(line) for line in (witness.output / "logging.jsonl").read_text().splitlines()]
    assert any("eval_credit/deviation_max" in line for line in log)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(train, tmp_path):
    """The reference stays the model that training began with, not the checkpoint."""
    options = {"beta": 0, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
    whole = train(DGPO, max_steps=4, output_dir=tmp_path / "whole", **options)
    checkpoint = tmp_path / "whole/checkpoint-2"
    resumed = train(
        DGPO, max_steps=4, output_dir=tmp_path / "resumed", resume_from_checkpoint=checkpoint, **options
    )
    assert len(resumed.logs) == 2
    for name in ("reward", "credit/deviation_mean", "credit/weight_std", "grad_norm"):
        assert resumed.metric(name) == pytest.approx(whole.metric(name)[2:], rel=1e-5)
    torch.testing.assert_close(resumed.weights(), whole.weights(), rtol=0, atol=1e-6)


def test_extremes_of_several_batches_are_extremes(train):
    every = train(DGPO, max_steps=4, beta=0).metric("credit/weight_max")
    together = train(DGPO, max_steps=4, beta=0, logging_steps=4).metric("credit/weight_max")
    assert together == [every[0], max(every[1:])]  # ms-swift logs the first step, too
    assert len(set(every)) == 4


def test_ms_swifts_table_of_completions_has_the_mean_advantages(train):
    witness = train(DGPO, beta=0, log_completions="true", max_steps=2)
    lines = (witness.output / "completions.jsonl").read_text().splitlines()
    tables = [json.loads(line) for line in lines]
    assert len(tables) >= 2
    for table, batch in zip(tables, witness.batches, strict=False):
        rows = torch.cat(
            [
                (each.advantages * mask).sum(dim=1) / mask.sum(dim=1)
                for each, mask in zip(batch.grpo, batch.masks, strict=True)
            ]
        )
        np.testing.assert_allclose(table["advantages"], rows.numpy(), atol=1e-6)


def test_records_for_the_lens_have_the_credit_of_the_loss(train):
    witness = train(DGPO, credit_settings={"record_steps": 1, "record_completions": 4}, beta=0)
    path = witness.output / "credit.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) == 8  # a group of four in each of two steps
    for start, batch in zip((0, 4), witness.batches, strict=True):
        for record, sample, values, mask in zip(
            records[start : start + 4], batch.samples, batch.grpo[0].advantages, batch.masks[0], strict=False
        ):
            assert "".join(record["tokens"]).startswith(sample.messages[-1]["content"][:4])
            np.testing.assert_allclose(record["advantages"], values[mask].tolist(), atol=1e-6)
    assert len(list(lens.read(path))) == 8


def test_records_where_the_user_says(train, tmp_path):
    path = tmp_path / "elsewhere.jsonl"
    train("grpo", credit_settings={"record_steps": 2, "record_path": str(path)}, max_steps=3, beta=0)
    steps = {json.loads(line)["step"] for line in path.read_text().splitlines()}
    assert steps == {1, 3}
