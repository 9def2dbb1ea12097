"""Estimators and rewards once more, in float64: loops over rows and tokens, from the papers."""

import math

import numpy as np
import pytest

from credit import Estimator
from credit.selftest.advantages_oracle import (
    centered,
    less_the_others,
    mean,
    spread_by_deviation,
    standardized,
)

# --- the batch -------------------------------------------------------------------------------------------


def valid_rows(rollouts):
    """Per row, whether it takes part."""
    if rollouts.valid is not None:
        return [bool(flag) for flag in rollouts.valid]
    return [is_scored(np.atleast_1d(rewards).tolist()) for rewards in rollouts.rewards]


def is_scored(rewards):
    """Whether a response has a reward: of several functions, NaN says that one gave none."""
    given = [reward for reward in rewards if not math.isnan(reward)]
    return bool(given) and all(map(math.isfinite, given))


def rewards_of_functions(rollouts):
    """Per function, its rewards by row, without the rows to which it gave none."""
    rows = [np.atleast_1d(rewards).tolist() for rewards in rollouts.rewards]
    return [
        {row: reward for row, reward in enumerate(column) if not math.isnan(reward)}
        for column in zip(*rows, strict=True)
    ]


def members(rollouts):
    """The valid rows of each group, by label."""
    found = {}
    for row, (label, valid) in enumerate(zip(rollouts.groups.tolist(), valid_rows(rollouts), strict=True)):
        found.setdefault(label, [])
        if valid:
            found[label].append(row)
    return found


def chosen(rollouts):
    """Per row, the tokens that count: those of the mask, none in an invalid row."""
    return [
        [t for t, flag in enumerate(mask) if flag and valid]
        for mask, valid in zip(rollouts.mask.tolist(), valid_rows(rollouts), strict=True)
    ]


# --- one advantage per response --------------------------------------------------------------------------


def per_group(formula):
    """A formula for the list of a group's rewards, as one for the batch."""

    def advantages(estimator, rollouts):
        result = [0.0] * len(rollouts.rewards)
        for rows in members(rollouts).values():
            values = formula(estimator, [float(rollouts.rewards[row]) for row in rows])
            for row, value in zip(rows, values, strict=True):
                result[row] = value
        return result

    return advantages


def deviation(values, correction=1):
    if len(set(values)) < 2:
        return 0.0
    return math.sqrt(math.fsum((v - mean(values)) ** 2 for v in values) / (len(values) - correction))


def over_the_mean(estimator, rewards):
    return [c / mean(rewards) if mean(rewards) > 0 else 0.0 for c in centered(estimator, rewards)]


def lead_of_the_best(estimator, rewards):
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    first, second = sorted(rewards, reverse=True)[:2]
    scale = deviation(rewards, estimator.correction) + estimator.eps
    return [(first - second) / scale if r == first else 0.0 for r in rewards]


def less_the_baseline(estimator, rollouts):
    """The centered reward, or the reward less the mean of all valid rows."""
    if estimator.baseline == "group":
        return per_group(centered)(estimator, rollouts)
    average, flags = mean(valid_rewards(rollouts) or [0.0]), valid_rows(rollouts)
    return [float(r) - average if flag else 0.0 for r, flag in zip(rollouts.rewards, flags, strict=True)]


def valid_rewards(rollouts):
    flags = valid_rows(rollouts)
    return [float(r) for r, flag in zip(rollouts.rewards, flags, strict=True) if flag]


def weighted_by_length(estimator, rollouts):
    lengths = [len(tokens) for tokens in chosen(rollouts)]
    result = [0.0] * len(lengths)
    for rows in members(rollouts).values():
        rewards = {row: float(rollouts.rewards[row]) for row in rows}
        total = sum(lengths[row] for row in rows)
        if len(set(rewards.values())) < 2:
            continue
        baseline = math.fsum(lengths[row] * rewards[row] for row in rows) / total if total else 0.0
        for row in rows:
            result[row] = rewards[row] - baseline
    return result


