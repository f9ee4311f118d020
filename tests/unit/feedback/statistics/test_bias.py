"""Biases: by hand, and planted ones found where there are some, none where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest

from rlhf_lightning.feedback.statistics.bias import length_bias, position_bias


def judgements(n: int, seed: int, position: float = 0.0, length: float = 0.0) -> tuple[np.ndarray, ...]:
    """Scores of the first, and the two lengths, of answers whose quality has nothing to do with either."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(4, 0.5, (2, n))).round()
    pull = position + rng.normal(0, 0.5, n) + length * np.log(lengths[0] / lengths[1])
    score = (rng.random(n) < 1 / (1 + np.exp(-pull))).astype(float)
    score[rng.random(n) < 0.1] = 0.5
    return score, lengths[0], lengths[1]


def test_position_by_hand() -> None:
    found = position_bias([1, 1, 1, 0.5, 0, 1, 0.5])
    exact = binomtest(4, 5)
    assert (found.wins, found.comparisons, found.ties) == (4, 5, 2)
    assert found.share == pytest.approx((0.8, *exact.proportion_ci()))
    assert found.p == pytest.approx(exact.pvalue)


def test_position_is_found_where_it_is_planted_and_hardly_elsewhere() -> None:
    planted = [position_bias(judgements(500, seed, position=0.5)[0]) for seed in range(50)]
    absent = [position_bias(judgements(500, seed, length=1.0)[0]) for seed in range(200)]
    assert sum(found.p < 0.05 for found in planted) >= 45
    assert sum(found.p < 0.05 for found in absent) <= 20
    assert sum(not found.share.low <= 0.5 <= found.share.high for found in absent) <= 20


def test_length_by_hand() -> None:
    found = length_bias([1, 0, 1, 0.5, 0, 1], [9, 3, 2, 50, 4, 7], [3, 9, 8, 1, 4, 7])
    assert (found.share.value, found.comparisons) == (pytest.approx(2 / 3), 3)
    assert found.p == 1.0
    assert all(math.isnan(x) for x in (*found.slope, found.slope_p, found.level)), "of six nothing is fitted"


def test_the_slope_is_statsmodels() -> None:
    score, first, second = judgements(400, seed=1, position=0.4, length=0.8)
    found, decided = length_bias(score, first, second), score != 0.5
    fit = sm.Logit(score[decided], sm.add_constant(np.log(first / second)[decided])).fit(disp=0)
    assert found.slope == pytest.approx((fit.params[1], *fit.conf_int()[1]), rel=0.01)
    assert found.slope_p == pytest.approx(fit.pvalues[1], rel=0.05)
    assert found.level == pytest.approx(1 / (1 + math.exp(-fit.params[0])), abs=0.002)


def test_the_slope_is_the_same_for_small_differences_in_length() -> None:
    """The prior does not shrink what is measured in a small unit."""
    rng = np.random.default_rng(0)
    ratio = rng.normal(0, 0.02, 3000)
    score = (rng.random(3000) < 1 / (1 + np.exp(-20 * ratio))).astype(float)
    found = length_bias(score, 1000 * np.exp(ratio), np.full(3000, 1000.0))
    fit = sm.Logit(score, sm.add_constant(ratio)).fit(disp=0)
    assert found.slope == pytest.approx((fit.params[1], *fit.conf_int()[1]), rel=0.01)


def test_length_is_found_where_it_is_planted_and_hardly_elsewhere() -> None:
    planted = [length_bias(*judgements(500, seed, length=0.8)) for seed in range(50)]
    absent = [length_bias(*judgements(500, seed, position=0.8)) for seed in range(200)]
    assert sum(found.p < 0.05 for found in planted) >= 40
    assert sum(found.slope_p < 0.05 for found in planted) >= 45
    assert sum(found.p < 0.05 for found in absent) <= 20
    assert sum(found.slope_p < 0.05 for found in absent) <= 20


def test_a_longer_answer_that_always_wins_has_a_finite_slope() -> None:
    found = length_bias([1] * 10 + [0] * 10, [200] * 10 + [100] * 10, [100] * 10 + [200] * 10)
    assert found.share.value == 1
    assert 2 < found.slope.value < 50


def test_equal_lengths_and_no_judgements_say_nothing() -> None:
    same = length_bias([1] * 20, [5] * 20, [5] * 20)
    none = length_bias([], [], [])
    for found in (same, none):
        assert found.comparisons == 0
        assert all(math.isnan(x) for x in (*found.share, found.p, *found.slope, found.slope_p, found.level))
    nothing = position_bias([0.5])
    assert (nothing.comparisons, nothing.ties) == (0, 1)
    assert math.isnan(nothing.p)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="score is 1"):
        position_bias([2.0])
    with pytest.raises(ValueError, match="two lengths"):
        length_bias([1, 0], [1], [2])
    with pytest.raises(ValueError, match="above 0"):
        length_bias([1], [0], [2])
