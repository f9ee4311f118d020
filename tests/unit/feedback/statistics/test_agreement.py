"""Agreement against statsmodels, scikit-learn, the package krippendorff, a published example, and by rules."""

from __future__ import annotations

import json
import math
import tarfile
import warnings
from functools import partial
from itertools import combinations
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from rlhf_lightning.feedback.statistics.agreement import (
    alpha_interval,
    bootstrap_interval,
    category_counts,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
)

NAN = math.nan
LEVELS = ["nominal", "ordinal", "interval", "ratio"]

PUBLISHED = np.array(
    [
        *([1, 1, NAN, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4]),
        *([4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [NAN, 5, 5, 5], [NAN, NAN, 1, 1], [NAN, NAN, 3, NAN]),
    ]
)
"""Example C of Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): 12 items, 4 raters."""


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    items, raters = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    rating = st.sampled_from([0.0, 1.0, 2.0, 5.0, NAN])
    return np.array(draw(st.lists(st.lists(rating, min_size=raters, max_size=raters), min_size=items, max_size=items)))


def random_table(items: int = 60, raters: int = 5, seed: int = 0) -> np.ndarray:
    """Ratings from 1 to 5 that agree somewhat, a third missing."""
    rng = np.random.default_rng(seed)
    table = np.clip(np.round(rng.normal(3, 1, (items, 1)) + rng.normal(0, 0.8, (items, raters))), 1, 5)
    table[rng.random(table.shape) < 1 / 3] = NAN
    return table


@pytest.mark.parametrize(("level", "alpha"), zip(LEVELS, [0.743, 0.815, 0.849, 0.797], strict=True))
def test_alpha_of_the_published_example(level, alpha) -> None:
    assert round(krippendorff_alpha(PUBLISHED, level), 3) == alpha


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=60, deadline=None)
@given(tables())
def test_alpha_is_the_packages(level, table) -> None:
    pairable = table[(~np.isnan(table)).sum(1) > 1]
    found = krippendorff_alpha(table, level)
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        assert math.isnan(found)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs divides 0 by 0 where two zeros have a ratio
            theirs = krippendorff.alpha(pairable.T, level_of_measurement=level)
        if level != "ratio" or not (pairable == 0).any():
            assert found == pytest.approx(theirs, abs=1e-9)
        else:
            assert found <= 1


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=60, deadline=None)
@given(table=tables(), seed=st.integers(0, 99))
def test_neither_the_raters_names_nor_the_items_order_matter(level, table, seed) -> None:
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(table, axis=1)[rng.permutation(len(table))]  # alpha does not even know who is who
    for statistic in (partial(krippendorff_alpha, level=level), raw_agreement):
        assert statistic(shuffled) == pytest.approx(statistic(table), nan_ok=True)


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=9).filter(lambda ratings: len(set(ratings)) > 1))
def test_perfect_agreement_is_one(level, ratings) -> None:
    table = np.repeat(np.array(ratings, dtype=float)[:, None], 3, axis=1)
    table[0, 2] = NAN
    assert krippendorff_alpha(table, level) == pytest.approx(1)
    assert raw_agreement(table) == 1
    for weights in (None, "linear", "quadratic"):
        assert cohen_kappa(table[:, 0], table[:, 1], weights) == pytest.approx(1)
    assert fleiss_kappa(category_counts(table[1:])[0]) == pytest.approx(1) or len(set(ratings[1:])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_fleiss_is_statsmodels(seed) -> None:
    table = random_table(40, 4, seed)
    table = np.where(np.isnan(table), 3, table)
    counts, values = category_counts(table)
    assert counts.sum() == 160
    assert np.repeat(values, counts.sum(0)).tolist() == sorted(table.ravel())
    assert fleiss_kappa(counts) == pytest.approx(statsmodels_fleiss(counts))


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(3))
def test_cohen_is_scikit_learns_and_statsmodels(weights, seed) -> None:
    a, b = random_table(80, 2, seed).T
    both = ~(np.isnan(a) | np.isnan(b))
    scale = [1, 2, 3, 4, 5]
    theirs = cohen_kappa_score(a[both].astype(int), b[both].astype(int), weights=weights, labels=scale)
    assert cohen_kappa(a, b, weights) == pytest.approx(theirs)
    counts = np.zeros((5, 5))
    np.add.at(counts, (a[both].astype(int) - 1, b[both].astype(int) - 1), 1)
    kind = {"wt": weights} if weights else {}
    assert cohen_kappa(a, b, weights) == pytest.approx(cohens_kappa(counts, return_results=False, **kind))


