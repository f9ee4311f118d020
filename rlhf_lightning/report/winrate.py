"""How often one policy's answers beat another's to the same prompts, with and without the help of length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 1000
"""Bootstrap samples."""

RIDGE = 0.05
"""Weight of a Gaussian prior on the two coefficients: without it they run away where one side wins every time."""


class WinRate(NamedTuple):
    """A share of wins, a tie counting one half, with the ends of its 95 % interval.

    Attributes:
        rate, low, high: as it is.
        level, level_low, level_high: where both answers were equally long, by a logistic regression of the win on the
            difference in length.
        rows: prompts compared.
        pairs: of policies that are counted together; the intervals are over prompts alone.
        tied: whether all their answers are equally good.
    """

    rate: float
    low: float
    high: float
    level: float
    level_low: float
    level_high: float
    rows: int
    pairs: int = 1
    tied: bool = False


def win_rate(old: ArrayLike, new: ArrayLike, old_lengths: ArrayLike, new_lengths: ArrayLike) -> WinRate | None:
    """How often the new scores are higher than the old ones.

    The part that length plays is taken out as in AlpacaEval 2 (Dubois et al., 2024, arXiv:2404.04475): the win is
    regressed on ``tanh`` of the standardised difference in length, and read off where that is 0. Intervals are the
    percentiles of a bootstrap over prompts.

    Args:
        old, new: (n,) scores of the two policies' answers; a prompt where one is NaN is left out. Or (n, m) of m pairs
            of policies that are counted together, a prompt's pairs being drawn together.
        old_lengths, new_lengths: of those answers.

    Returns:
        The shares, or None where fewer than 10 prompts can be compared.
    """
    a, b = np.asarray(old, dtype=float), np.asarray(new, dtype=float)
    longer = np.asarray(new_lengths, dtype=float) - np.asarray(old_lengths, dtype=float)
    a, b, longer = (x[:, None] if x.ndim == 1 else x for x in (a, b, longer))
    known = (np.isfinite(a) & np.isfinite(b)).all(1)
    a, b, longer = a[known], b[known], longer[known]
    n = len(a)
    if n < 10:
        return None
    wins = np.where(b > a, 1.0, np.where(b < a, 0.0, 0.5))
    spread = longer.std()
    pull = np.tanh(longer / spread) if spread > 0 else np.zeros_like(longer)
    drawn = np.random.default_rng(0).integers(0, n, (DRAWS, n))
    drawn_wins, drawn_pull = (x[drawn].reshape(DRAWS, -1) for x in (wins, pull))
    rates, levels = drawn_wins.mean(1), _at_equal_length(drawn_wins, drawn_pull)
    low, high = np.percentile(rates, [2.5, 97.5])
    level_low, level_high = np.percentile(levels, [2.5, 97.5])
    level = _at_equal_length(wins.reshape(1, -1), pull.reshape(1, -1))[0]
    ends = float(low), float(high), float(level), float(level_low), float(level_high)
    return WinRate(float(wins.mean()), *ends, n, wins.shape[1], bool((wins == 0.5).all()))


def _at_equal_length(wins: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """(d,) sigmoid(a) of the fits ``P(win) = sigmoid(a + b pull)``, each to a row of (d, n)."""
    return 1 / (1 + np.exp(-fit_logistic(wins, pull)[0]))


def fit_logistic(wins: np.ndarray, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logistic regressions ``P(win) = sigmoid(a + b pull)`` under the prior of `RIDGE`, by Newton's method.

    Args:
        wins: (d, n) of 0 to 1.
        pull: (d, n).

    Returns:
        (d,) a, (d,) b, and (d,) standard error of b.
    """
    a, b = np.zeros(len(wins)), np.zeros(len(wins))
    for _ in range(25):
        p = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * pull)))
        weight = p * (1 - p)
        gradient = (p - wins).sum(1) + RIDGE * a, ((p - wins) * pull).sum(1) + RIDGE * b
        aa, ab = weight.sum(1) + RIDGE, (weight * pull).sum(1)
        bb = (weight * pull**2).sum(1) + RIDGE
        det = aa * bb - ab**2
        step_a = (bb * gradient[0] - ab * gradient[1]) / det
        step_b = (aa * gradient[1] - ab * gradient[0]) / det
        a, b = a - np.clip(step_a, -2, 2), b - np.clip(step_b, -2, 2)
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-9:
            break
    return a, b, np.sqrt(aa / det)
