"""Personal data is replaced in all that is stored, and nothing else is changed."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from helpers.judges import Clock, Server
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import events, items

from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.commands.review import listed, text_at
from rlhf_lightning.feedback.database import facts, replaced
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.formats.common import item_id
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Correction, Pairwise, Span, Spans
from rlhf_lightning.feedback.privacy.pii import find
from rlhf_lightning.feedback.privacy.storing import MOVED, Scrubber
from rlhf_lightning.feedback.store import Store

MAIL, OTHER, CARD = "ada@example.org", "bob@example.net", "4111 1111 1111 1111"
private = st.text(st.sampled_from("ab 中.,"), max_size=8)
texts = st.lists(
    private | st.sampled_from([f" {MAIL} ", f" {OTHER} ", f" {CARD} ", " +49 170 1234567 "]), max_size=4
).map("".join)


def event(**more: Any) -> Event:
    return Event(
        **{
            "id": "e",
            "time": datetime(2026, 1, 31, tzinfo=timezone.utc),
            "item": "q",
            "kind": "pairwise",
            "asked": Asked(text=f"Write to {MAIL}", meta={"references": [f"To {OTHER}", 3], "a.b": MAIL}),
            "candidates": (Candidate(text=f"I wrote to {OTHER}"), Candidate(text="No.")),
            "annotator": Annotator(id="a"),
            "payload": Pairwise(outcome="win", winner=0, rationale=f"{OTHER} is right, {CARD} is not"),
            **more,
        }
    )


def test_one_value_has_one_placeholder_throughout() -> None:
    new, found = Scrubber().event(event())
    assert new.asked.text == "Write to [EMAIL_1]"
    assert new.candidates[0] == Candidate(text="I wrote to [EMAIL_2]")  # the hash is that of the new text
    assert new.asked.meta == {"references": ["To [EMAIL_2]", 3], "a.b": "[EMAIL_1]"}
    assert isinstance(new.payload, Pairwise)
    assert new.payload.rationale == "[EMAIL_2] is right, [CARD_1] is not"
    assert {place.kind for place in found} == {"EMAIL", "CARD"}
    for place in found:
        text = text_at(json.loads(new.to_json()), place.field)
        assert text[place.start : place.end].startswith(f"[{place.kind}_")
    assert (new.id, new.item, new.annotator, new.time) == (event().id, "q", Annotator(id="a"), new.time)


def test_what_people_say_does_not_change_the_question() -> None:
    """A placeholder typed by a person takes no number from those of the question."""
    other = event(payload=Pairwise(outcome="tie", rationale=f"[EMAIL_7] and carol@example.com, {MAIL}"))
    first, second = (Scrubber().event(e)[0] for e in (event(), other))
    assert (first.asked, first.candidates) == (second.asked, second.candidates)
    assert isinstance(second.payload, Pairwise)
    assert second.payload.rationale == "[EMAIL_7] and [EMAIL_8], [EMAIL_1]"


def test_marks_move_with_the_text() -> None:
    text = f"Dear {MAIL}, the wrod is wrong"
    at = text.index("wrod")
    marks = (
        Span(start=at, end=at + 4, label="spelling", note=f"ask {MAIL}"),
        Span(start=0, end=4, label="style"),
        Span(start=5, end=5 + len(MAIL), label="whole"),
        Span(start=7, end=9, label="within"),
    )
    told = event(kind="spans", candidates=(Candidate(text=text),), payload=Spans(spans=marks))
    new, _ = Scrubber().event(told)
    assert isinstance(new.payload, Spans)
    of = {s.label: new.candidates[0].text[s.start : s.end] for s in new.payload.spans}
    assert of == {"spelling": "wrod", "style": "Dear", "whole": "[EMAIL_1]"}
    assert new.payload.spans[0].note == "ask [EMAIL_1]"
    assert new.payload.rationale == MOVED


def test_a_correction_keeps_what_it_leaves() -> None:
    told = event(kind="correction", candidates=(Candidate(text=MAIL),), payload=Correction(text=f"{MAIL}!"))
    new, _ = Scrubber().event(told)
    assert isinstance(new.payload, Correction)
    assert new.payload.text == f"{new.candidates[0].text}!" == "[EMAIL_2]!".replace("2", new.candidates[0].text[7])


def test_ids_that_follow_from_texts_follow_the_new_ones() -> None:
    """From the hash of a text in which only a number is not known, the number could be found by trying."""
    raw = Item(asked=Asked(text=f"Write to {MAIL}"), candidates=(Candidate(text="a"), Candidate(text="b")))
    clean = Item(asked=Asked(text="Write to [EMAIL_1]"), candidates=raw.candidates)
    scrubber = Scrubber()
    new, _ = scrubber.item(raw)
    assert new == clean
    assert new.id == clean.id != raw.id
    assert scrubber.item(Item(**{**dict(raw), "id": "mine"}))[0].id == "mine"
    judged = event(item=raw.id, asked=raw.asked, candidates=raw.candidates)
    assert scrubber.event(judged)[0].item == clean.id
    imported = event(item=item_id("pairwise", raw.asked, raw.candidates), asked=raw.asked, candidates=raw.candidates)
    assert Scrubber().event(imported)[0].item == item_id("pairwise", clean.asked, clean.candidates)


def test_an_item_s_id_is_the_same_however_it_is_asked() -> None:
    item = Item(asked=Asked(text="x"), candidates=(Candidate(text="a"), Candidate(text="b")))
    again = Item.model_validate({**json.loads(item.to_json()), "id": "", "strategy": "margin", "priority": 2.0})
    assert again.id == item.id


@settings(deadline=None, max_examples=60)
@given(events(text=texts))
def test_nothing_is_left_and_the_rest_is_as_it_was(told: Event) -> None:
    new, found = Scrubber().event(told)
    assert Scrubber().event(new) == (new, [])
    assert [c.text for c in new.candidates] == [c.text for c in told.candidates] or found
    for text in written(new):
        assert find(text) == []
    if not found:
        assert new == told
    assert (new.id, new.time, new.status, new.kind, new.annotator) == (
        told.id,
        told.time,
        told.status,
        told.kind,
        told.annotator,
    )


@settings(deadline=None, max_examples=40)
@given(items())
def test_an_item_without_personal_data_is_as_it_was(item: Item) -> None:
    new, found = Scrubber().item(item)
    assert new == item or found


def written(told: Event) -> list[str]:
    """All that people wrote in it."""
    asked, said = told.asked, told.payload
    found = [asked.text] if isinstance(asked.text, str) else [turn.content for turn in asked.text]
    found += [asked.context or "", asked.document or "", told.reason or "", *(c.text for c in told.candidates)]
    for payload in (said, told.expected):
        found.append(getattr(payload, "rationale", None) or "")
        found.append(payload.text if isinstance(payload, Correction) else "")
        found += [span.note or "" for span in payload.spans] if isinstance(payload, Spans) else []
    return found


# --- the ways in -----------------------------------------------------------------------------------------------------


def test_all_that_a_store_with_a_scrubber_takes_in(store_place: str) -> None:
    with Store(store_place, scrubber=Scrubber()) as store:
        store.add_items([Item(asked=event().asked, candidates=event().candidates)])
        assert store.add([event()]) == 1
        assert store.add([event()]) == 0  # the raw one is the one that is stored
        assert store.as_stored(event()) == next(store.events())
        lines = list(listed(store, every=True))
        with store.engine.connect() as connection:
            rows = connection.execute(sa.select(replaced.c.of)).scalars().all()
        assert len(lines) == len(rows) == 4 + 6
        bodies = [e.to_json() for e in store.events()] + [i.to_json() for i in store.items()]
    for secret in (MAIL, OTHER, CARD):
        assert not any(secret in text for text in (*bodies, *lines))


def test_questions_of_one_id_in_two_projects_are_reviewed_each(store_place: str) -> None:
    candidates = (Candidate(text="a"), Candidate(text="b"))
    with Store(store_place, scrubber=Scrubber()) as store:
        for name, text in (("one", f"ask {MAIL}"), ("two", f"or write to {OTHER} now")):
            store.add_items([Item(id="q", asked=Asked(text=text), candidates=candidates)], name)
        lines = list(listed(store, every=True))
    assert [line.split('"')[1].split()[0] for line in lines] == ["ask", "or"]


def test_the_server_s_judgement_and_its_repetition(store_place: str) -> None:
    """A judgement whose answer was lost is sent again as it was typed, and known for the one that is stored."""
    pair = Item(asked=Asked(text="x"), candidates=(Candidate(text="a"), Candidate(text="b")))
    with Store(store_place, scrubber=Scrubber()) as store:
        server = Server(store, [pair], Clock())
        user = server.user()
        question = user.ask()
        payload = {"kind": "pairwise", "outcome": "tie", "rationale": f"ask {MAIL}"}
        for _ in range(2):
            answer = user.say(question, payload, id="mine")
            assert answer.status_code == 200, answer.text
        assert user.say(question, {**payload, "rationale": "ask me"}, id="mine").json()["error"] == "known_id"
        (stored,) = server.log()
        assert isinstance(stored.payload, Pairwise)
        assert stored.payload.rationale == "ask [EMAIL_1]"


@pytest.mark.parametrize("keep", [False, True])
def test_an_import(tmp_path: Path, keep: bool, capsys: pytest.CaptureFixture[str]) -> None:
    file, place = tmp_path / "rows.jsonl", str(tmp_path / "x.db")
    row = {"prompt": f"Write to {MAIL}", "chosen": f"To {OTHER}: hello", "rejected": "No."}
    file.write_text(json.dumps(row) + "\n")
    for _ in range(2):
        assert main(["import", "--store", place, str(file), *(["--keep-raw"] if keep else [])]) == 0
    assert "1 stored before" in capsys.readouterr().out
    with Store(place) as store:
        (told,) = store.events()
        with store.engine.connect() as connection:
            names = set(connection.scalars(sa.select(facts.c.name)))
    assert ("texts/kept" in names, "texts/replaced" in names) == (keep, not keep)
    assert (MAIL in told.to_json()) is keep
    assert told.asked.text == (f"Write to {MAIL}" if keep else "Write to [EMAIL_1]")
    assert main(["review", "--store", place, "--all"]) == 0
    out = capsys.readouterr().out
    assert ("EMAIL" in out) is not keep
    assert MAIL not in out


def test_a_person_says_which_placeholders_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, place = tmp_path / "rows.jsonl", str(tmp_path / "x.db")
    row = {"prompt": f"Write to {MAIL}", "chosen": f"To {OTHER}: hello", "rejected": f"Card {CARD}"}
    file.write_text(json.dumps(row) + "\n")
    assert main(["import", "--store", place, str(file)]) == 0
    told = "3 placeholders in place of personal data (2 EMAIL, 1 CARD): `rlhf-feedback review --all` lists them"
    assert told in capsys.readouterr().out
    assert main(["review", "--store", place]) == 0
    assert capsys.readouterr().out == "nothing is uncertain; 3 placeholders are certain: --all shows them\n"

    def review(*options: str) -> tuple[int, list[list[str]]]:
        capsys.readouterr()
        status = main(["review", "--store", place, "--all", *options])
        return status, [line.split() for line in capsys.readouterr().out.splitlines() if line]

    _, lines = review()
    assert len({line[0] for line in lines}) == len(lines) == 3
    mails = [line[0] for line in lines if line[5] == "EMAIL,"]
    (card,) = {line[0] for line in lines} - set(mails)
    status, left = review("--wrong", mails[0], card, "--right", mails[1])
    assert (status, left[0][:4]) == (0, ["there", "is", "nothing", "to"])
    assert left[1:] == [["looked", "at", "right", "wrong"], ["CARD", "0", "1"], ["EMAIL", "1", "1"]]
    assert review("--right", card)[1][2] == ["CARD", "1", "0"], "the last word counts"
    assert review("--wrong", card, "nobody")[0] == 2
    assert review("--right", mails[0], "--wrong", "nobody")[0] == 2
    assert review("--wrong", card, "--right", card)[0] == 2
    assert review()[1][2:] == [["CARD", "1", "0"], ["EMAIL", "1", "1"]], "nothing was noted of what was refused"


def test_a_raw_log_comes_into_a_store_that_keeps_none(tmp_path: Path) -> None:
    raw = Item(asked=event().asked, candidates=event().candidates)
    log = tmp_path / "log.jsonl"
    with Store(tmp_path / "raw.db") as store:
        store.add_items([raw], "p")
        store.add([event(item=raw.id)])
    assert main(["export", "--store", str(tmp_path / "raw.db"), "--format", "log", "--out", str(log)]) == 0
    for _ in range(2):
        assert main(["import", "--store", str(tmp_path / "x.db"), str(log)]) == 0
    with Store(tmp_path / "x.db") as store:
        (item,), (told,) = store.items(), store.events()
    assert told.item == item.id != raw.id
    assert MAIL not in item.to_json() + told.to_json()


def test_options_that_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n")
    assert main(["import", "--store", str(tmp_path / "x.db"), str(file), "--keep-raw", "--replace-names"]) == 2
    assert "exclude each other" in capsys.readouterr().err
