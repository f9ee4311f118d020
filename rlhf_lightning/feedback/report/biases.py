"""What sways people beside the answers' quality: the place on the screen, and length."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.report.figures import CERTAIN, FEWEST, Figure, few, figure, none, number
from rlhf_lightning.feedback.report.said import comparisons
from rlhf_lightning.feedback.statistics.bias import length_bias, position_bias
from rlhf_lightning.feedback.statistics.intervals import Estimate, binomial_p


class Position(Value):
    """Whether the answer shown first wins more or less often than half of the time.

    Attributes:
        first: share of wins of the answer shown first, without ties, with the exact binomial interval.
        p: two-sided, of the exact test of one half.
        found: whether p is below `CERTAIN`.
        stored_first: share of comparisons in which the first of the stored candidates was shown first.
        drawn: whether that may be chance (the exact test of one half, or within 0.1 of it). Where it is not the order
            was not drawn at random, and what was stored first may be better or worse by itself.
        unknown: comparisons whose order is not known, which are left out.
    """

    first: Figure
    p: float | None
    found: bool
    stored_first: float | None
    drawn: bool
    unknown: int


class Length(Value):
    """How the longer answer fares. Longer answers may be better ones, so this alone shows no mistake.

    Attributes:
        longer: share of wins of the longer answer (in characters), without ties, with the exact binomial interval.
        p: two-sided, of the exact test of one half.
        found: whether p is below `CERTAIN`.
        odds: what the odds of winning are multiplied by for an answer twice as long, by logistic regression on the
            logarithm of the lengths' ratio.
    """

    longer: Figure
    p: float | None
    found: bool
    odds: Figure


COMPARED = "comparisons of two with a winner"


def position_of(events: Sequence[Event]) -> Position:
    """Of all comparisons of two among judgements that hold."""
    shown = comparisons(events)
    known = [one for one in shown if one.known]
    found = position_bias([one.score for one in known])
    certain = found.comparisons >= FEWEST
    kept, n = sum(one.event.shown.order[0] == 0 for one in known), len(known)
    of = f"{COMPARED} and a known order"
    return Position(
        first=_exact(found.share, found.wins, found.comparisons, of),
        p=number(found.p) if certain else None,
        found=certain and found.p < CERTAIN,
        stored_first=kept / n if n else None,
        drawn=not n or abs(kept / n - 0.5) <= 0.1 or binomial_p(kept, n) >= CERTAIN,
        unknown=len(shown) - len(known),
    )


def length_of(events: Sequence[Event]) -> Length:
    """Of all comparisons of two non-empty answers among judgements that hold."""
    shown = [one for one in comparisons(events) if one.first and one.second]
    lengths = [len(one.first) for one in shown], [len(one.second) for one in shown]
    found = length_bias([one.score for one in shown], *lengths)
    n, certain = found.comparisons, found.comparisons >= FEWEST
    of = f"{COMPARED}, of answers that differ in length"
    slope = Estimate(*(2.0**end for end in found.slope))
    return Length(
        longer=_exact(found.share, round(found.share.value * n) if n else 0, n, of),
        p=number(found.p) if certain else None,
        found=certain and found.p < CERTAIN,
        odds=figure(slope, n, "undefined") if certain else none(few(n, of), n),
    )


def _exact(share: Estimate, wins: int, n: int, of: str) -> Figure:
    if n < FEWEST:
        return none(f"{wins} of {n} {of}: too few for a share" if n else f"no {of}", n)
    return figure(share, n, f"no {of}")
