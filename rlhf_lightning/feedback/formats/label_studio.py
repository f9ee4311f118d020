"""``label_studio``: Label Studio's JSON export, a list of tasks with their annotations.

https://labelstud.io/guide/task_format documents ``data``, ``annotations`` (``id``, ``completed_by``, ``was_cancelled``,
``created_at``, ``updated_at``, ``lead_time`` in seconds) and their ``result`` (``from_name``, ``to_name``, ``type``,
``value``); the pages of the tags Pairwise, Ranker, Rating, TextArea, Labels and Choices (https://labelstud.io/tags/)
say what each of them writes. An export does not hold the project's configuration, so ``to_name`` must be the name of a
field of the data, or the fields be named by ``--candidate``.

- ``pairwise`` ``{selected: left | right}``: a win; ``choices`` tie and both_bad, named ``outcome``, are the others.
- ``ranker``: a ranking from best to worst; buckets have no order, and are refused.
- ``rating``: from 1 to 5, or to the data's ``max_rating``; the aspect is ``from_name`` without the field's name.
- ``textarea``: a correction of its field; a rationale where it is named so, or is of no candidate.
- ``labels``: spans, whose offsets are checked against their text; older versions counted in UTF-16 units.
- ``choices``: labels; up and down named ``thumbs`` are thumbs.

Predictions are no person's, and drafts no judgement yet: both are passed over, as are results of other types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.formats.answers import NAMES, OUTCOMES, Answers, Subject, same, subject_of
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    asked_text,
    converted,
    iso,
    listing,
    moment,
    need,
    text_of,
    when,
)
from rlhf_lightning.feedback.payloads import Correction, Label, Pairwise, Ranking, Rating, Spans, Thumbs

__all__ = ["read", "write"]
MAX_RATING = 5
"""The tag's default for ``maxRating``."""


# --- in --------------------------------------------------------------------------------------------------------------


def read(path: Path, into: Import) -> Iterator[Event]:
    """The judgements of each annotation."""
    keys = Keys(into)
    yield from converted(path, into, lambda record: _task(record, into, keys))


def _task(record: Record, into: Import, keys: Keys) -> Iterator[Event]:
    need(record, "data", "annotations")
    data, annotations = record.values["data"], record.values["annotations"]
    if not isinstance(data, dict):
        raise UserError(f"{record.place}: the field 'data' must be an object; found {shown(data)}")
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise UserError(
            f"{record.place}: the field 'annotations' must be a list of objects; found {shown(annotations)}"
        )
    if record.values.get("drafts"):
        into.passed["a draft"] += len(record.values["drafts"])
    for number, annotation in enumerate(annotations):
        place = f"{record.place}, annotation {annotation.get('id', number)}"
        subject = subject_of(place, data, into, data.get("models"))
        yield from _annotation(subject, data, annotation, (record.values.get("id"), number), into, keys)


def _annotation(
    subject: Subject, data: dict[str, Any], annotation: dict[str, Any], position: Any, into: Import, keys: Keys
) -> Iterator[Event]:
    results = annotation.get("result") or []
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise UserError(f"{subject.place}: the field 'result' must be a list of objects; found {shown(results)}")
    skipped = annotation.get("was_cancelled") is True
    answers = Answers(subject)
    for number, result in enumerate([] if skipped else results):
        value = result.get("value")
        if not isinstance(value, dict):
            raise UserError(f"{subject.place}: the field 'result.{number}.value' must be an object")
        if not _result(answers, data, str(result.get("from_name")), str(result.get("to_name")), result, value):
            into.passed[f"a result of type {result.get('type')}"] += 1
    time = None
    for name in ("updated_at", "created_at"):
        time = time or moment(subject.place, name, annotation.get(name))
    seconds = annotation.get("lead_time")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0):
        raise UserError(f"{subject.place}: the field 'lead_time' must be seconds; found {shown(seconds)}")
    yield from answers.events(
        into,
        lambda *parts: keys.own(annotation.get("id", position), *parts),
        _person(annotation.get("completed_by")),
        time,
        None if seconds is None else round(1000 * seconds),
        "skipped" if skipped else "submitted",
    )


