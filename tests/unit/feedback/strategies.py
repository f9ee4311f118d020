"""Arbitrary events and items, for properties that hold for all of them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
"""Any characters of any script, NUL and line ends among them; half a surrogate pair is no character."""

words = texts.filter(lambda text: text.strip() != "")
plain_words = st.text(st.sampled_from("abcxyz äß中文🙂'\"<>&,;"), min_size=1, max_size=20).filter(
    lambda t: t == t.strip()
)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=zones)
grades = st.none() | st.integers(1, 3)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
metas = st.dictionaries(texts, values, max_size=3)
EXPLICIT = ("pairwise", "ranking", "rating", "thumbs", "correction", "spans", "label")


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What may be left out."""
    return st.none() | strategy


@st.composite
def askeds(
    draw: st.DrawFn, text: st.SearchStrategy[str] = texts, meta: bool = True, chat: bool = True
) -> dict[str, Any]:
    message = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": text})
    asked = {
        "text": draw(text | st.lists(message, min_size=1, max_size=4) if chat else text),
        "context": draw(optional(texts)),
        "language": draw(optional(st.sampled_from(["en", "zh-Hans", "ar"]))),
        "document": draw(optional(texts)),
        "person": draw(optional(ids)),
    }
    return {**asked, "meta": draw(metas)} if meta else asked


def candidates(text: st.SearchStrategy[str], count: int, lean: bool = False) -> st.SearchStrategy[list[dict[str, Any]]]:
    """So many completions."""
    settings = st.just({}) if lean else metas
    one = st.fixed_dictionaries({"text": text, "model": optional(plain_words), "settings": settings})
    return st.lists(one, min_size=count, max_size=count)


@st.composite
def payloads(draw: st.DrawFn, kind: str, texts_of: list[str], text: st.SearchStrategy[str] = texts) -> dict[str, Any]:
    """A complete judgement of candidates with these texts."""
    n = len(texts_of)
    told: dict[str, Any] = {"kind": kind}
    if kind == "implicit":
        told["signal"] = draw(st.sampled_from(["click", "dwell", "copy", "abandoned"]))
        told["candidate"] = draw(optional(st.integers(0, n - 1))) if n else None
        told["value"] = draw(st.floats(0, 1e9))
        told["unit"] = draw(st.sampled_from(["count", "ms", "px", "chars", "share"]))
        told["position"], told["visible"] = draw(optional(st.integers(0, 9))), draw(optional(st.integers(1, 9)))
        told["propensity"] = draw(optional(st.floats(0, 1, exclude_min=True)))
        return {**told, "censored": draw(st.booleans())}
    told.update(aspect=draw(optional(text)), confidence=draw(grades), rationale=draw(optional(text)))
    if kind == "pairwise":
        outcome = draw(st.sampled_from(["win", "tie", "both_bad"]))
        winner = draw(st.integers(0, 1)) if outcome == "win" else None
        return {**told, "outcome": outcome, "winner": winner, "strength": draw(grades)}
    if kind == "ranking":
        return {**told, "ranks": draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))}
    if kind == "rating":
        low = draw(st.integers(-5, 5))
        high = low + draw(st.integers(1, 9))
        given = st.lists(optional(st.floats(low, high)), min_size=n, max_size=n)
        given = given.filter(lambda values: any(v is not None for v in values))
        aspects = draw(st.dictionaries(text, given, min_size=1, max_size=3))
        return {**told, "values": aspects, "low": low, "high": high}
    if kind == "thumbs":
        up = st.lists(optional(st.booleans()), min_size=n, max_size=n).filter(lambda v: any(x is not None for x in v))
        return {**told, "up": draw(up)}
    candidate = draw(st.integers(0, n - 1)) if n else None
    if kind == "correction":
        return {**told, "candidate": candidate, "text": draw(text.filter(lambda t: t.strip() != ""))}
    if kind == "label":
        return {**told, "candidate": draw(optional(st.just(candidate))), "label": draw(text.filter(bool))}
    length = len(texts_of[candidate or 0])
    spans = []
    for _ in range(draw(st.integers(0, 3)) if length else 0):
        start = draw(st.integers(0, length - 1))
        spans.append(
            {
                "start": start,
                "end": draw(st.integers(start + 1, length)),
                "label": draw(text),
                "severity": draw(optional(st.sampled_from(["minor", "major", "critical"]))),
                "note": draw(optional(text)),
            }
        )
    return {**told, "candidate": candidate, "spans": spans}


