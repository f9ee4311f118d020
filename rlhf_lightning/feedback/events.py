"""One judgement, or one sign of use, as the event log keeps it: who was shown what, and what they said or did.

Events are never changed. What a person thinks better of is a new event that supersedes the old one; `holding.current`
says which hold. The JSON of an event is its dump without what is None: what is exported is read back equal.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.payloads import KINDS, Payload, Spans, Value

VERSION: Literal[1] = 1
"""Of the form of events; another one is refused when read."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
"""Identifiers: short, and harmless in an address or a file's name."""


Status = Literal["submitted", "draft", "skipped", "retracted", "erased"]
Role = Literal["annotator", "adjudicator", "owner", "user", "simulated"]
"""``user`` gave implicit feedback while using a model; ``simulated`` is no person."""


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    """The object, if JSON has all its numbers: it has no nan and no infinities, and they would be stored as null."""
    level: list[tuple[str, Any]] = [("", value)]
    while level:
        at, part = level.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise ValueError(f"{at} is {part}, which JSON does not have: write null, or leave it out")
        if isinstance(part, dict):
            level += [(f"{at}.{key}" if at else str(key), below) for key, below in part.items()]
        elif isinstance(part, list | tuple):
            level += [(f"{at}.{i}", below) for i, below in enumerate(part)]
    return value


Columns = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Values by name that we don't know the meaning of."""


# --- what was shown --------------------------------------------------------------------------------------------------


class Message(Value):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Asked(Value):
    """What the model was asked.

    Attributes:
        text: the prompt as the model got it, plain or as the turns of a chat.
        context: what a person needs beside it and the model did not see (a source, a guideline for this item).
        language: BCP 47 tag, such as ``en`` or ``zh-Hans``; None where unknown.
        document: what it is about, by an id: several prompts on one document are never split over training and test.
        person: salted id of the person whose words or data it holds, for `erase`.
        meta: the row's other columns; they travel into the training rows.
    """

    text: str | tuple[Message, ...]
    context: str | None = None
    language: str | None = None
    document: str | None = None
    person: Id | None = None
    meta: Columns = Field(default_factory=dict)

    @property
    def plain(self) -> str:
        """The prompt as one text: the turns of a chat below each other."""
        if isinstance(self.text, str):
            return self.text
        return "\n\n".join(f"{turn.role}: {turn.content}" for turn in self.text)


class Candidate(Value):
    """One completion to be judged.

    Attributes:
        text: the completion.
        hash: SHA-256 of the text; filled in where it is left out, and checked where it is given.
        model: name or folder of the model that wrote it; None for a person, or where unknown.
        settings: how it was generated (temperature, seed, ...).
    """

    text: str
    hash: str = ""
    model: str | None = None
    settings: Columns = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("hash") and isinstance(data.get("text"), str):
            return {**data, "hash": digest(data["text"])}
        return data

    @model_validator(mode="after")
    def _check(self) -> Candidate:
        if self.hash != digest(self.text):
            raise ValueError("hash is not that of the text: leave it out, or mend the text")
        return self


class Shown(Value):
    """How the candidates were shown.

    Attributes:
        order: positions of the candidates from first (left, top) to last; empty where nothing was shown.
        blind: whether the models' names were hidden.
        seed: of the order.
        interface, guideline: versions of the page and of the guidelines that were beside it.
        strategy: how the item was chosen: ``given``, ``random``, ``margin``, ``variance``, ``gap``.
        probability: with which it was chosen.
    """

    order: tuple[int, ...] = ()
    blind: bool = True
    seed: int | None = None
    interface: str | None = None
    guideline: str | None = None
    strategy: str = "given"
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0


class Annotator(Value):
    """Who judged: a salted id that names nobody by itself."""

    id: Id
    role: Role = "annotator"


class Timing(Value):
    """When it was shown, first touched and submitted; ``active_ms`` milliseconds it was in front and used."""

    shown: AwareDatetime | None = None
    first_action: AwareDatetime | None = None
    submitted: AwareDatetime | None = None
    active_ms: Annotated[int, Field(ge=0, le=10**11)] | None = None  # three years: no number that overflows


# --- the event -------------------------------------------------------------------------------------------------------


