"""`rlhf-feedback import`: once, whole or not at all, and people without names."""

import json
from pathlib import Path

import pytest

from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.commands.export import export
from rlhf_lightning.feedback.commands.import_ import import_files
from rlhf_lightning.feedback.formats.common import Import
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.salt import pseudonym, salt_of
from rlhf_lightning.feedback.store import Store

GOOD = '{"prompt": "Snow is", "chosen": " white.", "rejected": " black.", "annotator": "Zoë"}\n'
BAD = '{"prompt": "Snow is", "chosen": 3, "rejected": " black."}\n'


@pytest.fixture
def place(tmp_path) -> str:
    return str(tmp_path / "a.db")


def stored(place: str) -> list:
    with Store(place) as store:
        return list(store.events())


def test_a_file_is_recognised_and_stored_once(tmp_path, place, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + GOOD)
    for told in ("imported 2 events", "imported 0 events; 2 stored before"):
        assert main(["import", "--store", place, str(path)]) == 0
        assert told in capsys.readouterr().out
    path.write_text(GOOD + GOOD + GOOD.replace("black", "green"))
    assert main(["import", "--store", place, str(path)]) == 0
    assert "imported 1 event; 2 stored before" in capsys.readouterr().out
    assert len({event.id for event in stored(place)}) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", GOOD + GOOD), ("rows.csv", "id,prompt,kind,choice,a,b\n1,p,pairwise,a,x,y\n2,p,pairwise,b,x,y\n")],
)
def test_a_file_of_two_projects_is_two_judgements_of_each_row_and_no_more(tmp_path, place, capsys, name, content):
    path = tmp_path / name
    path.write_text(content)
    for told in ("imported 2 events\n", "imported 0 events; 2 stored before\n"):
        for project in ("one", "other"):
            assert main(["import", "--store", place, "--project", project, str(path)]) == 0
            assert told in capsys.readouterr().out
    log = stored(place)
    assert [event.project for event in current(log)] == ["one", "one", "other", "other"]
    assert len(log) == 4


def test_names_are_salted_by_the_store(tmp_path, place):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    main(["import", "--store", place, str(path)])
    with Store(place) as store:
        assert [e.annotator.id for e in store.events()] == [pseudonym(salt_of(store), "preference:Zoë")]
    assert "Zoë".encode() not in Path(place).read_bytes()


def test_a_bad_row_stops_before_anything_is_stored_or_is_left_out(tmp_path, place, capsys):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(GOOD)
    two.write_text(GOOD.replace("black", "green") + BAD)
    assert main(["import", "--store", place, str(one), str(two)]) == 2
    assert "two.jsonl, line 2: the field 'chosen' must be a text" in capsys.readouterr().err
    assert stored(place) == []
    assert main(["import", "--store", place, "--on-bad-row", "skip", str(one), str(two)]) == 0
    out = capsys.readouterr().out
    assert "imported 2 events" in out
    assert "left out 1 bad row:\n  two.jsonl, line 2" in out


def test_a_number_that_json_does_not_have_is_a_bad_row(tmp_path, place, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + GOOD.replace("{", '{"bleu": NaN, '))
    assert main(["import", "--store", place, "--format", "preference", str(path)]) == 2
    assert "rows.jsonl, line 2: the field 'meta': bleu is nan" in capsys.readouterr().err