def over_the_batch(estimator, rollouts):
    scale = deviation(valid_rewards(rollouts), estimator.correction) + estimator.eps
    return [a / scale for a in per_group(centered)(estimator, rollouts)]


def scaled_by_share(estimator, rollouts):
    if estimator.scale_by == "nonzero_rewards":
        rewards = valid_rewards(rollouts)
        alpha = len(rewards) / max(sum(r != 0 for r in rewards), 1)
    else:
        present = [rows for rows in members(rollouts).values() if rows]
        teaching = sum(len({float(rollouts.rewards[row]) for row in rows}) > 1 for rows in present)
        alpha = len(present) / max(teaching, 1)
    return [alpha * a / estimator.f for a in per_group(centered)(estimator, rollouts)]


def less_the_greedy(estimator, rollouts):
    rows = zip(rollouts.rewards, rollouts.baseline_rewards, valid_rows(rollouts), strict=True)
    return [float(reward) - float(greedy) if valid else 0.0 for reward, greedy, valid in rows]


def shares(estimator, rollouts):
    """GRPO-S: each response's reward shaped by its mean entropy among those of its sign."""
    places, result = chosen(rollouts), [0.0] * len(rollouts.rewards)
    for rows in members(rollouts).values():
        shaped = dict.fromkeys(rows, 0.0)
        for sign in (True, False):
            side = [row for row in rows if (float(rollouts.rewards[row]) > 0) == sign]
            h = {
                row: max(mean([float(rollouts.normalized_entropy[row, t]) for t in places[row]]), 1e-6)
                for row in side
                if places[row]
            }
            weights = {row: value if sign else 1 / value for row, value in h.items()}
            for row in side:
                base = estimator.beta_1 * (float(rollouts.rewards[row]) if sign else -1.0)
                share = len(h) * weights.get(row, 0.0) / math.fsum(weights.values() or [1.0])
                shaped[row] = base + (1 if sign else -1) * estimator.beta_2 * share
        # Shares that differ by rounding alone count as equal.
        lowest = min(shaped.values(), default=0.0)
        rewards = [lowest if abs(value - lowest) < 1e-12 else value for value in shaped.values()]
        for row, value in zip(shaped, standardized(estimator, rewards), strict=True):
            result[row] = value
    return result


def of_base(estimator, rollouts):
    """GRPO's advantage, or what the base gives to the tokens of each response."""
    if estimator.base is None:
        return per_group(standardized)(estimator, rollouts)
    every = estimate(estimator.base, rollouts)[1]
    return [every[row, tokens[0]] if tokens else 0.0 for row, tokens in enumerate(chosen(rollouts))]


ADVANTAGES = {
    "grpo_s": shares,
    "mt_grpo": per_group(standardized),
    "entropy_shaped": of_base,
    "gpg": scaled_by_share,
    "lite_ppo": over_the_batch,
    "max_rl": per_group(over_the_mean),
    "opo": weighted_by_length,
    "rlsd": of_base,
    "pass_at_k": per_group(lead_of_the_best),
    "remax": less_the_greedy,
    "top_entropy": of_base,
    "dapo": per_group(standardized),
    "delightful": of_base,
    "dgpo": of_base,
    "dr_grpo": less_the_baseline,
    "grpo": per_group(standardized),
    "hicra": of_base,
    "rloo": per_group(less_the_others),
}

# --- its spread over the tokens --------------------------------------------------------------------------


def uniform(estimator, rollouts, row, tokens):
    return [1.0] * len(tokens)


def gate(estimator, rollouts, row, t):
    if estimator.kappa == 0:
        return 1.0
    return float(rollouts.normalized_entropy[row, t]) ** estimator.kappa


def gated_deviation(estimator, rollouts, row, tokens):
    deviation = [float(rollouts.deviation[row, t]) for t in tokens]
    entropy = [1.0 if estimator.kappa == 0 else float(rollouts.normalized_entropy[row, t]) for t in tokens]
    return spread_by_deviation(estimator, deviation, entropy)


