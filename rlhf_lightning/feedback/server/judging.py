"""From a question to what the page shows of it, and from what the page sends to an event in the log.

The log only grows, and each event holds the question's texts, so what one person can add to it is bounded: of one
question, `MOST_DRAFTS` drafts (one that says what the last one says is not stored; those that come after are refused,
and stay in the browser) and `MOST_JUDGEMENTS` judgements and skips, none with more than `ROOM` characters beyond twice
the question's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import AfterValidator, Field, ValidationError

from rlhf_lightning.feedback.database import events, stamp
from rlhf_lightning.feedback.events import Annotator, Event, Id, Message, Shown, Timing, explain
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Label, Payload, Rating, Spans, Value
from rlhf_lightning.feedback.server import leases
from rlhf_lightning.feedback.server.comparing import Judgement, to_shown, to_stored
from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Refused
from rlhf_lightning.feedback.server.tables import Task, assignments

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

AHEAD = timedelta(minutes=5)
"""By how much a person's clock may be ahead of ours."""

ROUNDING = timedelta(seconds=1)

OLDEST = timedelta(days=31)
"""How long ago a question may have been shown: a session doesn't last longer."""

MOST_DRAFTS = 300
"""Drafts of one question by one person: the page stores one at each pause in the writing, so this is hours of work."""

MOST_JUDGEMENTS = 30
"""How often a person may answer or skip one question: each time but the first takes the last answer back."""

ROOM = 50_000
"""Characters that a judgement may have beyond twice those of its question: a correction rewrites, reasons explain."""

WHOLE = "overall"
"""The aspect of a rating that names none."""


def _clean(text: str) -> str:
    if "\x00" in text:
        raise ValueError("text can't hold the character NUL")
    return text


Secret = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_clean)]
Words = Annotated[str, Field(max_length=4000), AfterValidator(_clean)]


class Sent(Value):
    """A judgement as the page sends it: candidates by their place on the screen."""

    id: Id
    item: Secret
    lease: Secret
    status: Literal["submitted", "draft", "skipped"]
    payload: Payload | None = None
    reason: Words | None = None
    timing: Timing = Timing()


# --- the question ----------------------------------------------------------------------------------------------------


def order_of(project: Project, item: Item, person: str) -> tuple[int, tuple[int, ...]]:
    """The seed and the order in which a person sees the candidates: the same whenever they see this question."""
    seed = int(project.mark("order", item.id, person)[:8], 16)
    return seed, order_from(seed, len(item.candidates))


def order_from(seed: int, count: int) -> tuple[int, ...]:
    """An order of ``count`` positions, each as likely as any other; it follows from the seed on every platform."""
    return tuple(sorted(range(count), key=lambda i: hashlib.sha256(f"{seed}/{i}".encode()).digest()))


def handle(project: Project, item: str, person: str) -> str:
    """What a person's page calls a question: its own id could tell a repeated question or one of a known answer."""
    return project.mark("handle", item, person)[:20]


def aspects_of(item: Item) -> tuple[str, ...]:
    """What is rated."""
    return item.aspects or ((WHOLE,) if item.kind == "rating" else ())


def question(project: Project, connection: Connection, person: Person, given: leases.Given) -> dict[str, Any]:
    """What the page is sent of a question, its draft included; see `leases.Given`."""
    item = given.item
    _, order = order_of(project, item, person.id)
    text = item.asked.text
    asked: dict[str, Any] = {"context": item.asked.context, "language": item.asked.language}
    if isinstance(text, str):
        asked["text"] = text
    else:
        asked["turns"] = [turn.model_dump() if isinstance(turn, Message) else turn for turn in text]
    candidates = [
        {"text": item.candidates[i].text, **({} if project.blind else {"model": item.candidates[i].model})}
        for i in order
    ]
    begun = _event(connection, given.draft or given.event)
    return {
        "item": {
            "id": handle(project, item.id, person.id),
            "kind": item.kind,
            "asked": asked,
            "candidates": candidates,
            "aspects": list(aspects_of(item)),
            "low": item.low,
            "high": item.high,
            "labels": list(item.labels),
        },
        "lease": {"id": given.lease, "expires": given.expires},
        "draft": None if begun is None else _to_page(begun.payload, order),
        # Which draft that is, and when it was stored by which clock: the browser may have kept another one.
        "version": None if begun is None else begun.id,
        "written": None if begun is None else stamp(begun.time),
        "now": stamp(project.now()),
        "reason": None if begun is None else begun.reason,
        "others": _others(project, connection, given, order) if given.task == "adjudicate" else [],
    }


