"""A fixed batch of responses, two models, and what the adapter made of them."""

import numpy as np
import oracle
import statistics_oracle
import torch
from on_cpu import VOCABULARY, make_model
from slime_actor import Actor, make_args, make_rollout_data

import credit
from credit.adapters import slime
from credit.adapters.slime.layout import join

GROUP = 4
PACKAGE = "credit.adapters.slime"
HOOKED = {"custom_megatron_before_log_prob_hook_path": f"{PACKAGE}.before_log_prob", "kl_coef": 0.001}


def make_samples(count=16, seed=0):
    """Samples of four prompts, whose masks have holes; one has no token at all."""
    rng = np.random.default_rng(seed)
    samples = []
    for place in range(count):
        prompt, response = int(rng.integers(2, 9)), int(rng.integers(1, 15))
        samples.append(
            {
                "tokens": rng.integers(VOCABULARY, size=prompt + response).tolist(),
                "mask": (rng.random(response) > 0.2).astype(int).tolist(),
                "reward": float(rng.integers(4)),
                "teacher": (-rng.random(response)).tolist(),
                "index": 40 + place,
            }
        )
    samples[3]["mask"] = [0] * len(samples[3]["mask"])
    return samples


def make_models(tied=False):
    """A policy, and the reference, from which it differs."""
    policy, reference = (make_model(tie_word_embeddings=tied, initializer_range=0.1) for _ in range(2))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.sin(50 * parameter + 1) * 0.1)
    return policy, reference


def forget_process():
    """As in a new process: no estimator has been read."""
    slime._hooks._trainer = None


def name_args(estimator, samples, settings=(), **given):
    """slime's arguments for a run with that estimator of credit's."""
    sizes = {"n_samples_per_prompt": GROUP, "rollout_batch_size": len(samples) // GROUP}
    return make_args(
        **{
            "custom_advantage_function_path": f"{PACKAGE}.{estimator}",
            "rewards_normalization": False,
            "vocab_size": VOCABULARY,
            "global_batch_size": len(samples),
            "credit": dict(settings),
            **sizes,
            **given,
        }
    )


def assign(args, models, samples, rank=0, ranks=1, micro_batches=3, change=None, **parallel):
    """slime's fields of this rank after its passes and the function for advantages."""
    data = make_rollout_data(samples, micro_batches, rank=rank, ranks=ranks)
    if change is not None:
        change(data)
    actor = Actor(args, *models, **parallel)
    actor.score(data)
    return data


def read_rows(data, *names):
    """Of each of the rank's samples, by its place in the batch, the whole arrays of those names."""
    joined = {name: join(data, data[name]) for name in names if name in data}
    return {
        place: {name: rows[row].tolist() for name, rows in joined.items()}
        for row, place in enumerate(data["partition"])
    }


@torch.no_grad()
def score(models, samples, temperature):
    """Of each response the statistics by name, from forwards of single rows in float64."""
    policy, reference = (model.double() for model in models)
    for sample in samples:
        ids, length = torch.tensor(sample["tokens"]), len(sample["mask"])
        ours, theirs = (
            model(input_ids=ids[None]).logits[0, -length - 1 : -1].numpy() for model in (policy, reference)
        )
        found = statistics_oracle.statistics(
            ours, theirs, ids[-length:].numpy(), np.full(length, temperature)
        )
        yield found._asdict() | {"normalized_entropy": found.entropy / np.log(ours.shape[-1])}


def make_rollouts(samples, statistics):
    """The batch in numpy."""
    width = max(len(sample["mask"]) for sample in samples)

    def stack(rows):
        return np.array([np.pad(np.asarray(row, float), (0, width - len(row))) for row in rows])

    mask = stack([sample["mask"] for sample in samples]).astype(bool)
    groups = np.array([sample["index"] // GROUP for sample in samples])
    return credit.Rollouts(
        np.array([sample["reward"] for sample in samples], float),
        groups - groups.min(),
        mask,
        turns=credit.tokens.turns(mask),
        extra={"teacher_log_probs": stack([sample["teacher"] for sample in samples])},
        **{name: stack([row[name] for row in statistics]) for name in statistics[0] if name != "entropy"},
    )


def expect(estimator, rollouts):
    """Advantages [N, T] by the oracle's loops."""
    given = {"rewards", "groups", "mask", *estimator.required_fields}
    others = set(rollouts._fields) - given - {"extra", "valid"}
    kept = rollouts._replace(**dict.fromkeys(others))
    if not any(name.startswith("extra.") for name in given):
        kept = kept._replace(extra=None)
    return oracle.estimate(estimator, kept)[1]


def largest_gap(rows, expected, samples):
    """The largest difference of an advantage of the mask's tokens."""
    gaps = [
        np.abs(
            (np.array(rows[place]["advantages"]) - expected[place, : len(sample["mask"])]) * sample["mask"]
        ).max()
        for place, sample in enumerate(samples)
    ]
    return max(gaps)