def most_uncertain(estimator, rollouts, row, tokens):
    if not tokens:
        return []
    every = sorted(
        float(rollouts.normalized_entropy[i, t]) for i, ts in enumerate(chosen(rollouts)) for t in ts
    )
    place = (len(every) - 1) * (1 - estimator.fraction)
    low, high = every[int(place)], every[min(int(place) + 1, len(every) - 1)]
    # An entropy equal to the quantile is kept, also where float64 interpolates a hair above it.
    least = low + (high - low) * (place - int(place)) - 1e-9
    return [float(rollouts.normalized_entropy[row, t] >= least) for t in tokens]


def weighed_by_teacher(estimator, rollouts, row, tokens):
    """RLSD: the clipped ratio of the teacher's and the policy's probability, inverted where A < 0."""
    advantage, weights = of_base(estimator, rollouts)[row], []
    for t in tokens:
        x = teacher_log_ratios(estimator, rollouts)[row, t]
        ratio = math.exp(min(x if advantage > 0 else -x, 700.0)) if advantage else 1.0
        evidence = min(max(ratio, 1 - estimator.clip), 1 + estimator.clip)
        weights.append((1 - estimator.mixing) + estimator.mixing * evidence)
    return weights


def gated_by_delight(estimator, rollouts, row, tokens):
    """Delightful policy gradient: sigmoid(A surprisal / eta)."""
    advantage = of_base(estimator, rollouts)[row]
    delights = [-advantage * float(rollouts.log_probs[row, t]) / estimator.eta for t in tokens]
    return [1.0 / (1.0 + math.exp(-delight)) for delight in delights]


def raised_where_planned(estimator, rollouts, row, tokens):
    """HICRA: 1 + alpha on the planning tokens of a success, 1 - alpha on those of a failure."""
    advantage = of_base(estimator, rollouts)[row]
    step = estimator.alpha * ((advantage > 0) - (advantage < 0))
    return [1.0 + step * bool(rollouts.extra["planning"][row, t]) for t in tokens]


WEIGHTS = {
    "delightful": gated_by_delight,
    "dgpo": gated_deviation,
    "hicra": raised_where_planned,
    "rlsd": weighed_by_teacher,
    "top_entropy": most_uncertain,
}

# --- credit that is no product ---------------------------------------------------------------------------


def whitened(values, estimator):
    """{place: x} to (x - mean) / sqrt(var + 1e-8), or to x - mean."""
    every = list(values.values())
    scale = math.sqrt(deviation(every, estimator.whiten_correction) ** 2 + 1e-8)
    scale = scale if estimator.divide_by_std else 1.0
    return {place: (x - mean(every)) / scale for place, x in values.items()}


def discounted_returns(estimator, rollouts):
    return whitened(running_returns(estimator, rollouts), estimator)


def reward_of_token(estimator, rollouts, row, t, last):
    reward = 0.0
    if estimator.rewards_from in ("response", "both") and t == last:
        reward += float(rollouts.rewards[row])
    if estimator.rewards_from in ("tokens", "both"):
        reward += float(rollouts.token_rewards[row, t])
    if getattr(estimator, "kl_coefficient", 0.0):
        penalty = float(rollouts.log_probs[row, t]) - float(rollouts.reference_log_probs[row, t])
        reward -= estimator.kl_coefficient * penalty
    return reward


def running_returns(estimator, rollouts):
    returns = {}
    for row, tokens in enumerate(chosen(rollouts)):
        running = 0.0
        for t in reversed(tokens):
            reward = reward_of_token(estimator, rollouts, row, t, tokens[-1])
            running = reward + estimator.gamma * running
            returns[row, t] = running
    return returns


