"""Which events of a log hold."""

from __future__ import annotations

from typing import Any

from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.payloads import Pairwise

WIN = Pairwise(outcome="win", winner=0)


def event(name: str, who: str = "a", payload: Pairwise | None = WIN, **more: Any) -> Event:
    return Event(
        id=name,
        item="item",
        kind="pairwise",
        asked=Asked(text="prompt"),
        candidates=(Candidate(text="one"), Candidate(text="two")),
        annotator=Annotator(id=who),
        payload=payload,
        **more,
    )


def names(*log: Event, **options: Any) -> list[str]:
    return [one.id for one in current(log, **options)]


def test_what_a_person_replaced_or_took_back_holds_no_more():
    first, again = event("1"), event("2", supersedes="1")
    assert names(first, again) == ["2"]
    assert names(again, first) == ["2"]  # logs may be put together in any order
    taken = event("3", payload=None, status="retracted", supersedes="2")
    assert names(first, again, taken) == []
    skipped = event("3", payload=None, status="skipped", supersedes="2")
    assert names(first, again, skipped) == []


def test_nobody_takes_back_what_another_said():
    assert names(event("1"), event("2", who="b", supersedes="1")) == ["1", "2"]


def test_a_draft_replaces_nothing_until_it_is_submitted():
    first, draft = event("1"), event("2", supersedes="1", status="draft")
    assert names(first, draft) == ["1"]
    assert names(first, draft, drafts=True) == ["2"]
    assert names(first, draft, event("3", supersedes="2")) == ["1", "3"]


def test_what_was_erased_or_skipped_says_nothing():
    assert names(event("1", payload=None, status="erased"), event("2", payload=None, status="skipped")) == []
