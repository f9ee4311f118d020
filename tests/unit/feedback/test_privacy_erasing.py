"""What is erased is gone from all of the store, and nobody else's is touched."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from helpers import postgres
from helpers.judges import Clock, Server, pairs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import events as any_event
from strategies import ids, logs

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.database import tables
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.lineage import MANIFEST, note_models
from rlhf_lightning.feedback.privacy import erasing
from rlhf_lightning.feedback.privacy.storing import Scrubber
from rlhf_lightning.feedback.rows import rows_of
from rlhf_lightning.feedback.salt import pseudonym, salt_of
from rlhf_lightning.feedback.server import people, standing
from rlhf_lightning.feedback.server.tables import turn
from rlhf_lightning.feedback.store import Store

NOW = datetime(2026, 1, 31, 15, 30, 12, tzinfo=timezone.utc)
SECRET = "zebra-4711"
"""Stands in all that the person wrote or is in."""

A, B = {"text": "a"}, {"text": "b"}
HOWS = ("remove", "anonymise")


def dump(place: str) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    with Store(place) as store, store.engine.connect() as connection:
        found = sa.MetaData()
        found.reflect(connection)
        return {
            name: sorted(str(tuple(row)) for row in connection.execute(sa.select(table)))
            for name, table in found.tables.items()
        }


def stored_row(store: Store, name: str) -> tuple[Any, ...]:
    """An event's row, as the database has it."""
    table = tables.tables["events"]
    with store.engine.connect() as connection:
        return tuple(connection.execute(sa.select(table).where(table.c.id == name)).one())


def all_bytes(place: str) -> bytes:
    """The files of a SQLite store."""
    return b"".join(Path(place + end).read_bytes() for end in ("", "-wal", "-shm") if Path(place + end).exists())


def event(number: int, who: str, **more: Any) -> Event:
    mine = SECRET if who == "ann" else "plain"
    told = {
        "id": f"{who}{number}",
        "time": NOW + timedelta(seconds=number),
        "item": f"q{number}",
        "kind": "pairwise",
        "asked": {"text": f"prompt {number}"},
        "candidates": [{"text": f"good {number}"}, {"text": f"bad {number}"}],
        "shown": {"seed": 7},
        "annotator": {"id": who},
        "timing": {"shown": NOW, "submitted": NOW + timedelta(seconds=9), "active_ms": 900},
        "consent": "c1",
        "payload": {"kind": "pairwise", "outcome": "win", "winner": 0, "strength": 2, "rationale": mine},
    }
    return Event.model_validate({**told, **more})


def corrected(number: int, who: str) -> Event:
    payload = {"kind": "correction", "text": f"{SECRET} better"}
    return event(number, who, kind="correction", candidates=[{"text": "a text"}], payload=payload)


def marked(number: int, who: str) -> Event:
    spans = [{"start": 0, "end": 3, "label": "style", "note": SECRET}]
    return event(number, who, kind="spans", candidates=[{"text": "a text"}], payload={"kind": "spans", "spans": spans})


ANN = [
    event(1, "ann"),
    event(2, "ann", supersedes="ann1", reason=SECRET),
    event(3, "ann", status="draft"),
    event(4, "ann", status="skipped", payload=None, reason=SECRET),
    corrected(5, "ann"),
    marked(6, "ann"),
]
BOB = [event(2, "bob"), event(5, "bob", adjudicates=["ann5"]), event(9, "bob")]


