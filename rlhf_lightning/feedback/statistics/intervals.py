"""Confidence intervals: of shares, exact and by Wilson, and the percentiles of a bootstrap."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95

DRAWS = 1000
"""Bootstrap samples."""


class Estimate(NamedTuple):
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


def wilson_interval(successes: float, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share with Wilson's score interval (1927), where a tie may count one half; NaN without trials.

    >>> [round(x, 3) for x in wilson_interval(9, 10)]
    [0.9, 0.596, 0.982]
    """
    _check(successes, trials)
    if not trials:
        return UNDEFINED
    share, z2 = successes / trials, _z(confidence) ** 2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2) / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    low = 0.0 if successes == 0 else centre - half
    return Estimate(share, low, 1.0 if successes == trials else centre + half)


def exact_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share with the exact binomial interval of Clopper and Pearson (1934); NaN without trials.

    >>> [round(x, 3) for x in exact_interval(9, 10)]
    [0.9, 0.555, 0.997]
    """
    _check(successes, trials)
    if not trials:
        return UNDEFINED
    tail = (1 - confidence) / 2
    # At the lower end as many successes or more are just so unlikely, at the upper end as many or fewer: by symmetry,
    # where 1 - p is such that as many failures or more are.
    low = _share_of_tail(successes, trials, tail)
    return Estimate(successes / trials, low, 1 - _share_of_tail(trials - successes, trials, tail))


def binomial_p(successes: int, trials: int) -> float:
    """The two-sided p value of the exact test that successes are as likely as failures; NaN without trials.

    >>> round(binomial_p(1, 5), 6)
    0.375
    """
    _check(successes, trials)
    if not trials:
        return math.nan
    far = max(successes, trials - successes)
    return min(1.0, 2 * float(np.exp(_log_binomials(far, trials) - trials * math.log(2)).sum()))


def percentile_interval(value: float, drawn: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """A figure with the percentiles of its bootstrap.

    Args:
        value: of the whole sample.
        drawn: of the resamples. Those where it is NaN are left out; where they are more than half, or the value itself
            is NaN, the ends are NaN.
        confidence: share of the resamples between the ends.
    """
    values = np.asarray(drawn, dtype=float)
    known = values[~np.isnan(values)]
    if math.isnan(value) or 2 * len(known) <= len(values):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high))


def ratio_interval(
    tops: ArrayLike, bottoms: ArrayLike, draws: int = DRAWS, seed: int = 0, confidence: float = CONFIDENCE
) -> Estimate:
    """A ratio of two sums with the percentile interval of a bootstrap over their terms.

    Args:
        tops, bottoms: (n,) of each item (agreeing pairs of judgements and all pairs, say); bottoms are not negative.
        draws: resamples.
        seed: of the resamples.
        confidence: of the interval.

    >>> ratio_interval([2, 0], [2, 2]).value
    0.5
    """
    top, bottom = np.asarray(tops, dtype=float), np.asarray(bottoms, dtype=float)
    if top.ndim != 1 or top.shape != bottom.shape or (bottom < 0).any():
        raise ValueError(
            f"two numbers of each item are needed, the second not negative; got {top.shape}, {bottom.shape}"
        )
    if not bottom.sum():
        return UNDEFINED
    n, rng = len(top), np.random.default_rng(seed)
    drawn = np.empty(draws)
    for draw in range(draws):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        below = times @ bottom
        drawn[draw] = times @ top / below if below else math.nan
    return percentile_interval(float(top.sum() / bottom.sum()), drawn, confidence)


def clustered_share(scores: ArrayLike, clusters: Sequence[Hashable], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of scores from 0 to 1 that come in clusters, with Wilson's interval for as many clusters.

    Judgements of one prompt say much the same. The interval takes them for one: its number of trials is Kish's
    effective number of clusters, ``(sum m)^2 / sum m^2`` of their sizes m, rounded down (Kish, "Survey Sampling", 1965,
    section 5.8, with a correlation of 1 within clusters). So it is rather too wide, and wide also where all scores are
    equal.

    Args:
        scores: (n,) from 0 to 1; a tie is one half.
        clusters: (n,) what each is of.
        confidence: of the interval.

    >>> [round(x, 3) for x in clustered_share([1] * 9 + [0], range(10))]
    [0.9, 0.596, 0.982]
    """
    score = np.asarray(scores, dtype=float)
    if score.ndim != 1 or len(score) != len(clusters):
        raise ValueError(f"each score needs its cluster; got the shape {score.shape} and {len(clusters)} clusters")
    if not len(score):
        return UNDEFINED
    trials = effective_clusters(clusters)
    return Estimate(*wilson_interval(min(float(score.mean()) * trials, trials), trials, confidence))


def effective_clusters(clusters: Sequence[Hashable]) -> int:
    """Kish's effective number of clusters, rounded down.

    >>> effective_clusters("aabb"), effective_clusters("aaab")
    (2, 1)
    """
    sizes = np.array(list(Counter(clusters).values()), dtype=float)
    return int(sizes.sum() ** 2 / (sizes**2).sum() + 1e-9) if len(sizes) else 0


def normal_interval(value: float, error: float, confidence: float = CONFIDENCE) -> Estimate:
    """A figure with the interval that follows from its standard error."""
    half = _z(confidence) * error
    return Estimate(value, value - half, value + half)


def normal_p(value: float, error: float) -> float:
    """The two-sided p value of the test (Wald's) that a figure is 0; NaN where the error is not positive."""
    return math.erfc(abs(value) / error / math.sqrt(2)) if error > 0 else math.nan


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a share between 0 and 1, such as 0.95; got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check(successes: float, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials: it has to be 0 <= successes <= trials")


def _log_binomials(least: int, trials: int) -> np.ndarray:
    """The logarithms of ``trials`` over k, for k from ``least`` to ``trials``."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    k = np.arange(least, trials + 1)
    return log_factorial[trials] - log_factorial[k] - log_factorial[trials - k]


def _share_of_tail(successes: int, trials: int, tail: float) -> float:
    """The probability of a success with which as many successes or more have the probability ``tail``; by bisection."""
    if not 0 < tail < 0.5:
        raise ValueError("confidence is a share between 0 and 1, such as 0.95")
    if not successes:
        return 0.0
    k, ways = np.arange(successes, trials + 1), _log_binomials(successes, trials)
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        if np.exp(ways + k * math.log(p) + (trials - k) * math.log1p(-p)).sum() < tail:
            low = p
        else:
            high = p
    return (low + high) / 2
