"""Rows in files, and read back by what reads a user's own."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import rlhf_lightning.conf
from helpers.judgements import both_bad, judged, rating, sign, tie, win
from omegaconf import OmegaConf

from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.data.sources import load_task_data
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.database import export_events, exports
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.row_files import optional_columns, write_rows
from rlhf_lightning.feedback.rows import Rows, rows_of, split_rows
from rlhf_lightning.feedback.rules import Rules
from rlhf_lightning.feedback.store import Store

CONF = Path(rlhf_lightning.conf.__file__).parent
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Why?"},
]

TASKS = {
    "translation": {"source": "Guten Tag", "references": ["Good day"], "reference": "Good day"},
    "summarization": {"document": "A long text\u2028with odd line ends", "reference": "Long"},
    "qa": {"context": "It rains.", "question": "What?", "answer": "rain", "answers": ["rain"]},
    "classification": {"text": "They won.", "label": "tech"},
}


def task_format(task, **changes):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / "task" / f"{task}.yaml").format)
    settings.pop("_target_")
    return RowFormat(**{**settings, **changes})


def test_preferences_read_back_are_equal(tmp_path):
    # A margin is written where there is a strength, which none of these has.
    events = [
        win(0, (" a\n", '"b"\ud83d\ude00'.encode("utf-16", "surrogatepass").decode("utf-16")), prompt="Näh\n{x}?"),
        win(1, prompt=CHAT, asked={"document": "d", "meta": {"other": [1, None]}}),
        judged("ranking", ["一", "二", "三"], prompt="r", ranks=[2, 2, 1], id="r"),
    ]
    rows = rows_of(events, Rules(ties="half", margin=1))
    files = write_rows(tmp_path / "rows", rows)
    assert files == {"preferences": tmp_path / "rows" / "preferences.jsonl"}
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    columns = optional_columns(rows)
    assert columns == ["weight", "probability", "group"]
    form, own = RowFormat("{prompt}", **{name: name for name in columns}), ("prompt", "chosen", "rejected", *columns)
    made = []
    for record in read_records(files["preferences"]):
        assert tuple(record.values)[:6] == own
        meta = {name: value for name, value in record.values.items() if name not in own}
        made.append(replace(form.preference_row(record), meta=meta))
    assert made == rows.preferences


def test_a_chat_is_a_list_of_messages_and_its_completions_too(tmp_path):
    events = [win(1, prompt=CHAT), judged("thumbs", ["a"], prompt=CHAT, up=[True]), rating([5], ["b"], prompt=CHAT)]
    files = write_rows(tmp_path / "rows", rows_of(events))
    lines = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}
    said = {text: [{"role": "assistant", "content": text}] for text in "ab"}
    assert {key: lines["preferences"][key] for key in ("prompt", "chosen", "rejected")} == {
        "prompt": CHAT,
        "chosen": said["b"],
        "rejected": said["a"],
    }
    assert {k: lines["unpaired"][k] for k in ("prompt", "completion", "label")} == {
        "prompt": CHAT,
        "completion": said["a"],
        "label": True,
    }
    assert lines["sft"]["completion"] == said["b"]
    assert "weight" not in lines["preferences"]


@pytest.mark.parametrize("task", TASKS)
def test_rows_fit_the_task_that_they_were_asked_for(tmp_path, task):
    """A row brings the task's columns, of which the template makes the prompt that people were shown."""
    columns, form = TASKS[task], task_format(task)
    prompt = form.prompt.format(**columns)
    bad, fixed = "bad", "sports" if task == "classification" else "better"  # what is imitated is of its closed set
    asked = {"document": "doc 7", "meta": columns}
    events = [
        win(0, ("good", bad), prompt=prompt, asked=asked),
        judged("thumbs", [bad], prompt=prompt, asked=asked, up=[False]),
        judged("correction", [bad], prompt=prompt, asked=asked, text=fixed),
    ]
    files = write_rows(tmp_path / "rows", rows_of(events))
    data = load_task_data(
        form,
        preferences=files["preferences"],
        preferences_test=files["preferences"],
        train=files["sft"],
        test=files["sft"],
        validation=files["sft"],
        unpaired=files["unpaired"],
        unpaired_test=files["unpaired"],
    )
    assert [(r.prompt.text, r.chosen, r.rejected) for r in data.preferences] == [
        (prompt, "good", bad),
        (prompt, fixed, bad),
    ]
    assert data.preferences[0].prompt.cut is not None, "the task may shorten what it shortens"
    assert [(r.prompt.text, r.completion) for r in data.train] == [(prompt, fixed)]
    assert all(data.preferences[0].meta[name] == value for name, value in columns.items())
    assert [(r.prompt.text, r.completion, r.label) for r in data.unpaired] == [(prompt, bad, False)]


