"""The credit of a witnessed batch once more: float64 forwards of single rows, and the oracle's loops."""

import numpy as np
import oracle
import statistics_oracle
import torch
from peft import PeftModel

import credit
from credit.fields import replace_arrays


def encoded_rows(batch):
    """Of each sample its ids and which of them the policy chose, both [L_i], from ms-swift's encoding."""
    for sample in batch.samples:
        labels = np.array(sample.encoded["labels"])
        yield np.array(sample.encoded["input_ids"]), labels != -100


@torch.no_grad()
def score(batch, temperature):
    """Of each sample the statistics of its chosen tokens by name, from rows without padding."""
    for ids, chosen in encoded_rows(batch):
        places = np.flatnonzero(chosen)
        policy = run(batch.policy, ids)[places - 1]
        if batch.reference is not None:
            reference = run(batch.reference, ids)[places - 1]
        elif isinstance(batch.policy, PeftModel):
            with batch.policy.disable_adapter():
                reference = run(batch.policy, ids)[places - 1]
        else:
            reference = policy
        found = statistics_oracle.statistics(
            policy, reference, ids[places], np.full(len(places), temperature)
        )
        yield found._asdict() | {"normalized_entropy": found.entropy / np.log(policy.shape[-1])}


def run(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].numpy()


def make_rollouts(batch, temperature=1.0, size=4, rewards=None, **fields):
    """The batch in numpy, each row from its first chosen token to its last."""
    rows = list(encoded_rows(batch))
    spans = [slice(np.flatnonzero(own).min(), np.flatnonzero(own).max() + 1) for _, own in rows]
    masks = [own[span] for (_, own), span in zip(rows, spans, strict=True)]
    width = max(map(len, masks))

    def pack(per_token):
        """[N, T] of values for each chosen token."""
        whole = np.zeros((len(masks), width))
        for row, mask, values in zip(whole, masks, per_token, strict=True):
            row[: len(mask)][mask] = values
        return whole

    mask = pack([np.ones(int(own.sum())) for own in masks]).astype(bool)
    scored = list(score(batch, temperature))
    names = [name for name in scored[0] if name != "entropy"]
    given = batch.rewards.double().numpy() if rewards is None else rewards
    whole = credit.Rollouts(
        given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given,
        np.arange(len(mask)) // size,
        mask,
        turns=credit.tokens.turns(mask),
        **{name: pack([each[name] for each in scored]) for name in names},
    )
    return replace_arrays(whole, fields)


def expected_advantages(estimator, rollouts):
    """[N, T] by the oracle."""
    needs = (*estimator.required_fields, "rewards", "groups", "mask")
    kept = {
        name: None for name in ("turns", "deviation", "normalized_entropy", "log_probs") if name not in needs
    }
    return oracle.estimate(estimator, rollouts._replace(**kept))[1]


def found_advantages(batch, width):
    """[N, T] of what the loss gets, aligned as `make_rollouts`; the masks are those before rows left the loss."""
    whole = np.zeros((len(batch.samples), width))
    rows = iter(whole)
    for each, mask in zip(batch.grpo, batch.masks, strict=True):
        for values, own in zip(each.advantages.double().numpy(), mask.numpy(), strict=True):
            places = np.flatnonzero(own)
            span = slice(places.min(), places.max() + 1)
            next(rows)[: places.max() + 1 - places.min()] = np.where(own[span], values[span], 0.0)
    return whole


def largest_gap(estimator, batch, temperature=1.0, **given):
    """The largest difference of an advantage in the loss from the oracle's."""
    rollouts = make_rollouts(batch, temperature, **given)
    expected = expected_advantages(estimator, rollouts)
    return np.abs(found_advantages(batch, expected.shape[1]) - expected).max()