def _to_page(payload: Judgement | None, order: Sequence[int]) -> dict[str, Any] | None:
    return None if payload is None else to_shown(payload, order).model_dump(mode="json", exclude_none=False)


def _others(
    project: Project, connection: Connection, given: leases.Given, order: Sequence[int]
) -> list[dict[str, Any]]:
    """What is to be settled, by people who are letters here."""
    found = [_event(connection, name) for name in _settles(project, connection, given)]
    said = [event for event in found if event is not None]
    return [
        {"by": chr(ord("A") + i % 26), "payload": _to_page(event.payload, order), "reason": event.reason}
        for i, event in enumerate(said)
    ]


def _settles(project: Project, connection: Connection, given: leases.Given) -> tuple[str, ...]:
    if given.task != "adjudicate":
        return ()
    if given.item.adjudicates:
        return given.item.adjudicates
    of_item = sa.and_(assignments.c.project == project.name, assignments.c.item == given.item.id)
    held = sa.select(assignments.c.event).where(
        of_item, assignments.c.task == "judge", assignments.c.status == "submitted"
    )
    return tuple(sorted(name for name in connection.scalars(held) if name is not None))


def _event(connection: Connection, name: str | None) -> Event | None:
    body = None if name is None else connection.scalar(sa.select(events.c.body).where(events.c.id == name))
    return None if body is None else Event.from_json(body)


# --- the judgement ---------------------------------------------------------------------------------------------------


def judge(project: Project, connection: Connection, person: Person, sent: Sent) -> Task:
    """Store a judgement, once however often it is sent, and note it in the queue.

    Returns:
        What it was part of.

    Raises:
        Refused: 409 where the lease is lost, or another event has the id; 422 for what is no answer to the question,
            and where one person's answers to it are too many or too long.
    """
    known = _event(connection, sent.id)
    if known is not None:
        if not _same(project, known, person, sent):
            raise Refused(409, "known_id", "Another judgement has this id: send yours under a new one.")
        return "adjudicate" if known.adjudicates else "judge"
    given = leases.leased(project, connection, person, sent.lease)
    item = given.item
    if sent.item != handle(project, item.id, person.id):
        raise Refused(409, "lease_lost", "This question was given to someone else, or the link to it is old.")
    now = project.now()
    _check_timing(sent.timing, now)
    seed, order = order_of(project, item, person.id)
    before = given.event if sent.status != "draft" and given.event else given.draft or given.event
    try:
        payload = None if sent.payload is None else to_stored(_fitting(sent.payload, item), order)
        event = Event(
            id=sent.id,
            time=now,
            project=project.name,
            task=item.task,
            item=item.id,
            kind=item.kind,
            asked=item.asked,
            candidates=item.candidates,
            shown=Shown(
                order=order,
                blind=project.blind,
                seed=seed,
                interface=project.interface,
                guideline=project.guideline_version,
                strategy=item.strategy,
                probability=item.probability,
            ),
            annotator=Annotator(id=person.id, role=person.role),
            timing=sent.timing,
            status=sent.status,
            reason=sent.reason,
            supersedes=before,
            expected=item.expected,
            repeats=item.repeats,
            adjudicates=_settles(project, connection, given),
            consent=person.consent,
            payload=payload,
        )
    except ValidationError as error:
        raise Refused(422, "payload", explain(error)) from None
    except ValueError as error:
        raise Refused(422, "payload", str(error)) from None
    if sent.status == "draft" and _says_again(project, connection, event):
        return given.task
    _check_bounds(connection, event)
    stored = [event]
    if before != given.draft and given.draft is not None and sent.status != "draft":
        # The new judgement replaces the old one; the draft of the new one that lies between them is taken back.
        stored.append(_taken_back(event, given.draft))
    project.store.add(stored, connection)
    leases.finish(project, connection, person, event)
    return given.task


def _says_again(project: Project, connection: Connection, draft: Event) -> bool:
    """Whether a draft says what the one says that it would replace."""
    before = _event(connection, draft.supersedes)
    if before is None or before.payload is None:
        return False
    stored = project.store.as_stored(draft)
    return (before.payload, before.reason) == (stored.payload, stored.reason)


