"""Win rates with and without the help of length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rlhf_lightning.report.winrate import RIDGE, _at_equal_length, win_rate


def test_wins_ties_and_missing_scores() -> None:
    old = [0.0] * 12 + [math.nan, 1.0]
    new = [1.0] * 6 + [0.0] * 4 + [-1.0] * 2 + [5.0, math.nan]
    found = win_rate(old, new, [3.0] * 14, [3.0] * 14)
    assert found is not None
    assert (found.rate, found.rows) == (pytest.approx((6 + 2) / 12), 12)
    assert found.low < found.rate < found.high
    assert found.level == pytest.approx(found.rate, abs=0.01), "equally long: nothing to take out"
    assert (found.pairs, found.tied) == (1, False)
    assert win_rate(old[:9], new[:9], [3.0] * 9, [3.0] * 9) is None


def test_a_win_by_length_alone_is_none_at_equal_length() -> None:
    rng = np.random.default_rng(1)
    longer = rng.normal(3.0, 4.0, 400)
    won_by_length = (rng.random(400) < 1 / (1 + np.exp(-longer))).astype(float)
    found = win_rate(np.full(400, 0.5), won_by_length, np.zeros(400), longer)
    assert found is not None
    assert found.rate > 0.7
    assert found.level_low < 0.5 < found.level_high
    better = win_rate(np.full(400, 0.5), (rng.random(400) < 0.8).astype(float), np.zeros(400), longer)
    assert better is not None
    assert better.level_low > 0.7, "a win that has nothing to do with length stays"


def test_the_fit_is_that_of_a_logistic_regression() -> None:
    rng = np.random.default_rng(2)
    pull = np.tanh(rng.normal(size=300))
    wins = (rng.random(300) < 1 / (1 + np.exp(-(0.4 + 1.5 * pull)))).astype(float)
    # A column of ones in place of the intercept, which sklearn does not regularise.
    fit = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10).fit(np.stack([np.ones(300), pull], 1), wins)
    expected = 1 / (1 + np.exp(-fit.coef_[0, 0]))
    assert _at_equal_length(wins[None], pull[None])[0] == pytest.approx(expected, abs=1e-6)


def test_one_side_that_always_wins_gives_a_number() -> None:
    found = win_rate([0.0] * 50, [1.0] * 50, list(range(50)), [0.0] * 50)
    assert found is not None
    assert 0.9 < found.level <= 1
    assert found.rate == found.low == found.high == 1


def test_a_tie_is_told_by_the_answers_and_not_by_their_mean() -> None:
    lengths = [3.0] * 20
    each_wins_half = win_rate([0.0, 1.0] * 10, [1.0, 0.0] * 10, lengths, lengths)
    all_equal = win_rate([0.5] * 20, [0.5] * 20, lengths, lengths)
    assert each_wins_half is not None
    assert all_equal is not None
    assert (each_wins_half.rate, each_wins_half.tied) == (0.5, False)
    assert (all_equal.rate, all_equal.tied) == (0.5, True)
