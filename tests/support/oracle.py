"""Estimators, rewards and the loss once more, in float64: loops over rows and tokens, from the papers."""

import math

import numpy as np

# --- the batch -------------------------------------------------------------------------------------------


def valid_rows(rollouts):
    """Per row, whether it takes part."""
    if rollouts.valid is not None:
        return [bool(flag) for flag in rollouts.valid]
    return [bool(np.isfinite(reward).all()) for reward in rollouts.rewards]


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


def mean(values):
    return math.fsum(values) / len(values) if values else 0.0


# --- one advantage per response --------------------------------------------------------------------------


def standardised(estimator, rewards):
    if len(rewards) < 2 or len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    centre = mean(rewards)
    squares = math.fsum((r - centre) ** 2 for r in rewards)
    deviation = math.sqrt(squares / (len(rewards) - estimator.correction))
    return [(r - centre) / (deviation + estimator.eps) for r in rewards]


def centred(estimator, rewards):
    return [r - mean(rewards) if len(set(rewards)) > 1 else 0.0 for r in rewards]


def less_the_others(estimator, rewards):
    if len(rewards) < 2:
        return [0.0] * len(rewards)
    return [r - mean(rewards[:i] + rewards[i + 1 :]) for i, r in enumerate(rewards)]


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


ADVANTAGES = {
    "dapo": per_group(standardised),
    "dgpo": per_group(standardised),
    "dr_grpo": per_group(centred),
    "grpo": per_group(standardised),
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
    scores = [float(rollouts.deviation[row, t]) * gate(estimator, rollouts, row, t) for t in tokens]
    if any(math.isnan(s) for s in scores):
        return [math.nan] * len(tokens)
    peak = max(scores, default=0.0)
    exponentials = [math.exp((s - peak) / estimator.tau) for s in scores]
    total = math.fsum(exponentials)
    return [len(tokens) * e / total for e in exponentials]


WEIGHTS = {"dgpo": gated_deviation}

# --- metrics ---------------------------------------------------------------------------------------------


def common_metrics(rollouts, weights):
    with_rows = [rows for rows in members(rollouts).values() if rows]
    dead = [len({float(rollouts.rewards[row]) for row in rows}) == 1 for rows in with_rows]
    spread = [[weights[row][t] for t in tokens] for row, tokens in enumerate(chosen(rollouts)) if tokens]
    flat = [w for response in spread for w in response]
    used = [sum(ws) ** 2 / (len(ws) * sum(w * w for w in ws)) for ws in spread]
    return {
        "zero_variance_groups": mean([float(flag) for flag in dead]),
        "invalid_rows": float(valid_rows(rollouts).count(False)),
        "weight_min": min(flat, default=0.0),
        "weight_max": max(flat, default=0.0),
        "weight_std": math.sqrt(mean([(w - mean(flat)) ** 2 for w in flat])),
        "effective_token_fraction": mean(used),
    }


def deviation_metrics(estimator, rollouts):
    places = [(row, t) for row, tokens in enumerate(chosen(rollouts)) for t in tokens]
    deviations = [float(rollouts.deviation[place]) for place in places]
    return {
        "deviation_mean": mean(deviations),
        "deviation_max": max(deviations, default=0.0),
        "gate_mean": mean([gate(estimator, rollouts, *place) for place in places]),
    }


METRICS = {"dgpo": deviation_metrics}

# --- all of an estimator ---------------------------------------------------------------------------------


def estimate(estimator, rollouts):
    """(advantages [N], credit [N, T], weights [N, T], metrics) of a registered estimator."""
    assert estimator.name in ADVANTAGES, f"write {estimator.name}'s formula in tests/support/oracle.py"
    advantages = ADVANTAGES[estimator.name](estimator, rollouts)
    spread = WEIGHTS.get(estimator.name, uniform)
    weights = np.zeros(rollouts.mask.shape)
    for row, tokens in enumerate(chosen(rollouts)):
        for t, weight in zip(tokens, spread(estimator, rollouts, row, tokens), strict=True):
            weights[row, t] = weight
    own = METRICS[estimator.name](estimator, rollouts) if estimator.name in METRICS else {}
    credit = np.asarray(advantages)[:, None] * weights
    return np.asarray(advantages), credit, weights, common_metrics(rollouts, weights) | own


def keep(estimator, rollouts):
    """DAPO's dynamic sampling: groups in which some reward varies; every row for the others."""
    if estimator.name != "dapo":
        return [True] * len(rollouts.rewards)
    alive = {}
    for label, rows in members(rollouts).items():
        given = [np.atleast_1d(rollouts.rewards[row]).tolist() for row in rows]
        alive[label] = any(len(set(column)) > 1 for column in zip(*given, strict=True))
    return [alive[label] for label in rollouts.groups.tolist()]


def overlong_penalty(length, max_length, cache_length):
    if length <= max_length - cache_length:
        return 0.0
    if length <= max_length:
        return ((max_length - cache_length) - length) / cache_length
    return -1.0


# --- the loss --------------------------------------------------------------------------------------------


def token_loss(settings, new, old, advantage, reference):
    """One token's loss, and which of the clips decided it."""
    ratio = math.exp(new - old)
    plain = -ratio * advantage
    clipped = -min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high) * advantage
    loss, clips = max(plain, clipped), set()
    if clipped > plain:
        clips.add("low" if advantage < 0 else "high")
    if settings.dual_clip is not None and advantage < 0 and loss > -settings.dual_clip * advantage:
        loss = -settings.dual_clip * advantage
        clips.add("dual")
    if settings.kl_coefficient:
        loss += settings.kl_coefficient * k3(new, reference)
    return loss, clips


