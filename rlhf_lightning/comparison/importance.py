"""How much of a metric each setting explains over the runs of a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlhf_lightning.report.runs import Run, differing_settings, setting

FEWEST_RUNS = 6
"""With fewer runs nothing is said."""


class Importance(NamedTuple):
    """A setting's part in what a metric did over the runs.

    Attributes:
        setting: its name.
        share: of the metric's variance that lies between the setting's values, 0 to 1, less chance's part.
        trend: the rank correlation of value and metric, -1 to 1; None where the values are no numbers.
        runs: that have the setting and the metric.
        values: how many values it takes.
    """

    setting: str
    share: float
    trend: float | None
    runs: int
    values: int


def importances(runs: Sequence[Run], metric: str) -> list[Importance]:
    """Settings by their share of a metric's variance, the largest first; the seed is one of them.

    The share is epsilon squared (Kelley 1935): eta squared, the sum of squares between a setting's values over the
    whole, corrected for chance by ``1 - (1 - eta^2) (n - 1) / (n - k)``, and 0 where that is below. Each setting by
    itself: of settings that vary together each gets the credit of both. Left out are settings with a value of its own
    for each run, and all of them where fewer than `FEWEST_RUNS` runs have the metric or it is the same in all.

    Args:
        runs: finished ones of one task.
        metric: of their final policies.
    """
    known = [(run, value) for run in runs if (value := run.value(metric)) is not None and math.isfinite(value)]
    values = np.array([value for _, value in known])
    if len(known) < FEWEST_RUNS or np.ptp(values) == 0:
        return []
    found = []
    for name in differing_settings([run for run, _ in known]):
        texts = [setting(run, name) for run, _ in known]
        groups = [values[[text == other for text in texts]] for other in dict.fromkeys(texts)]
        if not 1 < len(groups) < len(values):
            continue
        between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups)
        eta = between / ((values - values.mean()) ** 2).sum()
        share = 1 - (1 - eta) * (len(values) - 1) / (len(values) - len(groups))
        found.append(Importance(name, max(0.0, float(share)), _trend(texts, values), len(values), len(groups)))
    return sorted(found, key=lambda importance: -importance.share)


def _trend(texts: Sequence[str], values: np.ndarray) -> float | None:
    """Spearman's rank correlation."""
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        return None
    if not np.isfinite(numbers).all():
        return None
    return float(np.corrcoef(_ranks(numbers), _ranks(values))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values sharing the mean of theirs."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])
