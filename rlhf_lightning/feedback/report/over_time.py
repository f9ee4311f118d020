"""Whether judging changes over time: agreement, what is chosen, speed, right answers to known questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Pairwise, Value
from rlhf_lightning.feedback.report.figures import CERTAIN, FEWEST, few, number
from rlhf_lightning.feedback.report.said import alike, comparisons, explicit, first_time, same, seconds
from rlhf_lightning.feedback.statistics.raters import drift, time_blocks

BLOCKS = 10


class Course(Value):
    """One figure over time.

    Attributes:
        title: what it is the mean of.
        means: of blocks of equal numbers of judgements, in the order of time.
        times: when each block begins.
        correlation: Spearman's, of the single values with their order.
        p: two-sided; too small where neighbouring judgements are alike.
        found: whether p is below `CERTAIN`.
        n: values.
        why: in words, where there are no blocks.
    """

    title: str
    means: tuple[float, ...] = ()
    times: tuple[datetime, ...] = ()
    correlation: float | None = None
    p: float | None = None
    found: bool = False
    n: int = 0
    why: str | None = None


class _At(NamedTuple):
    time: datetime
    value: float


def courses(events: Sequence[Event]) -> list[Course]:
    """Of judgements that hold."""
    said = explicit(events)
    shown = comparisons(said)
    pairs = [event for event in said if isinstance(event.payload, Pairwise)]
    answered = [(event, event.model_copy(update={"payload": event.expected})) for event in said if event.gold]
    return [
        _course(
            "agreement of two people (0 to 1), at the time of the later",
            [_At(max(a.time, b.time), like) for a, b, like in alike(first_time(events))],
        ),
        _course(
            "share of wins of the answer shown first",
            [_At(one.event.time, one.score) for one in shown if one.known and one.score != 0.5],
        ),
        _course(
            "share of ties and of “both bad”",
            [_At(e.time, float(e.payload.winner is None)) for e in pairs if isinstance(e.payload, Pairwise)],
        ),
        _course("seconds for a judgement", [_At(e.time, t) for e in said if (t := seconds(e)) is not None]),
        _course(
            "likeness to known answers (0 to 1)",
            [_At(one.time, like) for one, right in answered if (like := same(one, right)) is not None],
        ),
    ]


def _course(title: str, values: Sequence[_At]) -> Course:
    n = len(values)
    if n < 2 * FEWEST:
        return Course(title=title, n=n, why=few(n, "values"))
    times = [one.time.timestamp() for one in values]
    if min(times) == max(times):
        return Course(title=title, n=n, why="all of one time")
    if len({one.value for one in values}) == 1:
        return Course(title=title, n=n, why=f"always {values[0].value:g}")
    blocks = min(BLOCKS, n // FEWEST)
    found = drift([one.value for one in values], times, blocks)
    begins = tuple(values[block[0]].time for block in time_blocks(times, blocks))
    p = found.trend.p
    return Course(
        title=title,
        means=tuple(found.means),
        times=begins,
        correlation=number(found.trend.correlation),
        p=number(p),
        found=not math.isnan(p) and p < CERTAIN,
        n=n,
    )
