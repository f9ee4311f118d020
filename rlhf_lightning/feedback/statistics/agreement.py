"""How far raters agree beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha, and their bootstrap intervals.

A table of ratings has a row an item, a column a rater, and NaN where a rater did not rate the item. A coefficient is 1
for perfect agreement and 0 for what chance gives; it is NaN where there is nothing to compare, or where all ratings are
equal, so that chance alone would give perfect agreement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rlhf_lightning.feedback.statistics.intervals import CONFIDENCE, DRAWS, Estimate, percentile_interval

Level = Literal["nominal", "ordinal", "interval", "ratio"]
"""What ratings mean: names only; an order; distances; or ratios, from a true zero."""


def raw_agreement(table: ArrayLike) -> float:
    """The share of equal ones among all pairs of ratings of one item; NaN without a pair.

    Args:
        table: (items, raters) ratings.
    """
    ratings = _pairable(_table(table))
    size = _sizes(ratings)
    pairs = float((size * (size - 1)).sum())
    return 1 - float(_by_pairs(ratings, _differ).sum()) / pairs if pairs else math.nan


def cohen_kappa(a: ArrayLike, b: ArrayLike, weights: Literal["linear", "quadratic"] | None = None) -> float:
    """Cohen's kappa of two raters (1960), or weighted kappa (1968).

    Args:
        a, b: (items,) ratings of the two; an item that either did not rate (NaN) is left out.
        weights: how a disagreement counts: all alike, or as the difference of the two ratings, or as its square.

    Returns:
        Kappa; NaN without a common item, or where both gave one and the same rating to all.

    Raises:
        ValueError: if the two differ in length, or the weights are unknown.
    """
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"two raters' ratings of the same items are needed; got shapes {left.shape} and {right.shape}")
    distances: dict[str | None, Callable[[np.ndarray, np.ndarray], np.ndarray]]
    distances = {None: _differ, "linear": lambda x, y: np.abs(x - y), "quadratic": lambda x, y: (x - y) ** 2}
    if weights not in distances:
        raise ValueError(f"weights={weights!r} is unknown; it is None, 'linear' or 'quadratic'")
    distance = distances[weights]
    both = ~(np.isnan(left) | np.isnan(right))
    left, right = left[both], right[both]
    values, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
    if len(values) < 2:
        return math.nan
    shares = [np.bincount(side, minlength=len(values)) / len(left) for side in np.split(codes, 2)]
    by_chance = shares[0] @ distance(values[:, None], values[None]) @ shares[1]
    return 1 - float(distance(left, right).mean() / by_chance)


def category_counts(table: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """How often each item got each rating, as Fleiss' kappa wants it.

    Args:
        table: (items, raters) ratings.

    Returns:
        (items, categories) counts, and the (categories,) ratings that occur, in ascending order.
    """
    ratings = _table(table)
    items, raters = np.nonzero(~np.isnan(ratings))
    values, codes = np.unique(ratings[items, raters], return_inverse=True)
    counts = np.zeros((len(ratings), len(values)), dtype=int)
    np.add.at(counts, (items, codes), 1)
    return counts, values


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa (1971), of the same number of raters for each item, not necessarily the same ones.

    Args:
        counts: (items, categories) how many raters put the item into the category.

    Returns:
        Kappa; NaN without an item, with fewer than two raters, or where one category alone is used.

    Raises:
        ValueError: if items have different numbers of ratings; `krippendorff_alpha` takes these.
    """
    table = np.asarray(counts, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"counts of (items, categories) are needed; got the shape {table.shape}")
    raters = np.unique(table.sum(1))
    if len(raters) > 1:
        raise ValueError(
            f"Fleiss' kappa wants the same number of ratings for each item; here they are from {raters[0]:g} to "
            f"{raters[-1]:g}. Krippendorff's alpha takes them"
        )
    if not len(raters) or raters[0] < 2:
        return math.nan
    agreed = float(((table**2).sum(1) - raters[0]).mean() / (raters[0] * (raters[0] - 1)))
    shares = table.sum(0) / table.sum()
    if (shares > 0).sum() < 2:
        return math.nan
    by_chance = float((shares**2).sum())
    return (agreed - by_chance) / (1 - by_chance)


def krippendorff_alpha(table: ArrayLike, level: Level = "nominal") -> float:
    """Krippendorff's alpha, of any number of raters and missing ratings.

    As in Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011); items with fewer than two ratings count for
    nothing. With ``level="ratio"`` it takes memory for the square of the number of different ratings.

    Args:
        table: (items, raters) ratings.
        level: of measurement.

    Returns:
        Alpha; NaN where no item has two ratings, or all ratings of those that have are equal.

    Raises:
        ValueError: if the table has not two dimensions, the level is unknown, or a rating is negative where ratios
            are asked for.
    """
    ratings = _table(table)
    return _Alpha(ratings, level)(np.ones(len(ratings)))


