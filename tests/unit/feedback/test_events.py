"""What an event may be. (That their JSON is read back equal is tested with the log's format.)"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event, Message, Shown, digest, explain
from rlhf_lightning.feedback.payloads import Implicit, Pairwise, Ranking, Rating, Span, Spans, Thumbs

WIN = Pairwise(outcome="win", winner=0)


def event(
    name: str = "e", kind: str = "pairwise", payload: Any = WIN, who: str = "a", n: int = 2, **more: Any
) -> Event:
    return Event(
        id=name,
        item="item",
        kind=kind,  # type: ignore[arg-type]
        asked=Asked(text="prompt"),
        candidates=tuple(Candidate(text=f"text {i}") for i in range(2)),
        annotator=Annotator(id=who),
        payload=payload,
        **more,
    )


@pytest.mark.parametrize(
    ("kind", "payload", "word"),
    [
        ("pairwise", Pairwise(outcome="win"), "has a winner"),
        ("pairwise", Pairwise(outcome="tie", winner=1), "has a winner"),
        ("pairwise", Pairwise(), "payload.outcome is missing"),
        ("ranking", Ranking(ranks=(1, 2, 3)), "3 values for 2 candidates"),
        ("ranking", Ranking(ranks=(1, None)), "payload.ranks is missing"),
        ("rating", Rating(values={"fluency": (6, 1)}), "6 is not on the scale 1 to 5"),
        ("rating", Rating(values={"fluency": (None, None)}), "payload.values is missing"),
        ("rating", Rating(values={"fluency": (1, 1)}, low=5, high=1), "must be below"),
        ("thumbs", Thumbs(up=(True,)), "1 value for 2 candidates"),
        ("spans", Spans(candidate=2), "candidate 2 is none of the 2"),
        ("spans", Spans(spans=(Span(start=3, end=3, label="x"),)), "marks nothing"),
        ("spans", Spans(spans=(Span(start=0, end=7, label="x"),)), "beyond the text's 6 characters"),
        ("implicit", Implicit(signal="click", candidate=5), "candidate 5 is none"),
        ("thumbs", WIN, "is not the event's kind"),
    ],
)
def test_what_does_not_fit_what_was_shown_is_refused(kind, payload, word):
    with pytest.raises(ValueError, match=word):
        event(kind=kind, payload=payload)


def test_a_draft_may_lack_what_a_judgement_may_not():
    assert event(payload=Pairwise(), status="draft").payload == Pairwise()
    with pytest.raises(ValueError, match="has a winner"):
        event(payload=Pairwise(outcome="win"), status="draft")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"payload": None}, "needs a payload"),
        ({"status": "skipped"}, "a skipped event has no payload"),
        ({"payload": None, "status": "retracted"}, "says in supersedes"),
        ({"supersedes": "e"}, "can't supersede itself"),
        ({"shown": Shown(order=(0, 0))}, "no order of 2 candidates"),
    ],
)
def test_a_status_has_what_belongs_to_it(more, word):
    with pytest.raises(ValueError, match=word):
        event(**more)


def test_a_text_s_hash_is_filled_in_and_checked():
    assert Candidate(text="a").hash == digest("a")
    with pytest.raises(ValueError, match="not that of the text"):
        Candidate(text="a", hash=digest("b"))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_refused_and_not_stored_as_null(number):
    with pytest.raises(ValidationError) as refused:
        Asked(text="p", meta={"scores": [1.5, {"bleu": number}]})
    assert f"scores.1.bleu is {number}" in explain(refused.value)
    with pytest.raises(ValidationError) as refused:
        Candidate(text="a", settings={"temperature": number})
    assert explain(refused.value).startswith("the field 'settings': temperature is ")


def test_a_chat_is_plain_text_with_its_turns():
    asked = Asked(text=(Message(role="user", content="hi"), Message(role="assistant", content="yes")))
    assert asked.plain == "user: hi\n\nassistant: yes"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"version": 2}, "the field 'version'"),
        ({"item": 3}, "the field 'item': must be a text"),
        ({"colour": "red"}, "the field 'colour': there is no such field"),
        ({"payload": {"outcome": "tie"}}, "the field 'payload': must say its kind: pairwise"),
        ({"payload": {"kind": "pairwise", "outcome": "draw"}}, "the field 'payload.outcome': input should be 'win'"),
        ({"time": "2024-01-01T00:00:00"}, "the field 'time'"),
        ({"asked": {"text": [{"role": "user"}]}}, r"the field 'asked\.text\.0\.content': is missing"),
    ],
)
def test_a_line_that_is_no_event_is_told_by_place_and_field(change, word):
    values = json.loads(event().to_json()) | change
    with pytest.raises(UserError, match=f"log, line 7: {word}"):
        Event.from_json(json.dumps(values), "log, line 7")