COUNTS = {"pairwise": (2, 2), "ranking": (2, 5), "correction": (1, 2), "spans": (1, 2), "label": (0, 2)}


@st.composite
def events(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = (*EXPLICIT, "implicit"),
    text: st.SearchStrategy[str] = texts,
    submitted: bool = False,
    chat: bool = True,
) -> Event:
    """Any event.

    Args:
        draw: hypothesis' own.
        kinds: of these kinds.
        text: what all its texts are drawn from.
        submitted: only judgements that hold, with what other tools know too; else drafts, skips, retracted and erased
            ones, and every field.
        chat: prompts may be chats.
    """
    kind = draw(st.sampled_from(kinds))
    least, most = COUNTS.get(kind, (1, 3))
    shown = draw(candidates(text, draw(st.integers(least, most)), submitted))
    said = draw(payloads(kind, [c["text"] for c in shown], text))
    told: dict[str, Any] = {
        "id": draw(ids),
        "time": draw(moments),
        "project": draw(ids),
        "task": draw(optional(plain_words)),
        "item": draw(ids),
        "kind": kind,
        "asked": draw(askeds(text, meta=not submitted, chat=chat)),
        "candidates": shown,
        "shown": {"order": draw(st.just([]) | st.permutations(range(len(shown)))), "blind": draw(st.booleans())},
        "annotator": {
            "id": draw(ids),
            "role": draw(st.sampled_from(["annotator", "adjudicator", "user", "simulated"])),
        },
        "timing": {"submitted": draw(optional(moments)), "active_ms": draw(optional(st.integers(0, 10**9)))},
        "status": "submitted" if submitted else draw(st.sampled_from(["submitted", "draft", "skipped", "retracted"])),
        "payload": said,
    }
    if not submitted:
        told["timing"].update(shown=draw(optional(moments)), first_action=draw(optional(moments)))
        told["shown"].update(
            seed=draw(optional(st.integers(0, 2**40))),
            interface=draw(optional(texts)),
            guideline=draw(optional(texts)),
            strategy=draw(st.sampled_from(["given", "random", "margin"])),
            probability=draw(st.floats(0, 1, exclude_min=True)),
        )
        told["reason"] = draw(optional(texts))
        told["supersedes"] = draw(st.none() | ids.filter(lambda name: name != told["id"]))
        told["repeats"], told["consent"] = draw(optional(ids)), draw(optional(texts))
        told["adjudicates"] = draw(st.lists(ids, max_size=2))
        told["expected"] = draw(st.none() | payloads(kind, [c["text"] for c in shown], text))
        if told["status"] in ("skipped", "retracted"):
            told["payload"] = None
            told["supersedes"] = "before" if told["status"] == "retracted" else told["supersedes"]
        elif draw(st.booleans()) and told["status"] == "submitted":
            told.update(status="erased", payload=None)
    return Event.model_validate(told)


def logs(strategy: st.SearchStrategy[Event], size: int = 3) -> st.SearchStrategy[list[Event]]:
    """Several events with ids of their own."""
    return st.lists(strategy, min_size=1, max_size=size, unique_by=lambda event: event.id)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """Any question of a kind that takes two candidates."""
    kind = draw(st.sampled_from(["pairwise", "ranking", "rating", "thumbs"]))
    shown = draw(candidates(texts, 2))
    return Item.model_validate(
        {
            "id": draw(ids),
            "kind": kind,
            "task": draw(optional(plain_words)),
            "asked": draw(askeds()),
            "candidates": shown,
            "aspects": draw(st.lists(texts, max_size=2)),
            "labels": ["a", "b", *draw(st.lists(texts, max_size=2))],
            "expected": draw(st.none() | payloads(kind, [c["text"] for c in shown])),
            "repeats": draw(optional(ids)),
            "probability": draw(st.floats(0, 1, exclude_min=True)),
            "raters": draw(optional(st.integers(1, 9))),
            "priority": draw(st.floats(-1e6, 1e6)),
        }
    )
