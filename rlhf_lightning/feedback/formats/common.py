"""What the formats share: rows with their places in, events with stable ids out."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhf_lightning.data.files import OnBad, Record, check_exists, flaw, listed, read_file, shown
from rlhf_lightning.data.format import EmptyAnswer, SameCompletions
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event, Message, explain
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.feedback.salt import pseudonym

UNKNOWN = "unknown"
"""Id of the annotator where a format does not say who judged. It may stand for many people."""


def refuse(error: UserError) -> None:
    """The way with bad rows that stops at the first one."""
    raise error


@dataclass(frozen=True)
class Import:
    """What an import adds to what its file holds.

    Attributes:
        format: its name; part of the ids of events and of people.
        salt: of the store's people (`salt_of`).
        project: of all its events; part of their ids.
        task: of all its events.
        prompt: the field that holds the prompt, where the format leaves its name to the user.
        candidates: the fields that hold the candidates, likewise.
        bad: is told of each row that can't be used; when it returns, the row is left out.
        passed: counts what was well formed and says nothing, by its reason.
    """

    format: str
    salt: bytes
    project: str = "default"
    task: str | None = None
    prompt: str | None = None
    candidates: tuple[str, ...] = ()
    bad: OnBad = refuse
    passed: Counter[str] = field(default_factory=Counter)

    def person(self, name: Any) -> str:
        """The id of somebody whom the file names; people of two formats are never the same."""
        return pseudonym(self.salt, f"{self.format}:{name}")

    def annotator(self, name: Any) -> Annotator:
        """The annotator whom the file names; `UNKNOWN` where it names none."""
        return Annotator(id=UNKNOWN if name is None or name == "" else self.person(name))


Leave = Callable[[Event, str], None]
"""Is told of an event that a format can't hold, and why."""


# --- in --------------------------------------------------------------------------------------------------------------


def records(path: Path, into: Import) -> Iterator[Record]:
    """The rows of a file of any kind that `read_file` knows; bad ones are told to ``into.bad``.

    Raises:
        UserError: naming the file, where it can't be read at all.
    """
    check_exists(path)
    for record in read_file(path, None, None, into.bad):
        if (reason := flaw(record)) is not None:
            into.bad(UserError(f"{record.place}: {reason}"))
        else:
            yield record


def converted(path: Path, into: Import, convert: Callable[[Record], Iterable[Event]]) -> Iterator[Event]:
    """The events of a file of which each row gives some; a row is taken whole or not at all."""
    for record in records(path, into):
        try:
            events = list(convert(record))
        except SameCompletions:
            into.passed["its two completions are equal"] += 1
        except EmptyAnswer:
            into.passed["a completion is empty"] += 1
        except ValidationError as error:
            into.bad(UserError(f"{record.place}: {explain(error)}"))
        except UserError as error:
            into.bad(error)
        else:
            yield from events


class Keys:
    """Ids of events that follow from what is read, so that reading it again gives them again.

    A source's own id names an event. Without one the content does, and how often the file has held it before: two equal
    rows are two judgements, while a file that has grown gives its old events the ids they had. The ids are salted:
    texts of which personal data was taken away can't be guessed from them. One file read into two projects gives two
    events of each judgement, as an event is of one project.
    """

    def __init__(self, into: Import) -> None:
        self.format, self.project, self.salt = into.format, into.project, into.salt
        self.seen: Counter[str] = Counter()

    def own(self, *parts: Any) -> str:
        """The id of what the source names by these ids."""
        return f"{self.format}-{pseudonym(self.salt, _sha([self.project, *parts]))}"

    def content(self, values: Any) -> str:
        """The id of a row that has no id: of all that it holds."""
        told = _sha(values)
        self.seen[told] += 1
        return self.own(told, self.seen[told])


