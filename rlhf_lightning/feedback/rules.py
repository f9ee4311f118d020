"""How judgements become rows to train on: what may be chosen, and the values the conversion works on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Event, digest

Ties = Literal["drop", "half"]
Merge = Literal["each", "majority", "soft", "dawid_skene"]
MERGES: tuple[Merge, ...] = ("each", "majority", "soft", "dawid_skene")

OWN = ("events", "item", "feedback", "annotators", "document_id", "person_id", "aspect")
"""Columns in which a row says what it was made of. Not ``source`` and ``document``: tasks have columns of these names,
and fill their prompts from them."""

RESERVED = frozenset(("prompt", "chosen", "rejected", "completion", "weight", "margin", "probability", "group", *OWN))
"""Names that a row's columns have for themselves; an asked column of such a name does not travel into the row."""


@dataclass(frozen=True)
class Rules:
    """What is made of judgements.

    Attributes:
        ties: whether equally good completions give no pair (``drop``), or one of probability 0.5 (``half``).
        merge: what several people say of one pair, completion or prompt: a row for each judgement (``each``), the
            answer of most (``majority``), its probability given the votes (``soft``: shares, with one vote for either
            side beforehand; ``dawid_skene``: votes weighed by how often their rater seems to be right).
        margin: margin of a pair for each grade of the strength with which it was preferred (1 to 3).
        gap: the least difference of two ratings that gives a pair, in standard deviations of that person's ratings:
            half of one is a middling effect by Cohen's convention.
        target: the best-rated completion is one to imitate from this share of the scale on; 0.75 is 4 on 1 to 5.
        aspect: only judgements of this aspect; None takes all.
        implicit: whether signs of use give pairs as well (`rlhf_lightning.feedback.implicit`).
        checks: whether gold items, whose answer is known, and repeated ones, which were asked before, are used too.
    """

    ties: Ties = "drop"
    merge: Merge = "each"
    margin: float = 0.0
    gap: float = 0.5
    target: float = 0.75
    aspect: str | None = None
    implicit: bool = False
    checks: bool = False

    def __post_init__(self) -> None:
        if self.ties not in ("drop", "half"):
            raise UserError(f"ties must be drop or half, not {self.ties!r}")
        if self.merge not in MERGES:
            raise UserError(f"merge must be one of {', '.join(MERGES)}, not {self.merge!r}")
        for name in ("margin", "gap"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UserError(f"{name} must be a number from 0 on, not {getattr(self, name)}")
        if not 0 <= self.target <= 1:
            raise UserError(f"target must be a share of the scale, 0 to 1, not {self.target}")


@dataclass(frozen=True)
class Origin:
    """What a row was made of.

    Attributes:
        asked: the prompt and its columns.
        item: of the (first) judgement.
        events: ids of the judgements.
        annotators: who gave them.
        feedback: ``explicit``, ``correction`` or ``implicit``.
        aspect: that was judged, if it was one.
    """

    asked: Asked
    item: str
    events: tuple[str, ...]
    annotators: tuple[str, ...]
    feedback: str = "explicit"
    aspect: str | None = None

    @classmethod
    def of(cls, events: Iterable[Event], feedback: str = "explicit", aspect: str | None = None) -> Origin:
        """Of judgements of one prompt."""
        all_of_them = list(events)
        first = all_of_them[0]
        ids = tuple(dict.fromkeys(event.id for event in all_of_them))
        people = tuple(dict.fromkeys(event.annotator.id for event in all_of_them))
        return cls(first.asked, first.item, ids, people, feedback, aspect)

    @classmethod
    def joined(cls, origins: Iterable[Origin]) -> Origin:
        """Of all of them, which are of one prompt."""
        parts = list(origins)
        first = parts[0]
        return cls(
            first.asked,
            first.item,
            tuple(dict.fromkeys(event for part in parts for event in part.events)),
            tuple(dict.fromkeys(person for part in parts for person in part.annotators)),
            first.feedback,
            first.aspect,
        )

    @property
    def prompt(self) -> Prompt:
        """The prompt as rows have it."""
        text = self.asked.text
        return Prompt(text if isinstance(text, str) else [turn.model_dump() for turn in text])

    @property
    def meta(self) -> dict[str, Any]:
        """The row's other columns: those of the task, and `OWN` as far as there is something to say."""
        asked = self.asked
        own: dict[str, Any] = {
            "events": list(self.events),
            "item": self.item,
            "feedback": self.feedback,
            "annotators": list(self.annotators),
            "document_id": asked.document,
            "person_id": asked.person,
            "aspect": self.aspect,
        }
        columns = {name: value for name, value in asked.meta.items() if name not in RESERVED}
        return {**columns, **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True)
class Dropped:
    """A judgement, or a comparison within it, that gave no row, and why."""

    events: tuple[str, ...]
    reason: str


def prompt_key(asked: Asked) -> str:
    """SHA-256 of the prompt (turns below each other, as `Asked.plain`): what rows, rewards and splits know it by."""
    return digest(asked.plain)