def sums_of_errors(estimator, rollouts):
    """GAE before whitening: the errors of the critic from a token on, as the sum that defines it."""
    result = {}
    for row, tokens in enumerate(chosen(rollouts)):
        values = [float(rollouts.extra["values"][row, t]) for t in tokens] + [0.0]
        errors = [
            reward_of_token(estimator, rollouts, row, t, tokens[-1])
            + estimator.gamma * values[k + 1]
            - values[k]
            for k, t in enumerate(tokens)
        ]
        discount = estimator.gamma * estimator.lam
        for k, t in enumerate(tokens):
            result[row, t] = math.fsum(discount**j * error for j, error in enumerate(errors[k:]))
    return result


def whitened_errors(estimator, rollouts):
    return whitened(sums_of_errors(estimator, rollouts), estimator)


def less_the_optimal_baseline(estimator, rollouts):
    """OTB: the return less the group's, weighted by 1 - 2 p + sum p^2 of the tokens so far."""
    returns, energy, places = {}, {}, {}
    for row, tokens in enumerate(chosen(rollouts)):
        rewards = [reward_of_token(estimator, rollouts, row, t, tokens[-1]) for t in tokens]
        gathered = 0.0
        for k, t in enumerate(tokens):
            p = math.exp(float(rollouts.log_probs[row, t]))
            # By the definition sum p^2 is at least the token's own p^2; random numbers need not know that.
            gathered += 1 - 2 * p + max(float(rollouts.extra["sum_squares"][row, t]), p * p)
            place = k if estimator.name == "tir_otb" else t
            returns[row, place] = math.fsum(rewards[k:])
            energy[row, place] = gathered
            places[row, place] = (row, t)
    result = {}
    for rows in members(rollouts).values():
        for row, place in [each for each in returns if each[0] in rows]:
            peers = [(other, place) for other in rows if (other, place) in returns]
            weights = [energy[peer] for peer in peers]
            weights = weights if sum(weights) else [1.0] * len(peers)
            weighed = math.fsum(w * returns[peer] for w, peer in zip(weights, peers, strict=True))
            baseline = weighed / math.fsum(weights)
            if len(peers) == 1:
                baseline = 0.0 if estimator.zero_tail else returns[row, place]
            result[places[row, place]] = returns[row, place] - baseline if len(rows) > 1 else 0.0
    return result


def whitened_centered(estimator, rollouts):
    alone = per_group(centered)(estimator, rollouts)
    every = {(row, t): alone[row] for row, tokens in enumerate(chosen(rollouts)) for t in tokens}
    return whitened(every, estimator)


def decoupled_sums(estimator, rollouts):
    """The weighted sum of the rewards of each function, standardized among those that it gave the group."""
    functions = rewards_of_functions(rollouts)
    total = [0.0] * len(rollouts.rewards)
    for weight, given in zip(estimator.reward_weights or [1.0] * len(functions), functions, strict=True):
        for rows in members(rollouts).values():
            scored = [row for row in rows if row in given]
            values = standardized(estimator, [given[row] for row in scored])
            for row, value in zip(scored, values, strict=True):
                total[row] += weight * value
    return total


def decoupled_rewards(estimator, rollouts):
    alone = decoupled_sums(estimator, rollouts)
    values = [a for a, flag in zip(alone, valid_rows(rollouts), strict=True) if flag]
    scale = deviation(values, estimator.correction) + estimator.eps
    one = len(set(values)) < 2
    return {
        (row, t): 0.0 if one else (alone[row] - mean(values)) / scale
        for row, tokens in enumerate(chosen(rollouts))
        for t in tokens
    }


def entropy_bonus(estimator, rollouts):
    result = {}
    for row, advantage in enumerate(of_base(estimator, rollouts)):
        for t in chosen(rollouts)[row]:
            nats = float(rollouts.normalized_entropy[row, t]) * math.log(estimator.vocab_size)
            result[row, t] = advantage + min(estimator.alpha * nats, abs(advantage) / estimator.kappa)
    return result


