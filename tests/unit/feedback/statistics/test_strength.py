"""Strengths against choix, by hand, and what becomes of models that never lost or never met."""

from __future__ import annotations

import math

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.statistics.strength import bradley_terry, groups, strengths, win_matrix

NAMES = ["base", "sft", "ppo"]


def simulated(at: list[float], n: int, seed: int, ties: float = 0.0) -> tuple[np.ndarray, ...]:
    """Comparisons of models of known log-strengths: first, second, score."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(at), n)
    second = (first + rng.integers(1, len(at), n)) % len(at)
    p = 1 / (1 + np.exp(np.array(at)[second] - np.array(at)[first]))
    score = (rng.random(n) < p).astype(float)
    score[rng.random(n) < ties] = 0.5
    return first, second, score


@pytest.mark.parametrize("ridge", [1e-6, 0.05, 2.0])
@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_it_is_choixs_estimate(ridge, ties) -> None:
    first, second, score = simulated([0.5, 0.0, -1.0, 0.3], 200, seed=1, ties=ties)
    # Of choix each comparison is twice there: a win counts two, a tie one for either. Its alpha is half a precision.
    rows = []
    for a, b, won in zip(first.tolist(), second.tolist(), score, strict=True):
        rows += [(a, b)] * int(2 * won) + [(b, a)] * int(2 - 2 * won)
    theirs = choix.opt_pairwise(4, rows, alpha=ridge, method="BFGS", tol=1e-10)
    ours = bradley_terry(win_matrix(first, second, score, 4), ridge)
    assert ours == pytest.approx(theirs - theirs.mean(), abs=1e-5)


def test_two_models_by_hand() -> None:
    """Without a prior to speak of, the log-odds are those of the wins: 30 and a tie of 41."""
    wins = win_matrix([0] * 40 + [1], [1] * 40 + [0], [1] * 30 + [0] * 10 + [0.5], 2)
    assert wins.tolist() == [[0, 30.5], [10.5, 0]]
    at = bradley_terry(wins, ridge=1e-9)
    assert at[0] - at[1] == pytest.approx(math.log(30.5 / 10.5))
    found = strengths([0] * 40, [1] * 40, [1] * 30 + [0] * 10, range(40), ["a", "b"], draws=50)
    assert found.models[0].win.value == pytest.approx(0.75, abs=0.01)
    assert [model.comparisons for model in found.models] == [40, 40]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.data())
def test_the_gradient_is_zero_and_a_batch_is_its_parts(models, data) -> None:
    size = 2 * models**2
    counts = data.draw(st.lists(st.integers(0, 60), min_size=size, max_size=size))
    tables = np.array(counts, dtype=float).reshape(2, models, models)
    tables[:, np.arange(models), np.arange(models)] = 0
    both = bradley_terry(tables)
    for wins, at in zip(tables, both, strict=True):
        assert bradley_terry(wins) == pytest.approx(at, abs=1e-9)
        p = 1 / (1 + np.exp(at[None] - at[:, None]))
        assert wins.sum(1) - ((wins + wins.T) * p).sum(1) - 0.05 * at == pytest.approx(np.zeros(models), abs=1e-6)
        assert at.sum() == pytest.approx(0, abs=1e-9)


def test_a_table_of_models() -> None:
    truth = [-0.6, 0.0, 0.6]
    first, second, score = simulated(truth, 3000, seed=2)
    found = strengths(first, second, score, np.arange(3000) // 3, NAMES, draws=200)
    assert [model.name for model in found.models] == ["ppo", "sft", "base"]
    assert not found.separated
    at = [model.log_strength for model in found.models]
    assert [x.value for x in at] == pytest.approx(truth[::-1], abs=0.15)
    assert all(x.low < x.value < x.high and x.high - x.low < 0.3 for x in at)
    top, middle, bottom = (x.value for x in at)
    by_hand = (1 / (1 + math.exp(middle - top)) + 1 / (1 + math.exp(bottom - top))) / 2
    assert found.models[0].win.value == pytest.approx(by_hand)
    assert np.mean([model.win.value for model in found.models]) == pytest.approx(0.5)
    assert found == strengths(first, second, score, np.arange(3000) // 3, NAMES, draws=200)


def test_comparisons_of_one_item_are_drawn_together() -> None:
    """Ten judgements of each item that all say the same are no more than one: the interval is as wide."""
    first, second, score = simulated([0.3, -0.3], 100, seed=3)
    one = strengths(first, second, score, np.arange(100), ["a", "b"], draws=300).models[0].win
    ten = [np.repeat(x, 10) for x in (first, second, score, np.arange(100))]
    clustered = strengths(*ten, ["a", "b"], draws=300).models[0].win
    independent = strengths(*ten[:3], np.arange(1000), ["a", "b"], draws=300).models[0].win
    width = one.high - one.low
    assert clustered.high - clustered.low == pytest.approx(width, rel=0.1)
    assert independent.high - independent.low < 0.5 * width


def test_a_model_that_never_lost_is_finite_and_told_of() -> None:
    first, second, score = [0, 0, 0, 1, 2, 1], [1, 2, 1, 2, 1, 2], [1, 1, 1, 1, 1, 0]
    found = strengths(first, second, score, range(6), NAMES, draws=100)
    assert found.separated
    assert found.models[0].name == "base"
    assert 0 < found.models[0].log_strength.value < 10
    tied = strengths([*first, 0], [*second, 1], [*score, 0.5], range(7), NAMES, draws=20)
    assert not tied.separated, "a tie is half a loss"


def test_models_that_never_met_are_named() -> None:
    with pytest.raises(UserError, match=r"2 groups .*: base, ppo; sft, other\."):
        strengths([0, 2, 1], [2, 0, 3], [1, 1, 0], range(3), [*NAMES, "other"])
    with pytest.raises(UserError, match=r"3 groups .*: base; sft; ppo\."):
        strengths([], [], [], [], NAMES)


def test_groups() -> None:
    links = np.zeros((5, 5))
    links[0, 3] = links[3, 4] = links[1, 2] = 1
    assert groups(links) == [[0, 3, 4], [1, 2]]
    assert groups(links, both_ways=True) == [[0], [1], [2], [3], [4]]
    links[4, 0] = 1
    assert groups(links, both_ways=True) == [[0, 3, 4], [1], [2]]


def test_one_model_has_nothing_to_beat() -> None:
    (only,) = strengths([], [], [], [], ["alone"], draws=10).models
    assert only.log_strength.value == 0
    assert math.isnan(only.win.value)


def test_wrong_comparisons_are_refused() -> None:
    for first, second, score, reason in (
        ([0], [3], [1], "out of range"),
        ([1], [1], [1], "itself"),
        ([0], [1], [2], "from 0"),
        ([0], [1], [math.nan], "from 0"),
        ([0, 1], [1], [1], "shapes"),
    ):
        with pytest.raises(ValueError, match=reason):
            win_matrix(first, second, score, 3)
    with pytest.raises(ValueError, match="as many items"):
        strengths([0], [1], [1], [0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="above 0"):
        bradley_terry([[0, 1], [1, 0]], ridge=0)