def test_whole_or_not_at_all(tmp_path):
    good = rows_of([win(0, asked={"meta": {"x": 1}})])
    (row,) = rows_of([rating([5], ["a"])]).sft
    bad = Rows(sft=[replace(row, meta={**row.meta, "x": math.nan})])
    with pytest.raises(UserError, match="can't be written"):
        write_rows(tmp_path / "rows", good, bad)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows", good)  # into an empty folder
    before = (tmp_path / "rows" / "preferences.jsonl").read_bytes()
    with pytest.raises(UserError, match="there already"):
        write_rows(tmp_path / "rows", good)
    assert (tmp_path / "rows" / "preferences.jsonl").read_bytes() == before
    with pytest.raises(UserError, match="no rows"):
        write_rows(tmp_path / "none", Rows())


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    place = tmp_path / "feedback.db"
    with Store(place) as store:
        events = [win(i % 2, prompt=f"{i}", id=f"w{i}", asked={"document": f"d{i % 5}"}) for i in range(20)]
        events += [
            tie(prompt="t", id="t"),
            both_bad(prompt="b", id="b"),
            rating([4, 2], ["a", "b"], prompt="r", id="r"),
        ]
        events += [sign("copy", 0, ["a", "b"], prompt="s", id="s"), judged("correction", ["a"], prompt="c", text="c")]
        gone = events[0].model_copy(update={"id": "gone", "status": "retracted", "payload": None, "supersedes": "w0"})
        store.add([*events, gone])
    return place


def test_the_command_writes_rows_and_says_what_became_of_which(store, tmp_path, capsys):
    out = tmp_path / "rows"
    assert (
        main(
            [
                "rows",
                "--store",
                str(store),
                "--out",
                str(out),
                "--split-by",
                "document",
                "--test-share",
                "0.3",
                "--implicit",
            ]
        )
        == 0
    )
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    #         kind, logged, hold, used, pairs, unpaired, sft
    assert ["pairwise", "23", "21", "20", "19", "2", "0"] in lines
    assert ["rating", "1", "1", "1", "1", "0", "1"] in lines
    assert ["implicit", "1", "1", "1", "1", "0", "0"] in lines
    assert ["correction", "1", "1", "1", "1", "0", "1"] in lines
    assert ["1", "tied"] in lines
    assert ["1", "replaced"] in lines
    assert f"data.preferences={out}/preferences.jsonl data.preferences_test={out}/preferences_test.jsonl" in told
    assert f"data.train={out}/sft.jsonl" in told
    assert "++task.format.weight=weight ++task.format.probability=probability" in told
    sides = [
        {json.loads(line)["document_id"] for line in path.read_text().splitlines() if "document_id" in line}
        for path in (out / "preferences.jsonl", out / "preferences_test.jsonl")
    ]
    assert sides[1]
    assert not sides[0] & sides[1]
    with Store(store) as opened, opened.engine.connect() as connection:
        (export,) = connection.execute(exports.select()).all()
        used = {row.event for row in connection.execute(export_events.select())}
        rows = rows_of(current(opened.events()), Rules(implicit=True))
    assert (export.what, export.path) == ("rows", str(out))
    assert used == set(rows.events)
    assert "w0" not in used
    assert "t" not in used


def test_the_printed_files_are_what_the_split_gives(store, tmp_path):
    out = tmp_path / "rows"
    assert main(["rows", "--store", str(store), "--out", str(out), "--test-share", "0.3", "--seed", "4"]) == 0
    with Store(store) as opened:
        train, test = split_rows(rows_of(current(opened.events())), 0.3, "prompt", 4)
    for side, suffix in ((train, ""), (test, "_test")):
        for name in ("preferences", "unpaired", "sft"):
            path = out / f"{name}{suffix}.jsonl"
            count = len(path.read_text().splitlines()) if path.exists() else 0
            assert count == len(getattr(side, name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--test-share", "1"], "--test-share"),
        (["--gap", "-1"], "gap must be"),
        (["--project", "none"], "holds no judgements of none"),
        (["--store", "missing.db"], "no feedback store"),
    ],
)
def test_mistakes(store, tmp_path, capsys, options, message):
    command = ["rows", "--store", str(store), "--out", str(tmp_path / "rows"), *options]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_a_folder_with_something_in_it_is_refused_before_anything_is_noted(store, tmp_path, capsys):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "mine.txt").write_text("x")
    assert main(["rows", "--store", str(store), "--out", str(tmp_path / "rows")]) == 2
    assert "name a new folder" in capsys.readouterr().err
    with Store(store) as opened, opened.engine.connect() as connection:
        assert connection.execute(exports.select()).all() == []
