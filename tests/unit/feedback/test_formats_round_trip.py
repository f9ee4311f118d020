"""What a format can hold comes back as it went."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from feedback.strategies import EXPLICIT, events, logs, plain_words, texts, words
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.formats import FORMATS, recognised
from rlhf_lightning.feedback.formats.answers import held
from rlhf_lightning.feedback.formats.common import UNKNOWN, Import, when

SUFFIX = {"label_studio": ".json", "argilla": ".json", "csv": ".csv"}
NAMES_PEOPLE = {"preference", "unpaired", "sft", "tldr", "arena", "label_studio", "argilla", "csv"}
HAS_TIMES = {"preference", "unpaired", "sft", "arena", "label_studio", "argilla", "csv"}


def there_and_back(name: str, log: list[Event]) -> tuple[list[Event], list[Event], str | None]:
    """The events that a format holds, and those that are read again; and what the file is taken for."""
    left: list[str] = []
    read, write = FORMATS[name]
    written = "".join(write(log, lambda event, reason: left.append(event.id)))
    kept = [event for event in log if event.id not in left]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{SUFFIX.get(name, '.jsonl')}"
        path.write_bytes(written.encode())
        into = Import(name, b"salt")
        return kept, list(read(path, into)), recognised(path) if kept else None


def prompt(event: Event) -> Any:
    return event.asked.text


def verdict(event: Event) -> Any:
    """What an event says, apart from the order in which its candidates are listed."""
    said: Any = event.payload
    if said.kind == "pairwise" and said.winner is not None:
        return ("win", event.candidates[said.winner].text, event.candidates[1 - said.winner].text)
    if said.kind == "correction":
        return ("correction", event.candidates[said.candidate].text, said.text)
    if said.kind == "thumbs":
        return ("thumbs", *((c.text, up) for c, up in zip(event.candidates, said.up, strict=True)))
    if said.kind == "pairwise":
        return said.outcome
    return held(event)


def check(name: str, kept: list[Event], again: list[Event], resolution: float = 0.0) -> None:
    assert [(e.kind, prompt(e), verdict(e)) for e in again] == [(e.kind, prompt(e), verdict(e)) for e in kept]
    assert len({e.id for e in again}) == len(again)
    if name in NAMES_PEOPLE:
        pairs = {(a.annotator.id, b.annotator.id) for a, b in zip(kept, again, strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert not {a for a, _ in pairs} & {b for _, b in pairs}
    else:
        assert {e.annotator.id for e in again} <= {UNKNOWN}
    if name in HAS_TIMES:
        for before, after in zip(kept, again, strict=True):
            assert abs((when(after) - when(before)).total_seconds()) <= resolution


def wins(text: st.SearchStrategy[str], chat: bool = True) -> st.SearchStrategy[list[Event]]:
    def apart(event: Event) -> bool:
        return event.candidates[0].text != event.candidates[1].text

    return logs(events(("pairwise",), text, submitted=True, chat=chat).filter(apart))


@given(wins(texts))
@settings(max_examples=40, deadline=None)
def test_preference(log):
    kept, again, taken = there_and_back("preference", log)
    assert len(kept) == sum(e.payload.winner is not None for e in log)
    check("preference", kept, again)
    assert taken in (None, "preference")


@given(logs(events(("thumbs",), texts, submitted=True).filter(lambda e: len(e.candidates) == 1)))
@settings(max_examples=40, deadline=None)
def test_unpaired(log):
    kept, again, taken = there_and_back("unpaired", log)
    assert kept == log
    check("unpaired", kept, again)
    assert taken in ("unpaired",)


@given(logs(events(("correction",), texts, submitted=True)))
@settings(max_examples=40, deadline=None)
def test_sft(log):
    kept, again, taken = there_and_back("sft", log)
    assert kept == log
    check("sft", kept, again)
    assert taken == "sft"


@given(wins(plain_words))
@settings(max_examples=40, deadline=None)
def test_hh_of_plain_texts(log):
    assume(any(e.payload.winner is not None for e in log))
    kept, again, taken = there_and_back("hh", log)
    fits = [e for e in log if e.payload.winner is not None and isinstance(e.asked.text, str)]
    assert [e for e in kept if isinstance(e.asked.text, str)] == fits
    assert [verdict(e) for e in again] == [verdict(e) for e in kept]
    assert [e.asked.text[-1].content for e in again] == [
        e.asked.text if isinstance(e.asked.text, str) else e.asked.text[-1].content for e in kept
    ]
    assert taken in (None, "hh")


hostile = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " ", "x", "\n"]), max_size=5).map("".join)


@given(wins(hostile, chat=False))
@settings(max_examples=40, deadline=None)
def test_a_text_that_looks_like_a_turn_is_left_out_of_transcripts(log):
    for name in ("hh", "arena"):
        kept, again, _ = there_and_back(name, log)
        assert [verdict(e) for e in again] == [verdict(e) for e in kept]
        assert [e.asked.text[0].content for e in again] == [e.asked.text for e in kept]


@given(wins(texts))
@settings(max_examples=40, deadline=None)
def test_tldr(log):
    kept, again, taken = there_and_back("tldr", log)
    assert kept == [e for e in log if e.payload.winner is not None and isinstance(e.asked.text, str)]
    check("tldr", kept, again)
    assert taken in (None, "tldr")
    assert [[(c.text, c.model) for c in e.candidates] for e in again] == [
        [(c.text, c.model) for c in e.candidates] for e in kept
    ]


@given(wins(words))
@settings(max_examples=40, deadline=None)
def test_arena(log):
    kept, again, taken = there_and_back("arena", log)
    plain = [e for e in log if isinstance(e.asked.text, str)]
    assert [e for e in kept if isinstance(e.asked.text, str)] == plain
    assert [e.kind for e in again] == ["pairwise"] * len(kept)
    for before, after in zip(kept, again, strict=True):
        assert after.payload.outcome == before.payload.outcome
        order = before.shown.order or (0, 1)
        assert [c.text for c in after.candidates] == [before.candidates[i].text for i in order]
        assert [c.model for c in after.candidates] == [before.candidates[i].model or "unknown" for i in order]
        if before.payload.winner is not None:
            assert verdict(after) == verdict(before)
        assert abs((when(after) - when(before)).total_seconds()) < 1e-4  # a float of seconds
    assert taken in (None, "arena")


@given(logs(events(("ranking", "rating"), words, submitted=True), size=4))
@settings(max_examples=40, deadline=None)
def test_oasst(log):
    kept, again, taken = there_and_back("oasst", log)

    def told(event: Event) -> Any:
        said: Any = event.payload
        text = event.asked.text if isinstance(event.asked.text, str) else [m.content for m in event.asked.text]
        values = (
            list(said.ranks) if event.kind == "ranking" else {k: v for k, v in said.values.items() if v[0] is not None}
        )
        return ([text] if isinstance(text, str) else text, [(c.text, c.model) for c in event.candidates], str(values))

    assert sorted(map(told, again), key=str) == sorted(map(told, kept), key=str)
    assert taken in (None, "oasst")


@pytest.mark.parametrize("name", ["label_studio", "argilla"])
@pytest.mark.parametrize("kind", EXPLICIT)
def test_tools_hold_each_kind_of_plain_texts(name, kind):
    # Of plain words nothing is left out but what the tool can't say.
    @given(logs(events((kind,), plain_words, submitted=True)))
    @settings(max_examples=25, deadline=None)
    def holds(log):
        kept, again, taken = there_and_back(name, log)
        by_id = sorted(kept, key=lambda e: ([x.item for x in kept].index(e.item), kept.index(e)))
        assert sorted(str((e.kind, prompt(e), verdict(e))) for e in again) == sorted(
            str((e.kind, prompt(e), verdict(e))) for e in by_id
        )
        assert sorted(when(e) for e in again) == sorted(when(e) for e in kept)
        assert len({e.annotator.id for e in again}) == len({e.annotator.id for e in kept})
        if kept:
            assert taken == name
        for event in log:
            said: Any = event.payload
            if event not in kept:
                assert (
                    (kind == "ranking" and len(set(said.ranks)) < len(said.ranks))
                    or kind in ("rating", "spans", "label")
                    or any(getattr(said, field, None) is not None for field in ("aspect", "rationale"))
                ), event

    holds()


@pytest.mark.parametrize("name", ["label_studio", "argilla"])
@given(logs(events(EXPLICIT, texts, submitted=True)))
@settings(max_examples=40, deadline=None)
def test_tools_never_say_something_else(name, log):
    kept, again, _ = there_and_back(name, log)
    assert sorted(str((e.kind, prompt(e), verdict(e))) for e in again) == sorted(
        str((e.kind, prompt(e), verdict(e))) for e in kept
    )


@given(logs(events(EXPLICIT, texts, submitted=True)))
@settings(max_examples=40, deadline=None)
def test_csv(log):
    kept, again, taken = there_and_back("csv", log)
    assert len(again) == len(kept)
    for before, after in zip(kept, again, strict=True):
        expected: Any = before.payload
        if before.kind == "ranking":  # the order is what it says
            order = sorted(set(expected.ranks))
            expected = expected.model_copy(update={"ranks": tuple(order.index(r) + 1 for r in expected.ranks)})
        assert after.payload == expected
        assert prompt(after) == prompt(before)
        assert [(c.text, c.model) for c in after.candidates] == [(c.text, c.model) for c in before.candidates]
        assert when(after) == when(before)
        assert (after.timing.active_ms, after.annotator.role) == (before.timing.active_ms, before.annotator.role)
    assert taken == "csv" or not kept
    for event in {e.id for e in log} - {e.id for e in kept}:
        left = next(e for e in log if e.id == event)
        assert "\\u0000" in left.to_json() or '""' in left.to_json() or "[{" in str(left.asked.text)
