"""``argilla``: Argilla's records with their responses, as JSON.

A record is ``{id, fields, metadata, responses}``, as ``dataset.records.to_json`` writes it
(https://docs.argilla.io/latest/how_to_guides/import_export/). Its responses are, by question, lists of ``{value,
user_id}``, or, as the server has them, a list of ``{user_id, values: {question: {value}}, status}`` with status
submitted, draft or discarded (a skip). The file is a list of records, or ``{"settings": ..., "records": [...]}``.

What a question is follows from the settings (``questions``: ``name`` and ``settings.type``): those of the file, else of
``.argilla/settings.json`` or ``settings.json`` beside it, where ``dataset.to_disk`` puts them. Without any it follows
from the values, but for a text that may be a label or a comment.

- ``label_selection``: which of two candidates (its options are fields, tie and both_bad), up and down, or a label;
- ``multi_label_selection``: several labels; ``rating``: on the scale of its options; ``ranking``: ranks of fields;
- ``text``: a correction, or a rationale; ``span``: spans of a field, counted in code points.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, open_text, shown
from rlhf_lightning.data.strict_json import Fault, parse
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.formats.answers import NAMES, OUTCOMES, Answers, same, subject_of
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    asked_text,
    converted,
    iso,
    moment,
    need,
    text_of,
    when,
    whole,
)
from rlhf_lightning.feedback.payloads import Correction, Label, Pairwise, Ranking, Rating, Spans, Thumbs

STATUS = {"submitted": "submitted", "draft": "draft", "discarded": "skipped"}
_PEOPLE = uuid.UUID("0b0f4b3e-0f6e-5c55-8d11-6f4f0b3d9a52")
Questions = dict[str, dict[str, Any]]


# --- in --------------------------------------------------------------------------------------------------------------


def read(path: Path, into: Import) -> Iterator[Event]:
    """The judgements of each response."""
    keys = Keys(into)
    questions = _settings(path)
    yield from converted(path, into, lambda record: _record(record, questions, into, keys))


def _settings(path: Path) -> Questions:
    """The questions' settings by their names, where they can be found."""
    found: Any = None
    source = path
    if path.name.lower().endswith((".json", ".json.gz")):
        with open_text(path, None) as text:
            try:
                content = parse(text.read())
            except Fault:
                content = None  # told with its place when the records are read
        found = content.get("settings") if isinstance(content, dict) else None
    if found is None:
        beside = (path.parent / ".argilla" / "settings.json", path.parent / "settings.json")
        source = next((file for file in beside if file.is_file()), path)
        if source == path:
            return {}
        try:
            found = parse(source.read_text("utf-8"))
        except (Fault, UnicodeDecodeError) as error:
            raise UserError(f"{source}: {error}") from error
    questions = found.get("questions") if isinstance(found, dict) else None
    if not isinstance(questions, list) or not all(
        isinstance(q, dict) and isinstance(q.get("settings"), dict) for q in questions
    ):
        raise UserError(f"{source}: the settings' field 'questions' must be a list of {{name, settings: {{type}}}}")
    return {str(question.get("name")): question["settings"] for question in questions}


def _record(record: Record, questions: Questions, into: Import, keys: Keys) -> Iterator[Event]:
    need(record, "fields", "responses")
    fields, metadata = record.values["fields"], record.values.get("metadata") or {}
    if not isinstance(fields, dict):
        raise UserError(f"{record.place}: the field 'fields' must be an object; found {shown(fields)}")
    told = {name: value for name, value in fields.items() if value is not None}
    for name in ("context", "language"):
        if isinstance(metadata, dict) and isinstance(metadata.get(name), str):
            told.setdefault(name, metadata[name])
    models = {name: metadata.get(f"model_{name}") for name in told} if isinstance(metadata, dict) else {}
    subject = subject_of(record.place, told, into, models)
    name = record.values.get("id") or record.values.get("external_id") or subject.asked.plain
    for response in _responses(record):
        answers = Answers(subject)
        status = STATUS.get(str(response.get("status") or "submitted"))
        if status is None:
            found = shown(response["status"])
            raise UserError(
                f"{record.place}: the status of a response must be one of {', '.join(STATUS)}; found {found}"
            )
        values = response.get("values") or {}
        if not isinstance(values, dict):
            raise UserError(
                f"{record.place}: the field 'values' of a response must be an object; found {shown(values)}"
            )
        for question, answer in values.items():
            given = answer.get("value") if isinstance(answer, dict) else answer
            if given is not None and status != "skipped":
                _answer(answers, question, given, questions.get(question))
        time = None
        for column in ("updated_at", "inserted_at"):
            time = time or moment(record.place, column, response.get(column))
        person = response.get("user_id")
        own = response.get("id") or (name, person, *sorted(values))
        yield from answers.events(into, lambda *parts, own=own: keys.own(own, *parts), person, time, None, status)


