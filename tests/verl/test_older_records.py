"""The same in verl's trainers before V1, of which RayPPOTrainer keeps its loggers to itself."""

import logging
import math

import numpy as np
import pytest
import torch
import wandb
from advantage_calls import MASKS
from recorded_texts import EVERY_SECOND, GRPO, PROMPTS, REWARDS, TOKENIZER, answer, last, number, pad, spread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verl.experimental.fully_async_policy.detach_utils import MetricsAggregator
from verl.experimental.fully_async_policy.fully_async_trainer import FullyAsyncTrainer
from verl.protocol import DataProto
from verl.trainer.ppo.ray_trainer import RayPPOTrainer, compute_advantage
from verl.utils.tracking import Tracking
from wandb_files import read_history

from credit import lens
from credit.adapters.verl import passes, rollouts


@pytest.fixture
def update(monkeypatch, configured, tmp_path):
    """Batches of a trainer before V1, from its passes to both updates, each padded on both sides."""
    old = DataProto.from_dict({"old_log_probs": -torch.ones(4, 6), "entropys": pad(spread(0.25)).abs()})
    monkeypatch.setattr(passes, "read_vocabulary_size", lambda config: 16)

    def run(*overrides, kind=RayPPOTrainer, batches=2, end_batch=lambda trainer: None, **attributes):
        monkeypatch.setattr(kind, "_compute_old_log_prob", lambda self, batch: (old, 0.0))
        for name in ("_update_critic", "_update_actor"):
            monkeypatch.setattr(kind, name, lambda self, batch: batch)
        config = configured(GRPO, EVERY_SECOND, f"trainer.default_local_dir={tmp_path}", *overrides)
        trainer = object.__new__(kind)
        trainer.__dict__ |= {"tokenizer": TOKENIZER} | attributes
        for trainer.global_steps in range(1, batches + 1):
            trainer.config = config
            prompts = [number(text).flip(0) for text in PROMPTS]
            responses = [number(answer(row)) for row in range(len(MASKS))]
            sizes = [[torch.ones(len(row)) for row in rows] for rows in (prompts, responses)]
            tensors = {
                "prompts": pad(prompts).flip(1),
                "responses": pad(responses),
                "response_mask": pad(MASKS),
            }
            tensors["attention_mask"] = torch.cat([pad(sizes[0]).flip(1), pad(sizes[1])], dim=1)
            tensors["token_level_rewards"] = pad(last(REWARDS))
            batch = DataProto.from_dict(tensors, non_tensors={"uid": np.array(list("bbaa"), dtype=object)})
            trainer._compute_old_log_prob(batch)
            compute_advantage(batch, "credit_grpo", config=config.algorithm)
            trainer._update_critic(batch)
            trainer._update_actor(batch)
            end_batch(trainer)
        return list(lens.read(tmp_path / "credit.jsonl"))

    yield run
    rollouts.set_step(None)


def test_trainers_before_v1_record_what_their_passes_give(update):
    lines = update()
    assert [(line.step, line.group) for line in lines] == [(1, 0), (1, 0), (1, 1), (1, 1)]
    for line, row in zip(lines, (2, 3, 0, 1), strict=True):  # group by group
        assert (line.prompt, "".join(line.tokens)) == (PROMPTS[row], answer(row))
        assert line.valid == (row != 2)
        assert line.log_probs == [-1.0] * len(MASKS[row])
        assert line.normalized_entropy == pytest.approx((-spread(0.25)[row] / math.log(16)).tolist())
        assert line.advantages == [line.advantage * there for there in line.mask]


@pytest.mark.parametrize("own", [{}, {"logger": None}, {"logger": logging.getLogger("of a subclass")}])
def test_wandb_has_the_page_of_a_trainer_that_keeps_its_loggers_to_itself(update, tmp_path, monkeypatch, own):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with wandb.init(project="p", dir=tmp_path) as run:
        lines = update("trainer.logger=[console,wandb,tensorboard]", **own)
        run.log({"loss": 1.0}, step=1)
    wandb.teardown()
    (row,) = read_history(tmp_path)
    assert (row["_step"], row["loss"]) == (1, 1.0)
    (page,) = tmp_path.glob(f"**/{row['credit/lens']['path']}")
    assert page.read_text() == lens.page(lines, "step 1")


def test_a_logger_that_fails_is_named_and_training_goes_on(update):
    """Nothing has started wandb here."""
    with pytest.warns(UserWarning, match="could not show the completions as credit/lens in wandb: "):
        assert len(update("trainer.logger=wandb")) == 4


def test_fully_async_policy_has_the_first_batch_of_a_version_beside_its_metrics(
    update, tmp_path, monkeypatch
):
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path))
    logger, kind = Tracking("p", "e", "tensorboard"), FullyAsyncTrainer.__ray_metadata__.modified_class

    def end_batch(trainer):
        trainer._fit_update_local_step()
        if trainer.local_trigger_step == 1:
            trainer._fit_log_aggregated_training_metrics({})

    counted = {"current_param_version": 6, "local_trigger_step": 1, "trigger_parameter_sync_step": 2}
    own = {"logger": logger, "metrics_aggregator": MetricsAggregator(1)} | counted
    own["metrics_aggregator"].add_step_metrics({"actor/lr": 1.0}, sample_count=1)
    lines = update("trainer.logger=tensorboard", kind=kind, batches=6, end_batch=end_batch, **own)
    logger.finish()
    assert [line.step for line in lines] == [7] * 4 + [9] * 4
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("actor/lr")[0].step == 7
    assert [shown.step for shown in events.Tensors("credit/lens/text_summary")] == [7, 9]
