"""A tiny Llama on four host devices, and runs of Tunix over it."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs of this size take longer to optimise than to run.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=4 "
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("tunix")
import jax
import jax.numpy as jnp
import numpy as np
import optax
import qwix
import tiny_llama
from flax import nnx
from tunix.models.qwen2 import model as qwen2
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig
from tunix.sft import utils

import credit
from credit.adapters.tunix import CreditGRPOConfig, CreditGRPOLearner

PROMPTS = ("12>", "3>", "407>", "95>")
GROUP = 4
TOKENS = 12
ROLES = (Role.ACTOR, Role.REFERENCE, Role.ROLLOUT)


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Tunix compiles anew for every cluster; the programs are the same."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def mesh(*shape, first=0):
    devices = np.array(jax.devices()[first : first + int(np.prod(shape))])
    return jax.sharding.Mesh(devices.reshape(shape), ("fsdp", "tp"))


low_digits = pytest.fixture(lambda: share_of_low_digits, scope="session", name="low_digits")


@pytest.fixture
def mesh_of():
    """Meshes of the four devices by their shape."""
    return mesh


@pytest.fixture(scope="session")
def small_qwen():
    """Tunix's Qwen2, which takes packed sequences, or another of the family."""

    def make(seed=0, kind=qwen2.Qwen2, config=qwen2.ModelConfig):
        settings = config(
            num_layers=1,
            vocab_size=16,
            embed_dim=32,
            hidden_dim=64,
            num_heads=4,
            head_dim=8,
            num_kv_heads=2,
            rope_theta=10_000,
            norm_eps=1e-5,
        )
        model = kind(settings, rngs=nnx.Rngs(params=seed))
        tiny_llama.draw(model, 32**-0.5, seed)
        return model

    return make


def share_of_low_digits(completions, **_):
    """A reward that varies within almost every group."""
    return [sum(c in "01234" for c in text) / max(len(text), 1) for text in completions]


def with_lora(model):
    provider = qwix.LoraProvider(module_path=".*(q_proj|kv_proj|down_proj)", rank=4, alpha=8.0)
    return qwix.apply_lora_to_model(model, provider, rngs=nnx.Rngs(0), **model.get_model_input())


@pytest.fixture(scope="session")
def make_cluster():
    """Builds a cluster; unknown keywords are settings of Tunix's RolloutConfig."""

    def make(
        shape=(1, 1),
        *,
        base=None,
        lora=False,
        reference=True,
        meshes=None,
        steps=3,
        cluster=None,
        training=None,
        **sampling,
    ):
        base = tiny_llama.small_llama(16, embed_dim=32, layers=1) if base is None else base
        actor, other = (with_lora(base), base) if lora else (base, tiny_llama.copy_of(base))
        sampling = {
            "max_tokens_to_generate": TOKENS,
            "max_prompt_length": 8,
            "kv_cache_size": 32,
            "temperature": 1.0,
            **sampling,
        }
        config = ClusterConfig(
            role_to_mesh=dict.fromkeys(ROLES, mesh(*shape)) | (meshes or {}),
            training_config=RLTrainingConfig(
                actor_optimizer=optax.sgd(0.5),
                eval_every_n_steps=1000,
                **({"max_steps": steps} | (training or {})),
            ),
            rollout_config=RolloutConfig(**sampling),
            **(cluster or {}),
        )
        tokenizer = tiny_llama.CharacterTokenizer()
        models = RLCluster(
            actor=actor, reference=other if reference else None, tokenizer=tokenizer, cluster_config=config
        )
        models.steps = steps
        return models

    return make


@dataclass
class Run:
    """What a training run left behind: an entry per step."""

    cluster: Any
    log: list[dict[str, float]] = field(default_factory=list)
    examples: list[Any] = field(default_factory=list)  # what the learner gave to Tunix
    actors: list[Any] = field(default_factory=list)  # the weights that sampled

    def weights(self):
        """The trained weights."""
        return jax.tree.leaves(nnx.state(self.cluster.actor_trainer.model))

    def models(self, step):
        """The actor that sampled at a step, and its reference, on the host."""
        actor = nnx.split(self.cluster.actor_trainer.model)[0], self.actors[step]
        reference = nnx.split(self.cluster.inference_worker.get_model("reference"))
        return [nnx.merge(graph, jax.tree.map(np.array, state)) for graph, state in (actor, reference)]