def _responses(record: Record) -> Iterator[dict[str, Any]]:
    """Each person's answers, whichever way they are written."""
    responses = record.values["responses"] or []
    if isinstance(responses, list) and all(isinstance(response, dict) for response in responses):
        yield from responses
        return
    if not isinstance(responses, dict) or not all(
        isinstance(given, list) and all(isinstance(one, dict) for one in given) for given in responses.values()
    ):
        raise UserError(
            f"{record.place}: the field 'responses' must be a list of responses, or hold one for each question; found "
            f"{shown(responses)}"
        )
    people: dict[Any, dict[str, Any]] = {}
    for question, given in responses.items():
        for one in given:
            person = people.setdefault(one.get("user_id"), {"user_id": one.get("user_id"), "values": {}})
            person["values"][question] = {"value": one.get("value")}
            person["status"] = one.get("status") or person.get("status")
    yield from people.values()


def _answer(answers: Answers, question: str, value: Any, settings: dict[str, Any] | None) -> None:
    """Note what one answer says."""
    subject = answers.subject
    kind = settings.get("type") if settings else _guess(answers, question, value)
    options = [o.get("value") if isinstance(o, dict) else o for o in (settings or {}).get("options") or []]
    if kind == "label_selection":
        label = text_of(subject.place, question, value)
        if (options and set(options) <= {*subject.names, *OUTCOMES}) or label in (*subject.names, *OUTCOMES):
            answers.prefer(question, subject.names, label)
        elif label in ("up", "down") and question.startswith("thumbs"):
            answers.thumb(question, None, label == "up")
        else:
            answers.label(question, None, label)
    elif kind == "multi_label_selection":
        for label in _list(subject.place, question, value):
            answers.label(question, None, text_of(subject.place, question, label))
    elif kind == "rating":
        scale = [o for o in options if isinstance(o, (int, float))]
        answers.rate(question, None, value, min(scale, default=1), max(scale, default=5))
    elif kind == "ranking":
        ranked = _list(subject.place, question, value)
        ranks = {}
        for position, entry in enumerate(ranked, start=1):
            known = entry if isinstance(entry, dict) else {"value": entry}
            rank = known.get("rank", position)
            ranks[str(known.get("value"))] = whole(subject.place, f"{question}.rank", rank)
        answers.rank(question, ranks)
    elif kind == "text":
        answers.write(question, None, text_of(subject.place, question, value))
    elif kind == "span":
        field = (settings or {}).get("field")
        for span in _list(subject.place, question, value):
            told = span if isinstance(span, dict) else {}
            answers.mark(question, field, {name: told.get(name) for name in ("start", "end", "label")})
    else:
        raise UserError(f"{subject.place}: the question {question!r} is of type {kind!r}, which is not known")


def _guess(answers: Answers, question: str, value: Any) -> str:
    """The type of a question without settings."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "rating"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "span" if "start" in value[0] else "ranking"
    if isinstance(value, list):
        return "ranking" if {str(v) for v in value} == set(answers.subject.names) else "multi_label_selection"
    if value in (*answers.subject.names, *OUTCOMES, "up", "down"):
        return "label_selection"
    raise UserError(
        f"{answers.subject.place}: the answer to {question!r} may be a label or a text, which the dataset's settings "
        'tell apart: put settings.json beside the file, or write {"settings": ..., "records": [...]}'
    )


def _list(place: str, question: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{place}: the answer to {question!r} must be a list; found {shown(value)}")
    return value


# --- out -------------------------------------------------------------------------------------------------------------


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """Settings, and a record for each item, with a response for each event. Strength and confidence are not held."""
    import json

    found: dict[Any, dict[str, Any]] = {}
    questions: Questions = {}
    names: dict[str, None] = {}
    quiet = Import(format="argilla", salt=b"")
    for event in events:
        if len(event.candidates) > len(NAMES):
            leave(event, f"it has more than {len(NAMES)} candidates")
            continue
        record, own = _written(event)
        try:
            read_again = _record(Record("", record), own, quiet, Keys(quiet))
            fits = same(event, read_again) and all(_joins(questions.get(n), s) for n, s in own.items())
        except UserError:
            fits = False
        if not fits:
            leave(event, f"what it says ({event.kind}) would not be read as it is")
            continue
        for name, settings in own.items():
            questions[name] = _joined(questions.get(name), settings)
        key = (event.question, repr(record["fields"]), repr(record["metadata"]))
        first = found.setdefault(key, {**record, "responses": []})
        first["responses"].extend(record["responses"])
        names.update(dict.fromkeys(record["fields"]))
    dump = json.dumps
    fields = [{"name": name, "title": name, "settings": {"type": "text"}} for name in names]
    told = [{"name": name, "title": name, "settings": settings} for name, settings in questions.items()]
    yield f'{{"settings": {dump({"fields": fields, "questions": told}, ensure_ascii=False)},\n"records": ['
    for number, record in enumerate(found.values()):
        yield (",\n" if number else "\n") + dump(record, ensure_ascii=False, allow_nan=False)
    yield "\n]}\n"


def _joins(known: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    """Whether two events' questions of one name can be one question: a rating has one scale."""
    return known is None or (
        known["type"] == new["type"] and (new["type"] != "rating" or known["options"] == new["options"])
    )


