"""The credit of a step once more: float64 forwards of single rows without padding, and the oracle's loops."""

import numpy as np
import oracle
import statistics_oracle
import torch
from skyrl_models import load_float64

import credit


@torch.no_grad()
def run(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].numpy()


def score(step, policy, reference, temperature):
    """The statistics [N, T] by name, 0 outside the mask, in SkyRL's layout with a common last column."""
    width, rows = step.mask.shape[1], []
    pairs = zip(step.output["prompt_token_ids"], step.output["response_ids"], step.mask, strict=True)
    for prompt, response, mask in pairs:
        ids = np.array(prompt + response)
        places = len(prompt) + np.arange(len(response))
        degrees = np.full(len(places), temperature)
        logits = run(policy, ids)[places - 1], run(reference, ids)[places - 1]
        found = statistics_oracle.statistics(*logits, ids[places], degrees)
        named = found._asdict() | {"normalized_entropy": found.entropy / np.log(logits[0].shape[-1])}
        chosen = mask.numpy()[width - len(response) :]
        rows.append(
            {name: np.pad(values * chosen, (width - len(response), 0)) for name, values in named.items()}
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def make_rollouts(step, models, temperature=1.0, reference="model"):
    """The step's rollouts in numpy, by the models in the folder and the weights that the step began with."""
    policy = load_float64(models / "model", step.weights)
    found = score(step, policy, load_float64(models / reference), temperature)
    mask = step.mask.numpy()
    return credit.Rollouts(
        step.rewards.double().numpy().sum(axis=1),
        np.unique(step.uids, return_inverse=True)[1],
        mask,
        turns=credit.tokens.turns(mask),
        **{name: values for name, values in found.items() if name in credit.TokenStatistics._fields},
    )


def largest_gap(estimator, step, models, temperature=1.0, reference="model"):
    """The largest difference of an advantage in SkyRL's batch from the oracle's."""
    rollouts = make_rollouts(step, models, temperature, reference)
    needs = estimator.required_fields
    optional = ("turns", *credit.TokenStatistics._fields)
    kept = rollouts._replace(**{name: None for name in optional if name not in needs})
    expected = oracle.estimate(estimator, kept)[1]
    return np.abs(step.advantages.double().numpy() - expected).max()
