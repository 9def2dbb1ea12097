"""Advantages of experiences against the core's, whatever the layout of the micro-batches."""

from typing import ClassVar, Literal

import openrlhf_cases as cases
import pytest
import torch

import credit
from credit.adapters.openrlhf import clipping, extra, rollouts
from credit.adapters.openrlhf.trainer import CreditExperienceMaker


@pytest.fixture
def computed(parse):
    """Experiences with advantages by flags of ours; their statistics are those of the cases."""

    def run(*given, seed=0, progress=0.25, **shape):
        made = cases.experiences(seed, **shape)
        found = cases.statistics(made)
        for experience, fields in zip(made, found, strict=True):
            experience.credit = fields
            experience.info[extra.KEY + "turns"] = list_turns(experience)
        maker = cases.maker(parse("--algo.advantage.estimator", *given), CreditExperienceMaker)
        maker.credit_progress = progress
        maker.compute_advantages_and_returns(made)
        return made, found

    return run


def list_turns(experience):
    """The turn of each action token of each row, as the sampler leaves them."""
    masks = experience.action_mask.bool()
    return [row[mask].tolist() for row, mask in zip(credit.tokens.turns(masks), masks, strict=True)]


def alone(estimator, made, found, progress=0.25):
    """The core's credit for the samples in order, each on its action tokens."""
    masks = [experience.action_mask.bool() for experience in made]
    lengths = torch.tensor([int(row.sum()) for row in cases.by_sample(made, masks)])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]

    def padded(name):
        rows = cases.by_sample(made, [fields[name] for fields in found])
        chosen = [row[m] for row, m in zip(rows, cases.by_sample(made, masks), strict=True)]
        return torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)

    rewards = torch.stack(cases.by_sample(made, [experience.rewards for experience in made]))
    groups = torch.arange(len(rewards)) // cases.N
    fields = {name: padded(name) for name in found[0]}
    given = credit.Rollouts(rewards, groups, mask, progress=torch.tensor(progress), **fields)
    return estimator(given), lengths


def test_the_maker_says_once_what_trains(computed, caplog):
    computed("dgpo", "--credit.tau", "0.1", "--credit.reference", "a/path")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "credit" and r.levelname == "INFO"]
    changed = """tau=0.1 (default 0.5), reference='a/path' (default "the actor's"), """
    assert line.startswith(f"OpenRLHF trains with dgpo: {changed}correction=1, ")
    assert line.endswith("; token statistics: deviation, normalized_entropy, from the models' logits")
    caplog.clear()
    computed("credit_rloo")
    (record,) = [r for r in caplog.records if r.name == "credit" and r.levelname == "INFO"]
    assert record.getMessage() == "OpenRLHF trains with rloo, which has no settings"


@pytest.mark.parametrize("holes", [False, True])
def test_dgpo_equals_the_core(computed, holes):
    made, found = computed("dgpo", "--credit.tau", "0.1", "--credit.kappa", "0.5", holes=holes)
    result, lengths = alone(credit.DGPO(tau=0.1, kappa=0.5), made, found)
    rows = cases.by_sample(made, [experience.advantages for experience in made])
    masks = cases.by_sample(made, [experience.action_mask.bool() for experience in made])
    for row, mask, expected, length in zip(rows, masks, result.advantages, lengths, strict=True):
        torch.testing.assert_close(row[mask], expected[:length], rtol=1e-5, atol=1e-6)
        assert (row[~mask] == 0).all()
    for experience in made:
        assert not hasattr(experience, "credit")
        assert experience.kl is None
        for name, value in result.metrics.items():
            logged = experience.info[f"credit/{name}"]
            assert logged.shape == (len(experience.index),)
            torch.testing.assert_close(logged, value.expand_as(logged), rtol=1e-5, atol=1e-6)
    assert result.metrics["weight_std"] > 0.1