def _joined(known: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    if known is None or "options" not in new:
        return new
    more = [option for option in new["options"] if option not in known["options"]]
    return {**known, "options": [*known["options"], *more]}


def _written(event: Event) -> tuple[dict[str, Any], Questions]:
    texts = {NAMES[i]: candidate.text for i, candidate in enumerate(event.candidates)}
    asked = event.asked
    metadata: dict[str, Any] = {f"model_{NAMES[i]}": c.model for i, c in enumerate(event.candidates) if c.model}
    metadata.update({n: getattr(asked, n) for n in ("context", "language") if getattr(asked, n) is not None})
    answers = {name: (settings, value) for name, settings, value in _answers(event)}
    rationale = getattr(event.payload, "rationale", None)
    if rationale is not None:
        answers["rationale"] = ({"type": "text"}, rationale)
    response = {
        "id": event.id,
        "user_id": str(uuid.uuid5(_PEOPLE, event.annotator.id)),
        "status": "submitted",
        "inserted_at": iso(when(event)),
        "updated_at": iso(when(event)),
        "values": {name: {"value": value} for name, (_, value) in answers.items()},
    }
    record = {
        "id": event.item,
        "fields": {"prompt": asked_text(asked), **texts},
        "metadata": metadata,
        "responses": [response],
    }
    return record, {name: settings for name, (settings, _) in answers.items()}


def _options(values: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"value": value, "text": str(value)} for value in values]


def _answers(event: Event) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """What an event says as answers: name of the question, its settings, and the value."""
    said = event.payload
    names = NAMES[: len(event.candidates)]
    aspect = getattr(said, "aspect", None)
    more = "" if aspect is None else f":{aspect}"
    if isinstance(said, Pairwise):
        choice = said.outcome if said.winner is None else names[said.winner]
        yield f"preference{more}", {"type": "label_selection", "options": _options([*names, *OUTCOMES])}, choice
    elif isinstance(said, Ranking):
        ranks = [{"value": name, "rank": rank} for name, rank in zip(names, said.ranks, strict=True)]
        yield f"ranking{more}", {"type": "ranking", "options": _options(names)}, ranks
    elif isinstance(said, Rating):
        scale = {"type": "rating", "options": [{"value": v} for v in _scale(said.low, said.high)]}
        for name, values in said.values.items():
            for field, value in zip(names, values, strict=True):
                if value is not None:
                    yield f"{name}-{field}", scale, int(value) if value == int(value) else value
    elif isinstance(said, Thumbs):
        for field, up in zip(names, said.up, strict=True):
            if up is not None:
                settings = {"type": "label_selection", "options": _options(["up", "down"])}
                yield f"thumbs-{field}", settings, "up" if up else "down"
    elif isinstance(said, Correction):
        yield f"correction-{names[said.candidate]}", {"type": "text"}, said.text
    elif isinstance(said, Label):
        ending = "" if said.candidate is None else f"-{names[said.candidate]}"
        settings = {"type": "label_selection", "options": _options([said.label])}
        yield f"{said.aspect or 'label'}{ending}", settings, said.label
    elif isinstance(said, Spans):
        field = names[said.candidate]
        spans = [span.model_dump(include={"start", "end", "label"}) for span in said.spans]
        labels = dict.fromkeys(span.label for span in said.spans)
        yield f"spans-{field}", {"type": "span", "field": field, "options": _options(labels)}, spans


def _scale(low: float, high: float) -> list[float]:
    """The numbers that may be given: Argilla's ratings are whole."""
    if low != int(low) or high != int(high) or high - low > 100:
        return [low, high]
    return list(range(int(low), int(high) + 1))