@pytest.mark.parametrize("content", [BAD, GOOD + BAD, "", "\xff", '{"event": {}}\n'])
def test_a_file_that_is_refused_makes_no_store(tmp_path, place, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="latin-1")
    assert main(["import", "--store", place, str(path)]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_log_with_two_events_of_one_id_makes_no_store(tmp_path, place, capsys):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log.jsonl"
    path.write_text(GOOD)
    main(["import", "--store", place, str(path)])
    main(["export", "--store", place, "--format", "log", "--out", str(log)])
    log.write_text(log.read_text() + log.read_text().replace("Snow", "Rain"))
    assert main(["import", "--store", str(tmp_path / "new.db"), str(log)]) == 2
    assert "two events with the id" in capsys.readouterr().err
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("prompt,kind,choice,a,b\n\u00eb,pairwise,a,1,2\n".encode("latin-1"), "line 2: byte 0xeb is not utf-8. Write"),
        ("prompt,kind,choice\n".encode("utf-16"), "is UTF-16 text. Write it again as UTF-8."),
        ("prompt,kind,choice\n".encode("utf-16-le"), "as in UTF-16 text without a mark: write it again as UTF-8"),
        (b"prompt,kind,choice,kind\n", "a column name occurs twice. Give each its own name."),
    ],
)
def test_a_remedy_is_one_that_there_is(tmp_path, place, capsys, content, told):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert main(["import", "--store", place, str(path)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "data." not in said


@pytest.mark.parametrize("command", ["rows", "report", "export --format csv", "export --format log"])
def test_where_there_are_no_judgements_one_line_says_what_to_do(tmp_path, place, capsys, command):
    out = str(tmp_path / "out.csv") if "csv" in command else str(tmp_path / "out.jsonl")
    Store(place).close()
    assert main([*command.split(), "--store", place, "--out", out]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "holds no judgements: let people judge with `rlhf-feedback serve`" in told
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    main(["import", "--store", place, "--project", "snow", str(path)])
    capsys.readouterr()
    assert main([*command.split(), "--store", place, "--out", out, "--project", "snew"]) == 2
    assert "holds no judgements of snew (did you mean 'snow'?): there are those of snow" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_failure_while_storing_takes_all_back(tmp_path, place, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(GOOD.replace("black", f"black{i}") for i in range(1200)))
    add, calls = Store.add, []

    def fails(self, new, connection=None):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("disk full")
        return add(self, new, connection)

    with Store(place) as store:
        monkeypatch.setattr(Store, "add", fails)
        with pytest.raises(OSError, match="disk full"):
            import_files(store, [(path, Import("preference", b""))])
        assert list(store.events()) == []


def test_what_says_nothing_is_counted(tmp_path, place, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + GOOD.replace("black", "white"))
    assert main(["import", "--store", place, str(path)]) == 0
    assert "passed over 1: its two completions are equal" in capsys.readouterr().out


def annotation(rating: int, time: str) -> str:
    result = {"from_name": "q", "to_name": "a", "type": "rating", "value": {"rating": rating}}
    told = {"id": 7, "completed_by": 3, "updated_at": time, "result": [result]}
    return json.dumps([{"id": 1, "data": {"prompt": "x", "a": "y"}, "annotations": [told]}])


def test_what_a_person_changed_at_the_source_supersedes_what_was_imported(tmp_path, place, capsys):
    path = tmp_path / "tasks.json"
    for rating, time, told in (
        (4, "2024-01-01T00:00:00Z", "imported 1 event"),
        (2, "2024-01-02T00:00:00Z", "1 in place of what was imported before"),
        (2, "2024-01-02T00:00:00Z", "1 stored before"),
        (4, "2024-01-01T00:00:00Z", "1 stored before"),  # an old file does not turn it back
        (5, "2024-01-03T00:00:00Z", "1 in place of what was imported before"),
    ):
        path.write_text(annotation(rating, time))
        assert main(["import", "--store", place, str(path)]) == 0
        assert told in capsys.readouterr().out
    log = stored(place)
    assert [dict(e.payload.values)["q"] for e in log] == [(4,), (2,), (5,)]
    assert [e.supersedes for e in log] == [None, log[0].id, log[1].id]
    assert [dict(e.payload.values)["q"] for e in current(log)] == [(5,)]


def test_a_question_that_was_mended_at_the_source_takes_the_place_of_the_old_one(tmp_path, place, capsys):
    path, head = tmp_path / "rows.csv", "id,prompt,kind,choice,a,b\n"
    for prompt, told, holds in [
        ("Snow iz", "imported 1 event\n", "Snow iz"),
        ("Snow is", "imported 0 events; 1 in place of what was imported before\n", "Snow is"),
        ("Snow is", "imported 0 events; 1 stored before\n", "Snow is"),
        ("Snow iz", "imported 0 events; 1 stored before\n", "Snow is"),  # an old file takes nothing back
        ("Rain is", "imported 0 events; 1 in place of what was imported before\n", "Rain is"),
    ]:
        path.write_text(f"{head}1,{prompt},pairwise,a,white,black\n")
        assert main(["import", "--store", place, str(path)]) == 0
        assert told in capsys.readouterr().out
        assert [event.asked.text for event in current(stored(place))] == [holds]


def test_what_was_erased_stays_so(tmp_path, place, capsys):
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import events
    from rlhf_lightning.feedback.store import event_row

    path = tmp_path / "tasks.json"
    path.write_text(annotation(4, "2024-01-01T00:00:00Z"))
    main(["import", "--store", place, str(path)])
    with Store(place) as store:
        (event,) = store.events()
        gone = event.model_copy(update={"status": "erased", "payload": None})
        with store.writing() as connection:
            connection.execute(sa.update(events).values(event_row(gone)))
    path.write_text(annotation(2, "2024-01-02T00:00:00Z"))
    assert main(["import", "--store", place, str(path)]) == 0
    assert "1 erased since, not stored again" in capsys.readouterr().out
    assert [e.status for e in stored(place)] == ["erased"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--format", "orena"], "did you mean 'arena'?); there are log, preference"),
        ([], "its first row is of no known format: say --format, one of log, preference"),
        (["--format", "hh", "--candidate", "x"], "--candidate is for label_studio and argilla"),
        (["--format", "log", "--project", "x"], "--project can't be said of a log: its events and items have their"),
        (["--format", "log", "--project", "x"], "Leave it out; `rlhf-feedback export --format log --project NAME`"),
        (["--format", "csv"], "line 1: there is no field 'prompt'; the fields are x"),
        (["--format", "preference", "--project", "a b"], "project"),
    ],
)
def test_wrong_options_are_told(tmp_path, place, capsys, args, told):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD if "a b" in args else '{"x": 1}')
    assert main(["import", "--store", place, *args, str(path)]) == 2
    assert told in capsys.readouterr().err