@pytest.mark.parametrize("how", HOWS)
def test_an_annotator(store_place: str, how: erasing.How, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with Store(store_place) as store:
        store.add([*ANN, *BOB])
    assert main(["export", "--store", store_place, "--format", "log", "--out", str(log)]) == 0
    with Store(store_place) as store:
        done = erasing.erase(store, erasing.annotator(store, "ann"), how)
        assert done.events == {
            "pairwise, submitted": 2,
            "pairwise, draft": 1,
            "pairwise, skipped": 1,
            "correction, submitted": 1,
            "spans, submitted": 1,
        }
        assert [(e.what, e.path, e.there) for e in done.exports] == [("log", str(log), True)]
        assert done.left == ()
        left = list(store.events())
        assert [e for e in left if e.annotator.id == "bob"] == BOB
        stones = {e.id: e for e in left if e.status == "erased"}
        assert stones.keys() == {e.id for e in ANN}
        assert {(e.consent, e.time, e.candidates, e.payload) for e in stones.values()} == {
            ("c1", NOW.replace(hour=0, minute=0, second=0), (), None)
        }
        fresh = [e for e in left if e.id not in stones and e not in BOB]
        if how == "remove":
            assert fresh == []
        else:
            check_anonymous(fresh)
        holding = current(left)
        assert {e.id for e in holding} == {e.id for e in (*BOB, *fresh)}
        assert not any(SECRET in json.dumps(row.meta) + str(row) for row in rows_of(holding).all)
    assert_gone(store_place, [SECRET, "'ann'", '"ann"'])
    # The log, which was written before, brings nothing back.
    before = dump(store_place)
    assert main(["import", "--store", store_place, str(log)]) == 0
    after = dump(store_place)
    assert after["events"] == before["events"]


def check_anonymous(fresh: list[Event]) -> None:
    """What holds of the person's and is not made of words stays, as one other person's."""
    assert [e.kind for e in fresh] == ["pairwise", "spans"]
    assert len({e.annotator.id for e in fresh}) == 1
    pair = fresh[0]
    assert pair.model_dump(exclude={"id", "annotator", "payload", "time"}) == ANN[1].model_copy(
        update={
            "timing": type(pair.timing)(),
            "shown": pair.shown.model_copy(update={"seed": None}),
            "reason": None,
            "supersedes": None,
        }
    ).model_dump(exclude={"id", "annotator", "payload", "time"})
    assert pair.time == NOW.replace(hour=0, minute=0, second=0)
    assert pair.payload is not None
    assert pair.payload.model_dump(exclude_none=True) == {
        "kind": "pairwise",
        "outcome": "win",
        "winner": 0,
        "strength": 2,
    }


def assert_gone(place: str, words: list[str]) -> None:
    rows = "\n".join(line for name, lines in dump(place).items() for line in lines if name != "export_events")
    for word in words:
        assert word not in rows
    if "://" not in place:
        assert SECRET.encode() not in all_bytes(place)


@pytest.mark.parametrize("how", HOWS)
def test_a_person_whose_words_are_in_questions(store_place: str, how: erasing.How) -> None:
    def item(name: str, who: str | None, text: str) -> Item:
        return Item.model_validate(
            {
                "id": name,
                "asked": {"text": text, "person": who},
                "candidates": [{"text": f"{text} good"}, {"text": f"{text} bad"}],
            }
        )

    hers, other = item("q1", "pat", f"{SECRET}'s letter, pat@example.org"), item("q2", None, "nobody's")
    judged = [
        event(i, who, item=of.id, asked=of.asked, candidates=of.candidates)
        for i, who, of in ((1, "bob", hers), (2, "bob", other), (3, "eve", hers))
    ]
    with Store(store_place, scrubber=Scrubber()) as store:
        store.add_items([hers, other])
        store.add(judged)
        chosen = erasing.person(store, "pat")
        done = erasing.erase(store, chosen, how)
        assert done.events == {"pairwise, submitted": 2}
        assert done.others == {"questions": 1}
        assert list(store.items()) == [other]
        left = list(store.events())
        assert [e for e in left if e.item == "q2"] == [judged[1]]
        fresh = [e for e in left if e.status != "erased" and e.item != "q2"]
        if how == "anonymise":  # those who judged are not who is erased: what they said stays theirs
            assert [(e.annotator.id, e.asked.text, [c.text for c in e.candidates]) for e in fresh] == [
                ("bob", "", ["", ""]),
                ("eve", "", ["", ""]),
            ]
            assert fresh[0].item == fresh[1].item != "q1"
        else:
            assert fresh == []
        # Neither the question nor what somebody says of it comes back.
        assert store.add_items([hers]) == 0
        assert store.add([*judged, event(7, "bob", item="q1", asked=hers.asked, candidates=hers.candidates)]) == 0
    assert_gone(store_place, [SECRET, "pat", "'q1'"])


def test_a_question_of_another_project_that_has_the_same_id_stays(store_place: str) -> None:
    named, derived = {"id": "q1"}, {"aspects": ("tone",)}

    def item(text: str, who: str | None, **more: Any) -> Item:
        return Item.model_validate({"asked": {"text": text, "person": who}, "candidates": [A, B], **more})

    hers, same, other = item(SECRET, "pat", **named), item(SECRET, "pat", **derived), item("nobody's", None, **named)
    judged = [
        event(i, "bob", project=project, item=of.id, asked=of.asked, candidates=of.candidates)
        for i, (project, of) in enumerate([("one", hers), ("two", other), ("one", same), ("two", same)])
    ]
    with Store(store_place) as store:
        store.add_items([hers, same], "one")
        store.add_items([other, same], "two")
        store.add(judged)
        done = erasing.erase(store, erasing.person(store, "pat"), "remove")
        assert (done.others, sum(done.events.values())) == ({"questions": 3}, 3)
        assert list(store.items()) == [other]
        assert [e for e in store.events() if e.status != "erased"] == [judged[1]]
        # What follows from its texts comes back nowhere, and an id that may name anything not in its project.
        assert [store.add_items([same], name) for name in ("one", "two", "three")] == [0, 0, 0]
        assert store.add_items([hers], "one") == 0
        again = [judged[i].model_copy(update={"id": f"again{i}"}) for i in range(4)]
        assert store.add(again) == 1
        assert store.add_items([other], "three") == 1
    assert_gone(store_place, [SECRET])


def test_the_server_s_own_tables(store_place: str) -> None:
    with Store(store_place) as store:
        server = Server(store, pairs(5), Clock(), keep_names=True)
        with turn(store) as connection:
            who, token = people.invite(server.project, connection, "annotator", "Ann Other")
        client = server.client()
        me = client.post("/api/session", json={"token": token, "consent": None}).json()
        csrf = {"X-CSRF-Token": me["csrf"]}
        asked = client.post("/api/next", json={"tab": "t"}, headers=csrf).json()
        sent = {"id": "j", "item": asked["item"]["id"], "lease": asked["lease"]["id"], "status": "submitted"}
        sent["payload"] = {"kind": "pairwise", "outcome": "tie", "rationale": SECRET}
        assert client.post("/api/judgements", json=sent, headers=csrf).status_code == 200
        client.post("/api/next", json={"tab": "t"}, headers=csrf)
        other = server.user(number=1)
        other.say(other.ask())
        chosen = erasing.annotator(store, "  ann OTHER ")  # as the invitation understands names
        assert chosen.annotators == (who,)
        assert erasing.counted(store, chosen).others == {
            "names and consents": 1,
            "links": 1,
            "sessions": 1,
            "places in the queue": 2,
        }
        done = erasing.erase(store, chosen)
        assert sum(done.events.values()) == 1
        assert client.get("/api/me").status_code == 401
        assert other.get("me").status_code == 200
        with turn(store) as connection:
            standing.catch_up(server.project, connection)
        assert other.say(other.ask()).status_code == 200
    assert_gone(store_place, [SECRET, "Ann Other", who])


@pytest.mark.parametrize("how", HOWS)
def test_what_is_past_its_retention(store_place: str, how: erasing.How) -> None:
    old, new = event(1, "ann"), event(2, "bob", time=NOW + timedelta(days=9), supersedes=None)
    again = event(3, "bob", time=NOW + timedelta(days=9), item="q1", payload=None, status="skipped")
    with Store(store_place) as store:
        store.add_items([Item(id=f"q{i}", asked=old.asked, candidates=old.candidates) for i in (1, 2, 3)])
        store.add([old, new, again])
        assert erasing.older(store, 5, NOW).events == ()
        chosen = erasing.older(store, 5, NOW + timedelta(days=9))
        assert (chosen.events, chosen.items) == (("ann1",), ())  # something newer was said of its question
        erasing.erase(store, chosen, how)
        assert [e for e in store.events() if e.annotator.id == "bob"] == [new, again]
        chosen = erasing.older(store, 0, NOW + timedelta(days=99))
        assert {"bob2", "bob3"} <= set(chosen.events)
        assert set(chosen.items) == {("default", "q1"), ("default", "q2")}
        erasing.erase(store, chosen, how)
        assert [item.id for item in store.items()] == ["q3"]
    rows = dump(store_place)
    assert not any(word in line for line in rows["events"] for word in (SECRET, "plain", "prompt", "'ann'", "'bob'"))


def test_an_old_version_does_not_come_to_hold_when_the_new_one_is_dropped(tmp_path: Path) -> None:
    """Made anonymous, a judgement that was taken back or replaced would count again."""
    taken_back = event(2, "ann", status="skipped", payload=None, supersedes="ann1")
    newer = event(4, "ann", time=NOW + timedelta(days=9), supersedes="ann3")
    with Store(tmp_path / "x.db") as store:
        store.add([event(1, "ann"), taken_back, event(3, "ann"), newer])
        erasing.erase(store, erasing.older(store, 5, NOW + timedelta(days=9)), "anonymise")
        assert current(store.events()) == [newer]
        erasing.erase(store, erasing.annotator(store, "ann"), "anonymise")
        assert len(current(store.events())) == 1


def test_an_import_of_another_format_brings_nothing_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, place = tmp_path / "rows.jsonl", str(tmp_path / "x.db")
    rows = [
        {"prompt": f"p{i}", "chosen": "a", "rejected": "b", "annotator": who} for i, who in enumerate(["Ann", "Bob"])
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["import", "--store", place, str(file)]) == 0
    assert main(["erase", "--store", place, "--annotator", "Ann", "--yes"]) == 0
    assert main(["import", "--store", place, str(file)]) == 0
    assert "1 erased since" in capsys.readouterr().out
    with Store(place) as store:
        assert [e.asked.text for e in current(store.events())] == ["p1"]


# --- for all stores --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Makers of new stores on each database, for many examples."""
    counter = iter(range(10**6))
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Any] = {"sqlite": lambda: str(Path(folder) / f"{next(counter)}.db")}
        if postgres.binaries() is not None:
            socket = request.getfixturevalue("postgres_cluster")

            def database() -> str:
                postgres.run(socket, "drop database if exists erasing with (force)")
                postgres.run(socket, "create database erasing")
                return postgres.url(socket, "erasing")

            made["postgresql"] = database
        yield made


