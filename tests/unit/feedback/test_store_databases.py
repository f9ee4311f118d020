"""The store on both databases: what is acknowledged is stored, once, whoever writes at the same time."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import TypeAdapter

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.database import events, export_events, exports, facts, items
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event, Message
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Payload
from rlhf_lightning.feedback.server.tables import turn
from rlhf_lightning.feedback.store import Conflict, Store

ODD = 'tab\t, quote ", backslash \\, nul \x00, 中文, 👍, \u2028, ‮rtl'


def event(number: int, **more: Any) -> Event:
    return Event(
        **{
            "id": f"e{number}",
            "time": datetime(2026, 1, 31, tzinfo=timezone.utc) + timedelta(seconds=number),
            "item": f"q{number % 3}",
            "kind": "thumbs",
            "asked": Asked(text=(Message(role="user", content=ODD),), person="p1", meta={ODD[:3]: [1, None, 2.5]}),
            "candidates": (Candidate(text=ODD, model="m", settings={"t": 0.7}),),
            "annotator": Annotator(id=f"a{number % 2}"),
            "payload": TypeAdapter(Payload).validate_python({"kind": "thumbs", "up": [number % 2 == 0]}),
            **more,
        }
    )


def test_events_come_back_as_they_were_in_their_order(store_place: str) -> None:
    written = [event(i) for i in range(1200)][::-1]
    with Store(store_place) as store:
        assert store.add(written) == 1200
        assert store.add(written[:10]) == 0
    with Store(store_place, create=False) as store:
        assert list(store.events()) == written
        assert [e.id for e in store.events(annotator="a1", item="q1")] == [
            e.id for e in written if e.annotator.id == "a1" and e.item == "q1"
        ]
        assert list(store.events(kinds=["pairwise"])) == list(store.events(project="other")) == []


def test_another_event_of_the_same_id_is_refused_and_nothing_of_its_batch_is_stored(store_place: str) -> None:
    with Store(store_place) as store:
        store.add([event(1)])
        with pytest.raises(Conflict, match="e1"):
            store.add([event(2), event(1, reason="other")])
        with pytest.raises(Conflict, match="e3"):
            store.add([event(3), event(3, reason="other")])
        assert [e.id for e in store.events()] == ["e1"]


def test_a_transaction_that_fails_leaves_nothing(store_place: str) -> None:
    question = Item(asked=Asked(text="x"), candidates=(), kind="label", labels=("a", "b"))

    def fail(store: Store) -> None:
        with store.writing() as connection:
            assert store.add([event(1)], connection) == store.add_items([question], "p", connection) == 1
            raise ZeroDivisionError

    with Store(store_place) as store:
        with pytest.raises(ZeroDivisionError):
            fail(store)
        assert list(store.events()) == []
        assert list(store.items()) == []


def test_items_keep_their_order_and_are_stored_once(store_place: str) -> None:
    def item(number: int) -> Item:
        return Item(kind="thumbs", asked=Asked(text=f"{ODD}{number}"), candidates=(Candidate(text="x"),))

    with Store(store_place) as store:
        assert store.add_items(map(item, range(300))) == 300
        assert store.add_items(map(item, range(250, 310))) == 10
        assert list(store.items()) == [item(i) for i in range(310)]
        store.add_items([item(999)], "other")
        assert list(store.items("other")) == [item(999)]
        with store.engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).where(items.c.open)) == 311


def test_a_question_stands_in_several_projects(store_place: str) -> None:
    same = Item(kind="thumbs", asked=Asked(text="x"), candidates=(Candidate(text="y"),))
    one, other = (same.model_copy(update={"id": "q", "asked": Asked(text=text)}) for text in ("one", "other"))
    with Store(store_place) as store:
        assert store.add_items([same, one], "a") == 2
        assert store.add_items([same, other], "b") == 2
        assert store.add_items([same, other], "a") == 0
        assert list(store.items("a")) == [same, one]
        assert list(store.items("b")) == [same, other]


def test_a_store_of_another_version_is_refused_and_left_as_it_is(store_place: str) -> None:
    with Store(store_place) as store, store.writing() as connection:
        connection.execute(sa.update(facts).where(facts.c.name == "schema").values(value="1"))
        connection.execute(sa.text("drop table replaced"))
    with pytest.raises(UserError, match=r"has schema 1, this version has 2: .*rlhf-feedback export"):
        Store(store_place)
    engine = sa.create_engine(store_place if "://" in store_place else f"sqlite:///{store_place}")
    assert not sa.inspect(engine).has_table("replaced")
    engine.dispose()


def test_questions_added_at_once_are_numbered_in_the_order_they_are_committed(store_place: str) -> None:
    """The queue takes in what has a higher number than the newest it knows."""
    first, second = (
        Item(asked=Asked(text=str(i)), candidates=(Candidate(text="a"), Candidate(text="b"))) for i in range(2)
    )
    with Store(store_place) as store:
        with store.writing() as connection:
            store.add_items([first], connection=connection)
            other = threading.Thread(target=store.add_items, args=([second],))
            other.start()
            other.join(0.5)
        other.join(20)
        with store.engine.connect() as connection:
            numbers = dict(connection.execute(sa.select(items.c.id, items.c.seq)).tuples().all())
    assert numbers[first.id] < numbers[second.id]


def test_who_reads_on_from_the_newest_event_misses_none(store_place: str) -> None:
    """Also one of a transaction that began before another's, and ends after it."""
    with Store(store_place) as store:
        with store.writing() as connection:
            store.add([event(1)], connection)
            other = threading.Thread(target=store.add, args=([event(2)],))
            other.start()
            other.join(0.5)
            newest, known = store.newest(), {e.id for e in store.events()}
        other.join(20)
        with store.engine.connect() as connection:
            later = set(connection.scalars(sa.select(events.c.id).where(events.c.seq > newest)))
    assert (known | later, known & later) == ({"e1", "e2"}, set())


