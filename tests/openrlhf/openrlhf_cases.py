"""Hand-made experiences as OpenRLHF's sampler and models leave them."""

from types import SimpleNamespace

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController

N = 4  # samples per prompt


def experiences(seed, prompts=5, sizes=(7, 4, 6, 3), holes=False, scale=3):
    """Micro-batches of different widths, in an order of their own; the first prompt's rewards are equal."""
    generator = torch.Generator().manual_seed(seed)
    rewards = scale * torch.randn(prompts * N, generator=generator)
    rewards[:N] = rewards[0]
    order = torch.randperm(prompts * N, generator=generator)
    made = []
    for index in order.split(list(sizes)):
        rows = len(index)
        starts = torch.randint(1, 4, (rows, 1), generator=generator)
        lengths = torch.randint(1, 8, (rows, 1), generator=generator)
        width = int((starts + lengths).max()) + 1
        place = torch.arange(width)
        mask = (place >= starts) & (place < starts + lengths)
        if holes:
            mask &= (torch.rand(rows, width, generator=generator) > 0.3) | (place == starts)
        made.append(
            Experience(
                index=index.tolist(),
                sequences=torch.randint(3, 12, (rows, width + 1), generator=generator),
                action_mask=mask.long(),
                rewards=rewards[index],
                response_length=lengths[:, 0],
                truncated=torch.zeros(rows),
                kl=torch.zeros(rows, width),
                values=0.5 * torch.randn(rows, width, generator=generator),
                info={"reward": rewards[index]},
            )
        )
    return made


def batch(rewards, mask, index=None, **fields):
    """One micro-batch of responses [B] with this action mask [B, A], the prompts' samples in order."""
    rows, width = mask.shape
    generator = torch.Generator().manual_seed(0)
    return Experience(
        index=list(range(rows)) if index is None else index,
        sequences=torch.randint(3, 12, (rows, width + 1), generator=generator),
        action_mask=mask,
        rewards=rewards,
        response_length=mask.sum(dim=1),
        truncated=torch.zeros(rows),
        kl=torch.zeros(rows, width),
        values=torch.zeros(rows, width),
        info={"reward": rewards},
        **fields,
    )


def run_maker(args, made):
    """The experiences with advantages by an estimator of ours."""
    from credit.adapters.openrlhf.trainer import CreditExperienceMaker

    ours = maker(args, CreditExperienceMaker)
    ours.credit_progress = 0.0
    return ours.compute_advantages_and_returns(made)


def statistics(made, seed=0):
    """Deviation and normalised entropy [B, A] for each micro-batch."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [experience.action_mask.shape for experience in made]
    return [
        {name: torch.rand(shape, generator=generator) for name in ("deviation", "normalized_entropy")}
        for shape in shapes
    ]


def maker(args, kind=RemoteExperienceMaker):
    """OpenRLHF's experience maker, or a subclass, without the models."""
    return kind(None, None, None, None, FixedKLController(0.0), SimpleNamespace(args=args), None)


def by_sample(made, values):
    """Rows of values, one [B, A] per micro-batch, by number of the sample."""
    rows = {}
    for experience, each in zip(made, values, strict=True):
        rows |= dict(zip(experience.index, each, strict=True))
    return [rows[number] for number in sorted(rows)]