words = st.sampled_from(["plain", "words", f"{SECRET} said", f"the {SECRET}"])


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[Event], str]:
    """A log of a few people's judgements; in all that one of them wrote, and that others did not, stands `SECRET`."""
    log = draw(logs(any_event(text=st.just("plain words"), chat=False), 6))
    names = [f"{who}-{draw(ids)}" for who in ("ann", "bob", "eve")]
    told = []
    for i, one in enumerate(log):
        who = draw(st.sampled_from(names))
        values = one.model_dump(exclude={"expected"})
        values["annotator"]["id"], values["item"] = who, f"q{i % 3}"
        values["adjudicates"], values["supersedes"] = (), "before" if one.status == "retracted" else None
        if who == names[0]:
            values["reason"] = SECRET
            if one.payload is not None and one.kind != "implicit":
                values["payload"]["rationale"] = SECRET
        told.append(Event.model_validate(values))
    return told, names[0]


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(stores(), st.sampled_from(HOWS), st.sampled_from(["sqlite", "postgresql"]))
def test_nothing_of_the_person_is_left_and_all_of_the_others(
    places: dict[str, Any], made: tuple[list[Event], str], how: erasing.How, database: str
) -> None:
    log, who = made
    if database not in places:
        return
    place = places[database]()
    others = [e for e in log if e.annotator.id != who]
    with Store(place) as store:
        store.add(log)
        before_rows = [stored_row(store, e.id) for e in others]
        if len(others) < len(log):
            erasing.erase(store, erasing.annotator(store, who), how)
        assert [e for e in store.events() if e.id in {o.id for o in others}] == others
        assert [stored_row(store, e.id) for e in others] == before_rows
        stones = {e.id for e in store.events() if e.status == "erased"}
        assert {e.id for e in log if e.annotator.id == who} <= stones
        assert store.add(log) == 0
        held = current(store.events())
        before = current(log)
        assert len(held) == len(before) - sum(
            e.annotator.id == who and (how == "remove" or e.kind == "correction") for e in before
        )
    rows = dump(place)
    assert not any(word in line for lines in rows.values() for line in lines for word in (SECRET, who))
    if database == "sqlite":
        assert SECRET.encode() not in all_bytes(place)
        assert who.encode() not in all_bytes(place)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_first_and_names_what_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rows = str(tmp_path / "x.db"), tmp_path / "rows"
    with Store(place) as store:
        store.add([*ANN, *BOB])
        store.note_export("m", "model", str(tmp_path / "loop"), ["ann2"])
        store.note_export("n", "model", str(tmp_path / "other"), ["bob9"])
    assert main(["rows", "--store", place, "--out", str(rows), "--test-share", "0"]) == 0
    manifest = json.loads((rows / MANIFEST).read_text())
    assert manifest["store"] == place
    note_models(tmp_path / "run", [str(rows / "preferences.jsonl")])
    before = {name: lines for name, lines in dump(place).items() if lines}
    command = ["erase", "--store", place, "--annotator", "ann"]
    assert main([*command, "--dry-run"]) == 0
    assert "2  pairwise, submitted" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    assert main(command) == 2
    assert "--yes" in capsys.readouterr().err
    assert {name: lines for name, lines in dump(place).items() if lines} == before
    assert main([*command, "--yes"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if str(tmp_path) in line] == ["model", "rows", "model"]
    assert f"{tmp_path / 'run'}  (not there now)" in out
    assert str(tmp_path / "other") not in out
    assert SECRET.encode() not in all_bytes(place)
    assert main([*command, "--yes"]) == 2
    assert "knows no annotator 'ann'" in capsys.readouterr().err


def test_a_file_that_something_reads_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_lightning.feedback.database.BUSY_MS", 500)
    with Store(tmp_path / "x.db") as store, Store(tmp_path / "x.db") as reader:
        store.add(ANN)
        with reader.engine.connect() as connection:
            connection.execute(sa.select(sa.func.count()).select_from(tables.tables["events"])).all()
            done = erasing.erase(store, erasing.annotator(store, "ann"))
            assert "still holds" in done.left[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--annotator", "nobody"], "knows no annotator"),
        (["--person", "nobody"], "holds no words"),
        (["--annotator", "bobbob"], "knows no annotator"),
        (["--older-than", "-1"], "0 or more"),
    ],
)
def test_mistakes(tmp_path: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "x.db") as store:
        store.add(BOB)
    assert main(["erase", "--store", str(tmp_path / "x.db"), *options, "--yes"]) == 2
    assert told in capsys.readouterr().err


