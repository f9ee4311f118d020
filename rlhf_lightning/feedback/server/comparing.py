"""Two judgements of one question: the candidates' places on the screen, and how far they say the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, TypeVar

from rlhf_lightning.feedback.payloads import Correction, Implicit, Label, Pairwise, Ranking, Rating, Spans, Thumbs

Judgement = Pairwise | Ranking | Rating | Thumbs | Correction | Spans | Label | Implicit
T = TypeVar("T")


def to_stored(payload: Judgement, order: Sequence[int]) -> Judgement:
    """A judgement that names candidates by their place on the screen, naming them as they are stored.

    Args:
        payload: by places.
        order: at each place, the position of the stored candidate.

    Raises:
        ValueError: if it is not of so many candidates.
    """
    new: dict[str, Any]
    if isinstance(payload, Pairwise):
        new = {"winner": _at(payload.winner, order)}
    elif isinstance(payload, Ranking):
        new = {"ranks": _placed(payload.ranks, order)}
    elif isinstance(payload, Rating):
        new = {"values": {aspect: _placed(values, order) for aspect, values in payload.values.items()}}
    elif isinstance(payload, Thumbs):
        new = {"up": _placed(payload.up, order)}
    else:
        new = {"candidate": _at(payload.candidate, order)}
    return payload.model_copy(update=new)


def to_shown(payload: Judgement, order: Sequence[int]) -> Judgement:
    """The way back of `to_stored`."""
    return to_stored(payload, [order.index(position) for position in range(len(order))])


def _at(place: int | None, order: Sequence[int]) -> int | None:
    if place is None:
        return None
    if not 0 <= place < len(order):
        raise ValueError(f"candidate {place} is none of the {len(order)}, which count from 0")
    return order[place]


def _placed(values: Sequence[T], order: Sequence[int]) -> tuple[T, ...]:
    if len(values) != len(order):
        raise ValueError(f"{len(values)} values for {len(order)} candidates")
    return tuple(value for _, value in sorted(zip(order, values, strict=True), key=lambda pair: pair[0]))


def likeness(a: Judgement, b: Judgement) -> float | None:
    """How far two judgements of one question say the same, from 0 to 1; None where that can't be said.

    Pairs, labels and thumbs: 1 if the answers (for thumbs: the share of candidates whose answers) are equal. Rankings:
    the share of pairs of candidates in the same order, or tied in both. Ratings: 1 less the mean distance as a share of
    the scale. Spans: Dice's coefficient of the marked characters with their labels. Corrections: 1 for the same text,
    else nothing can be said.
    """
    if isinstance(a, Pairwise) and isinstance(b, Pairwise):
        return float((a.outcome, a.winner) == (b.outcome, b.winner))
    if isinstance(a, Label) and isinstance(b, Label):
        return float(a.label == b.label)
    if isinstance(a, Ranking) and isinstance(b, Ranking):
        pairs = [
            _sign(a.ranks[i], a.ranks[j]) == _sign(b.ranks[i], b.ranks[j])
            for i, j in combinations(range(min(len(a.ranks), len(b.ranks))), 2)
        ]
        return _mean(pairs)
    if isinstance(a, Thumbs) and isinstance(b, Thumbs):
        return _mean([x == y for x, y in zip(a.up, b.up, strict=False) if x is not None and y is not None])
    if isinstance(a, Rating) and isinstance(b, Rating):
        both = [
            1 - abs(x - y) / (a.high - a.low)
            for aspect in a.values.keys() & b.values.keys()
            for x, y in zip(a.values[aspect], b.values[aspect], strict=False)
            if x is not None and y is not None
        ]
        return _mean(both)
    if isinstance(a, Spans) and isinstance(b, Spans):
        marked_a, marked_b = _marked(a), _marked(b)
        total = sum(_length(stretches) for marked in (marked_a, marked_b) for stretches in marked.values())
        shared = sum(_length(_meet(marked_a[label], marked_b[label])) for label in marked_a.keys() & marked_b.keys())
        return 2 * shared / total if total else 1.0
    if isinstance(a, Correction) and isinstance(b, Correction):
        return 1.0 if a.text == b.text else None
    return None


def disputed(payloads: Sequence[Judgement]) -> bool:
    """Whether no judgement is shared by more than half of those who judged; sharing is a `likeness` of one half.

    One judgement alone is no dispute, and what can't be compared isn't either.
    """
    if len(payloads) < 2:
        return False
    for a in payloads:
        shared = sum(a is b or (found := likeness(a, b)) is None or found >= 0.5 for b in payloads)
        if 2 * shared > len(payloads):
            return False
    return True


def _sign(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else (a > b) - (a < b)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


Stretches = list[tuple[int, int]]
"""Starts and ends of parts of a text, in order and apart from each other."""


def _marked(payload: Spans) -> dict[str, Stretches]:
    """What is marked with each label. Many marks over one another cost no more than many beside each other."""
    marked: dict[str, Stretches] = {}
    for span in sorted(payload.spans, key=lambda span: span.start):
        stretches = marked.setdefault(span.label, [])
        if stretches and span.start <= stretches[-1][1]:
            stretches[-1] = stretches[-1][0], max(stretches[-1][1], span.end)
        else:
            stretches.append((span.start, span.end))
    return marked


def _length(stretches: Stretches) -> int:
    return sum(end - start for start, end in stretches)


def _meet(a: Stretches, b: Stretches) -> Stretches:
    """Where both are."""
    found, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            found.append((start, end))
        if a[i][1] <= b[j][1]:
            i += 1
        else:
            j += 1
    return found
