"""A rater's diligence: by hand, by brute force, against scipy, and by planted faults."""

from __future__ import annotations

import math
from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rlhf_lightning.feedback.statistics.agreement import krippendorff_alpha
from rlhf_lightning.feedback.statistics.raters import (
    drift,
    entropy,
    gold_accuracy,
    run_probability,
    speed,
    straight_lining,
    time_blocks,
    trend,
)

SHARES = {"first": 0.45, "second": 0.45, "tie": 0.1}


def longest_run(choices) -> int:
    return max(len(list(run)) for _, run in groupby(choices))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_the_probability_of_a_run_by_all_sequences(length, n, weights) -> None:
    shares = np.array(weights) / sum(weights)
    sequences = product(range(len(shares)), repeat=n)
    by_hand = sum(math.prod(shares[list(draws)]) for draws in sequences if longest_run(draws) >= length)
    assert run_probability(length, n, shares) == pytest.approx(by_hand, abs=1e-12)


def test_a_long_record_of_choices() -> None:
    """The chance of 20 heads in a row of a million is near 1 - exp(-n / 2**21) (Feller's approximation)."""
    assert run_probability(20, 100_000, [0.5, 0.5]) == pytest.approx(1 - math.exp(-100_000 * 2.0**-20), rel=0.001)


def test_straight_lining_by_hand() -> None:
    found = straight_lining(["a", "b", "b", "a", "a"], {"a": 1, "b": 1})
    assert (found.longest, found.choice, found.choices) == (2, "b", 5)
    assert found.p == pytest.approx(30 / 32), "only the two that alternate have no run of two"
    assert found.entropy == pytest.approx(-(0.6 * math.log2(0.6) + 0.4 * math.log2(0.4)))
    assert found.entropy_of_shares == 1
    none = straight_lining([], {"a": 1})
    assert (none.longest, none.choice, none.choices) == (0, None, 0)
    assert math.isnan(none.p)
    assert math.isnan(none.entropy)


def test_who_presses_one_key_is_found_and_others_hardly() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.choice(list(SHARES), (201, 200), p=list(SHARES.values())).tolist()
    honest = [straight_lining(choices, SHARES) for choices in drawn[:200]]
    assert sum(found.p < 0.05 for found in honest) <= 20, "p is at most 5 % so often"
    assert all(found.entropy > 0.8 * found.entropy_of_shares for found in honest)
    lazy = drawn[200]
    lazy[50:75] = ["second"] * 25
    found = straight_lining(lazy, SHARES)
    assert found.longest >= 25
    assert found.choice == "second"
    assert found.p < 1e-4
    assert straight_lining(["first"] * 30, SHARES).entropy == 0


def test_a_choice_without_a_share_is_refused() -> None:
    with pytest.raises(ValueError, match="'skip'"):
        straight_lining(["skip"], SHARES)
    with pytest.raises(ValueError, match="not 0"):
        run_probability(0, 3, [1.0])


def test_entropy() -> None:
    assert entropy([1, 1, 1, 1]) == 2
    assert entropy([0, 7]) == 0
    assert math.isnan(entropy([0, 0]))


def test_speed() -> None:
    found = speed([10, 2, math.nan, 30, 4], [400, 400, 400, 400, 200])
    assert found == (7.0, 0.25, 4)
    by_language = speed([10, 10], [400, 400], limit=[50, 16])
    assert by_language.too_fast == 0.5
    nothing = speed([math.nan], [5])
    assert nothing.judgements == 0
    assert math.isnan(nothing.median)
    for seconds, characters, limit in (([-1], [1], 50), ([1], [-1], 50), ([1], [1], 0), ([1, 2], [1], 50)):
        with pytest.raises(ValueError, match="seconds and characters"):
            speed(seconds, characters, limit)


def test_gold() -> None:
    assert gold_accuracy(["a", "b", "a", "tie"], ["a", "a", "a", "b"]).value == 0.5
    assert math.isnan(gold_accuracy([], []).value)
    with pytest.raises(ValueError, match="2 answers to 1 gold items"):
        gold_accuracy(["a", "b"], ["a"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=3, max_size=200).filter(lambda x: len(set(x)) > 1))
def test_the_trend_is_spearmans(values) -> None:
    theirs = spearmanr(values, np.arange(len(values)))
    found = trend(values)
    assert found.correlation == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-6)


def test_a_trend_of_nothing_is_nan() -> None:
    for values in ([], [1, 2], [3, 3, 3, 3]):
        assert all(math.isnan(x) for x in trend(values))
    with pytest.raises(ValueError, match="NaN"):
        trend([1, math.nan, 2])


def test_blocks_follow_in_time() -> None:
    times = [5, 1, 4, 2, 3, 6, 0]
    blocks = time_blocks(times, 3)
    assert [[times[i] for i in block] for block in blocks] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [len(block) for block in time_blocks([1, 2], 5)] == [1, 1]
    with pytest.raises(ValueError, match="at least one"):
        time_blocks(times, 0)


def test_drift_is_found_where_it_is_planted_and_hardly_elsewhere() -> None:
    rng = np.random.default_rng(0)
    times = rng.permutation(400)
    tired = [drift(rng.random(400) < 0.9 - times / 1000, times) for _ in range(50)]
    steady = [drift(rng.random(400) < 0.7, times) for _ in range(200)]
    assert sum(found.trend.p < 0.05 for found in tired) >= 48
    assert all(found.trend.correlation < 0 for found in tired)
    assert sum(found.trend.p < 0.05 for found in steady) <= 20
    assert np.mean([found.means for found in tired], axis=0) == pytest.approx(np.linspace(0.88, 0.52, 10), abs=0.04)


def test_drift_leaves_missing_values_out() -> None:
    found = drift([1, math.nan, 0, 0], [3, 0, 2, 1], blocks=3)
    assert found.means == [0, 0, 1]
    with pytest.raises(ValueError, match="a time of each"):
        drift([1, 2], [1])


def test_agreement_by_blocks_has_a_trend_too() -> None:
    rng = np.random.default_rng(1)
    truth, time = rng.integers(0, 2, (600, 1)), np.arange(600)
    guessed = rng.random((600, 3)) < time[:, None] / 600
    table = np.where(guessed, rng.integers(0, 2, (600, 3)), truth).astype(float)
    found = trend([krippendorff_alpha(table[block]) for block in time_blocks(time, 8)])
    assert found.correlation < -0.8
    assert found.p < 0.05
