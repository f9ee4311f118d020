"""One person's answers to the questions of an annotation tool, whose fields and questions a user has named.

Label Studio and Argilla know fields with texts and questions about them. Here a field is the prompt or a candidate, and
the name of a question may end with that of the candidate it is about (``fluency-a``, ``rating_answer2``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rlhf_lightning.data.files import count_of, did_you_mean, shown
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event
from rlhf_lightning.feedback.formats.common import Import, item_id, make_event, prompt_of, text_of
from rlhf_lightning.feedback.payloads import Ranking, Rating

PROMPTS = ("prompt", "instruction", "question", "input", "source", "document", "text")
"""Names of the field with the prompt, where the user says none: the first that is there."""

ABOUT = ("context", "language", "id")
"""Fields of a task that are neither prompt nor candidate."""

NOTES = ("rationale", "comment", "comments", "reason", "explanation", "note", "notes")
"""Names of a question for a text that says why."""

OUTCOMES = ("tie", "both_bad")
NAMES = "abcdefghijklmnopqrstuvwxyz"
"""Of the candidates' fields, as they are written."""


@dataclass(frozen=True)
class Subject:
    """What the questions of one task are about."""

    place: str
    asked: Asked
    names: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    def index(self, name: Any) -> int | None:
        """Which candidate is in a field; None where the field is another one."""
        return self.names.index(name) if name in self.names else None

    def about(self, question: str, field: str | None = None) -> int | None:
        """Which candidate a question is about: that of its field, or of the name it ends with, or the only one."""
        found = self.index(field)
        if found is None:
            ends = [n for n in self.names if re.search(rf"(^|[-_. ]){re.escape(n)}$", question)]
            found = self.index(max(ends, key=len)) if ends else None
        return 0 if found is None and len(self.names) == 1 else found


def subject_of(place: str, data: Mapping[str, Any], into: Import, models: Any = None) -> Subject:
    """What a task asks about: its prompt, and its candidates.

    Args:
        place: of the task.
        data: its fields. Without ``into.candidates`` each text that is not the prompt is a candidate, and so is each
            entry ``{id, body}`` of a list of objects.
        into: may name the fields.
        models: by the candidate's field, where it is known.

    Raises:
        UserError: if there is no prompt, or a field that the user has named.
    """
    for name in (*filter(None, (into.prompt,)), *into.candidates):
        if name not in data:
            raise UserError(
                f"{place}: there is no field {name!r}; the fields are {', '.join(data)}{did_you_mean(name, data)}"
            )
    prompt = into.prompt or next((name for name in PROMPTS if data.get(name) is not None), None)
    if prompt is None:
        raise UserError(f"{place}: none of the fields {', '.join(data)} is known as the prompt: say --prompt FIELD")
    texts: dict[str, str] = {}
    for name in into.candidates or [name for name in data if name not in (prompt, *ABOUT)]:
        value = data[name]
        if isinstance(value, str):
            texts[name] = value
        elif isinstance(value, list) and all(isinstance(entry, dict) and "id" in entry for entry in value):
            texts.update({str(entry["id"]): _body(place, name, entry) for entry in value})
        elif into.candidates:
            raise UserError(f"{place}: the field {name!r} must be a text; found {shown(value)}")
    known = models if isinstance(models, Mapping) else {}
    about: dict[str, Any] = {n: text_of(place, n, data[n]) for n in ("context", "language") if data.get(n) is not None}
    return Subject(
        place,
        Asked(text=prompt_of(place, prompt, data[prompt]), **about),
        tuple(texts),
        tuple(Candidate(text=text, model=known.get(name)) for name, text in texts.items()),
    )


def _body(place: str, name: str, entry: dict[str, Any]) -> str:
    """The text of an entry of a list: Label Studio shows title and body."""
    found = next((entry[key] for key in ("body", "text", "html", "title") if entry.get(key) is not None), None)
    return text_of(place, f"{name}.body", found)


