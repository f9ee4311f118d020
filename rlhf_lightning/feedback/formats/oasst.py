"""``oasst``: message trees of Open Assistant (Köpf et al., 2023, https://arxiv.org/abs/2304.07327).

The card of the set OpenAssistant/oasst1 and ``oasst_data/schemas.py`` of https://github.com/LAION-AI/Open-Assistant
document the JSONL files: ``message_tree_id`` and ``prompt``, a message with ``message_id``, ``parent_id``, ``user_id``,
``text``, ``role`` (prompter, assistant), ``lang``, ``replies`` and, where people judged, ``rank`` among its siblings
(0 the best) and ``labels`` (``{name: {value, count}}``, means from 0 to 1). Both are what several people said together,
so the annotator is unknown.

An assistant's replies with ranks are one ranking, the conversation so far its prompt; a reply's labels are a rating.
Replies of prompters are not completions, and their ranks are passed over.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event, Message
from rlhf_lightning.feedback.formats.common import (
    Import,
    Keys,
    Leave,
    converted,
    line,
    make_event,
    need,
    text_of,
    whole,
)
from rlhf_lightning.feedback.payloads import Ranking, Rating

ROLES = {"prompter": "user", "assistant": "assistant"}
_IDS = uuid.UUID("5a1f4b0e-6d0b-5b2c-9d6e-0d5f0a7c1e21")


# --- in --------------------------------------------------------------------------------------------------------------


def read(path: Path, into: Import) -> Iterator[Event]:
    """The rankings and ratings of each tree."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "message_tree_id", "prompt")
        root = record.values["prompt"]
        tree = str(record.values["message_tree_id"])
        first = _message(record.place, "prompt", root)
        person = None if root.get("user_id") is None else into.person(root["user_id"])
        todo: list[tuple[str, dict[str, Any], tuple[Message, ...]]] = [("prompt", root, (first,))]
        while todo:
            name, node, turns = todo.pop(0)
            replies = node.get("replies") or []
            if not isinstance(replies, list):
                raise UserError(f"{record.place}: the field '{name}.replies' must be a list; found {shown(replies)}")
            alive = []
            for number, reply in enumerate(replies):
                field_name = f"{name}.replies.{number}"
                message = _message(record.place, field_name, reply)
                todo.append((field_name, reply, (*turns, message)))
                if not reply.get("deleted"):
                    alive.append((field_name, reply, message))
            asked = Asked(text=turns, language=node.get("lang"), document=tree, person=person)
            yield from _ranking(record.place, into, keys, asked, node, alive)
            for field_name, reply, message in alive:
                if message.role == "assistant":
                    yield from _rating(record.place, into, keys, asked, field_name, reply)

    yield from converted(path, into, convert)


def _message(place: str, name: str, node: Any) -> Message:
    if not isinstance(node, dict):
        raise UserError(f"{place}: the field {name!r} must be a message; found {shown(node)}")
    if node.get("role") not in ROLES:
        found = shown(node.get("role"))
        raise UserError(f"{place}: the field '{name}.role' must be one of {', '.join(ROLES)}; found {found}")
    text = text_of(place, f"{name}.text", node.get("text"))
    return Message(role=ROLES[node["role"]], content=text)  # type: ignore[arg-type]


def _candidate(reply: dict[str, Any]) -> Candidate:
    return Candidate(text=reply["text"], model=reply.get("model_name"))


def _ranking(
    place: str,
    into: Import,
    keys: Keys,
    asked: Asked,
    node: dict[str, Any],
    alive: list[tuple[str, dict[str, Any], Message]],
) -> Iterator[Event]:
    ranked = [(name, reply, message) for name, reply, message in alive if reply.get("rank") is not None]
    if len(ranked) < 2:
        return
    if any(message.role != "assistant" for _, _, message in ranked):
        into.passed["a ranking of prompters' messages"] += 1
        return
    ranks = tuple(whole(place, f"{name}.rank", reply["rank"]) + 1 for name, reply, _ in ranked)
    yield make_event(
        place,
        into,
        keys.own(
            "ranking", asked.document, node.get("message_id"), [reply.get("message_id") for _, reply, _ in ranked]
        ),
        kind="ranking",
        asked=asked,
        candidates=tuple(_candidate(reply) for _, reply, _ in ranked),
        annotator=into.annotator(None),
        payload={"kind": "ranking", "ranks": ranks},
    )


