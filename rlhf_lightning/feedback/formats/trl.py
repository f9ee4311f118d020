"""Rows in TRL's form: ``preference``, ``unpaired`` and ``sft``.

The forms are those of TRL's page "Dataset formats and types" (https://huggingface.co/docs/trl/dataset_formats):
standard (texts) and conversational (lists of messages), with an explicit or an implicit prompt. Three further columns
are read where they are there and are written: ``annotator``, ``time`` (ISO 8601) and, in ``sft``, ``original``, the
text that a person has corrected. All other columns travel along as meta. What a judgement says beside its choice
(aspect, strength, confidence, rationale) has no place in them.

What is written here is what people said, a row a win, thumb or correction, so that it is read again as it was; rows to
train on, by the rules for ties, ranks, ratings and several people, are made by ``rlhf-feedback rows``.

A row of ``sft`` is read as a correction. Its ``completion`` is what a person would have, and without an ``original`` it
is the candidate too: a demonstration is a text that was corrected in nothing, which gives an SFT row and no pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.data.format import SameCompletions
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event, Message
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    asked_text,
    converted,
    iso,
    line,
    make_event,
    messages_of,
    moment,
    need,
    pair,
    prompt_of,
    text_of,
    when,
    win,
)
from rlhf_lightning.feedback.payloads import Correction, Pairwise, Thumbs

Prompt = str | tuple[Message, ...]


# --- in --------------------------------------------------------------------------------------------------------------


def read_preference(path: Path, into: Import) -> Iterator[Event]:
    """Wins, one a row of ``chosen`` and ``rejected``; a row whose two completions are equal says nothing."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "chosen", "rejected")
        prompt, better, worse = _preference(record)
        if better == worse:
            raise SameCompletions(f"{record.place}: chosen and rejected are equal")
        candidates, winner = pair(Candidate(text=better), Candidate(text=worse), 0)
        said = Pairwise(outcome="win", winner=winner)  # type: ignore[arg-type]
        yield _event(record, into, keys, prompt, candidates, said, ("prompt", "chosen", "rejected"))

    yield from converted(path, into, convert)


def read_unpaired(path: Path, into: Import) -> Iterator[Event]:
    """Thumbs, one a row of ``prompt``, ``completion`` and ``label`` (true or false)."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "prompt", "completion", "label")
        prompt = prompt_of(record.place, "prompt", record.values["prompt"])
        completion = _completion(record.place, "completion", record.values["completion"])
        up = {"true": True, "1": True, "false": False, "0": False}.get(str(record.values["label"]).strip().lower())
        if up is None:
            found = shown(record.values["label"])
            raise UserError(f"{record.place}: the field 'label' must be true or false; found {found}")
        used = ("prompt", "completion", "label")
        yield _event(record, into, keys, prompt, (Candidate(text=completion),), Thumbs(up=(up,)), used)

    yield from converted(path, into, convert)


def read_sft(path: Path, into: Import) -> Iterator[Event]:
    """Corrections, one a row of ``prompt`` and ``completion``, or of ``messages`` that end with the assistant's."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        prompt: Prompt
        if "messages" in record.values:
            turns = messages_of(record.place, "messages", record.values["messages"])
            prompt, completion = _last(record.place, "messages", turns)
        else:
            need(record, "prompt", "completion")
            prompt = prompt_of(record.place, "prompt", record.values["prompt"])
            completion = _completion(record.place, "completion", record.values["completion"])
        original = record.values.get("original")
        before = completion if original is None else text_of(record.place, "original", original)
        used = ("prompt", "completion", "messages", "original")
        yield _event(record, into, keys, prompt, (Candidate(text=before),), Correction(text=completion), used)

    yield from converted(path, into, convert)