class Answers:
    """What one person said about one subject: a judgement of each kind, put together from single answers."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.said: list[tuple[tuple[int, ...], dict[str, Any]]] = []  # the candidates it is about, and the payload
        self.rationale: str | None = None
        self._ratings: dict[tuple[float, float], dict[str, dict[int, float]]] = {}
        self._thumbs: dict[int, bool] = {}
        self._spans: dict[int, list[dict[str, Any]]] = {}

    @property
    def _all(self) -> tuple[int, ...]:
        return tuple(range(len(self.subject.candidates)))

    def _fault(self, question: str, message: str) -> UserError:
        return UserError(f"{self.subject.place}: the answer to {question!r} {message}")

    def _one(self, question: str, field: str | None) -> int:
        found = self.subject.about(question, field)
        if found is None:
            raise self._fault(
                question,
                f"is about none of the candidates ({', '.join(self.subject.names) or 'there are none'}): name the "
                "fields with --candidate, or end the question's name with the field's",
            )
        return found

    def prefer(self, question: str, fields: Iterable[str], choice: str) -> None:
        """One of two candidates (its field), or ``tie`` or ``both_bad``."""
        found = [self.subject.index(name) for name in fields]
        about = tuple(index for index in found if index is not None)
        if len(about) != 2 or len(found) != 2:
            raise self._fault(
                question, f"is about {count_of(len(about), 'known candidates')}, not 2: name them with --candidate"
            )
        if choice in OUTCOMES:
            told: dict[str, Any] = {"outcome": choice}
        elif self.subject.index(choice) in about:
            told = {"outcome": "win", "winner": about.index(self.subject.names.index(choice))}
        else:
            raise self._fault(question, f"is {shown(choice)}, which is neither of the two")
        self.said.append((about, {"kind": "pairwise", **told, "aspect": _aspect(question)}))

    def rank(self, question: str, ranks: Mapping[str, int]) -> None:
        """A rank for each candidate's field."""
        if lacking := [name for name in self.subject.names if name not in ranks]:
            raise self._fault(question, f"does not rank {', '.join(lacking)}")
        if unknown := [name for name in ranks if name not in self.subject.names]:
            raise self._fault(question, f"ranks {', '.join(unknown)}, which is no candidate")
        told = [ranks[name] for name in self.subject.names]
        self.said.append((self._all, {"kind": "ranking", "ranks": told, "aspect": _aspect(question)}))

    def rate(self, question: str, field: str | None, value: Any, low: float, high: float) -> None:
        """A number for one candidate; the aspect is the question's name without the candidate's, or without digits."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._fault(question, f"must be a number; found {shown(value)}")
        index = self._one(question, field)
        name = self.subject.names[index]
        aspect = re.sub(rf"[-_. ]*({re.escape(name)}|\d+)$", "", question) or question
        values = self._ratings.setdefault((low, high), {}).setdefault(aspect, {})
        if index in values:
            raise self._fault(question, f"rates {name!r} a second time in the aspect {aspect!r}")
        values[index] = value

    def thumb(self, question: str, field: str | None, up: bool) -> None:
        """Up or down for one candidate."""
        self._thumbs[self._one(question, field)] = up

    def write(self, question: str, field: str | None, text: str) -> None:
        """A text: why, where the question is named so (`NOTES`); a candidate's correction where it is about one."""
        if question.lower() in NOTES or self.subject.about(question, field) is None:
            self.rationale = text if self.rationale is None else f"{self.rationale}\n\n{text}"
            return
        index = self._one(question, field)
        self.said.append((self._all, {"kind": "correction", "candidate": index, "text": text}))

    def mark(self, question: str, field: str | None, span: dict[str, Any]) -> None:
        """A span of one candidate's text."""
        self._spans.setdefault(self._one(question, field), []).append(span)

    def label(self, question: str, field: str | None, label: str) -> None:
        """A label: of a candidate, where the question is about one, else of the prompt."""
        index = self.subject.index(field) if field is not None else self.subject.about(question)
        name = "" if index is None else self.subject.names[index]
        aspect = re.sub(rf"[-_. ]*{re.escape(name)}$", "", question) if name else question
        told = {"kind": "label", "label": label, "candidate": index, "aspect": None if aspect == "label" else aspect}
        self.said.append((self._all, told))

    def payloads(self) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
        """The judgements, each with the candidates it is about."""
        yield from self.said
        for (low, high), aspects in self._ratings.items():
            values = {aspect: [given.get(i) for i in self._all] for aspect, given in aspects.items()}
            yield self._all, {"kind": "rating", "values": values, "low": low, "high": high}
        if self._thumbs:
            yield self._all, {"kind": "thumbs", "up": [self._thumbs.get(i) for i in self._all]}
        for index, spans in self._spans.items():
            yield self._all, {"kind": "spans", "candidate": index, "spans": spans}

    def events(
        self, into: Import, key: Any, annotator: Any, time: datetime | None, active_ms: int | None, status: str
    ) -> Iterator[Event]:
        """The events: one a judgement. A skip is one, of the kind that so many candidates suggest.

        Args:
            into: see there.
            key: makes an id of parts (`Keys.own`).
            annotator: the person's name in the source.
            time: when it was said.
            active_ms: how long it took.
            status: ``submitted``, ``draft`` or ``skipped``.
        """
        subject = self.subject
        common = {
            "asked": subject.asked,
            "annotator": into.annotator(annotator),
            "time": time,
            "timing": {"submitted": time if status == "submitted" else None, "active_ms": active_ms},
            "status": status,
        }
        if status == "skipped":
            kind = {0: "label", 1: "thumbs", 2: "pairwise"}.get(len(subject.names), "ranking")
            item = item_id(kind, subject.asked, subject.candidates)
            yield make_event(
                subject.place, into, key(item, "skipped"), kind=kind, candidates=subject.candidates, **common
            )
            return
        found = list(self.payloads())
        if not found and self.rationale is not None:
            into.passed["a comment alone"] += 1
        for number, (about, said) in enumerate(found):
            if self.rationale is not None:
                said = {**said, "rationale": self.rationale}
            candidates = tuple(subject.candidates[i] for i in about)
            item = item_id(said["kind"], subject.asked, candidates)
            part = key(item, said["kind"], said.get("candidate"), number)
            yield make_event(
                subject.place, into, part, kind=said["kind"], candidates=candidates, payload=said, **common
            )


def _aspect(question: str) -> str | None:
    """The aspect that is judged, where a question's name says one (``preference:fluency``)."""
    return question.partition(":")[2] or None


# --- out -------------------------------------------------------------------------------------------------------------


def held(event: Event) -> Any:
    """What both tools can hold of a judgement: strength and confidence, and how bad a span is, are not among it."""
    said = event.payload
    assert said is not None
    told = said.model_dump(exclude={"strength", "confidence"})
    for span in told.get("spans", ()):
        del span["severity"], span["note"]
    if isinstance(said, Ranking):
        levels = sorted({rank for rank in said.ranks if rank is not None})
        told["ranks"] = [rank if rank is None else levels.index(rank) for rank in said.ranks]  # their order alone
    if isinstance(said, Rating):
        # An aspect in which nothing is rated has no answer.
        told["values"] = {a: v for a, v in told["values"].items() if any(x is not None for x in v)}
    return told


def same(event: Event, again: Iterable[Event]) -> bool:
    """Whether what was written of an event is read as what it was."""
    read = list(again)
    return len(read) == 1 and (
        held(read[0]) == held(event)
        and read[0].asked.text == event.asked.text
        and [c.text for c in read[0].candidates] == [c.text for c in event.candidates]
    )
