"""Calls of estimators as verl makes them, alone and within the step of its V1 trainer."""

import numpy as np
import torch
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.v1 import PPOTrainerSync, trainer_base

from credit.adapters.verl import extra, invalid_rows, rollouts, settings
from credit.adapters.verl.trainer import EstimatorMixin

WIDTH = 11


def draw(seed, holes=True):
    """12 responses of ragged groups, masks with holes, and a reward on every token, float32."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(["a", "b", "c", "d"], [2, 3, 3, 4])).astype(object)
    mask = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, 12)[:, None]
    if holes:
        mask[:, 1:] &= rng.random((12, WIDTH - 1)) < 0.7
    drawn = rng.normal(size=(12, WIDTH)).astype(np.float32)
    return index, torch.from_numpy(mask).long(), torch.from_numpy(drawn)


def call(name, rewards, mask, index, algorithm=None, **fields):
    """What an estimator of ours returns to verl's call, within a step of a V1 trainer that has the fields."""
    step = rollouts.StepContext((), [False] * len(mask), fields)
    function = core_algos.get_adv_estimator_fn(f"credit_{name}")
    given = {"token_level_rewards": rewards.clone(), "response_mask": mask, "index": index}
    with rollouts.step_context(step):
        return function(**given, config=OmegaConf.create(algorithm or {}))


def assert_equal(ours, theirs, mask):
    for own, other in zip(ours, theirs, strict=True):
        assert own.abs().max() > 0.1
        assert (own[mask == 0] == 0).all()
        torch.testing.assert_close(own, other * mask, rtol=1e-5, atol=1e-5)


class Store:
    """A batch of verl's TransferQueue, as its trainer reads and writes it."""

    partition_id = "train"

    def __init__(self, data, keys):
        self.data, self.keys, self.tags, self.extra_info = data, keys, [{} for _ in keys], {}

    def __len__(self):
        return len(self.keys)

    def get(self, keys, partition_id, select_fields=None):
        names = self.data if select_fields is None else [n for n in select_fields if n in self.data]
        found = {name: self.data[name] for name in names}
        if list(keys) != self.keys:
            rows = [self.keys.index(key) for key in keys]
            found = {name: _select_rows(column, rows) for name, column in found.items()}
        return TensorDict(found, batch_size=[len(keys)])

    def put(self, keys, partition_id, fields):
        self.data |= dict(fields.items())
        return self


def _select_rows(column, rows):
    if isinstance(column, torch.Tensor):
        return nest(column[row] for row in rows)
    return NonTensorStack(*[column.tolist()[row] for row in rows])


def nest(rows):
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def train_step(monkeypatch, configured, masks, far, columns, *overrides):
    """As `run_step`, of whose rows all take part: advantages by row, and the metrics."""
    store, metrics = run_step(monkeypatch, configured, masks, far, columns, *overrides)
    kept = [row.tolist() for row in store.data["response_mask"].unbind()]
    assert kept != masks if far else kept == masks
    return [torch.as_tensor(row) for row in store.data["advantages"].unbind()], metrics


def run_step(monkeypatch, configured, masks, far, columns, *overrides, padding=(), **attributes):
    """verl's own `_compute_advantage` of V1, with ours in it: the batch that it leaves, and the metrics.

    Args:
        masks: a list per row.
        far: the tokens, (row, column), at which the rollout's log-probs are far from the policy's.
        columns: further columns of the batch, with rm_scores among them.
        padding: the rows that verl has added to fill a mini-batch.
        attributes: further ones of the trainer.
    """
    config = configured(*overrides)
    log_probs = [torch.full((len(row),), -1.0) for row in masks]
    rollout = [row.clone() for row in log_probs]
    for row, column in far:
        rollout[row][column] = -9.0
    data = {name: nest(torch.tensor(row) for row in masks) for name in ("response_mask", "responses")}
    data |= columns
    data |= {"old_log_probs": nest(log_probs), "rollout_log_probs": nest(rollout)}
    data["uid"] = NonTensorStack(*[f"p{row // 2}" for row in range(len(masks))])
    store = Store(data, [f"p{row // 2}_{row % 2}_0" for row in range(len(masks))])
    for row in padding:
        store.tags[row]["is_padding"] = True
    for module in (extra.tq, trainer_base.tq):
        monkeypatch.setattr(module, "kv_batch_get", store.get)
        monkeypatch.setattr(module, "kv_batch_put", store.put)
    monkeypatch.setattr(invalid_rows, "kv_batch_put", store.put)
    kind = type("Trainer", (EstimatorMixin, PPOTrainerSync), {})
    trainer = object.__new__(kind)
    trainer.__dict__ |= {"config": config, "global_steps": 1, "total_training_steps": 4}
    trainer.credit_choice = settings.parse_settings(config.algorithm)
    trainer.__dict__ |= attributes
    metrics = {}
    trainer._compute_advantage(store, metrics)
    return store, metrics


REJECTS = [
    "algorithm.rollout_correction.rollout_rs=token_k1",
    "algorithm.rollout_correction.rollout_rs_threshold=0.5_2.0",
]
MASKS = [[1, 1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]


def scores_of(rows):
    return {"rm_scores": nest(torch.tensor(row) for row in rows)}


LAST = scores_of(
    [[0.0] * (len(row) - 1) + [reward] for row, reward in zip(MASKS, (1.0, 0, 0, 2), strict=True)]
)
NAMED = "+algorithm.gdpo_reward_keys=[right,format]"
MT_GRPO = ["algorithm.adv_estimator=credit_mt_grpo", *REJECTS]
