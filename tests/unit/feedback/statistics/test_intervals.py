"""Intervals of shares against scipy and statsmodels."""

from __future__ import annotations

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from statsmodels.stats.proportion import proportion_confint

from rlhf_lightning.feedback.statistics.intervals import (
    binomial_p,
    exact_interval,
    normal_interval,
    normal_p,
    percentile_interval,
    wilson_interval,
)

COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_intervals_of_a_share_are_statsmodels(counts: tuple[int, int], confidence: float) -> None:
    for ours, method in ((exact_interval, "beta"), (wilson_interval, "wilson")):
        value, low, high = ours(*counts, confidence)
        assert value == counts[0] / counts[1]
        assert (low, high) == pytest.approx(proportion_confint(*counts, 1 - confidence, method), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_the_exact_p_value_is_scipys(counts: tuple[int, int]) -> None:
    assert binomial_p(*counts) == pytest.approx(binomtest(*counts).pvalue, rel=1e-9)


def test_a_large_sample_is_no_trouble() -> None:
    found = exact_interval(100_300, 200_000)
    assert (found.low, found.high) == pytest.approx(proportion_confint(100_300, 200_000, method="beta"), abs=1e-9)
    assert binomial_p(100_300, 200_000) == pytest.approx(binomtest(100_300, 200_000).pvalue, rel=1e-6)


def test_without_trials_nothing_is_known() -> None:
    assert all(math.isnan(x) for x in (*exact_interval(0, 0), *wilson_interval(0, 0), binomial_p(0, 0)))


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    for function in (exact_interval, wilson_interval, binomial_p):
        with pytest.raises(ValueError, match="successes"):
            function(*counts)


def test_a_confidence_in_percent_is_refused() -> None:
    for function in (exact_interval, wilson_interval):
        with pytest.raises(ValueError, match=r"0\.95"):
            function(1, 2, 95)


def test_percentiles_leave_undefined_resamples_out_but_not_most_of_them() -> None:
    drawn = np.arange(101.0)
    assert percentile_interval(7.0, drawn, 0.9) == pytest.approx((7, 5, 95))
    assert percentile_interval(7.0, [*drawn, *[math.nan] * 100], 0.9) == pytest.approx((7, 5, 95))
    assert np.isnan(percentile_interval(7.0, [*drawn, *[math.nan] * 101], 0.9)[1:]).all()
    assert np.isnan(percentile_interval(math.nan, drawn)).all()


def test_the_normal_interval_and_its_test() -> None:
    assert normal_interval(2.0, 3.0) == pytest.approx((2, *norm.interval(0.95, 2, 3)))
    assert normal_p(-2.0, 3.0) == pytest.approx(2 * norm.sf(2 / 3))
    assert math.isnan(normal_p(2.0, 0.0))


@pytest.mark.parametrize("module", ["agreement", "bias", "consensus", "intervals", "raters", "strength"])
def test_examples_in_docstrings(module: str) -> None:
    assert not doctest.testmod(importlib.import_module(f"rlhf_lightning.feedback.statistics.{module}")).failed
