"""One judgement, or one sign of use, as the event log keeps it: who was shown what, and what they said or did.

Events are never changed. What a person thinks better of is a new event that supersedes the old one; `current` says
which hold. The JSON of an event is its dump without what is None: what is exported is read back equal.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from rlhf_lightning.data.files import count_of
from rlhf_lightning.errors import UserError

VERSION: Literal[1] = 1
"""Of the form of events; another one is refused when read."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
"""Identifiers: short, and harmless in an address or a file's name."""

Share = Annotated[float, Field(ge=0, le=1)]
Grade = Annotated[int, Field(ge=1, le=3)]

Status = Literal["submitted", "draft", "skipped", "retracted", "erased"]
Role = Literal["annotator", "adjudicator", "owner", "user", "simulated"]
"""``user`` gave implicit feedback while using a model; ``simulated`` is no person."""


class Value(BaseModel):
    """A frozen value of which every field is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    meta: Columns = {}

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
    settings: Columns = {}

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


# --- what was said or done -------------------------------------------------------------------------------------------


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


# --- which events hold -----------------------------------------------------------------------------------------------


def current(events: Iterable[Event], drafts: bool = False) -> list[Event]:
    """The events that hold: no drafts, nothing superseded or taken back, what was skipped or erased left out.

    An event is superseded by any other of the same annotator that names it, also where it comes earlier in the log
    (a log may be put together from several). What a superseding draft is about to replace still holds. A skip that
    replaces a judgement takes it away.

    Args:
        events: of any number of people and items.
        drafts: whether what is not submitted yet counts too.

    Returns:
        Those with a payload, in their order in the log.
    """
    wanted: tuple[Status, ...] = ("submitted", "draft") if drafts else ("submitted",)
    return [event for event in holding(events, wanted) if event.payload is not None]


def holding(events: Iterable[Event], statuses: Collection[Status]) -> list[Event]:
    """The events of these statuses that nothing supersedes or takes back; drafts do so only where they are among them.

    See `current`; those without a payload are among them here.
    """
    log, drafts = list(events), "draft" in statuses
    by_id = {event.id: event for event in log}
    gone = {
        event.supersedes
        for event in log
        if event.supersedes is not None
        and (event.status != "draft" or drafts)
        and (old := by_id.get(event.supersedes)) is not None
        and old.annotator.id == event.annotator.id
    }
    return [event for event in log if event.id not in gone and event.status in statuses]
