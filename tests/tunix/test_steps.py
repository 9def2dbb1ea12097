"""The update of a step: packed or not, in micro-batches or not, with rows that leave the loss."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_llama
from flax import nnx
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3
from tunix.rl import utils
from tunix.rl.grpo.grpo_learner import TrainExample
from tunix.rl.rl_cluster import RLCluster

from credit.adapters.tunix import CreditGRPOConfig, CreditGRPOLearner
from credit.adapters.tunix.examples import make_example
from credit.adapters.tunix.loss import make_loss
from credit.adapters.tunix.steps import StepQueue, share_loss

GROUP, ROWS, PROMPT, WIDTH = 4, 8, 5, 12
SHARP = {"name": "dgpo", "tau": 0.01}
MODES = (
    "token-mean",
    "sequence-mean-token-mean",
    "sequence-mean-token-scale",
    "seq-mean-token-sum",
    "sequence-mean-token-sum-norm",
)
MICRO = {
    "mini_batch_size": 2,
    "train_micro_batch_size": 1,
    "rollout_micro_batch_size": 2,
    "compute_logps_micro_batch_size": 2,
}
BUDGET = 192  # tokens of a packed row that has room for all


def updates(run):
    """What the run's last step added to all weights, in one vector."""
    pairs = zip(run.weights(), jax.tree.leaves(run.actors[-1]), strict=True)
    return np.concatenate([(np.float64(after) - np.float64(before)).ravel() for after, before in pairs])


def same(ours, theirs, tolerance=1e-5):
    assert np.abs(theirs).max() > 1e-4
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.fixture
def whole_texts(monkeypatch):
    """A sampler that leaves no padding amid its tokens: Tunix's unpacked rows attend to everything there."""
    generate = RLCluster.generate

    def fill(self, *arguments, **named):
        output = generate(self, *arguments, **named)
        for place, row in enumerate(output.tokens):
            row = np.array(row)
            text = row[: np.max(np.nonzero(row)[0], initial=-1) + 1]
            text[text == 0] = 3
            output.tokens[place] = row
        return output

    monkeypatch.setattr(RLCluster, "generate", fill)


@pytest.mark.parametrize("family", [(qwen2.Qwen2, qwen2.ModelConfig), (qwen3.Qwen3, qwen3.ModelConfig)])
def test_packed_rows_give_the_update_of_unpacked_ones(train, small_qwen, whole_texts, family):
    plain, packed = (
        train(SHARP, base=small_qwen(0, *family), steps=2, training=training, config={"beta": 0.04})
        for training in ({}, {"max_seq_token_per_tpu": BUDGET})
    )
    assert plain.log[-1]["credit/weight_std"] > 0.01  # actor and reference differ by now
    same(updates(packed), updates(plain))


def test_in_micro_batches_dapo_makes_the_update_of_the_whole_step(train):
    def flat_for_one_prompt(prompts, completions, **_):
        pairs = zip(prompts, completions, strict=True)
        return [0.5 if prompt == "12>" else len(set(text)) / 8 for prompt, text in pairs]

    config = CreditGRPOConfig.dapo(num_generations=GROUP, overlong_cache=None)
    whole, micro = (
        train(None, reward=flat_for_one_prompt, config=config, steps=1, training=training)
        for training in ({}, MICRO)
    )
    assert not np.asarray(whole.examples[0].completion_mask)[:GROUP].any()
    assert micro.cluster.actor_trainer.train_steps == 1
    same(updates(micro), updates(whole))


@pytest.fixture(scope="module")
def model():
    return tiny_llama.small_llama(16, embed_dim=32, layers=1)


