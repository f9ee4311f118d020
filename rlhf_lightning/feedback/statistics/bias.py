"""What sways judgements beside the answers' quality: the place on the screen, and length.

Of a comparison's two answers "first" is the one shown first (left, or on top). A tie says nothing of either bias and is
left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlhf_lightning.feedback.statistics.intervals import (
    CONFIDENCE,
    Estimate,
    binomial_p,
    exact_interval,
    normal_interval,
    normal_p,
)
from rlhf_lightning.report.winrate import fit_logistic

FEWEST = 10
"""With fewer comparisons no regression on length is made."""


class PositionBias(NamedTuple):
    """How often the first answer won.

    Attributes:
        share: of wins of the first, with the exact binomial interval. One half is no bias, if the order is random.
        p: two-sided, of the exact test of one half.
        wins, comparisons: of the first, and in all, without ties.
        ties: left out.
    """

    share: Estimate
    p: float
    wins: int
    comparisons: int
    ties: int


def position_bias(first_score: ArrayLike, confidence: float = CONFIDENCE) -> PositionBias:
    """Whether people prefer an answer for where it stands.

    Args:
        first_score: (n,) 1 where the first answer won, 0 where it lost, 0.5 a tie.
        confidence: of the interval.
    """
    score = _scores(first_score)
    decided = score[score != 0.5]
    wins = int(decided.sum())
    share = exact_interval(wins, len(decided), confidence)
    return PositionBias(share, binomial_p(wins, len(decided)), wins, len(decided), len(score) - len(decided))


class LengthBias(NamedTuple):
    """How the longer answer fared.

    Attributes:
        share: of wins of the longer answer, with the exact binomial interval.
        p: two-sided, of the exact test of one half.
        slope: b of ``P(first wins) = sigmoid(a + b log(first length / second length))``: an answer twice as long has
            its odds multiplied by ``2 ** b``. With the interval by its standard error; NaN with fewer than 10
            comparisons, or where all lengths are equal.
        slope_p: two-sided, of the slope's being 0 (Wald).
        level: ``sigmoid(a)``: how often the first wins against an answer of the same length.
        comparisons: of answers that differ in length, without ties.
    """

    share: Estimate
    p: float
    slope: Estimate
    slope_p: float
    level: float
    comparisons: int


def length_bias(
    first_score: ArrayLike, first_length: ArrayLike, second_length: ArrayLike, confidence: float = CONFIDENCE
) -> LengthBias:
    """How far the longer answer wins.

    Longer answers may be better ones, so this alone does not show a mistake; compare raters, or answers of one model.

    Args:
        first_score: (n,) 1 where the first answer won, 0 where it lost, 0.5 a tie.
        first_length, second_length: (n,) of the two answers, above 0, all in one unit.
        confidence: of the intervals.

    Raises:
        ValueError: if the three differ in length, a length is not positive, or a score is none.
    """
    score = _scores(first_score)
    one, two = np.asarray(first_length, dtype=float), np.asarray(second_length, dtype=float)
    if not score.shape == one.shape == two.shape:
        raise ValueError(f"a score needs two lengths; got shapes {score.shape}, {one.shape} and {two.shape}")
    if not ((one > 0) & (two > 0)).all():
        raise ValueError("a length is above 0")
    decided = score != 0.5
    score, ratio = score[decided], np.log(one[decided] / two[decided])
    differ = ratio != 0
    longer_won = (score == 1) == (ratio > 0)
    wins, comparisons = int(longer_won[differ].sum()), int(differ.sum())
    share, p = exact_interval(wins, comparisons, confidence), binomial_p(wins, comparisons)
    if len(score) < FEWEST or not comparisons:
        slope, slope_p, level = Estimate(math.nan, math.nan, math.nan), math.nan, math.nan
    else:
        scale = float(np.sqrt((ratio**2).mean()))  # the fit's weak prior is meant for numbers of about 1
        (a,), (b,), (error,) = fit_logistic(score[None], ratio[None] / scale)
        slope = normal_interval(float(b) / scale, float(error) / scale, confidence)
        slope_p = normal_p(float(b), float(error))
        level = float(1 / (1 + np.exp(-a)))
    return LengthBias(share, p, slope, slope_p, level, comparisons)


def _scores(first_score: ArrayLike) -> np.ndarray:
    score = np.asarray(first_score, dtype=float)
    if score.ndim != 1 or not np.isin(score, (0.0, 0.5, 1.0)).all():
        raise ValueError("the first answer's score is 1 (it won), 0 (it lost) or 0.5 (a tie), one a comparison")
    return score
