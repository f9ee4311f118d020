"""What people say of candidates, or do with them: the payloads of events, one form a kind of feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlhf_lightning.data.files import count_of

Grade = Annotated[int, Field(ge=1, le=3)]


class Value(BaseModel):
    """A frozen value of which every field is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Said(Value):
    """What every explicit judgement may have: the aspect judged (None is the whole), how sure, and why."""

    aspect: str | None = None
    confidence: Grade | None = None
    rationale: str | None = None

    def lacks(self, candidates: int) -> str | None:
        """What keeps it from being submitted, in words; None where nothing does. Drafts may lack things.

        Raises:
            ValueError: for what no draft can be.
        """
        return None


class Pairwise(Said):
    """Which of two candidates is better: ``winner`` is 0 or 1, or None in a tie or where both are bad."""

    kind: Literal["pairwise"] = "pairwise"
    outcome: Literal["win", "tie", "both_bad"] | None = None
    winner: Literal[0, 1] | None = None
    strength: Grade | None = None

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        if candidates != 2:
            raise ValueError(f"a pairwise judgement is of 2 candidates, not {candidates}")
        if (self.winner is not None) != (self.outcome == "win"):
            raise ValueError("outcome win, and no other, has a winner (0 or 1)")
        return None if self.outcome else "outcome"


class Ranking(Said):
    """A rank for each candidate: 1 is the best; equal ranks are ties; None is not ranked yet."""

    kind: Literal["ranking"] = "ranking"
    ranks: tuple[Annotated[int, Field(ge=1, le=10**6)] | None, ...]

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        _each(self.ranks, candidates, "ranks")
        return "ranks" if None in self.ranks else None


class Rating(Said):
    """A number from ``low`` to ``high`` for each candidate, by aspect (``{"fluency": [4, 2]}``); None is not rated."""

    kind: Literal["rating"] = "rating"
    values: dict[str, tuple[float | None, ...]]
    low: float = 1
    high: float = 5

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        for aspect, values in self.values.items():
            _each(values, candidates, f"values.{aspect}")
            for value in values:
                if value is not None and not self.low <= value <= self.high:
                    raise ValueError(f"values.{aspect}: {value:g} is not on the scale {self.low:g} to {self.high:g}")
        return None if any(v is not None for values in self.values.values() for v in values) else "values"


class Thumbs(Said):
    """Up (true), down (false) or nothing (None) for each candidate."""

    kind: Literal["thumbs"] = "thumbs"
    up: tuple[bool | None, ...]

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        _each(self.up, candidates, "up")
        return None if any(value is not None for value in self.up) else "up"


class Correction(Said):
    """A candidate's text as a person would have it."""

    kind: Literal["correction"] = "correction"
    candidate: int = 0
    text: str

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        _one(self.candidate, candidates)
        return None if self.text.strip() else "text"


class Span(Value):
    """Characters ``start`` up to ``end`` of a candidate's text (code points, as Python counts); what is wrong there."""

    start: Annotated[int, Field(ge=0)]
    end: int
    label: str
    severity: Literal["minor", "major", "critical"] | None = None
    note: str | None = None


class Spans(Said):
    """Marks within one candidate; none at all says that nothing is wrong."""

    kind: Literal["spans"] = "spans"
    candidate: int = 0
    spans: tuple[Span, ...] = ()

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        _one(self.candidate, candidates)
        for span in self.spans:
            if span.end <= span.start:
                raise ValueError(f"spans: {span.start} to {span.end} marks nothing")
        return None


class Label(Said):
    """One of a closed set of labels, for a candidate or (None) for the prompt."""

    kind: Literal["label"] = "label"
    label: str
    candidate: int | None = None

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        if self.candidate is not None:
            _one(self.candidate, candidates)
        return None if self.label else "label"


Signal = Literal[
    "impression",
    "click",
    "copy",
    "dwell",
    "scroll",
    "continued",
    "rephrased",
    "regenerated",
    "edit_accepted",
    "abandoned",
]


class Implicit(Value):
    """What a person did with a candidate (None: with the whole answer page).

    Attributes:
        signal: what was done.
        candidate: with which candidate.
        value: how much of it, in ``unit``.
        unit: ``count`` (times), ``ms``, ``px``, ``chars`` or ``share`` (0 to 1).
        position: place at which the candidate was shown, 0 the first.
        visible: how many candidates were visible.
        propensity: probability that the candidate was looked at where it stood.
        censored: whether it went on after the record ended, so that ``value`` is a lower bound.
    """

    kind: Literal["implicit"] = "implicit"
    signal: Signal
    candidate: int | None = None
    value: Annotated[float, Field(ge=0)] = 1.0
    unit: Literal["count", "ms", "px", "chars", "share"] = "count"
    position: Annotated[int, Field(ge=0)] | None = None
    visible: Annotated[int, Field(ge=1)] | None = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    censored: bool = False

    def lacks(self, candidates: int) -> str | None:
        """As `Said.lacks`."""
        if self.candidate is not None:
            _one(self.candidate, candidates)
        return None


Payload = Annotated[
    Pairwise | Ranking | Rating | Thumbs | Correction | Spans | Label | Implicit, Field(discriminator="kind")
]
Explicit = (Pairwise, Ranking, Rating, Thumbs, Correction, Spans, Label)
KINDS: tuple[str, ...] = ("pairwise", "ranking", "rating", "thumbs", "correction", "spans", "label", "implicit")
"""Kinds of feedback; all but the last are explicit."""


def _each(values: Sequence[object], candidates: int, name: str) -> None:
    if len(values) != candidates:
        raise ValueError(f"{name} has {count_of(len(values), 'values')} for {count_of(candidates, 'candidates')}")


def _one(candidate: int, candidates: int) -> None:
    if not 0 <= candidate < candidates:
        raise ValueError(f"candidate {candidate} is none of the {candidates}, which count from 0")
