"""``csv``: a flat table, one row a judgement, for spreadsheets and statistics.

Columns, of which ``prompt`` and those that the kind needs must be there, and an empty cell says nothing:

- ``id``, ``time`` (ISO 8601), ``annotator``, ``role``, ``task``, ``language``, ``context``, ``document``;
- ``kind``: pairwise (where it is left out), ranking, rating, thumbs, correction, spans, label;
- ``prompt``: a text, or a chat as JSON ``[{"role": ..., "content": ...}]``;
- ``a``, ``b``, ... ``i``: the candidates; ``model_a``, ...: their models; ``candidates``: how many there are, where the
  last one is an empty text;
- ``choice``: the field of the better one, ``tie`` or ``both_bad``; of a ranking ``b > a = c``; of thumbs ``a up, b
  down``; the label;
- ``candidate``: the field that a correction, spans or a label is about; ``text``: the corrected text;
- ``ratings``: JSON ``{"fluency": [4, 2]}`` with ``low`` and ``high`` (1 and 5);
- ``spans``: JSON ``[[start, end, label]]``, where severity and a note may follow;
- ``aspect``, ``strength``, ``confidence`` (1 to 3), ``rationale``, ``active_ms``.

All other columns travel along as meta. A cell that a spreadsheet would take for a formula is written behind an
apostrophe, which is taken away again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.data.strict_json import Fault, parse
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    asked_text,
    converted,
    iso,
    make_event,
    moment,
    need,
    prompt_of,
    when,
)
from rlhf_lightning.feedback.payloads import KINDS, Correction, Label, Pairwise, Ranking, Rating, Spans, Thumbs

NAMES = "abcdefghi"
MODELS = tuple(f"model_{name}" for name in NAMES)
ASKED = ("language", "context", "document")
JUDGED = (
    "choice",
    "candidate",
    "text",
    "ratings",
    "low",
    "high",
    "spans",
    "aspect",
    "strength",
    "confidence",
    "rationale",
)
COLUMNS = (
    *("id", "time", "annotator", "role", "task", "kind", *ASKED, "prompt", "candidates", *NAMES, *MODELS, *JUDGED),
    "active_ms",
)
_FORMULA = frozenset("=+-@\t\r")


# --- in --------------------------------------------------------------------------------------------------------------


def read(path: Path, into: Import) -> Iterator[Event]:
    """A judgement for each row."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "prompt")
        cells = {name: _plain(value) for name, value in record.values.items()}
        given = {name: value for name, value in cells.items() if value is not None and value != ""}
        row = Record(record.place, {**given, "prompt": cells["prompt"]})
        kind = str(given.get("kind", "pairwise"))
        if kind not in KINDS[:-1]:
            raise UserError(
                f"{row.place}: the field 'kind' must be one of {', '.join(KINDS[:-1])}; found {shown(kind)}"
            )
        candidates = _candidates(row, cells)
        time = moment(row.place, "time", given.get("time"))
        meta = {name: value for name, value in given.items() if name not in COLUMNS}
        yield make_event(
            row.place,
            into,
            keys.own(given["id"]) if "id" in given else keys.content(cells),
            kind=kind,
            asked=Asked(text=_prompt(row), meta=meta, **{n: str(given[n]) for n in ASKED if n in given}),
            candidates=candidates,
            annotator=into.annotator(given.get("annotator")).model_copy(
                update={"role": given.get("role", "annotator")}
            ),
            task=given.get("task", into.task),
            time=time,
            timing={"submitted": time, "active_ms": given.get("active_ms")},
            payload=_payload(row, kind, NAMES[: len(candidates)]),
        )

    yield from converted(path, into, convert)


def _plain(value: Any) -> Any:
    """A cell without the apostrophe before what is no formula."""
    if isinstance(value, str) and value[:1] == "'" and value[1:2] and value[1] in {*_FORMULA, "'"}:
        return value[1:]
    return value


def _prompt(row: Record) -> Any:
    prompt = row.values["prompt"]
    if isinstance(prompt, str) and prompt.startswith('[{"'):
        return prompt_of(row.place, "prompt", _json(row, "prompt"))
    return prompt_of(row.place, "prompt", prompt)


