"""The policy loss once more, in float64: loops over tokens, from the papers."""

import math
from functools import partial

import numpy as np

from credit.selftest.advantages_oracle import mean


def policy_loss(settings, log_probs, old, advantages, mask, reference=None, rollout=None, normalizer=None):
    """(loss, metrics) of a PolicyLoss for numpy arrays [N, T]; advantages also [N]."""
    made = token_losses(settings, log_probs, old, advantages, mask, reference, rollout)
    loss = aggregate(settings, {place: value for place, (value, _, _) in made.items()}, normalizer)
    return loss, loss_metrics(settings, made, log_probs, old, reference, rollout)


def policy_gradient(settings, log_probs, old, advantages, mask, reference=None, rollout=None):
    """The gradient [N, T] in log_probs, from the slope of each token's loss."""
    made = token_losses(settings, log_probs, old, advantages, mask, reference, rollout)
    gradient = np.zeros(np.shape(log_probs))
    for place in made:
        alone = {other: slope if other == place else 0.0 for other, (_, slope, _) in made.items()}
        gradient[place] = aggregate(settings, alone, None)
    return gradient


def token_losses(settings, log_probs, old, advantages, mask, reference, rollout):
    """By place, the token's loss, its slope in the token's log-prob, and the flags that apply."""
    places = [tuple(place) for place in np.argwhere(mask).tolist()]
    by_token = np.ndim(advantages) == 2
    new, before = ({place: float(array[place]) for place in places} for array in (log_probs, old))
    credit = {place: float(advantages[place] if by_token else advantages[place[0]]) for place in places}
    made = OBJECTIVES[settings.objective](settings, new, before, credit)
    if rollout is not None and settings.rollout_cap is not None:
        gaps = {place: before[place] - float(rollout[place]) for place in places}
        weights = {place: rollout_weight(settings, gaps, place) for place in places}
        made = {p: (v * weights[p], s * weights[p], flags) for p, (v, s, flags) in made.items()}
        if settings.rollout_rule == "mask":
            dropped = {place for place in places if weights[place] == 0}
            made = {
                p: (v, s, flags | {"masked"} if p in dropped else flags) for p, (v, s, flags) in made.items()
            }
    if settings.kl_coefficient:
        for place, (value, slope, flags) in made.items():
            x, factor = float(reference[place]) - new[place], settings.kl_coefficient
            penalty, decline = {"k1": (-x, -1.0), "k2": (x * x / 2, x), "k3": (k3(x), math.exp(x) - 1)}[
                settings.kl
            ]
            made[place] = value + factor * penalty, slope - factor * decline, flags
    return made


def k3(x):
    return math.exp(x) - x - 1


def rollout_weight(settings, gaps, place):
    sequence = settings.rollout_level == "sequence"
    ratio = math.exp(
        math.fsum(x for (row, _), x in gaps.items() if row == place[0]) if sequence else gaps[place]
    )
    floor, cap = settings.rollout_floor or 0.0, settings.rollout_cap
    if settings.rollout_rule == "mask":
        return ratio if floor <= ratio <= cap else 0.0
    return min(max(ratio, floor), cap)


# --- the objectives: by place, (loss, slope, flags) ------------------------------------------------------


def row_mean(values, row):
    return mean([value for (other, _), value in values.items() if other == row])


def ratios(settings, new, old):
    """The value of rho by place; its slope in the token's own log-prob is the same number."""
    logs = {place: new[place] - old[place] for place in new}
    if settings.ratio == "sequence":
        logs = {place: row_mean(logs, place[0]) for place in logs}
    return {place: math.exp(x) for place, x in logs.items()}


def clip(settings, new, old, credit):
    made = {}
    for place, ratio in ratios(settings, new, old).items():
        a = credit[place]
        clipped = -min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high) * a
        loss, slope, flags = -ratio * a, -ratio * a, set()
        if clipped > loss:
            loss, slope, flags = clipped, 0.0, {"low" if a < 0 else "high"}
        if settings.dual_clip is not None and a < 0 and loss > -settings.dual_clip * a:
            loss, slope, flags = -settings.dual_clip * a, 0.0, flags | {"dual"}
        made[place] = loss, slope, flags
    return made


def cispo(settings, new, old, credit):
    made = {}
    for place, ratio in ratios(settings, new, old).items():
        low, high = 1 - settings.clip_low, 1 + settings.clip_high
        flags = {"low"} if ratio < low else {"high"} if ratio > high else set()
        slope = -min(max(ratio, low), high) * credit[place]
        made[place] = slope * new[place], slope, flags
    return made


def sapo(settings, new, old, credit):
    made = {}
    for place, ratio in ratios(settings, new, old).items():
        a = credit[place]
        tau = settings.temperature_positive if a > 0 else settings.temperature_negative
        gate = 1 / (1 + math.exp(-tau * (ratio - 1)))
        made[place] = -4 / tau * gate * a, -4 * gate * (1 - gate) * ratio * a, set()
    return made


def vespo(settings, new, old, credit):
    made = {}
    for place, a in credit.items():
        product = math.prod(math.exp(new[p] - old[p]) for p in new if p[0] == place[0])
        k, rate = settings.kernel_positive if a > 0 else settings.kernel_negative
        slope = -math.exp(rate) * product**k * math.exp(-rate * product) * a
        made[place] = slope * new[place], slope, set()
    return made


def gmpo(settings, new, old, credit):
    held, flags = {}, {}
    for place, a in credit.items():
        sign, x = np.sign(a), new[place] - old[place]
        bounded = min(max(x, -settings.clip_low), settings.clip_high)
        held[place] = sign * min(sign * x, sign * bounded)
        flags[place] = {("low", "zero", "high")[int(sign) + 1]} if held[place] != x else set()
    made = {}
    for place, a in credit.items():
        loss = -math.exp(row_mean(held, place[0])) * a
        made[place] = loss, 0.0 if flags[place] else loss, flags[place]
    return made