def test_a_schedule_follows_progress(computed):
    made, found = computed("dgpo", "--credit.tau", '{"start": 1.0, "end": 0.1}', progress=0.5)
    result, _ = alone(credit.DGPO(tau=0.55), made, found)
    logged = made[0].info["credit/weight_std"][0]
    torch.testing.assert_close(logged, result.metrics["weight_std"], rtol=1e-5, atol=1e-6)


def test_each_turn_keeps_its_own_credit(computed):
    made, _ = computed("dgpo", "--credit.within", "turn", "--credit.tau", "0.1", holes=True)
    for experience in made:
        numbers = credit.tokens.turns(experience.action_mask.bool())
        for row, turn, each in zip(
            experience.advantages, numbers, experience.action_mask.bool(), strict=True
        ):
            means = [row[each & (turn == k)].mean() for k in turn[each].unique()]
            torch.testing.assert_close(torch.stack(means), means[0].expand(len(means)), rtol=1e-5, atol=1e-6)


def test_a_response_without_tokens_changes_nothing(computed):
    made = cases.experiences(2)
    for experience in made:
        experience.action_mask = torch.zeros_like(experience.action_mask)
    batch = rollouts.Batch(made, cases.N)
    given = batch.make_rollouts(credit.GRPO(), [{}] * len(made), 0.0, every=False)
    batch.write_back(clipping.assign_credit(credit.GRPO(), given, (-10, 10)), {})
    assert all((experience.advantages == 0).all() for experience in made)


class Reads(credit.Redistributing):
    """Reads arrays of the user's own and of OpenRLHF, and keeps what it saw."""

    name: Literal["reads"] = "reads"
    seen: ClassVar[list] = []

    @property
    def needs(self):
        return ("extra.own", "extra.hard", "extra.token_ids", "extra.values", "token_rewards")

    def score(self, given):
        self.seen.append(given)
        return given.extra["own"].float() * given.extra["hard"][:, None]

    def returns(self, rollouts):
        return rollouts.extra["values"] + 1.0


def add_rows(made):
    """Rows of the user's own as the sampler leaves them, and values of a critic, all made of the ids."""
    for experience in made:
        masks = experience.action_mask.bool()
        actions = [ids[1:][mask].tolist() for ids, mask in zip(experience.sequences, masks, strict=True)]
        experience.values = experience.sequences[:, 1:].float()
        experience.info |= {
            extra.KEY + "extra.own": actions,
            extra.KEY + "extra.hard": list(experience.index),
            extra.KEY + "token_rewards": [[token / 2 for token in row] for row in actions],
        }


@pytest.mark.parametrize("holes", [False, True])
def test_arrays_of_the_users_own_are_those_of_their_rows(parse, holes):
    made = cases.experiences(0, holes=holes)
    add_rows(made)
    maker = cases.maker(parse("--algo.advantage.estimator", "reads"), CreditExperienceMaker)
    maker.credit_progress = 0.0
    maker.compute_advantages_and_returns(made)
    given = Reads.seen.pop()
    tokens = [ids for experience in made for ids in experience.sequences[:, 1:]]
    masks = [mask.bool() for experience in made for mask in experience.action_mask]
    for row, (ids, mask) in enumerate(zip(tokens, masks, strict=True)):
        own = given.mask[row].bool()
        for array in (given.extra["own"], given.extra["token_ids"], given.extra["values"]):
            assert array[row][own].tolist() == ids[mask].tolist()
        assert (2 * given.token_rewards[row][own]).tolist() == ids[mask].tolist()
    assert given.extra["hard"].tolist() == [index for experience in made for index in experience.index]
    for experience in made:
        mask = experience.action_mask.bool()
        assert not any(name.startswith(extra.KEY + "e") for name in experience.info)
        expected = torch.where(mask, experience.sequences[:, 1:] + 1.0, 0.0)
        assert torch.equal(experience.returns, expected)


def test_a_critic_trains_if_its_values_are_needed(parse):
    args = parse("--algo.advantage.estimator", "reads")
    assert args.critic.model_name_or_path == args.actor.model_name_or_path
    assert parse("--algo.advantage.estimator", "dgpo").critic.model_name_or_path is None