def bootstrap_interval(
    table: ArrayLike,
    statistic: Callable[[np.ndarray], float],
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """A statistic of a table with the percentile interval of a bootstrap over items.

    Where ratings agree perfectly all resamples do, and the interval has no width: it knows nothing of disagreements
    that were not seen. For alpha there is the much quicker `alpha_interval`.

    Args:
        table: (items, raters) ratings; a drawn item takes all its ratings along.
        statistic: of such a table, `raw_agreement` say.
        draws: resamples.
        seed: of the resamples.
        confidence: of the interval.
        clusters: (items,) what is drawn together (the candidates of one question, say); by default each by itself.

    Returns:
        The statistic and the ends; see `percentile_interval` for resamples where it is NaN.
    """
    ratings = _table(table)
    drawn = [
        statistic(ratings[np.repeat(np.arange(len(times)), times)]) for times in _times(ratings, clusters, draws, seed)
    ]
    return percentile_interval(statistic(ratings), drawn, confidence)


def alpha_interval(
    table: ArrayLike,
    level: Level = "nominal",
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Krippendorff's alpha with the percentile interval of a bootstrap over items.

    The same numbers as by `bootstrap_interval`; but what does not change between resamples is computed once.

    Args:
        table: (items, raters) ratings.
        level: of measurement.
        draws: resamples.
        seed: of the resamples.
        confidence: of the interval.
        clusters: as by `bootstrap_interval`.
    """
    ratings = _table(table)
    alpha = _Alpha(ratings, level)
    drawn = [alpha(times.astype(float)) for times in _times(ratings, clusters, draws, seed)]
    return percentile_interval(alpha(np.ones(len(ratings))), drawn, confidence)


def _times(ratings: np.ndarray, clusters: ArrayLike | None, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each item is drawn in each resample."""
    _, cluster = np.unique(np.arange(len(ratings)) if clusters is None else np.asarray(clusters), return_inverse=True)
    if cluster.shape != (len(ratings),):
        raise ValueError(f"{len(ratings)} items need as many clusters; got the shape {cluster.shape}")
    rng, count = np.random.default_rng(seed), int(cluster.max(initial=-1)) + 1
    for _ in range(draws * bool(count)):
        yield np.bincount(rng.integers(0, count, count), minlength=count)[cluster]


class _Alpha:
    """Alpha of one table where each item counts a number of times.

    In Krippendorff's terms it is ``1 - (n - 1) sum(o d) / sum(e d)`` with the coincidences ``o`` observed, those
    expected ``e = n_c n_k`` and the squared differences ``d``. The first sum is one over items, each with the
    differences within it, which the items' weights leave as they are (only the ordinal ones depend on how often each
    rating occurs). So no coincidence matrix is made.
    """

    def __init__(self, ratings: np.ndarray, level: Level) -> None:
        if level not in ("nominal", "ordinal", "interval", "ratio"):
            raise ValueError(f"level={level!r} is unknown; it is 'nominal', 'ordinal', 'interval' or 'ratio'")
        self.level = level
        self.paired = (~np.isnan(ratings)).sum(1) > 1
        pairable = _pairable(ratings)
        self.size = _sizes(pairable)
        self.present = ~np.isnan(pairable)
        self.rows = np.nonzero(self.present)[0]
        self.values, self.codes = np.unique(pairable[self.present], return_inverse=True)
        if level == "ratio" and len(self.values) and self.values[0] < 0:
            raise ValueError(f"ratios of ratings want none below 0; the lowest is {self.values[0]:g}")
        if level == "nominal":
            self.within = _by_pairs(pairable, _differ) / (self.size - 1)
        elif level == "ratio":
            self.within = _by_pairs(pairable, _ratio) / (self.size - 1)
            self.distances = _ratio(self.values[:, None], self.values[None])
        elif level == "interval":
            self.within = self._spread(self.values)

    def _spread(self, positions: np.ndarray) -> np.ndarray:
        """(rows,) sum of the squared differences of all ordered pairs, by the rating's place on a line, over n - 1."""
        at = positions[self.codes]
        mean = np.bincount(self.rows, at, len(self.size)) / self.size
        return 2 * self.size * np.bincount(self.rows, (at - mean[self.rows]) ** 2, len(self.size)) / (self.size - 1)

    def __call__(self, times: np.ndarray) -> float:
        weights = times[self.paired]
        counts = np.bincount(self.codes, weights[self.rows], len(self.values))
        if (counts > 0).sum() < 2:
            return math.nan
        n = counts.sum()
        if self.level == "nominal":
            expected = n**2 - (counts**2).sum()
        elif self.level == "ratio":
            expected = counts @ self.distances @ counts
        else:
            # The ordinal difference, of all ratings between the two and half of both, is one of mean ranks.
            positions = self.values if self.level == "interval" else np.cumsum(counts) - counts / 2
            expected = 2 * n * (counts * (positions - counts @ positions / n) ** 2).sum()
        within = self._spread(positions) if self.level == "ordinal" else self.within
        return 1 - float((n - 1) * (weights @ within) / expected)


def _table(table: ArrayLike) -> np.ndarray:
    ratings = np.asarray(table, dtype=float)
    if ratings.ndim != 2:
        raise ValueError(f"a table of (items, raters) is needed; got the shape {ratings.shape}")
    if np.isinf(ratings).any():
        raise ValueError("a rating is infinite; missing ones are NaN")
    return ratings


def _pairable(ratings: np.ndarray) -> np.ndarray:
    """The items with two ratings at least; each one's ratings moved to the left, columns without any left out."""
    present = (~np.isnan(ratings)).sum(1)
    kept = np.sort(ratings[present > 1], axis=1)  # NaN come last
    return kept[:, : present.max(initial=0)]


def _sizes(ratings: np.ndarray) -> np.ndarray:
    return (~np.isnan(ratings)).sum(1)


def _by_pairs(ratings: np.ndarray, distance: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """(items,) sum of the distances of all ordered pairs of ratings of an item; ratings come first, then NaN."""
    total = np.zeros(len(ratings))
    for j in range(1, ratings.shape[1]):
        both = ~np.isnan(ratings[:, j])
        total[both] += 2 * distance(ratings[both, :j], ratings[both, j : j + 1]).sum(1)
    return total


def _differ(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x != y).astype(float)


def _ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Krippendorff's ratio difference; two zeros do not differ."""
    total = x + y
    return np.divide(x - y, total, out=np.zeros(np.broadcast_shapes(x.shape, y.shape)), where=total != 0) ** 2
