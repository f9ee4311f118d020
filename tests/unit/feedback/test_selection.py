import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.selection import LEAST_RANDOM, STRATEGIES, choose, usefulness


def test_each_strategy_wants_what_it_should():
    gaps = [[3.0, 0.1, -5.0, 1.0], [3.0, 0.1, -5.0, -1.0]]
    assert usefulness(gaps, "gap").argmax() == 2
    assert usefulness(gaps, "variance").argmax() == 3
    assert usefulness(gaps, "margin").argmax() == 3  # on the whole the two don't know at all
    assert usefulness(gaps[0], "margin").argmax() == 1


def test_variance_needs_several_models():
    with pytest.raises(UserError, match="several reward models"):
        usefulness([1.0, 2.0], "variance")


def test_an_unknown_strategy_is_refused():
    with pytest.raises(UserError, match="there are random, margin, variance, gap"):
        choose(4, 2, "best", [1, 2, 3, 4], 0)  # type: ignore[arg-type]


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
    by_chance = [c for c in chosen if c.strategy == "random"]
    assert len(by_chance) >= share * len(chosen) - 1e-9
    assert all(0 < c.probability <= 1 for c in chosen)
    assert chosen == choose(n, count, strategy, gaps, seed, share)


def test_the_most_wanted_of_what_chance_leaves_over_come_for_certain():
    gaps = np.arange(100.0)
    chosen = choose(100, 20, "gap", gaps, 0)
    drawn = {c.place for c in chosen if c.strategy == "random"}
    left = [place for place in range(100) if place not in drawn]
    assert {c.place for c in chosen if c.strategy == "gap"} == set(left[-16:])


def test_the_random_part_is_a_fair_sample_of_all():
    gaps = np.arange(10.0)
    runs = [choose(10, 5, "gap", gaps, seed, 0.4) for seed in range(3000)]
    drawn, seen = np.zeros(10), np.zeros(10)
    for run in runs:
        for c in run:
            drawn[c.place] += c.strategy == "random"
            seen[c.place] += 1
    chance = next(c.probability for c in runs[0] if c.strategy == "random")
    assert chance == pytest.approx(2 / 10)
    assert drawn / len(runs) == pytest.approx(np.full(10, chance), abs=0.04)  # the most wanted ones among them
    assert (seen[7:] == len(runs)).all()


@pytest.mark.parametrize("share", [0.1, 1.1, math.nan])
def test_too_small_a_random_share_is_refused(share):
    with pytest.raises(UserError, match="random_share"):
        choose(4, 2, "gap", [1, 2, 3, 4], 0, share)