def test_weights_go_by_the_ratings_and_not_by_their_ranks() -> None:
    """1 and 5 are far apart also where nobody said 2, 3 or 4."""
    a, b = np.array([1, 1, 5, 5, 4, 4.0]), np.array([1, 5, 5, 1, 4, 5.0])
    theirs = cohen_kappa_score(a.astype(int), b.astype(int), weights="linear", labels=[1, 2, 3, 4, 5])
    assert cohen_kappa(a, b, "linear") == pytest.approx(theirs)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_raw_agreement_by_a_loop(table) -> None:
    pairs = [x == y for row in table for x, y in combinations(row[~np.isnan(row)], 2)]
    assert raw_agreement(table) == pytest.approx(np.mean(pairs) if pairs else NAN, nan_ok=True)


def test_what_is_undefined_is_nan() -> None:
    same, alone, none = np.ones((4, 3)), np.array([[1, NAN], [NAN, 2]]), np.empty((0, 3))
    for level in LEVELS:
        assert all(math.isnan(krippendorff_alpha(table, level)) for table in (same, alone, none))
    assert raw_agreement(same) == 1
    assert math.isnan(raw_agreement(alone))
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(cohen_kappa([1, NAN], [NAN, 2]))
    assert math.isnan(fleiss_kappa(category_counts(same)[0]))
    assert math.isnan(fleiss_kappa([[1, 0], [0, 1]])), "one rater an item"
    assert math.isnan(fleiss_kappa(category_counts(none)[0]))
    assert all(math.isnan(x) for x in alpha_interval(none))
    assert all(math.isnan(x) for x in bootstrap_interval(none, raw_agreement))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Krippendorff's alpha takes them"):
        fleiss_kappa([[2, 0], [1, 2]])
    with pytest.raises(ValueError, match="level='ordered' is unknown"):
        krippendorff_alpha(PUBLISHED, "ordered")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the lowest is -1"):
        krippendorff_alpha(PUBLISHED - 2, "ratio")
    with pytest.raises(ValueError, match="items, raters"):
        krippendorff_alpha([1.0, 2.0])
    with pytest.raises(ValueError, match="infinite"):
        raw_agreement([[1.0, math.inf]])
    with pytest.raises(ValueError, match="shapes"):
        cohen_kappa([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="'linear' or 'quadratic'"):
        cohen_kappa([1, 2], [1, 2], "square")  # type: ignore[arg-type]


@pytest.mark.parametrize("level", LEVELS)
def test_the_quick_interval_of_alpha_is_the_plain_one(level) -> None:
    table = random_table(30)
    plain = bootstrap_interval(table, partial(krippendorff_alpha, level=level), 200, seed=3, confidence=0.9)
    assert alpha_interval(table, level, 200, seed=3, confidence=0.9) == pytest.approx(plain)
    assert plain.low < plain.value < plain.high
    assert alpha_interval(table, level, 200, seed=4) != alpha_interval(table, level, 200, seed=3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Two raters of one answer in two: a copy of the truth with probability one half makes alpha 1/4."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 2, (150, 1))
        table = np.where(rng.random((150, 2)) < 0.5, truth, rng.integers(0, 2, (150, 2)))
        found = alpha_interval(table, draws=200, seed=seed)
        covered += found.low < 0.25 < found.high
    assert 0.88 <= covered / 100 <= 0.99


def test_alpha_of_real_ratings_with_many_values(shared_data: Path) -> None:
    """Human ratings of translations from 0 to 100, three to six raters each: as by the package."""
    archive = shared_data / "mlqe_pe_enzh" / "direct-assessments" / "dev" / "en-zh-dev.tar.gz"
    with tarfile.open(archive) as tar:
        member = tar.extractfile("en-zh-dev/dev.enzh.df.short.tsv")
        assert member is not None
        lines = member.read().decode().splitlines()
    column = lines[0].split("\t").index("scores")
    ratings = [json.loads(line.split("\t")[column]) for line in lines[1:]]
    table = np.full((len(ratings), max(map(len, ratings))), NAN)
    for row, given_ in zip(table, ratings, strict=True):
        row[: len(given_)] = given_
    assert len(table) == 1000
    for level in ("nominal", "ordinal", "interval"):
        assert krippendorff_alpha(table, level) == pytest.approx(
            krippendorff.alpha(table.T, level_of_measurement=level)
        )
    found = alpha_interval(table, "interval", draws=200)
    assert 0 < found.low < found.value < found.high < 0.5