def _json(row: Record, name: str) -> Any:
    value = row.values[name]
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except Fault as fault:
        raise UserError(f"{row.place}: in the field {name!r}, {fault.reason}") from fault


def _number(row: Record, name: str, kind: type) -> Any:
    value = row.values.get(name)
    try:
        return None if value is None else kind(value)
    except (TypeError, ValueError) as error:
        wanted = "a whole number" if kind is int else "a number"
        raise UserError(f"{row.place}: the field {name!r} must be {wanted}; found {shown(value)}") from error


def _candidates(row: Record, cells: dict[str, Any]) -> tuple[Candidate, ...]:
    count = _number(row, "candidates", int)
    if count is None:
        count = max((i for i, name in enumerate(NAMES, start=1) if name in row.values), default=0)
    if not 0 <= count <= len(NAMES):
        raise UserError(f"{row.place}: there can be up to {len(NAMES)} candidates, not {count}")
    texts = [str(cells.get(name) if cells.get(name) is not None else "") for name in NAMES[:count]]
    return tuple(
        Candidate(text=text, model=row.values.get(f"model_{n}")) for n, text in zip(NAMES, texts, strict=False)
    )


def _payload(row: Record, kind: str, names: str) -> dict[str, Any]:
    values = row.values
    said: dict[str, Any] = {n: values[n] for n in ("aspect", "rationale") if n in values}
    for name in ("confidence", *(["strength"] if kind == "pairwise" else [])):
        if name in values:
            said[name] = _number(row, name, int)
    choice = str(values["choice"]).strip() if "choice" in values and kind != "label" else values.get("choice")
    if kind == "pairwise":
        if choice in ("tie", "both_bad"):
            said["outcome"] = choice
        elif choice is not None:
            said.update(outcome="win", winner=_index(row, "choice", choice, names))
    elif kind == "ranking":
        said["ranks"] = _ranks(row, str(choice or ""), names)
    elif kind == "thumbs":
        said["up"] = _thumbs(row, str(choice or ""), names)
    elif kind == "rating":
        if "ratings" not in values:
            raise UserError(f"{row.place}: the field 'ratings' is empty")
        said["values"] = _json(row, "ratings")
        said.update({name: _number(row, name, float) for name in ("low", "high") if name in values})
    elif kind == "label":
        said["label"] = choice or ""
    elif kind == "correction":
        said["text"] = values.get("text", "")
    elif kind == "spans":
        marks = _json(row, "spans") if "spans" in values else []
        if not isinstance(marks, list) or not all(isinstance(m, list) and 3 <= len(m) <= 5 for m in marks):
            raise UserError(
                f"{row.place}: the field 'spans' must be a list of [start, end, label]; found {shown(marks)}"
            )
        fields = ("start", "end", "label", "severity", "note")
        said["spans"] = [dict(zip(fields, mark, strict=False)) for mark in marks]
    if kind in ("label", "correction", "spans") and "candidate" in values:
        said["candidate"] = _index(row, "candidate", str(values["candidate"]).strip(), names)
    return {"kind": kind, **said}


def _index(row: Record, column: str, name: str, names: str) -> int:
    if len(name) != 1 or name not in names:
        raise UserError(f"{row.place}: the field {column!r} must name one of {', '.join(names)}; found {shown(name)}")
    return names.index(name)


def _ranks(row: Record, told: str, names: str) -> list[int | None]:
    """The ranks of ``b > a = c``: 1, then 2 for both."""
    ranks: list[int | None] = [None] * len(names)
    rank = 1
    for tied in told.split(">"):
        found = [_index(row, "choice", name.strip(), names) for name in tied.split("=")]
        for index in found:
            if ranks[index] is not None:
                raise UserError(f"{row.place}: the field 'choice' ranks {names[index]!r} twice")
            ranks[index] = rank
        rank += 1
    return ranks