def _sha(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def item_id(kind: str, asked: Asked, candidates: Sequence[Candidate]) -> str:
    """The id of a question that has none: what is asked, and about which completions of which models.

    Several people's judgements of one question have it in common, so it holds nothing of a single judgement.
    """
    told = [(c.text, c.model) for c in candidates]
    return _sha([kind, asked.model_dump(mode="json", include={"text", "context"}), told])[:20]


def make_event(place: str, into: Import, key: str, **values: Any) -> Event:
    """An event of an import.

    Args:
        place: of what it is made of, for the message.
        into: see there.
        key: its id.
        values: the fields of `Event`; ``item`` follows from the others where it is left out.

    Raises:
        UserError: naming place and field, if they are no event.
    """
    if "item" not in values:
        values["item"] = item_id(values["kind"], values["asked"], values["candidates"])
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return Event(id=key, project=into.project, task=values.pop("task", into.task), **values)
    except ValidationError as error:
        raise UserError(f"{place}: {explain(error)}") from error


def pair(first: Candidate, second: Candidate, winner: int | None) -> tuple[tuple[Candidate, Candidate], int | None]:
    """Two candidates in an order that does not tell which one won, and the winner's place in it.

    Where a format puts the better one first, everybody's winner would be 0, and two people who disagree would have
    been asked two different questions.
    """
    turned = (second.hash, second.model or "") < (first.hash, first.model or "")
    if not turned:
        return (first, second), winner
    return (second, first), None if winner is None else 1 - winner


def need(record: Record, *names: str) -> None:
    """Raise a `UserError` that names the columns that a row lacks."""
    lacking = [name for name in names if name not in record.values]
    if lacking:
        many = "are no fields" if len(lacking) > 1 else "is no field"
        raise UserError(
            f"{record.place}: there {many} {', '.join(map(repr, lacking))}; the fields are {listed(record.values)}"
        )


def text_of(place: str, name: str, value: Any) -> str:
    """A text, as it is.

    Raises:
        UserError: if it is none.
    """
    if not isinstance(value, str):
        raise UserError(f"{place}: the field {name!r} must be a text; found {shown(value)}")
    return value


def whole(place: str, name: str, value: Any) -> int:
    """A whole number, also where a table has made a float of it.

    Raises:
        UserError: if it is none.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value == int(value):
        return int(value)
    raise UserError(f"{place}: the field {name!r} must be a whole number; found {shown(value)}")


def messages_of(place: str, name: str, value: Any) -> tuple[Message, ...]:
    """The turns of a chat.

    Raises:
        UserError: naming the field, if it is no list of messages.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{place}: the field {name!r} must be a list of messages; found {shown(value)}")
    turns = []
    for number, turn in enumerate(value):
        if not isinstance(turn, dict):
            raise UserError(f"{place}: the field '{name}.{number}' must be a message {{role, content}}")
        try:
            turns.append(Message(role=turn.get("role"), content=turn.get("content")))  # type: ignore[arg-type]
        except ValidationError as error:
            raise UserError(f"{place}: in the message '{name}.{number}', {explain(error)}") from error
    return tuple(turns)


def prompt_of(place: str, name: str, value: Any) -> str | tuple[Message, ...]:
    """A prompt: a text or the turns of a chat.

    Raises:
        UserError: if it is neither.
    """
    return messages_of(place, name, value) if isinstance(value, list) else text_of(place, name, value)


def moment(place: str, name: str, value: Any) -> datetime | None:
    """A moment: ISO 8601 (in UTC where it names no zone) or seconds since 1970; None where there is none.

    Raises:
        UserError: if it is neither.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, datetime):
            time = value
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            time = datetime.fromtimestamp(value, timezone.utc)
        else:
            # Python 3.10 knows neither the Z nor fractions of other lengths than 3 and 6 digits.
            plain = re.sub(r"\.(\d+)", lambda m: "." + m[1][:6].ljust(6, "0"), str(value).strip())
            time = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", plain))
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"{place}: the field {name!r} must be a time such as 2024-05-31T12:00:00Z; found {shown(value)}"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


# --- out -------------------------------------------------------------------------------------------------------------


def when(event: Event) -> datetime:
    """When it was judged, as well as it is known."""
    return event.timing.submitted or event.time


def iso(time: datetime) -> str:
    """A moment in ISO 8601, in UTC."""
    return time.astimezone(timezone.utc).isoformat()


def line(value: Any) -> str:
    """A line of JSONL."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def listing(values: Iterable[Any]) -> Iterator[str]:
    """A JSON list, a value a line."""
    yield "["
    for number, value in enumerate(values):
        yield (",\n" if number else "\n") + json.dumps(value, ensure_ascii=False, allow_nan=False)
    yield "\n]\n"


def asked_text(asked: Asked) -> str | list[dict[str, str]]:
    """The prompt as JSON has it: a text, or messages."""
    return asked.text if isinstance(asked.text, str) else [m.model_dump() for m in asked.text]


def win(event: Event) -> tuple[Candidate, Candidate] | str:
    """Winner and loser of a pairwise judgement; why there are none, in words, for any other event."""
    said = event.payload
    if not isinstance(said, Pairwise):
        return f"it is of kind {event.kind}"
    if said.winner is None:
        return f"it is no win ({said.outcome})"
    return event.candidates[said.winner], event.candidates[1 - said.winner]