def rewards_of_turns(estimator, rollouts):
    """{(row, turn): its reward, or its return}, and the turn of every token."""
    turns = {
        (row, t): int(rollouts.turns[row, t]) for row, tokens in enumerate(chosen(rollouts)) for t in tokens
    }
    rewards = {}
    for (row, t), turn in turns.items():
        rewards[row, turn] = rewards.get((row, turn), 0.0) + float(rollouts.token_rewards[row, t])
    later = 0.0
    for row, turn in sorted(rewards, reverse=True):
        is_last = not any(other == row and more > turn for other, more in rewards)
        later = rewards[row, turn] + (0.0 if is_last else estimator.gamma * later)
        rewards[row, turn] = later
    return rewards, turns


def outcome_and_turns(estimator, rollouts):
    """MT-GRPO: each turn's reward standardized among the group's responses that have such a turn."""
    rewards, turns = rewards_of_turns(estimator, rollouts)
    outcome, of_turns = per_group(standardized)(estimator, rollouts), {}
    for rows in members(rollouts).values():
        for turn in {turn for row, turn in rewards if row in rows}:
            peers = [row for row in rows if (row, turn) in rewards]
            values = standardized(estimator, [rewards[row, turn] for row in peers])
            of_turns |= {(row, turn): value for row, value in zip(peers, values, strict=True)}
    return {
        (row, t): outcome[row] + estimator.turn_weight * of_turns[row, turn]
        for (row, t), turn in turns.items()
    }


def list_steps(estimator, rollouts):
    """{(row, turn): (its tokens, its reward)} in the order of the tokens."""
    steps = {}
    for row, tokens in enumerate(chosen(rollouts)):
        for t in tokens:
            places, reward = steps.get((row, int(rollouts.turns[row, t])), ([], 0.0))
            reward += reward_of_token(estimator, rollouts, row, t, tokens[-1])
            steps[row, int(rollouts.turns[row, t])] = ([*places, t], reward)
    return steps


def rewards_of_later_steps(estimator, rollouts):
    """GRPO's process supervision: rewards of steps standardized in the group and summed to the end."""
    steps, result = list_steps(estimator, rollouts), {}
    for rows in members(rollouts).values():
        own = [step for step in steps if step[0] in rows]
        values = dict(zip(own, standardized(estimator, [steps[s][1] for s in own]), strict=True))
        for row, turn in own:
            later = math.fsum(v for (other, k), v in values.items() if other == row and k >= turn)
            for t in steps[row, turn][0]:
                result[row, t] = later if len({other for other, _ in own}) > 1 else 0.0
    return result


def episodes_and_states(estimator, rollouts):
    """GiGPO: responses compared as a whole, and their steps with those from the same state."""
    steps = list_steps(estimator, rollouts)
    compare = standardized if estimator.divide_by_std else centered
    returns, states, result = {}, {}, {}
    for row, turn in sorted(steps, reverse=True):
        after = [k for other, k in steps if other == row and k > turn]
        later = estimator.gamma * returns[row, min(after)] if after else 0.0
        returns[row, turn] = steps[row, turn][1] + later
        states[row, turn] = int(rollouts.extra["states"][row, steps[row, turn][0][-1]])
    for rows in members(rollouts).values():
        whole = compare(estimator, [whole_reward(estimator, rollouts, row) for row in rows])
        for row, advantage in zip(rows, whole, strict=True):
            for step in [each for each in steps if each[0] == row]:
                peers = [other for other in steps if other[0] in rows and states[other] == states[step]]
                own = compare(estimator, [returns[peer] for peer in peers])[peers.index(step)]
                for t in steps[step][0]:
                    both = advantage + estimator.step_weight * own
                    result[row, t] = both if len(rows) > 1 else 0.0
    return result


def whole_reward(estimator, rollouts, row):
    reward = float(rollouts.rewards[row]) if estimator.rewards_from != "tokens" else 0.0
    if estimator.rewards_from != "response":
        reward += math.fsum(float(rollouts.token_rewards[row, t]) for t in chosen(rollouts)[row])
    return reward


