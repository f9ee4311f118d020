"""A figure as the report has it: a number with its interval, or in words why there is none."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from rlhf_lightning.data.files import count_of
from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.statistics.intervals import Estimate, clustered_share, effective_clusters, wilson_interval

FEWEST = 10
"""With fewer observations there is no share, coefficient or mean, but their number in words."""

CERTAIN = 0.01
"""p value below which something is said to be found; where people are tested one by one, after Bonferroni."""


class Figure(Value):
    """A number, or why there is none.

    Attributes:
        value: the number; shares are from 0 to 1.
        low, high: ends of its 95 % interval, where it has one.
        n: observations it is of.
        why: in words, where ``value`` is None.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    why: str | None = None


def none(why: str, n: int = 0) -> Figure:
    """No number, for this reason."""
    return Figure(n=n, why=why)


def number(value: float) -> float | None:
    """A number as JSON has it: None for NaN."""
    return float(value) if math.isfinite(value) else None


def figure(estimate: Estimate, n: int, undefined: str) -> Figure:
    """A figure of an estimate; ``undefined`` says why it is NaN, where it is."""
    if math.isnan(estimate.value):
        return none(undefined, n)
    return Figure(value=estimate.value, low=number(estimate.low), high=number(estimate.high), n=n)


def few(n: int, of: str) -> str:
    """Why nothing is made of so few.

    >>> few(0, "gold questions"), few(1, "gold questions")
    ('no gold questions', '1 gold question: too few')
    """
    return f"{count_of(n, of)}: too few" if n else f"no {of}"


def _amount(value: float) -> str:
    """A sum of scores, with at most one decimal.

    >>> _amount(13.3333), _amount(7.0)
    ('13.3', '7')
    """
    return f"{value:.1f}".removesuffix(".0")


def share(right: float, n: int, of: str) -> Figure:
    """A share with Wilson's interval; of fewer than `FEWEST` only the counts, in words."""
    if n < FEWEST:
        return none(f"{_amount(right)} of {count_of(n, of)}: too few for a share" if n else f"no {of}", n)
    return figure(wilson_interval(min(right, n), n), n, f"no {of}")


def share_by(scores: Sequence[float], clusters: Sequence[Hashable], of: str) -> Figure:
    """The mean of scores from 0 to 1, where those of one prompt count as one for the interval (`clustered_share`)."""
    n, prompts = len(scores), effective_clusters(clusters)
    if n < FEWEST:
        return share(sum(scores), n, of)
    if prompts < FEWEST:
        of_prompts = count_of(len(set(clusters)), "prompts")
        return none(f"{_amount(sum(scores))} of {count_of(n, of)}, of {of_prompts}: too few for a share", n)
    return figure(clustered_share(scores, clusters), n, f"no {of}")