@pytest.fixture
def train(make_cluster):
    """Trains, and returns what every step did; `config` is a learner's config or its settings."""

    def run(
        estimator, kind=CreditGRPOLearner, *, reward=share_of_low_digits, prompts=2, config=None, **settings
    ):
        if config is None or isinstance(config, dict):
            given = {"num_generations": GROUP, "beta": 0.0, **(config or {})}
            config = CreditGRPOConfig(estimator=estimator, **given)
        found = Run(make_cluster(**settings))

        class Witness(kind):
            def _generate_and_compute_advantage(self, *arguments, **named):
                state = nnx.state(self.rl_cluster.actor_trainer.model)
                found.actors.append(jax.tree.map(np.array, state))
                found.examples.append(super()._generate_and_compute_advantage(*arguments, **named))
                return found.examples[-1]

        found.cluster.with_external_metrics_logger(lambda buffer: found.log.append(combined(buffer)))
        learner = Witness(found.cluster, config, reward)
        learner.train(batches(found.cluster, prompts))
        found.log = [entry for entry in found.log if "rewards/score/mean" in entry]
        return found

    return run


def batches(cluster, prompts):
    """As many prompts a step, and for each step a seed."""
    for step in range(cluster.steps):
        cluster.cluster_config.rollout_config.seed = step
        chosen = [PROMPTS[(step + i) % len(PROMPTS)] for i in range(prompts)]
        yield {"prompts": np.array(chosen)}


def combined(buffer):
    return {
        name: float(combine(np.asarray(values)))
        for name, (values, combine) in buffer.metrics.items()
        if combine is not None and np.asarray(values).dtype.kind in "fi"
    }


@pytest.fixture
def example():
    """Token ids as Tunix's sampler leaves them: prompts padded on the left, completions on the right."""

    def make(rows, tokens, vocabulary, prompt=5):
        rng = np.random.default_rng(0)
        ids = rng.integers(3, vocabulary, (rows, prompt + tokens)).astype(np.int32)
        ids[0, :3] = 0
        ids[1, prompt + 2 :] = 0
        completion = jnp.asarray(ids[:, prompt:])
        return SimpleNamespace(
            prompt_ids=jnp.asarray(ids[:, :prompt]),
            completion_ids=completion,
            completion_mask=completion != 0,
        )

    return make


@pytest.fixture
def in_float64():
    """The statistics of two models by a plain forward, read in float64."""
    return statistics_in_float64


def statistics_in_float64(models, example, temperature=1.0):
    """log p, log q, H / log V and d [B, T] of two models."""
    ids = np.concatenate([example.prompt_ids, example.completion_ids], axis=1)
    present, before = jnp.asarray(ids != 0), example.prompt_ids.shape[1]
    inputs = utils.build_positions_from_mask(present), utils.make_causal_attn_mask(present)
    logits = (np.asarray(_forward(model, jnp.asarray(ids), *inputs), np.float64) for model in models)
    lp, lq = (_log_softmax(x[:, before - 1 : -1] / temperature) for x in logits)
    next_ids = np.asarray(example.completion_ids)[..., None]
    entropy = -(np.exp(lp) * lp).sum(-1) / np.log(lp.shape[-1])
    deviation = 0.5 * np.square(np.exp(lp / 2) - np.exp(lq / 2)).sum(-1)
    chosen = (np.take_along_axis(log, next_ids, -1)[..., 0] for log in (lp, lq))
    return dict(zip(credit.TokenStatistics._fields, (*chosen, entropy, deviation), strict=True)) | {
        "extra.sum_squares": np.exp(2 * lp).sum(-1),
        "extra.entropy": entropy * np.log(lp.shape[-1]),
        "extra.kl": (np.exp(lp) * (lp - lq)).sum(-1),
        "extra.reverse_kl": (np.exp(lq) * (lq - lp)).sum(-1),
    }


@nnx.jit
def _forward(model, ids, positions, attention_mask):
    return model(ids, positions, None, attention_mask)[0]


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