def _check_bounds(connection: Connection, event: Event) -> None:
    """Refuse what would be more of one question by one person than there is room for; see the module.

    Raises:
        Refused: 422.
    """
    question = [event.asked.plain, event.asked.context or "", *(candidate.text for candidate in event.candidates)]
    said = "" if event.payload is None else event.payload.model_dump_json(exclude_none=True)  # marks take room, too
    room = ROOM + 2 * sum(map(len, question))
    if len(said) + len(event.reason or "") > room:
        raise Refused(422, "too_long", f"That is more than the {room} characters that fit beside this question.")
    draft = event.status == "draft"
    statuses = ("draft",) if draft else ("submitted", "skipped")
    of_item = sa.and_(events.c.project == event.project, events.c.item == event.item)
    own = sa.and_(of_item, events.c.annotator == event.annotator.id)
    count = sa.select(sa.func.count()).where(own, events.c.status.in_(statuses))
    if (connection.scalar(count) or 0) >= (MOST_DRAFTS if draft else MOST_JUDGEMENTS):
        raise Refused(
            422,
            "too_often",
            f"{MOST_DRAFTS} drafts of this answer are stored, and this one stays in the browser: submit it there."
            if draft
            else f"You have answered this question {MOST_JUDGEMENTS} times: your last answer holds.",
        )


def _taken_back(event: Event, draft: str) -> Event:
    kept = {name: getattr(event, name) for name in ("time", "project", "task", "item", "kind", "asked", "candidates")}
    return Event(**kept, shown=event.shown, annotator=event.annotator, status="retracted", supersedes=draft)


def _same(project: Project, known: Event, person: Person, sent: Sent) -> bool:
    """Whether what is sent is what is stored; there personal data may have been replaced."""
    if known.annotator.id != person.id or known.status != sent.status:
        return False
    try:
        payload = None if sent.payload is None else to_stored(sent.payload, known.shown.order)
        again = Event.model_validate({**dict(known), "payload": payload, "reason": sent.reason})
    except ValueError:
        return False
    return project.store.as_stored(again) == known


def _check_timing(timing: Timing, now: datetime) -> None:
    moments = [m for m in (timing.shown, timing.first_action, timing.submitted) if m is not None]
    if moments != sorted(moments):
        raise Refused(422, "timing", "timing: shown, first_action and submitted must follow each other.")
    if moments and moments[-1] > now + AHEAD:
        raise Refused(422, "timing", "timing lies in the future: is this device's clock right?")
    if moments and moments[0] < now - OLDEST:
        raise Refused(422, "timing", "timing lies far in the past: is this device's clock right?")
    if timing.shown is not None and timing.submitted is not None and timing.active_ms is not None:
        lasted = timing.submitted - timing.shown
        if timing.active_ms > (lasted + ROUNDING) / timedelta(milliseconds=1):
            raise Refused(422, "timing", "timing: active_ms is more than went by from shown to submitted.")


def _fitting(payload: Judgement, item: Item) -> Judgement:
    """The payload, if it answers this question.

    Raises:
        ValueError: if it doesn't.
    """
    if payload.kind != item.kind:
        raise ValueError(f"kind {payload.kind} is no answer to a question of kind {item.kind}")
    for text in _texts(payload.model_dump()):
        _clean(text)
    if isinstance(payload, Rating):
        if unknown := payload.values.keys() - set(aspects_of(item)):
            raise ValueError(f"values.{min(unknown)}: there is no such aspect here")
        if (payload.low, payload.high) != (item.low, item.high):
            raise ValueError(f"low and high are {item.low:g} and {item.high:g} here")
    if isinstance(payload, Label) and payload.label and payload.label not in item.labels:  # none: not chosen yet
        raise ValueError("label: there is no such label here")
    if isinstance(payload, Spans) and item.labels and any(span.label not in item.labels for span in payload.spans):
        raise ValueError("spans.label: there is no such label here")
    aspect = getattr(payload, "aspect", None)
    if aspect is not None and aspect not in item.aspects:
        raise ValueError("aspect: there is no such aspect here")
    return payload


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in [*_texts(key), *_texts(part)]]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    return []