def test_a_name_of_an_imported_file(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        who = pseudonym(salt_of(store), "preference:Ann")
        store.add([event(1, who)])
        assert erasing.annotator(store, "Ann").events == (f"{who}1",)


IDS = ("09245a72aa0000000000", "09245a72bb0000000000", "41245a72cc0000000000")


def test_the_first_characters_of_an_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "x.db")
    with Store(place) as store:
        store.add([event(i, who) for i, who in enumerate(IDS)])
        asked = [{"text": f"prompt {who}", "person": who} for who in IDS]
        store.add([event(3 + i, "bob", asked=one) for i, one in enumerate(asked)])
        for find in (erasing.annotator, erasing.person):
            assert find(store, "41245a").events == find(store, IDS[2]).events != ()
            assert find(store, "09245a72a").events == find(store, IDS[0]).events
            with pytest.raises(UserError, match=f"may be any of {IDS[0]}, {IDS[1]}: give more"):
                find(store, "09245a72")
            with pytest.raises(UserError, match=r"knows no annotator|holds no words"):
                find(store, "41245")
    assert main(["erase", "--store", place, "--annotator", "41245a72", "--yes"]) == 0
    assert f"of {IDS[2]}\n" in capsys.readouterr().out
    with Store(place) as store:
        assert {e.annotator.id for e in store.events() if e.status != "erased"} == {*IDS[:2], "bob"}


def test_the_beginning_of_an_id_that_is_no_salted_one_is_a_name(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.add([event(1, "annika-2")])
        with pytest.raises(UserError, match="knows no annotator 'annika'"):
            erasing.annotator(store, "annika")