def _person(told: Any) -> Any:
    """Who did it: exports have a number, or an object."""
    if isinstance(told, dict):
        return next((told[name] for name in ("username", "email", "id") if told.get(name) is not None), None)
    return told


def _result(
    answers: Answers, data: dict[str, Any], question: str, field: str, result: dict[str, Any], value: dict[str, Any]
) -> bool:
    """Note what one result says; whether it is of a known type."""
    subject, kind = answers.subject, result.get("type")
    if kind == "pairwise":
        fields = field.split(",")
        sides = dict(zip(("left", "right"), fields, strict=False))
        if value.get("selected") not in sides:
            found = shown(value.get("selected"))
            raise UserError(f"{subject.place}: {question!r}: 'selected' must be left or right; found {found}")
        answers.prefer(question, fields, sides[value["selected"]])
    elif kind == "ranker":
        order = value.get("ranker")
        if not isinstance(order, list):
            raise UserError(
                f"{subject.place}: {question!r}: 'ranker' must be a list of ids from best to worst; items in buckets "
                "have no order"
            )
        answers.rank(question, {str(name): rank for rank, name in enumerate(order, start=1)})
    elif kind == "rating":
        answers.rate(question, field, value.get("rating"), 1, data.get("max_rating") or MAX_RATING)
    elif kind == "textarea":
        given = value.get("text")
        texts = given if isinstance(given, list) else [given]
        answers.write(question, field, "\n".join(text_of(subject.place, f"{question}.text", t) for t in texts))
    elif kind == "labels":
        for label in value.get("labels") or []:
            answers.mark(question, field, _span(subject, question, field, value, label))
    elif kind == "choices":
        for choice in value.get("choices") or []:
            told = text_of(subject.place, f"{question}.choices", choice)
            if question.partition(":")[0] == "outcome" and told in OUTCOMES:
                answers.prefer(question, subject.names, told)
            elif question.startswith("thumbs") and told in ("up", "down"):
                answers.thumb(question, field, told == "up")
            else:
                answers.label(question, field, told)
    else:
        return False
    return True


def _span(subject: Subject, question: str, field: str, value: dict[str, Any], label: Any) -> dict[str, Any]:
    index = subject.about(question, field)
    start, end, marked = value.get("start"), value.get("end"), value.get("text")
    try:
        start, end = int(start), int(end)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UserError(f"{subject.place}: {question!r}: 'start' and 'end' must be whole numbers") from error
    if index is not None and isinstance(marked, str):
        text = subject.candidates[index].text
        if text[start:end] != marked:
            units = text.encode("utf-16-le")
            start, end = (len(units[: 2 * n].decode("utf-16-le", "replace")) for n in (start, end))
        if text[start:end] != marked:
            raise UserError(f"{subject.place}: {question!r}: from 'start' to 'end' the text is not {shown(marked)}")
    return {"start": start, "end": end, "label": label}


