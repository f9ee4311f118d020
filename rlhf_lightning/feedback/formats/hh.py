"""``hh``: two transcripts a row, as in Anthropic's set of human preferences (https://github.com/anthropics/hh-rlhf).

``{"chosen": ..., "rejected": ...}``, each the turns ``\\n\\nHuman: ...`` and ``\\n\\nAssistant: ...``. They have a
beginning in common, which is the prompt. The format says neither who judged nor when, and nothing
of an aspect or a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rlhf_lightning.data.files import Record
from rlhf_lightning.data.format import split_transcripts
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event, Message
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    asked_text,
    converted,
    line,
    make_event,
    messages_of,
    need,
    pair,
    text_of,
    win,
)
from rlhf_lightning.feedback.payloads import Pairwise

SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def read(path: Path, into: Import) -> Iterator[Event]:
    """Wins, one a row; where the transcripts are equal, or one ends without an answer, it says nothing."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "chosen", "rejected")
        chosen, rejected = (text_of(record.place, n, record.values[n]) for n in ("chosen", "rejected"))
        prompt, better, worse = split_transcripts(record.place, chosen, rejected)
        candidates, winner = pair(Candidate(text=better), Candidate(text=worse), 0)
        yield make_event(
            record.place,
            into,
            keys.content([chosen, rejected]),
            kind="pairwise",
            asked=Asked(text=messages_of(record.place, "chosen", prompt.text)),
            candidates=candidates,
            annotator=into.annotator(None),
            payload=Pairwise(outcome="win", winner=winner),  # type: ignore[arg-type]
        )

    yield from converted(path, into, convert)


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A row for each win whose texts can be told apart in a transcript."""
    for event in events:
        found = win(event)
        if isinstance(found, str):
            leave(event, found)
            continue
        turns = event.asked.text
        if isinstance(turns, str):
            turns = (Message(role="user", content=turns),)
        if any(turn.role not in SPEAKERS for turn in turns):
            leave(event, "its prompt has turns of others than user and assistant")
            continue
        before = "".join(f"\n\n{SPEAKERS[turn.role]}: {turn.content}" for turn in turns)
        chosen, rejected = (f"{before}\n\nAssistant: {candidate.text}" for candidate in found)
        if not _same(chosen, rejected, turns, (found[0].text, found[1].text)):
            leave(event, "its texts can't be told apart in a transcript")
            continue
        yield line({"chosen": chosen, "rejected": rejected})


def _same(chosen: str, rejected: str, turns: tuple[Message, ...], texts: tuple[str, str]) -> bool:
    """Whether the transcripts are read as what they were made of: a text may itself look like a turn."""
    try:
        prompt, better, worse = split_transcripts("", chosen, rejected)
    except UserError:
        return False
    return prompt.text == asked_text(Asked(text=turns)) and (better, worse) == texts
