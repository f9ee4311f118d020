"""``tldr``: OpenAI's comparisons of summaries (Stiennon et al., 2020, "Learning to summarize from human feedback").

The README of https://github.com/openai/summarize-from-feedback documents the JSONL files: ``info`` (``id``, ``post``,
``title``, ``subreddit``; ``article`` and ``site`` for news), ``summaries`` (two of ``text``, ``policy``, ``note``),
``choice`` (0 or 1), ``worker``, ``batch``, ``split`` and ``extra.confidence`` (a number whose scale it does not define:
kept as it is, among the meta). The prompt is the query of the paper's appendix (subreddit, title, post). There are no
times, aspects or reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import Record, shown
from rlhf_lightning.data.format import SameCompletions
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event
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
    win,
)
from rlhf_lightning.feedback.payloads import Pairwise

_QUERY = re.compile(r"SUBREDDIT: r/(.*?)\n\nTITLE: (.*?)\n\nPOST: (.*)\n\nTL;DR:", re.DOTALL)


def read(path: Path, into: Import) -> Iterator[Event]:
    """A win for each comparison."""
    keys = Keys(into)

    def convert(record: Record) -> Iterator[Event]:
        need(record, "info", "summaries", "choice")
        place, values = record.place, record.values
        info, summaries, extra = values["info"], values["summaries"], values.get("extra") or {}
        if not isinstance(info, dict):
            raise UserError(f"{place}: the field 'info' must be an object; found {shown(info)}")
        if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(s, dict) for s in summaries):
            raise UserError(f"{place}: the field 'summaries' must be two objects; found {shown(summaries)}")
        choice = whole(place, "choice", values["choice"])
        if choice not in (0, 1):
            raise UserError(f"{place}: the field 'choice' must be 0 or 1; found {choice}")
        texts = [text_of(place, f"summaries.{i}.text", s.get("text")) for i, s in enumerate(summaries)]
        if texts[0] == texts[1]:
            raise SameCompletions(place)
        made = [Candidate(text=t, model=s.get("policy")) for t, s in zip(texts, summaries, strict=True)]
        meta = {name: values[name] for name in ("batch", "split") if values.get(name) is not None}
        if isinstance(extra, dict) and extra.get("confidence") is not None:
            meta["confidence"] = extra["confidence"]
        notes = [s.get("note") for s in summaries]
        if any(notes):
            meta["notes"] = notes
        document = info.get("id")
        yield make_event(
            place,
            into,
            keys.content(values),
            task=into.task or "summarization",
            kind="pairwise",
            asked=Asked(text=_query(place, info), document=None if document is None else str(document), meta=meta),
            candidates=tuple(made),
            annotator=into.annotator(values.get("worker")),
            payload=Pairwise(outcome="win", winner=choice),  # type: ignore[arg-type]
        )

    yield from converted(path, into, convert)


def _query(place: str, info: dict[str, Any]) -> str:
    post = info.get("post") if info.get("post") is not None else info.get("article")
    text = text_of(place, "info.post", post)
    title, subreddit = info.get("title"), info.get("subreddit")
    if subreddit is None:
        return text if title is None else f"TITLE: {title}\n\nPOST: {text}\n\nTL;DR:"
    return f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title or ''}\n\nPOST: {text}\n\nTL;DR:"


def write(events: Iterable[Event], leave: Leave) -> Iterator[str]:
    """A comparison for each win; a prompt that is no such query is the post as a whole."""
    for event in events:
        found = win(event)
        if isinstance(found, str) or not isinstance(event.payload, Pairwise):
            leave(event, str(found))
            continue
        if not isinstance(event.asked.text, str):
            leave(event, "its prompt is a chat")
            continue
        meta = event.asked.meta
        info: dict[str, Any] = {"id": event.asked.document}
        if query := _QUERY.fullmatch(event.asked.text):
            info.update(zip(("subreddit", "title", "post"), query.groups(), strict=True))
        else:
            info.update(post=event.asked.text, title=None, subreddit=None)
        given = meta.get("notes")
        notes = given if isinstance(given, list) and len(given) == 2 else [None, None]
        yield line(
            {
                "info": info,
                "summaries": [
                    {"text": c.text, "policy": c.model, "note": note}
                    for c, note in zip(event.candidates, notes, strict=True)
                ],
                "choice": event.payload.winner,
                "worker": event.annotator.id,
                "batch": meta.get("batch"),
                "split": meta.get("split"),
                "extra": {"confidence": meta.get("confidence")},
            }
        )
