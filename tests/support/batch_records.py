"""Records of a batch with all that can be missing, and what numpy makes of them, for the view of the batch."""

from collections import defaultdict

import numpy as np

import credit
from credit import lens

N, T = 8, 40
STEPS = (10, 20, 40)
ESTIMATORS = (credit.DGPO(tau=0.05), credit.GRPO())
HOSTILE = ["<img src=x onerror='window.pwned = 1'>", "</script>", "$&", "\u202e", " ", "", "\n", "[a-z]*"]
TEXTS = [*HOSTILE, *(f" w{i}" for i in range(30))]
QUANTILES = (0.005, 0.05, 0.5, 0.95, 0.995)
COLUMNS = ("deviation", "normalized_entropy", "weights", "advantages")


def record_batch(path, seed, estimator, step):
    """Records a batch with masks, and with numbers that are missing in every column."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(T) < rng.integers(5, T + 1, (N, 1))) & (rng.random((N, T)) < 0.8)
    mask[:7, :5] = True
    mask[7] = False
    fields = {
        "log_probs": -rng.exponential(size=(N, T)),
        "reference_log_probs": -rng.exponential(size=(N, T)),
        "normalized_entropy": rng.random((N, T)) ** 4 * (rng.random((N, T)) < 0.9),
        "deviation": rng.random((N, T)) ** 8 * (rng.random((N, T)) < 0.8),
    }
    turns = np.cumsum(rng.random((N, T)) < 0.05, axis=1)
    rewards = rng.random(N)
    rewards[3] = np.nan
    given = credit.Rollouts(rewards, np.arange(N) // 4, mask, **fields, turns=turns)
    result = estimator(given)
    weights, advantages = result.weights.copy(), result.advantages.copy()
    advantages[6, 1] = np.nan
    if step == STEPS[1]:
        weights[5, 2] = np.nan
    for row, name in zip((0, 1, 2, 4), fields, strict=True):
        fields[name][row, 4] = np.nan
        fields[name][~mask] = 7.0  # what stands outside the mask counts nowhere
    result = result._replace(weights=np.where(mask, weights, 7.0), advantages=np.where(mask, advantages, 7.0))
    texts = [[TEXTS[i] for i in row] for row in rng.integers(0, len(TEXTS), (N, T))]
    given = given._replace(**fields)
    lens.record(path, tokens=texts, rollouts=given, result=result, estimator=estimator, step=step)


def record_batches(path):
    """Records several steps of each estimator."""
    for kind, estimator in enumerate(ESTIMATORS):
        for step in STEPS:
            record_batch(path, 10 * step + kind, estimator, step)
    return path


class Response:
    """A completion's tokens that the policy chose, in float64 of the float32 that the page holds."""

    def __init__(self, line):
        self.line = line
        self.chosen = np.array(line.mask, bool)
        for name in (*COLUMNS, "log_probs", "reference_log_probs"):
            values = np.array(getattr(line, name), float).astype("f4").astype(float)
            setattr(self, name, values[self.chosen])
        self.texts = [text for text, chosen in zip(line.tokens, line.mask, strict=True) if chosen]


def with_tokens(samples):
    """The valid responses that have tokens of the policy."""
    rows = [Response(line) for line in lens.read(samples) if line.valid]
    return [row for row in rows if row.chosen.any()]


def counted(samples, estimator=None):
    """The responses of an estimator, or of all, that count: those of known weights."""
    rows = [row for row in with_tokens(samples) if not np.isnan(row.weights).any()]
    return [row for row in rows if estimator is None or row.line.estimator["name"] == estimator.name]


def gather(rows, name):
    """The known values of a column over all tokens of the rows."""
    values = np.concatenate([getattr(row, name) for row in rows])
    return values[~np.isnan(values)]


def sum_by_text(rows):
    """Count, credit and the other numbers of each text."""
    tables = defaultdict(lambda: {"count": 0, "credit": 0.0} | {name: [] for name in COLUMNS})
    for row in rows:
        for t, text in enumerate(row.texts):
            tables[text]["count"] += 1
            tables[text]["credit"] += row.weights[t]
            for name in COLUMNS:
                tables[text][name].append(getattr(row, name)[t])
    return tables
