"""How a person works: straight-lining, speed, accuracy on gold items, and drift over time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlhf_lightning.comparison.significance import student_tail
from rlhf_lightning.feedback.statistics.intervals import CONFIDENCE, Estimate, wilson_interval

READING_LIMIT = 50.0
"""Characters a second of English that nobody reads with understanding: twice the mean rate of silent reading, 238 words
a minute (Brysbaert, 2019, doi:10.1016/j.jml.2019.104047), taken as 25 characters a second with spaces. Other scripts
say more by a character: Tatoeba's pairs of sentences have 3.2 times as many characters in English as in Chinese."""


class StraightLining(NamedTuple):
    """How monotonous a person's choices are.

    Attributes:
        longest: run of one and the same choice.
        choice: that it is of; the earliest of runs as long.
        p: probability of a run as long or longer, had the choices been drawn independently from ``shares``.
        entropy: of the person's choices, in bits; 0 for one choice only.
        entropy_of_shares: what it would be about, of many choices.
        choices: their number.
    """

    longest: int
    choice: Hashable | None
    p: float
    entropy: float
    entropy_of_shares: float
    choices: int


def straight_lining(choices: Sequence[Hashable], shares: Mapping[Hashable, float]) -> StraightLining:
    """Whether a person gives the same answer again and again, against what chance gives.

    Args:
        choices: the person's, in the order of time; of places on the screen (first, second, tie), which a random order
            of the answers makes independent of their quality.
        shares: of the choices as people make them in general, those of all raters say. They are scaled to a sum of 1.

    Returns:
        What was found; without choices p and the person's entropy are NaN.

    Raises:
        ValueError: if a choice has no share, or a share is negative.
    """
    unknown = [choice for choice in choices if not shares.get(choice, 0) > 0]
    if unknown or any(share < 0 for share in shares.values()):
        raise ValueError(f"every choice needs a share above 0, {unknown[:1]} has none; the shares are {dict(shares)}")
    total = sum(shares.values())
    chance = [share / total for share in shares.values()]
    longest, at, run = 0, 0, 0
    for i, choice in enumerate(choices):
        run = run + 1 if i and choice == choices[i - 1] else 1
        if run > longest:
            longest, at = run, i
    n = len(choices)
    if not n:
        return StraightLining(0, None, math.nan, math.nan, entropy(chance), 0)
    counts = [choices.count(choice) for choice in dict.fromkeys(choices)]
    return StraightLining(
        longest, choices[at], run_probability(longest, n, chance), entropy(counts), entropy(chance), n
    )


def run_probability(length: int, n: int, shares: Sequence[float]) -> float:
    """The probability that n independent draws have a run of one value that is as long or longer; exact.

    Args:
        length: of the run, 1 or more.
        n: draws.
        shares: the probability of each value.

    >>> run_probability(2, 3, [0.5, 0.5])
    0.75
    """
    if length < 1:
        raise ValueError(f"a run has one member at least, not {length}")
    if n < length:
        return 0.0
    p = np.asarray(shares, dtype=float)
    begun = np.zeros((n + 1, len(p)))  # [t]: no such run up to t, and a run of the value begins at t
    ending = np.zeros(len(p))  # no such run up to t, and t has the value
    free = 1.0
    for t in range(1, n + 1):
        begun[t] = p * (free - ending)
        ending = begun[t] + p * ending
        if t >= length:  # the runs that grow to the length just now
            ending = ending - begun[t - length + 1] * p ** (length - 1)
        free = float(ending.sum())
    return min(max(1 - free, 0.0), 1.0)


def entropy(counts: ArrayLike) -> float:
    """The entropy in bits of shares, or of counts; NaN where all are 0.

    >>> entropy([5, 5]), entropy([3, 0])
    (1.0, 0.0)
    """
    numbers = np.asarray(counts, dtype=float)
    shares = numbers[numbers > 0] / numbers.sum() if numbers.sum() else numbers
    return float(-(shares * np.log2(shares)).sum()) + 0.0 if numbers.sum() else math.nan


class Speed(NamedTuple):
    """How long judgements take.

    Attributes:
        median: seconds a judgement.
        too_fast: share of the judgements that were faster than reading allows.
        judgements: their number.
    """

    median: float
    too_fast: float
    judgements: int