def _event(
    record: Record,
    into: Import,
    keys: Keys,
    prompt: Prompt,
    candidates: tuple[Candidate, ...],
    said: Pairwise | Thumbs | Correction,
    used: Iterable[str],
) -> Event:
    values = record.values
    meta = {k: v for k, v in values.items() if k not in {*used, "annotator", "time"} and v is not None}
    time = moment(record.place, "time", values.get("time"))
    return make_event(
        record.place,
        into,
        keys.content(values),
        kind=said.kind,
        asked=Asked(text=prompt, meta=meta),
        candidates=candidates,
        annotator=into.annotator(values.get("annotator")),
        time=time,
        timing=None if time is None else {"submitted": time},
        payload=said,
    )


def _completion(place: str, name: str, value: Any) -> str:
    """The text of a completion: as it is, or of one message of the assistant's."""
    if not isinstance(value, list):
        return text_of(place, name, value)
    turns = messages_of(place, name, value)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise UserError(f"{place}: the field {name!r} must hold one message of the assistant's; found {shown(value)}")
    return turns[0].content


def _last(place: str, name: str, turns: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise UserError(f"{place}: the field {name!r} must be a chat that ends with the assistant's message")
    return turns[:-1], turns[-1].content


def _preference(record: Record) -> tuple[Prompt, str, str]:
    place, values = record.place, record.values
    first, second = values["chosen"], values["rejected"]
    if values.get("prompt") is not None:
        prompt = prompt_of(place, "prompt", values["prompt"])
        return prompt, _completion(place, "chosen", first), _completion(place, "rejected", second)
    if isinstance(first, list) and isinstance(second, list):
        before, better = _last(place, "chosen", messages_of(place, "chosen", first))
        other, worse = _last(place, "rejected", messages_of(place, "rejected", second))
        if before != other:
            raise UserError(
                f"{place}: without a field 'prompt', the chats of 'chosen' and 'rejected' must differ in the last "
                "message alone"
            )
        return before, better, worse
    return _implicit(place, text_of(place, "chosen", first), text_of(place, "rejected", second))


def _implicit(place: str, better: str, worse: str) -> tuple[str, str, str]:
    """Split two texts where they part; as TRL does it, a space before that place belongs to the completions."""
    if better == worse:
        raise SameCompletions(f"{place}: chosen and rejected are equal")
    parted = (i for i, (a, b) in enumerate(zip(better, worse, strict=False)) if a != b)
    end = next(parted, min(len(better), len(worse)))
    if end and better[end - 1] == " ":
        end -= 1
    if not end:
        raise UserError(
            f"{place}: there is no field 'prompt', and 'chosen' and 'rejected' have no beginning in common that "
            "could be it"
        )
    return better[:end], better[end:], worse[end:]


# --- out -------------------------------------------------------------------------------------------------------------


def write_preference(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A row for each win."""
    for event in events:
        found = win(event)
        if isinstance(found, str):
            leave(event, found)
            continue
        better, worse = found
        row = {"chosen": _said(event, better.text), "rejected": _said(event, worse.text)}
        yield _row(event, row)


def write_unpaired(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A row for each thumb."""
    for event in events:
        said = event.payload
        if not isinstance(said, Thumbs):
            leave(event, f"it is of kind {event.kind}")
            continue
        for candidate, up in zip(event.candidates, said.up, strict=True):
            if up is not None:
                yield _row(event, {"completion": _said(event, candidate.text), "label": up})


def write_sft(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A row for each correction."""
    for event in events:
        said = event.payload
        if not isinstance(said, Correction):
            leave(event, f"it is of kind {event.kind}")
            continue
        original = event.candidates[said.candidate].text
        row: dict[str, Any] = {"completion": _said(event, said.text)}
        yield _row(event, row if original == said.text else {**row, "original": original})


def _said(event: Event, text: str) -> str | list[dict[str, str]]:
    """A completion in the prompt's form: TRL takes a row whose fields are all texts, or all messages."""
    return text if isinstance(event.asked.text, str) else [{"role": "assistant", "content": text}]


def _row(event: Event, row: dict[str, Any]) -> str:
    named = {"annotator": event.annotator.id, "time": iso(when(event))}
    own = {"prompt": asked_text(event.asked), **row, **named}
    return line({**own, **{k: v for k, v in event.asked.meta.items() if k not in own}})