def k3(new, reference):
    return math.exp(reference - new) - (reference - new) - 1


def policy_loss(settings, log_probs, old, advantages, mask, reference=None, rollout=None, normalizer=None):
    """(loss, metrics) of a PolicyLoss for numpy arrays [N, T]; advantages also [N]."""
    places = [tuple(place) for place in np.argwhere(mask).tolist()]
    losses, clips, rows = {}, {}, sorted({row for row, _ in places})
    for place in places:
        advantage = advantages[place] if np.ndim(advantages) == 2 else advantages[place[0]]
        against = None if reference is None else float(reference[place])
        given = float(log_probs[place]), float(old[place]), float(advantage), against
        losses[place], clips[place] = token_loss(settings, *given)
    responses = [[losses[place] for place in places if place[0] == row] for row in rows]
    loss = aggregate(settings, responses, mask.shape[1], normalizer)
    return loss, loss_metrics(settings, places, clips, log_probs, old, reference, rollout)


def aggregate(settings, responses, width, normalizer):
    match settings.aggregation:
        case "token_mean":
            return math.fsum(map(math.fsum, responses)) / (normalizer or sum(map(len, responses)) or 1)
        case "sequence_mean":
            each = [mean(losses) for losses in responses]
        case "sequence_sum":
            each = [math.fsum(losses) for losses in responses]
        case "fixed_horizon":
            each = [math.fsum(losses) / (settings.horizon or width) for losses in responses]
    return math.fsum(each) / (normalizer or len(each) or 1)


def loss_metrics(settings, places, clips, log_probs, old, reference, rollout):
    logs = [float(log_probs[place]) - float(old[place]) for place in places]
    result = summary("ratio", [math.exp(x) for x in logs])
    result["approx_kl"] = mean([math.exp(x) - 1 - x for x in logs])
    for name in ["low", "high"] + ["dual"] * (settings.dual_clip is not None):
        result[f"clip_fraction_{name}"] = mean([float(name in clips[place]) for place in places])
    if settings.kl_coefficient:
        result["kl"] = mean([k3(float(log_probs[place]), float(reference[place])) for place in places])
    if rollout is not None:
        ratios = [math.exp(float(old[place]) - float(rollout[place])) for place in places]
        result |= summary("rollout_ratio", ratios)
    return result


def summary(name, values):
    return {
        f"{name}_mean": mean(values),
        f"{name}_min": min(values, default=0.0),
        f"{name}_max": max(values, default=0.0),
    }