def test_the_numbers_of_many_writers_follow_each_other(store_place: str) -> None:
    """A reader that goes on from the highest number it has seen, while four write, with transactions of any length."""
    store, total = Store(store_place), 4 * 15

    def write(number: int) -> None:
        for i in range(15):
            with store.writing() as connection:
                store.add([event(100 * number + i)], connection)
                time.sleep(0.002 * (i % 3))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    newest, seen = 0, []
    while True:
        ended = not any(thread.is_alive() for thread in threads)
        with store.engine.connect() as connection:
            query = sa.select(events.c.seq, events.c.id).where(events.c.seq > newest).order_by(events.c.seq)
            new = connection.execute(query).tuples().all()
        seen += [name for _, name in new]
        newest = new[-1][0] if new else newest
        if ended:
            break
    store.close()
    assert len(seen) == len(set(seen)) == total


def test_many_writers_at_once(store_place: str) -> None:
    """Each event is sent by two of six writers, on three open stores."""
    stores = [Store(store_place) for _ in range(3)]
    added: list[int] = []
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for i in range(20):
                added.append(stores[number % 3].add([event(20 * (number // 2) + i)]))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed, failed[0]
    assert sum(added) == 60
    assert sorted(e.id for e in stores[0].events()) == sorted(f"e{i}" for i in range(60))
    for store in stores:
        store.close()


def test_stores_that_are_opened_at_once_are_one_store(store_place: str) -> None:
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            Store(store_place).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed, failed[0]


def test_turns_follow_each_other(store_place: str) -> None:
    """What one reads and then writes no other one changes in between, through one open store or several."""
    stores = [Store(store_place) for _ in range(2)]
    counter = exports.c.what
    with stores[0].writing() as connection:
        connection.execute(sa.insert(exports).values(id="n", time="", what="0", path="", body=""))

    def count(store: Store) -> None:
        for _ in range(15):
            with turn(store) as connection:
                found = int(connection.scalar(sa.select(counter)) or 0)
                connection.execute(sa.update(exports).values(what=str(found + 1)))

    threads = [threading.Thread(target=count, args=(stores[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with stores[0].engine.connect() as connection:
        assert connection.scalar(sa.select(counter)) == "60"
    for store in stores:
        store.close()


def test_exports_are_noted(store_place: str) -> None:
    with Store(store_place) as store:
        for _ in range(2):
            store.note_export("x", "rows", "rows.jsonl", ["e1", "e2", "e1"], rows=2)
        with store.engine.connect() as connection:
            found = connection.execute(sa.select(export_events).order_by(export_events.c.event)).tuples().all()
            assert found == [("x", "e1"), ("x", "e2")]


def test_a_database_that_is_not_there(postgres_cluster: str) -> None:
    with pytest.raises(UserError, match="cannot open the feedback store") as told:
        Store(f"postgresql://postgres:hunter2@/nothing_here?host={postgres_cluster}")
    assert "hunter2" not in str(told.value)


def test_errors_hold_no_texts(tmp_path: Path) -> None:
    """PostgreSQL's own messages quote the row; the server logs no message at all."""
    with (
        Store(tmp_path / "x.db") as store,
        pytest.raises(sa.exc.SQLAlchemyError) as told,
        store.writing() as connection,
    ):
        connection.execute(sa.insert(items).values(project="p", id="private words", seq=None))
    assert "private words" not in str(told.value)
