import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.selection import LEAST_RANDOM, STRATEGIES, choose, usefulness

CHOOSING = [strategy for strategy in STRATEGIES if strategy != "random"]


def test_each_strategy_wants_what_it_should():
    gaps = [[3.0, 0.1, -5.0, 1.0], [3.0, 0.1, -5.0, -1.0]]
    assert usefulness(gaps, "gap").argmax() == 2
    assert usefulness(gaps, "variance").argmax() == 3
    assert usefulness(gaps, "margin").argmax() == 3  # on the whole the two don't know at all
    assert usefulness(gaps[0], "margin").argmax() == 1


def test_variance_needs_several_models():
    with pytest.raises(UserError, match="several reward models"):
        usefulness([1.0, 2.0], "variance")


@pytest.mark.parametrize(("count", "gaps"), [(2, [1, 2, 3, 4]), (1, [1, 2, 3, 4]), (2, None)])
def test_an_unknown_strategy_is_refused(count, gaps):
    with pytest.raises(UserError, match="there are random, margin, variance, gap"):
        choose(4, count, "best", gaps, 0)  # type: ignore[arg-type]


def test_random_wants_none_more_than_another():
    with pytest.raises(ValueError, match="no pair more"):
        usefulness([1.0, 2.0], "random")


@pytest.mark.parametrize("gaps", [None, [1.0, 2.0], [[1.0, 2.0, 3.0]] * 2, 1.0])
def test_nothing_is_chosen_without_a_gap_for_each(gaps):
    with pytest.raises(ValueError, match="gap of each of the 4"):
        choose(4, 2, "margin", gaps, 0)


@pytest.mark.parametrize("strategy", CHOOSING)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gaps_that_are_no_numbers_are_refused(strategy, bad):
    with pytest.raises(UserError, match="not finite"):
        choose(3, 2, strategy, [[1.0, bad, 2.0], [1.0, 1.0, 1.0]], 0)


@pytest.mark.parametrize("strategy", CHOOSING)
def test_usefulness_is_the_same_with_the_candidates_the_other_way_round(strategy):
    gaps = np.random.default_rng(0).normal(scale=3, size=(4, 50))
    np.testing.assert_allclose(usefulness(gaps, strategy), usefulness(-gaps, strategy), atol=1e-12)


def test_usefulness_by_hand():
    gaps = np.log([[3.0, 1.0], [1 / 3, 9.0]])  # probabilities .75 and .5; .25 and .9
    np.testing.assert_allclose(usefulness(gaps, "margin"), [0, -0.2], atol=1e-12)
    np.testing.assert_allclose(usefulness(gaps, "variance"), [0.0625, 0.04], atol=1e-12)
    np.testing.assert_allclose(usefulness(gaps, "gap"), [0, math.log(3)], atol=1e-12)
    assert usefulness([1000.0, -1000.0], "margin").tolist() == [-0.5, -0.5]


def test_of_nothing_nothing_is_chosen():
    assert choose(0, 5, "random", None, 0) == []
    assert choose(0, 5, "gap", [], 0) == []
    assert choose(5, 0, "gap", range(5), 0) == []


@given(
    n=st.integers(1, 60),
    count=st.integers(1, 80),
    strategy=st.sampled_from(STRATEGIES),
    share=st.floats(LEAST_RANDOM, 1),
    seed=st.integers(0, 1000),
)
def test_at_least_the_share_is_random_and_nothing_is_asked_twice(n, count, strategy, share, seed):
    gaps = np.random.default_rng(seed).normal(size=(3, n))
    chosen = choose(n, count, strategy, gaps, seed, share)
    assert len({c.place for c in chosen}) == len(chosen) == min(n, count)
    assert {c.strategy for c in chosen} <= {"random", strategy}
    by_chance = [c for c in chosen if c.strategy == "random"]
    assert len(by_chance) >= share * len(chosen) - 1e-9
    assert all(0 < c.probability <= 1 for c in chosen)
    assert chosen == choose(n, count, strategy, gaps, seed, share)


def test_the_most_wanted_come_for_certain():
    """16 are wanted besides the 4 at random, whichever these are."""
    for seed in range(20):
        chosen = choose(100, 20, "gap", np.arange(100.0), seed)
        assert {c.place for c in chosen} >= set(range(84, 100))
        assert all(c.probability == 1 for c in chosen if c.place >= 84)
        wanted = [c.place for c in chosen if c.strategy == "gap"]
        assert len(wanted) == 16
        assert min(wanted) >= 80  # at most 4 of the first 20 were drawn at random


def test_the_random_part_is_a_fair_sample_of_all():
    """Also of those that the strategy wants: without them a reward model would be measured on the easy part."""
    runs = [choose(10, 5, "gap", np.arange(10.0), seed, 0.4) for seed in range(3000)]
    drawn = np.zeros(10)
    for run in runs:
        for c in run:
            drawn[c.place] += c.strategy == "random"
    assert drawn / len(runs) == pytest.approx(np.full(10, 0.2), abs=0.03)


@pytest.mark.parametrize(("n", "count", "share"), [(10, 5, 0.4), (8, 7, 0.2), (6, 6, 0.5), (9, 4, 1.0), (30, 6, 0.5)])
def test_the_probability_is_how_often_a_pair_is_asked(n, count, share):
    runs = [choose(n, count, "gap", np.arange(float(n)), seed, share) for seed in range(4000)]
    seen, told = np.zeros(n), np.full(n, np.nan)
    for run in runs:
        for c in run:
            seen[c.place] += 1
            assert np.isnan(told[c.place]) or told[c.place] == c.probability
            told[c.place] = c.probability
    assert seen / len(runs) == pytest.approx(told, abs=0.035)
    assert told.sum() == pytest.approx(count)


def test_pairs_wanted_equally_come_equally_often():
    seen = np.zeros(10)
    for seed in range(3000):
        for c in choose(10, 5, "gap", np.ones(10), seed):
            seen[c.place] += 1
    assert seen / 3000 == pytest.approx(np.full(10, 0.5), abs=0.04)


def test_weighed_by_their_inverse_probability_the_asked_stand_for_all():
    values = np.random.default_rng(1).random(40)
    sums = [sum(values[c.place] / c.probability for c in choose(40, 10, "gap", values, seed)) for seed in range(4000)]
    assert np.mean(sums) == pytest.approx(values.sum(), rel=0.02)
    plain = [np.mean([values[c.place] for c in choose(40, 10, "gap", values, seed)]) for seed in range(200)]
    assert np.mean(plain) > values.mean() + 0.2  # without, what the strategy wants is taken for the whole


@pytest.mark.parametrize("share", [0.1, 1.1, math.nan])
def test_too_small_a_random_share_is_refused(share):
    with pytest.raises(UserError, match="random_share"):
        choose(4, 2, "gap", [1, 2, 3, 4], 0, share)