def test_an_empty_file_is_told(tmp_path, place, capsys):
    (tmp_path / "rows.jsonl").write_text("")
    assert main(["import", "--store", place, "--format", "hh", str(tmp_path / "rows.jsonl")]) == 2
    assert "holds no judgement" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("part", ["helpful-base", "harmless-base"])
def test_real_dialogues_come_back(shared_data, tmp_path, part):
    (source,) = (shared_data / "hh_rlhf" / part).glob("*.jsonl.gz")
    out = tmp_path / "again.jsonl.gz"
    into = Import("hh", b"salt")
    with Store(tmp_path / "a.db") as one, Store(tmp_path / "b.db") as other:
        counts, _ = import_files(one, [(source, into)])
        used, _, left = export(one, "hh", out)
        assert used == counts["new"] > 2200
        assert not left
        import_files(other, [(out, Import("hh", b"salt"))])

        def told(store: Store) -> list:
            return [(e.asked.text, e.candidates, e.payload) for e in store.events()]

        assert told(other) == told(one)
        again, _ = import_files(one, [(source, into)])
        assert again["new"] == 0


@pytest.mark.parametrize("row", [{"a": "1", "b": "2"}, {"candidates": ["1"], "topic": "t"}, {"asked": {"text": "p"}}])
def test_a_file_of_questions_is_told_where_it_belongs(tmp_path, place, capsys, row):
    path = tmp_path / "questions.jsonl"
    row = {**row, "candidates": [{"text": "1"}, {"text": "2"}]} if "asked" in row else {"prompt": "p", **row}
    path.write_text(json.dumps(row) + "\n")
    assert main(["import", "--store", place, str(path)]) == 2
    told = capsys.readouterr().err
    assert f"`rlhf-feedback serve --items {path}`" in told
    assert "known format" not in told


def test_what_a_log_says_of_erased_events_is_no_judgement(tmp_path, place, capsys):
    path, log, new = tmp_path / "rows.jsonl", tmp_path / "log.jsonl", str(tmp_path / "new.db")
    rows = [{**json.loads(GOOD), "annotator": who, "prompt": f"p{i}"} for i, who in enumerate("aab")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["import", "--store", place, str(path)]) == 0
    assert main(["erase", "--store", place, "--annotator", "a", "--yes"]) == 0
    capsys.readouterr()
    assert main(["export", "--store", place, "--format", "log", "--out", str(log)]) == 0
    assert f"wrote 1 event to {log} (and what is left of 2 erased)" in capsys.readouterr().out
    for told in (
        "imported 1 event; 2 erased before the log was written\n",
        "imported 0 events; 3 stored before\n",
    ):
        assert main(["import", "--store", new, str(log)]) == 0
        assert capsys.readouterr().out == told
    assert sorted(e.status for e in stored(new)) == ["erased", "erased", "submitted"]
    assert main(["erase", "--store", place, "--annotator", "b", "--yes"]) == 0
    capsys.readouterr()
    assert main(["report", "--store", place, "--out", str(tmp_path / "out")]) == 2
    assert "holds no judgements: all 3 events were erased" in capsys.readouterr().err
    assert main(["report", "--store", place, "--out", str(tmp_path / "out"), "--project", "default"]) == 2
    assert "holds no judgements of default: all 3 events were erased" in capsys.readouterr().err
