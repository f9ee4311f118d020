"""Consensus by hand, against Dawid and Skene's own example, and against crowd-kit."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene as CrowdKit
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.statistics.consensus import dawid_skene, majority, soft_probabilities

ANAESTHETISTS = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 "
    "1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 "
    "1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 "
    "2322222 1211111 2222222"
)
"""Table 1 of Dawid and Skene (1979): 45 patients' fitness for surgery, thrice by the first anaesthetist, once by the
other four."""


def paper_votes() -> tuple[np.ndarray, ...]:
    votes = [(i, max(0, j - 2), int(c) - 1) for i, row in enumerate(ANAESTHETISTS.split()) for j, c in enumerate(row)]
    return tuple(np.array(votes).T)


def simulated(items: int, raters: int, each: int, classes: int, seed: int) -> tuple[np.ndarray, ...]:
    """The truth, the raters' accuracies, and votes of ``each`` raters an item."""
    rng = np.random.default_rng(seed)
    truth, accuracy = rng.integers(0, classes, items), rng.beta(5, 2, raters)
    item = np.repeat(np.arange(items), each)
    rater = np.concatenate([rng.choice(raters, each, replace=False) for _ in range(items)])
    wrong = (truth[item] + rng.integers(1, classes, len(item))) % classes
    return truth, accuracy, item, rater, np.where(rng.random(len(item)) < accuracy[rater], truth[item], wrong)


def test_majority() -> None:
    assert majority(["a", "b", "a", "a"]) == ("a", 0.75)
    assert majority([2, 1, 2, 1, 3]) == (None, 0.4)
    assert majority(["tie"]) == ("tie", 1.0)
    label, share = majority([])
    assert label is None
    assert math.isnan(share)


def test_soft_probabilities_by_hand() -> None:
    assert soft_probabilities([[3, 1], [0, 0]]) == pytest.approx(np.array([[4 / 6, 2 / 6], [0.5, 0.5]]))
    assert soft_probabilities([3, 1], prior=[1, 3]) == pytest.approx(np.array([0.5, 0.5]))
    assert soft_probabilities([[3, 1], [0, 0]], prior=0) == pytest.approx(
        np.array([[0.75, 0.25], [math.nan] * 2]), nan_ok=True
    )
    with pytest.raises(ValueError, match="negative"):
        soft_probabilities([1, -1])


def test_the_papers_example() -> None:
    """Estimates as in the paper's Table 2, to its two digits: the classes' shares and the first observer's errors."""
    found = dawid_skene(*paper_votes(), smoothing=0)
    assert found.prior.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    assert found.confusion[0].round(2).tolist() == [
        *([0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0]),
        *([0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]),
    ]
    assert found.converged
    assert found.accuracy[0] == pytest.approx((found.prior * np.diag(found.confusion[0])).sum())


@pytest.mark.parametrize("classes", [2, 3])
def test_without_smoothing_it_is_crowd_kits(classes) -> None:
    _, _, item, rater, label = simulated(80, 6, 4, classes, seed=classes)
    data = pd.DataFrame({"task": item, "worker": rater, "label": label})
    theirs = CrowdKit(n_iter=20, tol=-1.0).fit(data)
    posterior = dawid_skene(item, rater, label, smoothing=0, max_iterations=20).posterior
    assert posterior == pytest.approx(theirs.probas_.sort_index()[list(range(classes))].to_numpy(), abs=1e-6)
    confusion = dawid_skene(item, rater, label, smoothing=0, max_iterations=21).confusion  # theirs ends with an M step
    errors = theirs.errors_[list(range(classes))].to_numpy()
    for (who, said), row in zip(theirs.errors_.index, errors, strict=True):
        assert confusion[who, :, said] == pytest.approx(row, abs=1e-6)


def test_the_likelihood_rises() -> None:
    _, _, *votes = simulated(60, 5, 3, 3, seed=1)
    values = [dawid_skene(*votes, smoothing=0, max_iterations=n).log_likelihood for n in range(1, 30)]
    assert (np.diff(values) > -1e-9).all()
    assert values[-1] > values[0] + 1
    assert not dawid_skene(*votes, max_iterations=2).converged


def test_good_and_bad_raters_are_told_apart_and_items_better_than_by_majority() -> None:
    truth, accuracy, item, rater, label = simulated(1000, 20, 3, 2, seed=0)
    found = dawid_skene(item, rater, label)
    assert np.corrcoef(found.accuracy, accuracy)[0, 1] > 0.9
    assert np.abs(found.accuracy - accuracy).mean() < 0.06
    counts = np.zeros((1000, 2))
    np.add.at(counts, (item, label), 1)
    assert (found.posterior.argmax(1) == truth).mean() > (counts.argmax(1) == truth).mean() + 0.02


def test_few_votes_make_no_certainties() -> None:
    """Nine votes a rater: the smoothed posterior is nearer to the truth than the paper's and than counts of votes."""
    losses = []
    for seed in range(10):
        truth, _, item, rater, label = simulated(60, 20, 3, 2, seed)
        counts = np.zeros((60, 2))
        np.add.at(counts, (item, label), 1)
        ways = [
            dawid_skene(item, rater, label).posterior,
            dawid_skene(item, rater, label, smoothing=0).posterior,
            soft_probabilities(counts),
        ]
        losses.append([-np.log(np.maximum(p[np.arange(60), truth], 1e-9)).mean() for p in ways])
    smoothed, plain, soft = np.mean(losses, axis=0)
    assert smoothed < soft < plain


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_probabilities_are_probabilities(data) -> None:
    n, k = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    item, rater, label = (
        np.array(data.draw(st.lists(st.integers(0, top), min_size=n, max_size=n))) for top in (6, 3, k - 1)
    )
    smoothing = data.draw(st.sampled_from([0.0, 1.0, 8.0]))
    found = dawid_skene(item, rater, label, k, smoothing, max_iterations=200)
    assert found.posterior.shape == (item.max() + 1, k)
    assert found.confusion.shape == (rater.max() + 1, k, k)
    for values in (found.posterior, found.confusion, found.prior):
        assert np.isfinite(values).all()
        assert values.sum(-1) == pytest.approx(np.ones(values.shape[:-1]))
    assert ((found.accuracy >= 0) & (found.accuracy <= 1 + 1e-12)).all()
    unseen = np.setdiff1d(np.arange(item.max() + 1), item)
    assert found.posterior[unseen] == pytest.approx(np.tile(found.prior, (len(unseen), 1)))


def test_wrong_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="label 3 is out of range"):
        dawid_skene([0, 1], [0, 0], [0, 3], classes=3)
    with pytest.raises(ValueError, match="shapes"):
        dawid_skene([0, 1], [0], [0, 1])
    with pytest.raises(ValueError, match="shapes"):
        dawid_skene([], [], [])
    with pytest.raises(ValueError, match="whole numbers"):
        dawid_skene([0, 1], [0, 0], [0.0, math.nan])