def entropy_shares(estimator, rollouts):
    """GTPO: rewards shaped among the responses of one sign at one position, then standardized."""
    places, shaped = chosen(rollouts), {}
    positive = [float(reward) > 0 for reward in rollouts.rewards]
    for rows in members(rollouts).values():
        for sign in (True, False):
            side = [row for row in rows if positive[row] == sign]
            for k in range(max((len(places[row]) for row in side), default=0)):
                alive = [row for row in side if len(places[row]) > k]
                h = [
                    max(float(rollouts.normalized_entropy[row, places[row][k]]), estimator.eps)
                    for row in alive
                ]
                shares = h if sign else [1 / value for value in h]
                for row, share in zip(alive, shares, strict=True):
                    part = len(alive) * share / math.fsum(shares)
                    own = float(rollouts.rewards[row]) if sign else -1.0
                    bonus = estimator.alpha_2 * part if sign else -estimator.alpha_2 * part
                    shaped[row, places[row][k]] = estimator.alpha_1 * own + bonus
    return {place: standard(shaped, place, rollouts, positive, estimator.eps) for place in shaped}


def standard(shaped, place, rollouts, positive, eps):
    def side(row):
        return int(rollouts.groups[row]), positive[row]

    peers = [value for (row, _), value in shaped.items() if side(row) == side(place[0])]
    spread = deviation(peers, correction=0) if max(peers) - min(peers) > 1e-12 else 0.0
    return (shaped[place] - mean(peers)) / (spread + eps) if spread else 0.0


def sum_of_parts(estimator, rollouts):
    parts = [(c, estimate(part, rollouts)[1]) for c, part in estimator.parts]
    return {
        (row, t): sum(c * part[row, t] for c, part in parts)
        for row, tokens in enumerate(chosen(rollouts))
        for t in tokens
    }


def average_weights(estimator, rollouts):
    scale = sum(abs(c) for c, _ in estimator.parts)
    return sum(abs(c) / scale * estimate(part, rollouts)[2] for c, part in estimator.parts)


def teacher_log_ratios(estimator, rollouts):
    """{(row, t): log q - log p}, where no log-prob is below -1e12."""
    given = rollouts.reference_log_probs
    if estimator.teacher == "extra":
        given = rollouts.extra["teacher_log_probs"]
    return {
        (row, t): max(float(given[row, t]), -1e12) - max(float(rollouts.log_probs[row, t]), -1e12)
        for row, tokens in enumerate(chosen(rollouts))
        for t in tokens
    }


def distilled_on_policy(estimator, rollouts):
    """OPD: the outcome's advantage and the discounted sum of the teacher's log-ratios."""
    outcome = per_group(standardized)(estimator, rollouts)
    ratios, result = teacher_log_ratios(estimator, rollouts), {}
    most = math.inf if estimator.largest_log_ratio is None else estimator.largest_log_ratio
    for row, tokens in enumerate(chosen(rollouts)):
        running = 0.0
        for t in reversed(tokens):
            running = min(max(ratios[row, t], -most), most) + estimator.gamma * running
            result[row, t] = estimator.outcome_weight * outcome[row] + estimator.teacher_weight * running
    return result


CREDIT = {
    "opd": distilled_on_policy,
    "entropy_shaped": entropy_bonus,
    "gae": whitened_errors,
    "gdpo": decoupled_rewards,
    "gigpo": episodes_and_states,
    "gtpo": entropy_shares,
    "mix": sum_of_parts,
    "mt_grpo": outcome_and_turns,
    "otb": less_the_optimal_baseline,
    "process_grpo": rewards_of_later_steps,
    "reinforce_plus_plus": discounted_returns,
    "reinforce_plus_plus_baseline": whitened_centered,
    "tir_otb": less_the_optimal_baseline,
}

# --- metrics ---------------------------------------------------------------------------------------------