class Event(Value):
    """One entry of the log.

    Attributes:
        id: of the event; who writes it chooses it, so that sending it twice stores it once.
        version: of this form.
        time: when it was recorded.
        project: whose rules and guidelines it was given under.
        task: the downstream task, such as ``summarization``.
        item: what was asked; several people judge one item.
        kind: of feedback; that of the payload, where there is one.
        asked, candidates, shown, annotator, timing: see there.
        status: a draft may be incomplete; ``skipped`` and ``retracted`` have no payload; ``erased`` has lost its texts.
        reason: why it was skipped or retracted.
        supersedes: the event of the same person that it replaces or takes back.
        expected: the right answer, where the item is there to see how good people are (gold).
        repeats: the item whose question this one asks again, to see whether people agree with themselves.
        adjudicates: the events whose disagreement it settles.
        consent: version of the consent that the annotator gave.
        payload: what was said or done.
    """

    KIND: ClassVar[str] = "event"

    id: Id = Field(default_factory=lambda: uuid.uuid4().hex)
    version: Literal[1] = VERSION
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    project: Id = "default"
    task: str | None = None
    item: Id
    kind: Literal["pairwise", "ranking", "rating", "thumbs", "correction", "spans", "label", "implicit"]
    asked: Asked
    candidates: tuple[Candidate, ...]
    shown: Shown = Shown()
    annotator: Annotator
    timing: Timing = Timing()
    status: Status = "submitted"
    reason: str | None = None
    supersedes: Id | None = None
    expected: Payload | None = None
    repeats: Id | None = None
    adjudicates: tuple[Id, ...] = ()
    consent: str | None = None
    payload: Payload | None = None

    @model_validator(mode="after")
    def _check(self) -> Event:
        n = len(self.candidates)
        if self.shown.order and sorted(self.shown.order) != list(range(n)):
            raise ValueError(f"shown.order {list(self.shown.order)} is no order of {n} candidates")
        for name in ("payload", "expected"):
            value = getattr(self, name)
            if value is None:
                continue
            if value.kind != self.kind:
                raise ValueError(f"{name}.kind {value.kind!r} is not the event's kind {self.kind!r}")
            lacking = value.lacks(n)
            if isinstance(value, Spans):
                check_inside(value, self.candidates)
            if lacking and (self.status == "submitted" or name == "expected"):
                raise ValueError(f"{name}.{lacking} is missing: only a draft may lack it")
        if self.status == "submitted" and self.payload is None:
            raise ValueError("a submitted event needs a payload")
        if self.status in ("skipped", "retracted") and self.payload is not None:
            raise ValueError(f"a {self.status} event has no payload")
        if self.status == "retracted" and self.supersedes is None:
            raise ValueError("a retracted event says in supersedes what it takes back")
        if self.supersedes == self.id:
            raise ValueError("an event can't supersede itself")
        return self

    @property
    def question(self) -> str:
        """``project/item``: an item's id may stand in several projects, for another question in each."""
        return f"{self.project}/{self.item}"

    @property
    def gold(self) -> bool:
        """Whether the right answer is known."""
        return self.expected is not None

    def to_json(self) -> str:
        """One line of JSON."""
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str | bytes, place: str = "event") -> Event:
        """The event of a line of JSON.

        Args:
            text: the JSON.
            place: where it stands, for the message (``feedback.jsonl, line 3``).

        Raises:
            UserError: naming place, field and what was expected there.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{place}: {explain(error)}") from error


def check_inside(payload: Spans, candidates: Sequence[Candidate]) -> None:
    """Raise a `ValueError` where a mark goes beyond its candidate's text."""
    length = len(candidates[payload.candidate].text)
    for span in payload.spans:
        if span.end > length:
            raise ValueError(f"spans: {span.start} to {span.end} goes beyond the text's {length} characters")


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


WORDS = {
    "missing": "is missing",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "extra_forbidden": "there is no such field",
    "union_tag_not_found": f"must say its kind: {', '.join(KINDS)}",
}
"""What some of pydantic's complaints mean to who wrote the value."""


def explain(error: ValidationError) -> str:
    """What a value's form objects to, in words: the field, and what was expected there.

    Of the ways in which a value may be written, the complaint is about the one that it comes nearest to.
    """
    faults = error.errors(include_url=False)
    fault = max(faults, key=lambda one: len(one["loc"]))  # the first of those that lie deepest
    message = WORDS.get(fault["type"], str(fault["msg"]).removeprefix("Value error, "))
    # The names of types and kinds, which say which way of writing was tried, are no fields.
    path = [str(part) for part in fault["loc"]]
    field = ".".join(part for i, part in enumerate(path) if not (part in ("str", *(KINDS if i else ())) or "[" in part))
    places = {str(one["loc"][0]) if one["loc"] else "" for one in faults}
    others = len(places) - 1
    more = f" (and {others} more)" if others else ""
    return f"{f'the field {field!r}: ' if field else ''}{message[:1].lower()}{message[1:]}{more}"
