"""``arena``: votes of Chatbot Arena (Zheng et al., 2023, https://arxiv.org/abs/2306.05685).

The columns are those of the set lmsys/chatbot_arena_conversations, which FastChat's ``clean_battle_data.py`` writes:
``question_id``, ``model_a``, ``model_b``, ``winner`` (``model_a``, ``model_b``, ``tie``, ``tie (bothbad)``), ``judge``,
``conversation_a``, ``conversation_b`` (messages), ``turn``, ``anony`` (models were hidden), ``language`` (its English
name) and ``tstamp`` (seconds since 1970). Others travel along as meta.

What both conversations begin with is the prompt. Of several turns the first answer and all that follows it is the
candidate, as a transcript, the way `split_transcripts` leaves it. Aspects and reasons have no place in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.data.format import EmptyAnswer
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event, Message
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    converted,
    line,
    make_event,
    messages_of,
    moment,
    need,
    when,
)
from rlhf_lightning.feedback.payloads import Pairwise

WINNERS: dict[str, tuple[str, int | None]] = {
    "model_a": ("win", 0),
    "model_b": ("win", 1),
    "tie": ("tie", None),
    "tie (bothbad)": ("both_bad", None),
}
LANGUAGES = {
    "Arabic": "ar",
    "Chinese": "zh",
    "Czech": "cs",
    "Dutch": "nl",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Hebrew": "he",
    "Hindi": "hi",
    "Indonesian": "id",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Persian": "fa",
    "Polish": "pl",
    "Portuguese": "pt",
    "Russian": "ru",
    "Spanish": "es",
    "Turkish": "tr",
    "Ukrainian": "uk",
    "Vietnamese": "vi",
}
"""The commoner ones; another name stays among the meta."""

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant): ")
_USED = {"question_id", "model_a", "model_b", "winner", "judge", "conversation_a", "conversation_b", "turn", "anony"}


def read(path: Path, into: Import) -> Iterator[Event]:
    """A pairwise judgement for each vote; one of a conversation without an answer says nothing."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "question_id", "model_a", "model_b", "winner", "conversation_a", "conversation_b")
        place, values = record.place, record.values
        if values["winner"] not in WINNERS:
            found = shown(values["winner"])
            raise UserError(f"{place}: the field 'winner' must be one of {', '.join(WINNERS)}; found {found}")
        outcome, winner = WINNERS[values["winner"]]
        a, b = (messages_of(place, n, values[n]) for n in ("conversation_a", "conversation_b"))
        start = _common(a, b)
        if not start:
            raise UserError(f"{place}: 'conversation_a' and 'conversation_b' do not begin with the same question")
        if len(a) == start or len(b) == start:
            raise EmptyAnswer(place)
        texts = (_text(place, "conversation_a", a[start:]), _text(place, "conversation_b", b[start:]))
        name = values.get("language")
        language = LANGUAGES.get(str(name))
        time = moment(place, "tstamp", values.get("tstamp"))
        meta = {k: v for k, v in values.items() if k not in _USED | {"tstamp", "language"} and v is not None}
        if language is None and name is not None:
            meta["language"] = name
        yield make_event(
            place,
            into,
            keys.own(values["question_id"], values.get("judge")),
            kind="pairwise",
            asked=Asked(text=a[:start], language=language, meta=meta),
            candidates=tuple(
                Candidate(text=text, model=values[column])
                for text, column in zip(texts, ("model_a", "model_b"), strict=True)
            ),
            shown={"order": (0, 1), "blind": values.get("anony") is not False},
            annotator=into.annotator(values.get("judge")),
            time=time,
            timing=None if time is None else {"submitted": time},
            payload=Pairwise(outcome=outcome, winner=winner),  # type: ignore[arg-type]
        )

    yield from converted(path, into, convert)


def _common(a: tuple[Message, ...], b: tuple[Message, ...]) -> int:
    """How many messages both begin with, the last of them a user's."""
    same = 0
    for first, second in zip(a, b, strict=False):
        if first != second:
            break
        same += 1
    while same and a[same - 1].role == "assistant":  # both models gave the same answer: it is judged, not asked
        same -= 1
    return same


def _text(place: str, name: str, turns: tuple[Message, ...]) -> str:
    """What follows the prompt: the assistant's first message, and further turns as a transcript has them."""
    first, *others = turns
    if first.role != "assistant" or any(turn.role not in _SPEAKERS for turn in others):
        raise UserError(f"{place}: in {name!r} user and assistant must take turns; found one of {first.role!r}")
    return first.content + "".join(f"\n\n{_SPEAKERS[turn.role]}: {turn.content}" for turn in others)


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A vote for each pairwise judgement: of the candidates as they were shown, a the first."""
    outcomes = {told: name for name, told in WINNERS.items()}
    languages = {code: name for name, code in LANGUAGES.items()}
    for event in events:
        said = event.payload
        if not isinstance(said, Pairwise) or said.outcome is None:
            leave(event, f"it is of kind {event.kind}")
            continue
        asked = event.asked
        before = asked.text if isinstance(asked.text, tuple) else (Message(role="user", content=asked.text),)
        order = event.shown.order or (0, 1)
        a, b = ((*before, *_turns(event.candidates[i].text)) for i in order)
        start = _common(a, b)
        texts = [_text("", "", turns[start:]) if len(turns) > start else "" for turns in (a, b)]
        if start != len(before) or texts != [event.candidates[i].text for i in order]:
            leave(event, "its texts can't be told apart in two conversations")
            continue
        winner = None if said.winner is None else order.index(said.winner)
        row: dict[str, Any] = {
            "question_id": event.id,
            "model_a": event.candidates[order[0]].model or "unknown",
            "model_b": event.candidates[order[1]].model or "unknown",
            "winner": outcomes[said.outcome, winner],
            "judge": event.annotator.id,
            "conversation_a": [turn.model_dump() for turn in a],
            "conversation_b": [turn.model_dump() for turn in b],
            "turn": sum(turn.role == "user" for turn in a),
            "anony": event.shown.blind,
            "language": languages.get(asked.language or "") or asked.meta.get("language", "unknown"),
            "tstamp": when(event).timestamp(),
        }
        yield line({**row, **{k: v for k, v in asked.meta.items() if k not in row}})


def _turns(text: str) -> tuple[Message, ...]:
    first, *parts = _TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [Message(role="assistant", content=first)]
    for speaker, content in zip(parts[::2], parts[1::2], strict=True):
        turns.append(Message(role=roles[speaker], content=content))  # type: ignore[arg-type]
    return tuple(turns)
