"""Estimators of rewards on tokens and turns, token by token, in float64."""

import numpy as np


def list_turns(mask):
    """The columns of each turn of each row of a mask [N, T], in lists."""
    found = []
    for row in np.asarray(mask).tolist():
        runs, last = [], None
        for column, there in enumerate(row):
            if there and last != column - 1:
                runs.append([])
            if there:
                runs[-1].append(column)
                last = column
        found.append(runs)
    return found


def standardize(values):
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 1.0
    return (values - values.mean()) / (spread + 1e-6)


def mt_grpo(rewards, mask, groups):
    """Of rewards of tokens [N, T], whose sum is the outcome's, too."""
    result, of_rows = np.zeros(mask.shape), list_turns(mask)
    for group in set(groups):
        rows = np.flatnonzero(groups == group)
        for row, outcome in zip(rows, standardize(rewards[rows].sum(axis=1)), strict=True):
            result[row] += outcome * np.asarray(mask[row])
        for k in range(max(len(of_rows[row]) for row in rows)):
            having = [row for row in rows if len(of_rows[row]) > k]
            own = standardize([rewards[row, of_rows[row][k]].sum() for row in having])
            for row, value in zip(having, own, strict=True):
                result[row, of_rows[row][k]] += value
    return result


def process_grpo(rewards, mask, groups):
    result, of_rows = np.zeros(mask.shape), list_turns(mask)
    for group in set(groups):
        steps = [(row, k) for row in np.flatnonzero(groups == group) for k in range(len(of_rows[row]))]
        own = standardize([rewards[row, of_rows[row][k]].sum() for row, k in steps])
        for (row, k), value in zip(steps, own, strict=True):
            for before in range(k + 1):
                result[row, of_rows[row][before]] += value
    return result


def return_to_go(rewards, mask, gamma):
    result = np.zeros(mask.shape)
    for row, columns in enumerate(np.flatnonzero(each) for each in np.asarray(mask)):
        total = 0.0
        for column in columns[::-1]:
            total = rewards[row, column] + gamma * total
            result[row, column] = total
    return result


def whiten(values, mask):
    chosen = values[np.asarray(mask, bool)]
    return np.where(mask, (values - chosen.mean()) / np.sqrt(chosen.var(ddof=1) + 1e-8), 0.0)