def _thumbs(row: Record, told: str, names: str) -> list[bool | None]:
    up: list[bool | None] = [None] * len(names)
    for part in told.split(","):
        name, _, thumb = part.strip().rpartition(" ")
        if thumb not in ("up", "down"):
            raise UserError(f"{row.place}: the field 'choice' must be such as 'a up, b down'; found {shown(told)}")
        up[_index(row, "choice", name or "a", names)] = thumb == "up"
    return up


# --- out -------------------------------------------------------------------------------------------------------------


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """The table: the documented columns, and no meta."""
    yield _line(COLUMNS)
    for event in events:
        if (reason := _unfit(event)) is not None:
            leave(event, reason)
        else:
            row = _row(event)
            yield _line([row.get(name) for name in COLUMNS])


def _unfit(event: Event) -> str | None:
    if event.kind == "implicit":
        return "it is of kind implicit"
    if len(event.candidates) > len(NAMES):
        return f"it has more than {len(NAMES)} candidates"
    if isinstance(event.asked.text, str) and event.asked.text.startswith('[{"'):
        return "its prompt looks like a chat and is none"
    said = event.payload
    texts = [event.asked.text, *(getattr(said, name, None) for name in ("text", "label", "aspect", "rationale"))]
    texts += [c.text for c in event.candidates] + [c.model for c in event.candidates]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        return "a text of it holds a NUL character, which not every reader of CSV takes"
    if "" in (getattr(said, "aspect", None), getattr(said, "rationale", None), *(c.model for c in event.candidates)):
        return "an empty text that is not the same as none"
    return None


def _line(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    # The line end of RFC 4180 also makes the writer put a cell with a carriage return in quotes.
    csv.writer(line, lineterminator="\r\n").writerow([_cell(cell) for cell in cells])
    return line.getvalue()


def _cell(value: Any) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    escaped = text[:1] in _FORMULA or (text[:1] == "'" and text[1:2] != "" and text[1] in {*_FORMULA, "'"})
    return f"'{text}" if text and escaped else text


def _row(event: Event) -> dict[str, Any]:
    said: Any = event.payload
    asked = asked_text(event.asked)
    row: dict[str, Any] = {
        "id": event.id,
        "time": iso(when(event)),
        "annotator": event.annotator.id,
        "role": event.annotator.role,
        "task": event.task,
        "kind": event.kind,
        **{name: getattr(event.asked, name) for name in ASKED},
        "prompt": asked if isinstance(asked, str) else _dump(asked),
        "candidates": len(event.candidates),
        **{name: c.text for name, c in zip(NAMES, event.candidates, strict=False)},
        **{name: c.model for name, c in zip(MODELS, event.candidates, strict=False)},
        "active_ms": event.timing.active_ms,
        **{name: getattr(said, name, None) for name in ("aspect", "strength", "confidence", "rationale")},
    }
    if isinstance(said, (Correction, Spans, Label)) and said.candidate is not None:
        row["candidate"] = NAMES[said.candidate]
    if isinstance(said, Pairwise):
        row["choice"] = said.outcome if said.winner is None else NAMES[said.winner]
    elif isinstance(said, Ranking):
        levels: dict[int, list[str]] = {}
        for name, rank in zip(NAMES, said.ranks, strict=False):
            levels.setdefault(rank or 1, []).append(name)
        row["choice"] = " > ".join(" = ".join(levels[rank]) for rank in sorted(levels))
    elif isinstance(said, Thumbs):
        thumbs = [(n, up) for n, up in zip(NAMES, said.up, strict=False) if up is not None]
        row["choice"] = ", ".join(f"{name} {'up' if up else 'down'}" for name, up in thumbs)
    elif isinstance(said, Rating):
        row.update(ratings=_dump(said.values), low=said.low, high=said.high)
    elif isinstance(said, Correction):
        row["text"] = said.text
    elif isinstance(said, Label):
        row["choice"] = said.label
    elif isinstance(said, Spans):
        marks = [[s.start, s.end, s.label, s.severity, s.note] for s in said.spans]
        row["spans"] = _dump([m if m[3] or m[4] is not None else m[:3] for m in marks])
    return row


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
