"""Judgements for tests, in few words."""

from __future__ import annotations

import itertools
from typing import Any

from rlhf_lightning.feedback.events import Asked, Candidate, Event

_numbers = itertools.count()


def judged(kind: str, texts: list[str], person: str = "ann", prompt: Any = "Question", **fields: Any) -> Event:
    """An event of ``kind``; fields that no event has are the payload's, ``asked`` has the prompt's."""
    event = {name: fields.pop(name) for name in list(fields) if name in Event.model_fields and name != "kind"}
    asked = Asked(text=prompt, **event.pop("asked", {}))
    role = fields.pop("role", "annotator")
    return Event(
        id=event.pop("id", f"e{next(_numbers)}"),
        item=event.pop("item", "item"),
        kind=kind,  # type: ignore[arg-type]
        asked=asked,
        candidates=tuple(Candidate(text=text) for text in texts),
        annotator={"id": person, "role": role},  # type: ignore[arg-type]
        payload={"kind": kind, **fields},  # type: ignore[arg-type]
        **event,
    )


def win(winner: int, texts: tuple[str, str] = ("a", "b"), person: str = "ann", prompt: Any = "Question", **fields: Any):
    """A pair of which one is better."""
    return judged("pairwise", list(texts), person, prompt, outcome="win", winner=winner, **fields)


def tie(texts: tuple[str, str] = ("a", "b"), person: str = "ann", prompt: Any = "Question", **fields: Any):
    """A pair of equals."""
    return judged("pairwise", list(texts), person, prompt, outcome="tie", **fields)


def both_bad(texts: tuple[str, str] = ("a", "b"), person: str = "ann", prompt: Any = "Question", **fields: Any):
    """A pair of which neither is good."""
    return judged("pairwise", list(texts), person, prompt, outcome="both_bad", **fields)


def rating(values: list[float | None], texts: list[str], person: str = "ann", prompt: Any = "Question", **fields: Any):
    """Ratings of one aspect, on a scale from 1 to 5."""
    return judged("rating", texts, person, prompt, values={"quality": values}, **fields)


def sign(
    signal: str, candidate: int | None, texts: list[str], person: str = "ann", prompt: Any = "Question", **fields: Any
):
    """A sign of use."""
    return judged("implicit", texts, person, prompt, signal=signal, candidate=candidate, **fields)