def _rating(place: str, into: Import, keys: Keys, asked: Asked, name: str, reply: dict[str, Any]) -> Iterator[Event]:
    labels = reply.get("labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(told, dict) for told in labels.values()):
        raise UserError(f"{place}: the field '{name}.labels' must hold {{label: {{value, count}}}}")
    values = {label: told["value"] for label, told in labels.items() if told.get("value") is not None}
    if not values:
        return
    counts = {label: labels[label].get("count") for label in values}
    yield make_event(
        place,
        into,
        keys.own("rating", asked.document, reply.get("message_id"), reply["text"]),
        kind="rating",
        asked=asked.model_copy(update={"meta": {"label_counts": counts}}),
        candidates=(_candidate(reply),),
        annotator=into.annotator(None),
        payload={"kind": "rating", "values": {k: (v,) for k, v in values.items()}, "low": 0, "high": 1},
    )


# --- out -------------------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """A message of a tree that is put together again."""

    text: str
    role: str
    model: str | None
    language: str | None
    rank: int | None = None
    ranked: bool = False  # whether its replies are
    labels: dict[str, Any] = field(default_factory=dict)
    replies: dict[tuple[str, str | None], _Node] = field(default_factory=dict)

    def reply(self, text: str, role: str, model: str | None, language: str | None) -> _Node:
        return self.replies.setdefault((text, model), _Node(text, role, model, language))

    def dump(self, path: str, parent: str | None) -> dict[str, Any]:
        name = str(uuid.uuid5(_IDS, path))
        told: dict[str, Any] = {
            "message_id": name,
            "parent_id": parent,
            "text": self.text,
            "role": self.role,
            "lang": self.language,
            "synthetic": self.model is not None,
            "model_name": self.model,
        }
        if self.rank is not None:
            told["rank"] = self.rank
        if self.labels:
            told["labels"] = self.labels
        below = [node.dump(f"{path}/{i}", name) for i, node in enumerate(self.replies.values())]
        return {**told, "replies": below}


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A tree for each first question, of the rankings, and of the ratings from 0 to 1 of one candidate.

    A message has one rank and one value a label: of several people's judgements of it, the first is written.
    """
    roots: dict[tuple[str, str | None], _Node] = {}
    for event in events:
        reason = _unfit(event)
        if reason is not None:
            leave(event, reason)
            continue
        node = _asked(roots, event)
        if isinstance(event.payload, Ranking):
            if node.ranked:
                leave(event, "its replies are ranked by an earlier event")
                continue
            node.ranked = True
            for candidate, rank in zip(event.candidates, event.payload.ranks, strict=True):
                node.reply(candidate.text, "assistant", candidate.model, event.asked.language).rank = (rank or 1) - 1
        elif isinstance(event.payload, Rating):
            candidate = event.candidates[0]
            reply = node.reply(candidate.text, "assistant", candidate.model, event.asked.language)
            if reply.labels:
                leave(event, "its reply has labels of an earlier event")
                continue
            counts = event.asked.meta.get("label_counts")
            known = counts if isinstance(counts, dict) else {}
            reply.labels = {
                label: {"value": values[0], "count": known.get(label, 1)}
                for label, values in event.payload.values.items()
                if values[0] is not None
            }
    for (text, document), root in roots.items():
        tree = document or str(uuid.uuid5(_IDS, text))
        yield line({"message_tree_id": tree, "tree_state": "ready_for_export", "prompt": root.dump(f"{tree}/0", None)})


def _unfit(event: Event) -> str | None:
    said = event.payload
    if isinstance(said, Rating):
        if (said.low, said.high) != (0, 1) or len(event.candidates) != 1:
            return "a rating there is from 0 to 1, of one candidate"
    elif isinstance(said, Ranking):
        if len({(c.text, c.model) for c in event.candidates}) < len(event.candidates):
            return "two of its candidates are equal"
    else:
        return f"it is of kind {event.kind}"
    turns = _turns(event)
    wanted = ["user", "assistant"] * len(turns)
    if [turn.role for turn in turns] != wanted[: len(turns)] or not len(turns) % 2:
        return "its prompt is no conversation in which user and assistant take turns"
    return None


def _turns(event: Event) -> tuple[Message, ...]:
    text = event.asked.text
    return (Message(role="user", content=text),) if isinstance(text, str) else text


def _asked(roots: dict[tuple[str, str | None], _Node], event: Event) -> _Node:
    """The message that an event's candidates reply to; made, with those before it, where it is new."""
    first, *others = _turns(event)
    language = event.asked.language
    new = _Node(first.content, "prompter", None, language)
    node = roots.setdefault((first.content, event.asked.document), new)
    for turn in others:
        role = "prompter" if turn.role == "user" else "assistant"
        # An event does not say which model wrote an earlier turn: it is the reply of that text, whoever's it is.
        same = next((reply for (text, _), reply in node.replies.items() if text == turn.content), None)
        node = same or node.reply(turn.content, role, None, language)
    return node