def common_metrics(rollouts, weights, credit):
    with_rows = [rows for rows in members(rollouts).values() if rows]
    functions = rewards_of_functions(rollouts)
    sums = [[math.fsum(given.get(row, 0.0) for given in functions) for row in rows] for rows in with_rows]
    dead = [len(set(each)) == 1 for each in sums]
    spread = [[weights[row][t] for t in tokens] for row, tokens in enumerate(chosen(rollouts)) if tokens]
    flat = [w for response in spread for w in response]
    used = [sum(ws) ** 2 / (len(ws) * sum(w * w for w in ws)) for ws in spread if any(ws)]
    return {
        "zero_variance_groups": mean([float(flag) for flag in dead]),
        "invalid_rows": float(valid_rows(rollouts).count(False)),
        "weight_min": min(flat, default=0.0),
        "weight_max": max(flat, default=0.0),
        "weight_std": math.sqrt(mean([(w - mean(flat)) ** 2 for w in flat])),
        "effective_token_fraction": mean(used),
    } | advantage_metrics([credit[row][t] for row, tokens in enumerate(chosen(rollouts)) for t in tokens])


def drift_metrics(advantages, rollouts):
    """Mean over root mean square of A_i sum_t (log p - log q), each term within 20 nats."""
    products = []
    for row, tokens in enumerate(chosen(rollouts)):
        moved = [
            float(rollouts.log_probs[row, t]) - float(rollouts.reference_log_probs[row, t]) for t in tokens
        ]
        if tokens:
            products.append(advantages[row] * math.fsum(max(-20.0, min(20.0, each)) for each in moved))
    size = math.sqrt(mean([x * x for x in products]))
    return {"drift_alignment": mean(products) / size if size else 0.0}


def advantage_metrics(values):
    return {
        "advantage_mean": mean(values),
        "advantage_min": min(values, default=0.0),
        "advantage_max": max(values, default=0.0),
        "advantage_std": math.sqrt(mean([(a - mean(values)) ** 2 for a in values])),
        "advantage_positive_fraction": mean([float(a > 0) for a in values]),
    }


def deviation_metrics(estimator, rollouts):
    places = [(row, t) for row, tokens in enumerate(chosen(rollouts)) for t in tokens]
    deviations = [float(rollouts.deviation[place]) for place in places]
    gates = [gate(estimator, rollouts, *place) for place in places]
    return {
        "deviation_mean": mean(deviations),
        "deviation_max": max(deviations, default=0.0),
        "gate_mean": mean(gates),
        "gate_max": max(gates, default=0.0),
    }


def turns_that_some_lack(_, rollouts):
    """The share of tokens in a turn that not every response with tokens of its group has."""
    turns = [{int(rollouts.turns[row, t]) for t in places} for row, places in enumerate(chosen(rollouts))]
    lacked = [
        float(any(int(rollouts.turns[row, t]) not in turns[peer] for peer in rows if turns[peer]))
        for rows in members(rollouts).values()
        for row in rows
        for t in chosen(rollouts)[row]
    ]
    return {"unshared_turn_mean": mean(lacked), "unshared_turn_max": max(lacked, default=0.0)}


def teacher_metrics(estimator, rollouts):
    ratios = list(teacher_log_ratios(estimator, rollouts).values())
    return {"teacher_log_ratio_mean": mean(ratios), "teacher_log_ratio_max": max(ratios, default=0.0)}


def metrics_of_parts(estimator, rollouts):
    return {
        f"{part.name}_{name}": value
        for _, part in estimator.parts
        for name, value in METRICS.get(part.name, lambda *_: {})(part, rollouts).items()
    }


METRICS = {
    "dgpo": deviation_metrics,
    "mix": metrics_of_parts,
    "mt_grpo": turns_that_some_lack,
    "opd": teacher_metrics,
    "rlsd": teacher_metrics,
}

# --- all of an estimator ---------------------------------------------------------------------------------