def speed(seconds: ArrayLike, characters: ArrayLike, limit: float | ArrayLike = READING_LIMIT) -> Speed:
    """Whether a person can have read what was judged.

    Args:
        seconds: (n,) active time of each judgement; NaN where it is not known, which is left out.
        characters: (n,) that had to be read: of all answers, and of what of the prompt was new.
        limit: characters a second that nobody reads; one for all, or (n,) by the language of each.

    Returns:
        What was found; NaN without a judgement.

    Raises:
        ValueError: if the two differ in length, or a number is negative.
    """
    time, text = np.asarray(seconds, dtype=float), np.asarray(characters, dtype=float)
    if time.ndim != 1 or time.shape != text.shape:
        raise ValueError(f"seconds and characters of each judgement are needed; got {time.shape} and {text.shape}")
    if (time < 0).any() or (text < 0).any() or not (np.asarray(limit) > 0).all():
        raise ValueError("seconds and characters can't be negative, and the limit is above 0")
    known = ~np.isnan(time)
    if not known.any():
        return Speed(math.nan, math.nan, 0)
    too_fast = (text > time * np.asarray(limit, dtype=float))[known]
    return Speed(float(np.median(time[known])), float(too_fast.mean()), int(known.sum()))


def gold_accuracy(answers: Sequence[Hashable], gold: Sequence[Hashable], confidence: float = CONFIDENCE) -> Estimate:
    """The share of answers that are the known right ones, with Wilson's interval; NaN without an answer.

    Args:
        answers, gold: (n,) of the gold items a person answered.
        confidence: of the interval.
    """
    if len(answers) != len(gold):
        raise ValueError(f"{len(answers)} answers to {len(gold)} gold items")
    return wilson_interval(sum(a == b for a, b in zip(answers, gold, strict=True)), len(answers), confidence)


class Trend(NamedTuple):
    """Whether values rise or fall in their order.

    Attributes:
        correlation: Spearman's, of the value and its place.
        p: two-sided.
    """

    correlation: float
    p: float


def trend(values: ArrayLike) -> Trend:
    """Spearman's rank correlation with the order, and its test by Student's t.

    Ranks make it deaf to a few wild values, such as an hour's pause. The test takes the values to be independent: where
    neighbours are alike (a session's, a topic's), p is too small. It is rough below ten values.

    Args:
        values: (n,) in the order of time: of single judgements (0 or 1 for right), or a statistic of blocks of them.

    Returns:
        NaN with fewer than three values, or where all are equal.
    """
    x = np.asarray(values, dtype=float)
    if np.isnan(x).any():
        raise ValueError("a value is NaN; leave it out")
    n = len(x)
    if n < 3 or (x == x[0]).all():
        return Trend(math.nan, math.nan)
    _, codes, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[codes]  # equal values share the mean of their ranks
    r = float(np.corrcoef(ranks, np.arange(n))[0, 1])
    if abs(r) > 1 - 1e-12:
        return Trend(math.copysign(1.0, r), 0.0)
    return Trend(r, student_tail(abs(r) * math.sqrt((n - 2) / (1 - r * r)), n - 2))


def time_blocks(times: ArrayLike, blocks: int) -> list[np.ndarray]:
    """The places of judgements in blocks that follow each other in time, of numbers that differ by one at most.

    Args:
        times: (n,) of the judgements; those of one time stay in their order.
        blocks: their number; fewer where there are fewer judgements.
    """
    if blocks < 1:
        raise ValueError(f"{blocks} blocks: at least one is needed")
    order = np.argsort(np.asarray(times), kind="stable")
    return [block for block in np.array_split(order, blocks) if len(block)]


class Drift(NamedTuple):
    """A value over time.

    Attributes:
        means: of each block of time.
        trend: of the single values.
    """

    means: list[float]
    trend: Trend


def drift(values: ArrayLike, times: ArrayLike, blocks: int = 10) -> Drift:
    """How a value of judgements (right or wrong, seconds, first answer chosen) changes over time.

    For a statistic that is no mean (alpha, say) take `time_blocks` and `trend`.

    Args:
        values: (n,) of each judgement; NaN is left out.
        times: (n,) of each judgement, in any unit.
        blocks: of equal numbers of judgements.
    """
    value, time = np.asarray(values, dtype=float), np.asarray(times)
    if value.ndim != 1 or value.shape != time.shape:
        raise ValueError(f"a value and a time of each judgement are needed; got {value.shape} and {time.shape}")
    known = ~np.isnan(value)
    value, time = value[known], time[known]
    order = np.argsort(time, kind="stable")
    return Drift([float(value[block].mean()) for block in time_blocks(time, blocks)], trend(value[order]))