# --- out -------------------------------------------------------------------------------------------------------------


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A task for each item, with an annotation for each event. Strength and confidence are not held."""
    tasks: dict[Any, dict[str, Any]] = {}
    quiet = Import(format="label_studio", salt=b"")
    for event in events:
        if len(event.candidates) > len(NAMES):
            leave(event, f"it has more than {len(NAMES)} candidates")
            continue
        data = _data(event)
        annotation = _written(event)
        place = {"data": data, "annotations": [annotation]}
        try:
            whole = same(event, _task(Record("", place), quiet, Keys(quiet)))
        except UserError:
            whole = False
        if not whole:
            leave(event, _reason(event))
            continue
        key = (event.question, repr(data))
        task = tasks.setdefault(key, {"id": len(tasks) + 1, "data": data, "annotations": []})
        task["annotations"].append(annotation)
    yield from listing(tasks.values())


def _reason(event: Event) -> str:
    said = event.payload
    if isinstance(said, Ranking):
        return "a ranking with ties has no place in it"
    if isinstance(said, Rating):
        return "a rating there is a whole number from 1 upwards"
    if isinstance(said, Spans):
        return "spans that mark nothing, or overlap in a way it can't tell apart, have no place in it"
    return f"what it says ({event.kind}) would not be read as it is"


def _data(event: Event) -> dict[str, Any]:
    texts = {NAMES[i]: candidate.text for i, candidate in enumerate(event.candidates)}
    data: dict[str, Any] = {"prompt": asked_text(event.asked)}
    for name in ("context", "language"):
        if getattr(event.asked, name) is not None:
            data[name] = getattr(event.asked, name)
    if isinstance(event.payload, Ranking):
        data["items"] = [{"id": name, "title": name, "body": text} for name, text in texts.items()]
    else:
        data.update(texts)
    if any(candidate.model for candidate in event.candidates):
        data["models"] = {NAMES[i]: candidate.model for i, candidate in enumerate(event.candidates)}
    if isinstance(event.payload, Rating) and event.payload.high != MAX_RATING:
        data["max_rating"] = event.payload.high
    return data


def _written(event: Event) -> dict[str, Any]:
    results = list(_results(event))
    rationale = getattr(event.payload, "rationale", None)
    if rationale is not None:
        results.append(("rationale", "prompt", "textarea", {"text": [rationale]}))
    annotation: dict[str, Any] = {
        "id": event.id,
        "completed_by": {"username": event.annotator.id},
        "was_cancelled": False,
        "created_at": iso(when(event)),
        "updated_at": iso(when(event)),
        "result": [
            {"id": f"r{i}", "from_name": question, "to_name": field, "type": kind, "value": value}
            for i, (question, field, kind, value) in enumerate(results)
        ],
    }
    if event.timing.active_ms is not None:
        annotation["lead_time"] = event.timing.active_ms / 1000
    return annotation


def _results(event: Event) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """What an event says as results: name of the question, of the field, type and value."""
    said = event.payload
    aspect = getattr(said, "aspect", None)
    more = "" if aspect is None else f":{aspect}"
    if isinstance(said, Pairwise):
        if said.winner is None:
            yield f"outcome{more}", "prompt", "choices", {"choices": [said.outcome]}
        else:
            yield f"pairwise{more}", "a,b", "pairwise", {"selected": ("left", "right")[said.winner]}
    elif isinstance(said, Ranking) and len(set(said.ranks)) == len(said.ranks):
        order = sorted(range(len(said.ranks)), key=lambda i: said.ranks[i] or 0)
        yield f"ranking{more}", "items", "ranker", {"ranker": [NAMES[i] for i in order]}
    elif isinstance(said, Rating):
        for name, values in said.values.items():
            for i, value in enumerate(values):
                if value is not None:
                    whole = int(value) if value == int(value) else value
                    yield f"{name}-{NAMES[i]}", NAMES[i], "rating", {"rating": whole}
    elif isinstance(said, Thumbs):
        for i, up in enumerate(said.up):
            if up is not None:
                yield f"thumbs-{NAMES[i]}", NAMES[i], "choices", {"choices": ["up" if up else "down"]}
    elif isinstance(said, Correction):
        name = NAMES[said.candidate]
        yield f"correction-{name}", name, "textarea", {"text": [said.text]}
    elif isinstance(said, Label):
        field = "prompt" if said.candidate is None else NAMES[said.candidate]
        ending = "" if said.candidate is None else f"-{field}"
        yield f"{said.aspect or 'label'}{ending}", field, "choices", {"choices": [said.label]}
    elif isinstance(said, Spans):
        name = NAMES[said.candidate]
        text = event.candidates[said.candidate].text
        for span in said.spans:
            marked = {"start": span.start, "end": span.end, "text": text[span.start : span.end]}
            yield f"spans-{name}", name, "labels", {**marked, "labels": [span.label]}
