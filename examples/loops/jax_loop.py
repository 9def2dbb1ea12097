"""Trains a tiny language model with an estimator of credit in a plain JAX loop: copy it into your trainer.

python examples/loops/jax_loop.py --estimator dgpo --settings '{"tau": 0.05}' --compare grpo
"""

import argparse
from collections.abc import Iterator
from functools import partial

import counting
import jax
import jax.numpy as jnp
import numpy as np
import optax

import credit

Parameters = dict[str, jax.Array]


def make_parameters(key: jax.Array, size: int = 32) -> Parameters:
    """A recurrent model in three matrices."""
    embedding, body, head = jax.random.split(key, 3)
    return {
        "embedding": jax.random.normal(embedding, (counting.VOCABULARY, size)),
        "body": jax.random.normal(body, (size, size)) / size**0.5,
        "head": jax.random.normal(head, (counting.VOCABULARY, size)) / size**0.5,
    }


def advance(model: Parameters, hidden: jax.Array, ids: jax.Array) -> jax.Array:
    """The hidden states [N, D] after one more token [N]."""
    return jnp.tanh(model["embedding"][ids] + hidden @ model["body"])


def compute_hidden(model: Parameters, ids: jax.Array) -> jax.Array:
    """The hidden states [N, T, D] after each token [N, T]."""

    def step(hidden: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = advance(model, hidden, ids)
        return hidden, hidden

    start = jnp.zeros((ids.shape[0], model["body"].shape[0]))
    return jax.lax.scan(step, start, ids.T)[1].swapaxes(0, 1)


@jax.jit
def sample(model: Parameters, prompts: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Prompts [N, P] with LENGTH more tokens [N, P + LENGTH], and the mask [N, LENGTH] of these."""

    def step(hidden: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        ids = jax.random.categorical(key, hidden @ model["head"].T)
        return advance(model, hidden, ids), ids

    start = compute_hidden(model, prompts)[:, -1]
    responses = jax.lax.scan(step, start, jax.random.split(key, counting.LENGTH))[1].T
    ends = (responses == counting.END).astype(jnp.int32)
    # A token counts if no end stands before it. The end itself counts: the policy chose to stop there.
    return jnp.concatenate([prompts, responses], axis=1), ends.cumsum(1) - ends == 0


# The state before a token predicts it.
BEFORE = slice(-counting.LENGTH - 1, -1)


@partial(jax.jit, static_argnames=("estimator", "optimizer", "updates"))
def learn(
    policy: Parameters,
    reference: Parameters,
    state: optax.OptState,
    ids: jax.Array,
    rewards: jax.Array,
    groups: jax.Array,
    mask: jax.Array,
    *,
    estimator: credit.Estimator,
    optimizer: optax.GradientTransformation,
    updates: int,
) -> tuple[Parameters, optax.OptState, counting.Step]:
    """Statistics, credit and optimizer steps on one batch, all in one compiled program."""
    responses = ids[:, -counting.LENGTH :]
    # This comes before the update: it measures the policy that has sampled.
    statistics = credit.token_statistics_from_hidden(
        compute_hidden(policy, ids)[:, BEFORE],
        policy["head"],
        compute_hidden(reference, ids)[:, BEFORE],
        reference["head"],
        responses,
        mask=mask,
    )
    rollouts = credit.Rollouts(rewards, groups, mask, **statistics._asdict())
    result = estimator(rollouts)

    def compute_loss(policy: Parameters) -> tuple[jax.Array, dict[str, jax.Array]]:
        hidden = compute_hidden(policy, ids)[:, BEFORE]
        log_probs = credit.selected_log_probs_from_hidden(hidden, policy["head"], responses)
        # The loss of the estimator's paper, a credit.PolicyLoss. The old log-probs carry no gradient and stay
        # those of the policy that has sampled: the ratio is 1 in the first update, and in the next ones it
        # tells how far the policy has moved since.
        return estimator.loss(
            log_probs,
            statistics.log_probs,
            result.advantages,
            mask,
            reference_log_probs=statistics.reference_log_probs,
        )

    for _ in range(updates):
        gradient, loss_metrics = jax.grad(compute_loss, has_aux=True)(policy)
        changes, state = optimizer.update(gradient, state)
        policy = optax.apply_updates(policy, changes)
    return policy, state, counting.Step(rollouts, result, loss_metrics)


def train(flags: argparse.Namespace) -> Iterator[counting.Step]:
    """Trains a model, and yields what the estimator got and gave in each step."""
    random = np.random.default_rng(flags.seed)
    key, first = jax.random.split(jax.random.key(flags.seed))
    # Arrays of JAX are never changed in place, so the reference stays as it is.
    policy = reference = make_parameters(first)
    optimizer = optax.adam(flags.learning_rate)
    state = optimizer.init(policy)
    groups = jnp.arange(flags.prompts).repeat(flags.responses)
    for _ in range(flags.steps):
        prompts = counting.draw_prompts(random, flags.prompts).repeat(flags.responses, axis=0)
        key, own = jax.random.split(key)
        ids, mask = sample(policy, jnp.asarray(prompts), own)
        # Rewards are computed on the host, between the two compiled programs, as most verifiers are.
        rewards = jnp.asarray(counting.compute_rewards(prompts, np.asarray(ids)[:, -counting.LENGTH :]))
        policy, state, step = learn(
            policy,
            reference,
            state,
            ids,
            rewards,
            groups,
            mask,
            estimator=flags.estimator,
            optimizer=optimizer,
            updates=flags.updates,
        )
        yield step


if __name__ == "__main__":
    flags = counting.parse_flags(__doc__)
    compare = flags.compare and jax.jit(flags.compare)
    for number, step in enumerate(train(flags), start=1):
        counting.show(number, step, compare and compare(step.rollouts))