def make_batch(packed):
    """Rows with holes, a row without any token, and a row with every one."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 16, (ROWS, PROMPT + WIDTH)).astype(np.int32)
    ids[0, :3] = 0
    lengths = np.array([3, 12, 7, 9, 1, 11, 5, 8])
    text = np.arange(WIDTH) < lengths[:, None]
    ids[:, PROMPT:][~text] = 0
    kept = text & (rng.random(text.shape) < 0.8)
    kept[4] = False
    example = TrainExample(
        prompt_ids=jnp.asarray(ids[:, :PROMPT]),
        prompt_mask=jnp.asarray(ids[:, :PROMPT] != 0),
        completion_ids=jnp.asarray(ids[:, PROMPT:]),
        completion_mask=None,
        advantages=None,
        ref_per_token_logps=jnp.asarray(rng.normal(-2.7, 0.1, text.shape), jnp.float32),
        old_per_token_logps=jnp.asarray(rng.normal(-2.7, 0.3, text.shape), jnp.float32),
    )
    return make_example(example, rng.normal(size=text.shape), kept, packed)


def gradient(model, examples, mode, **settings):
    """The mean gradient of Tunix's loss over the examples, in one vector."""
    config = CreditGRPOConfig(loss_agg_mode=mode, beta=0.1, **settings)
    config.temperature = 0.8
    rollout = SimpleNamespace(pad_id=lambda: 0, eos_id=lambda: 2)
    cluster = SimpleNamespace(
        rollout=rollout, get_rollout_config=lambda mode: SimpleNamespace(max_tokens_to_generate=WIDTH)
    )
    loss = make_loss(SimpleNamespace(algo_config=config, rl_cluster=cluster))
    grad = nnx.jit(lambda model, example: nnx.grad(loss, has_aux=True)(model, example, config)[0])
    slopes = [grad(model, each) for each in examples]
    mean = jax.tree.map(lambda *each: sum(map(np.float64, each)) / len(each), *map(nnx.state, slopes))
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(mean)])


@pytest.mark.parametrize("mode", MODES)
def test_each_aggregation_is_that_of_unpacked_rows(model, mode):
    ((packed,),) = utils.pack_sequences(iter([[make_batch(True)]]), BUDGET)
    same(gradient(model, [packed], mode), gradient(model, [make_batch(False)], mode))


def parts_of(batch, size=2):
    return [utils.get_batch_slice(batch, slice(start, start + size)) for start in range(0, ROWS, size)]


def shared(parts, by_token=False):
    return [example for (example,) in share_loss([[part] for part in parts], by_token)]


@pytest.mark.parametrize("mode", MODES)
def test_rows_that_left_leave_the_normalizer_of_the_step(model, mode):
    batch = make_batch(False)
    batch = batch.replace(completion_mask=batch.completion_mask.at[:3].set(False))
    parts = shared(parts_of(batch), by_token=mode == "token-mean")
    same(gradient(model, parts, mode), gradient(model, [batch], mode))


def test_without_rows_that_left_micro_batches_are_tunix_own(model):
    batch = make_batch(False)
    batch = batch.replace(completion_mask=batch.completion_ids != 0)
    parts = parts_of(batch)
    found = shared(parts)
    assert [each.share.tolist() for each in found] == [[1.0, 1.0]] * 4
    np.testing.assert_array_equal(gradient(model, found, "token-mean"), gradient(model, parts, "token-mean"))


def test_a_step_gets_through_when_it_is_whole():
    got, parts = [], parts_of(make_batch(False))
    queue = StepQueue(SimpleNamespace(put=got.append), 2, by_token=False)
    for part in parts[:3]:
        queue.put([part])
    assert len(got) == 2
    queue.put(None)  # the data ended within a step
    assert [item and len(item) for item in got] == [1, 1, 1, None]
    assert [item[0].share[0].item() for item in got[:-1]] == [1.0, 1.0, 1.0]


def test_a_step_without_any_row_has_no_gradient(model):
    batch = make_batch(False)
    empty = batch.replace(completion_mask=jnp.zeros_like(batch.completion_mask))
    assert not gradient(model, shared(parts_of(empty)), "token-mean").any()


@pytest.mark.parametrize(
    ("config", "training", "message"),
    [
        ({"loss_algo": "gspo-token"}, {}, "gives all responses of a packed row one ratio"),
        (
            {"estimator": "dapo", "filter_groups": True},
            {"mini_batch_size": 2, "train_micro_batch_size": 1},
            "leave train_micro_batch_size out, or max_seq_token_per_tpu",
        ),
    ],
)
def test_what_packing_would_change_is_refused(make_cluster, low_digits, config, training, message):
    packed = {"max_seq_token_per_tpu": 96}
    with pytest.raises(ValueError, match=message):
        CreditGRPOLearner(make_cluster(training=packed | training), CreditGRPOConfig(**config), low_digits)