def estimate(estimator, rollouts):
    """(advantages [N], credit [N, T], weights [N, T], metrics) of a registered estimator."""
    missing = list_missing_tables(estimator)
    if missing:  # tests/test_new_estimator.py fails
        pytest.skip(f"{estimator.name} is not in {', '.join(missing)} of tests/support/oracle.py")
    alone = ADVANTAGES.get(estimator.name, lambda *_: [0.0] * len(rollouts.rewards))
    advantages = np.asarray(alone(estimator, rollouts))
    weights = spread_weights(estimator, rollouts)
    credit = advantages[:, None] * weights
    if estimator.name in CREDIT:
        credit = np.zeros(rollouts.mask.shape)
        for place, value in CREDIT[estimator.name](estimator, rollouts).items():
            credit[place] = value
        advantages = np.abs(credit).max(axis=1)
    own = METRICS[estimator.name](estimator, rollouts) if estimator.name in METRICS else {}
    if estimator.is_product and rollouts.log_probs is not None:
        own |= drift_metrics(alone(estimator, rollouts), rollouts)
    return advantages, credit, weights, common_metrics(rollouts, weights, credit) | own


def spread_weights(estimator, rollouts):
    if estimator.name == "mix":
        return average_weights(estimator, rollouts)
    weights = np.zeros(rollouts.mask.shape)
    for row, tokens in enumerate(chosen(rollouts)):
        spread = WEIGHTS.get(estimator.name, uniform)
        for t, weight in zip(tokens, spread(estimator, rollouts, row, tokens), strict=True):
            weights[row, t] = weight
    return weights


def list_missing_tables(estimator):
    """The tables here that an estimator should be in, by what its class overrides, and is not."""
    tables = {"assign": CREDIT, "weights": WEIGHTS, "observed": METRICS, "keep": KEEP}
    names = {"assign": "CREDIT", "weights": "WEIGHTS", "observed": "METRICS", "keep": "KEEP"}
    own = [method for method in tables if getattr(type(estimator), method) is not getattr(Estimator, method)]
    missing = [names[method] for method in own if estimator.name not in tables[method]]
    if "assign" not in own and estimator.name not in ADVANTAGES:
        missing.insert(0, "ADVANTAGES")
    return missing


def keep(estimator, rollouts):
    return KEEP.get(estimator.name, keep_all)(estimator, rollouts)


def keep_all(estimator, rollouts):
    return [True] * len(rollouts.rewards)


def keep_what_all_parts_keep(estimator, rollouts):
    kept = [keep(part, rollouts) for _, part in estimator.parts]
    return [all(flags) for flags in zip(*kept, strict=True)]


def sample_dynamically(estimator, rollouts):
    """DAPO keeps the groups in which the reward that decides varies, by default any of them."""
    alive, chosen = {}, estimator.filter_by
    for label, rows in members(rollouts).items():
        functions = rewards_of_functions(rollouts)
        columns = [[given[row] for row in rows if row in given] for given in functions]
        if chosen == "total":
            columns = [[math.fsum(given.get(row, 0.0) for given in functions) for row in rows]]
        elif chosen != "any":
            columns = columns[chosen : chosen + 1]
        alive[label] = any(len(set(column)) > 1 for column in columns)
    return [alive[label] for label in rollouts.groups.tolist()]


def keep_what_the_base_keeps(estimator, rollouts):
    return (keep_all if estimator.base is None else keep)(estimator.base, rollouts)


KEEP = {"dapo": sample_dynamically, "mix": keep_what_all_parts_keep}
OF_BASE = ("delightful", "dgpo", "entropy_shaped", "hicra", "rlsd", "top_entropy")
KEEP |= dict.fromkeys(OF_BASE, keep_what_the_base_keeps)


def overlong_penalty(length, max_length, cache_length):
    if length <= max_length - cache_length:
        return 0.0
    if length <= max_length:
        return ((max_length - cache_length) - length) / cache_length
    return -1.0
