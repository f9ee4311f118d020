"""The log as a file: nothing is lost on the way into another store."""

import gzip
import json
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from feedback.strategies import events, items, logs
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.commands.export import export
from rlhf_lightning.feedback.commands.import_ import import_files
from rlhf_lightning.feedback.database import items as item_table
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.formats.common import Import
from rlhf_lightning.feedback.formats.log import Line
from rlhf_lightning.feedback.store import Store

LOG = Import("log", b"")


def some_event(name: str = "e1", **more) -> Event:
    told = {
        "id": name,
        "item": "i1",
        "kind": "thumbs",
        "asked": {"text": "Why?"},
        "candidates": [{"text": "So."}],
        "annotator": {"id": "ann"},
        "payload": {"kind": "thumbs", "up": [True]},
    }
    return Event.model_validate({**told, **more})


def rows(store: Store) -> list[tuple]:
    """The items with all that the store knows of them."""
    with store.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(item_table).order_by(item_table.c.seq))]


@given(logs(events()), st.lists(items(), max_size=3, unique_by=lambda item: item.id), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_exported_is_imported_equal(log, questions, zipped):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("log.jsonl.gz" if zipped else "log.jsonl")
        with Store(Path(folder) / "a.db") as one, Store(Path(folder) / "b.db") as other:
            one.add(log)
            for number, item in enumerate(questions):
                one.add_items([item], project=f"p{number % 2}")
            one.add_items(questions[:1], project="p1")
            with one.writing() as connection:
                connection.execute(sa.update(item_table).where(item_table.c.seq == 0).values(open=False))
            export(one, "log", path)
            import_files(other, [(path, LOG)])
            assert [e.to_json() for e in other.events()] == [e.to_json() for e in one.events()]
            assert list(other.items()) == list(one.items())
            assert rows(other) == rows(one)
            counts, _ = import_files(other, [(path, LOG)])
            assert counts["new"] == counts["items"] == 0
            assert rows(other) == rows(one)


def test_the_file_is_jsonl_and_zipped_by_its_name(tmp_path):
    with Store(tmp_path / "a.db") as store:
        store.add([some_event()])
        export(store, "log", tmp_path / "log.jsonl")
        export(store, "log", tmp_path / "log.jsonl.gz")
    plain = (tmp_path / "log.jsonl").read_bytes()
    assert gzip.decompress((tmp_path / "log.jsonl.gz").read_bytes()) == plain
    assert [list(json.loads(line)) for line in plain.splitlines()] == [["event"]]
    assert sorted(path.name for path in tmp_path.iterdir() if "log" in path.name) == ["log.jsonl", "log.jsonl.gz"]


def test_all_is_in_it_also_what_no_longer_holds(tmp_path):
    log = [
        some_event("e1"),
        some_event("e2", status="retracted", supersedes="e1", payload=None),
        some_event("e3", status="erased", payload=None),
        some_event("e4", status="draft"),
    ]
    with Store(tmp_path / "a.db") as store:
        store.add(log)
        done = export(store, "log", tmp_path / "log.jsonl")
        assert (done.events, done.erased, dict(done.left)) == (3, 1, {})
        with pytest.raises(UserError, match="no event that the format unpaired can hold"):
            export(store, "unpaired", tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_an_export_is_noted_with_its_events(tmp_path):
    with Store(tmp_path / "a.db") as store:
        store.add([some_event("e1"), some_event("e2", project="other")])
        export(store, "log", tmp_path / "log.jsonl", project="other")
        export(store, "unpaired", tmp_path / "rows.jsonl")
        with store.engine.connect() as connection:
            noted = connection.execute(
                sa.text("select what, path, event from exports join export_events on id = export order by what, event")
            ).all()
    log, out = str(tmp_path / "log.jsonl"), str(tmp_path / "rows.jsonl")
    assert noted == [("log", log, "e2"), ("rows", out, "e1"), ("rows", out, "e2")]


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path, capsys):
    path, store = tmp_path / "log.jsonl", str(tmp_path / "a.db")
    with Store(store) as opened:
        opened.add([some_event()])
    path.write_text("mine")
    assert main(["export", "--store", store, "--format", "log", "--out", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["export", "--store", store, "--format", "log", "--out", str(path), "--force"]) == 0
    assert path.read_text().startswith('{"event":')


def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def broken(*_):
        yield Line('{"event":{}}\n', "e1", "submitted")
        raise OSError("disk full")

    with Store(tmp_path / "a.db") as store:
        monkeypatch.setattr("rlhf_lightning.feedback.formats.log.write", broken)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "log.jsonl").write_text("old")
        with pytest.raises(OSError, match="disk full"):
            export(store, "log", tmp_path / "out" / "log.jsonl", force=True)
    assert [(p.name, p.read_text()) for p in (tmp_path / "out").iterdir()] == [("log.jsonl", "old")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"event": {"item": "x"}}', r"log.jsonl, line 2, event: the field 'kind'"),
        ('{"events": {}}', r"log.jsonl, line 2: a line of the log is"),
        ('{"item": {"asked": {"text": "x"}, "candidates": []}}', r"log.jsonl, line 2, item: .* takes 2 candidates"),
        ('{"event": ', r"log.jsonl, line 2: this is no JSON"),
        ('{"item": {}, "project": 3}', r"line 2: 'project' must be a text"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_stored(tmp_path, line, told):
    path = tmp_path / "log.jsonl"
    good = [f'{{"event": {some_event(name).to_json()}}}' for name in ("e1", "e2")]
    path.write_text("\n".join([good[0], line, good[1]]))
    with Store(tmp_path / "a.db") as store:
        with pytest.raises(UserError, match=told):
            import_files(store, [(path, LOG)])
        assert list(store.events()) == []
        counts, bad = import_files(store, [(path, LOG)], skip=True)
        assert (counts["new"], len(bad)) == (2, 1)
        assert [event.id for event in store.events()] == ["e1", "e2"]


def test_an_event_that_differs_from_the_stored_one_of_its_id_is_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"event": {some_event(reason="now").to_json()}}}')
    with Store(tmp_path / "a.db") as store:
        store.add([some_event()])
        with pytest.raises(UserError, match="e1 is stored already"):
            import_files(store, [(path, LOG)])