def dppo(divergence, settings, new, old, credit):
    made = {}
    for place, a in credit.items():
        p, q = math.exp(new[place]), math.exp(old[place])
        flags = set()
        if a > 0 and p > q and divergence(p, q) > settings.clip_high:
            flags = {"high"}
        if a < 0 and p < q and divergence(p, q) > settings.clip_low:
            flags = {"low"}
        ratio = p / q
        if settings.ratio_cap is not None and ratio > settings.ratio_cap:
            ratio, flags = settings.ratio_cap, flags or {"cap"}
        loss = 0.0 if flags & {"low", "high"} else -ratio * a
        made[place] = loss, loss, flags
    return made


def total_variation(p, q):
    """Half the sum of the differences over the two outcomes, the token and not the token."""
    return (abs(p - q) + abs((1 - p) - (1 - q))) / 2


def binary_kl(p, q):
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


def covariances(new, credit):
    of_credit, of_new = mean(list(credit.values())), mean(list(new.values()))
    return {place: (credit[place] - of_credit) * (new[place] - of_new) for place in new}


def clip_cov(settings, new, old, credit):
    made = clip(settings, new, old, credit)
    scores, count = covariances(new, credit), max(int(settings.covariance_fraction * len(new)), 1)
    between = [p for p in made if settings.covariance_low < scores[p] < settings.covariance_high]
    candidates = np.array([place for place in between if not made[place][2]], int).reshape(-1, 2)
    for run in np.array_split(candidates, min(count, len(candidates)) or 1):
        for place in run[len(run) // 2 :][:1].tolist():
            made[tuple(place)] = 0.0, 0.0, {"covariance"}
    return made


def kl_cov(settings, new, old, credit):
    scores, count = covariances(new, credit), max(int(settings.covariance_fraction * len(new)), 1)
    chosen = sorted(scores, key=lambda place: -scores[place])[:count]
    made = {}
    for place, ratio in ratios(settings, new, old).items():
        loss, penalty, x = -ratio * credit[place], settings.covariance_penalty, new[place] - old[place]
        made[place] = loss, loss, set()
        if place in chosen:
            made[place] = loss + penalty * abs(x), loss + penalty * np.sign(x), {"penalized"}
    return made


OBJECTIVES = {
    "clip": clip,
    "cispo": cispo,
    "sapo": sapo,
    "vespo": vespo,
    "gmpo": gmpo,
    "dppo_tv": partial(dppo, total_variation),
    "dppo_kl": partial(dppo, binary_kl),
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
}


# --- the number, and the metrics -------------------------------------------------------------------------


def aggregate(settings, losses, normalizer):
    rows = {}
    for (row, _), loss in losses.items():
        rows.setdefault(row, []).append(loss)
    responses = list(rows.values())
    match settings.aggregation:
        case "token_mean":
            return math.fsum(map(math.fsum, responses)) / (normalizer or sum(map(len, responses)) or 1)
        case "sequence_mean":
            each = [mean(losses) for losses in responses]
        case "sequence_sum":
            each = [math.fsum(losses) for losses in responses]
        case "fixed_horizon":
            each = [math.fsum(losses) / settings.horizon for losses in responses]
    return math.fsum(each) / (normalizer or len(each) or 1)


CLIPS = {"clip_fraction_low": "low", "clip_fraction_high": "high"}
FLAGS = {
    "sapo": {},
    "vespo": {},
    "kl_cov": {"penalized_fraction": "penalized"},
    "clip_cov": CLIPS | {"clip_fraction_covariance": "covariance"},
}


def loss_metrics(settings, made, log_probs, old, reference, rollout):
    logs = {place: float(log_probs[place]) - float(old[place]) for place in made}
    values = logs
    if settings.objective == "gmpo":
        values = {place: gmpo_log_ratio(settings, made, logs, place) for place in made}
    elif settings.objective == "vespo":
        values = {place: math.fsum(x for (row, _), x in logs.items() if row == place[0]) for place in made}
    elif settings.ratio == "sequence":
        values = {place: row_mean(logs, place[0]) for place in made}
    result = summary("ratio", [math.exp(x) for x in values.values()])
    result["approx_kl"] = mean([k3(x) for x in logs.values()])
    flags = dict(FLAGS.get(settings.objective, CLIPS))
    flags |= {"clip_fraction_dual": "dual"} if settings.dual_clip is not None else {}
    flags |= {"clip_fraction_cap": "cap"} if settings.ratio_cap is not None else {}
    flags |= {"rollout_masked_fraction": "masked"} if settings.rollout_rule == "mask" else {}
    for name, flag in flags.items():
        result[name] = mean([float(flag in each) for _, _, each in made.values()])
    if settings.kl_coefficient:
        x = [float(reference[place]) - float(log_probs[place]) for place in made]
        penalties = {"k1": lambda x: -x, "k2": lambda x: x * x / 2, "k3": k3}
        result["kl"] = mean([penalties[settings.kl](each) for each in x])
    if rollout is not None:
        result |= summary("rollout_ratio", [math.exp(float(old[p]) - float(rollout[p])) for p in made])
    return result


def gmpo_log_ratio(settings, made, logs, place):
    bounds = {"high": settings.clip_high, "low": -settings.clip_low, "zero": 0.0}
    held = {other: bounds.get(next(iter(made[other][2]), ""), x) for other, x in logs.items()}
    return row_mean(held, place[0])


def summary(name, values):
    return {
        f"{name}_mean": mean(values),
        f"{name}_min": min(values, default=0.0),
        f"{name}_max": max(values, default=0.0),
    }
