import json
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.sources import load_task_data, read_prompts
from rlhf_lightning.data.split import group_key, split_by_group
from rlhf_lightning.errors import UserError

FORMAT = RowFormat("{source}", completion="reference")


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write


def demonstrations(count, group=1):
    return [{"source": f"s{i // group}", "reference": f"r{i}"} for i in range(count)]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 20), st.integers(0, 5))
def test_split_shares_no_group_and_covers_everything(groups, size, seed):
    rows = list(enumerate(groups))
    count = Counter(groups)
    try:
        rest, held = split_by_group(rows, lambda row: str(row[1]), size, seed)
    except UserError:
        assert len(count) == 1 or size >= len(rows), "nothing can be held out, or everything was wanted"
        return
    assert sorted(rest + held) == rows
    assert bool(held) == (size > 0)
    assert not {g for _, g in rest} & {g for _, g in held}
    assert len(held) >= size or len({g for _, g in rest}) == 1, "fewer only where the rest is of one group"
    assert len(held) < size + max(count.values())
    assert rest, "there is always something to train on"
    assert split_by_group(rows, lambda row: str(row[1]), size, seed) == (rest, held)


def test_split_takes_what_it_can_of_uneven_groups():
    rows = ["big"] * 90 + ["small"] * 10
    for seed in range(5):
        assert split_by_group(rows, str, 10, seed)[1] == ["small"] * 10
    large = ["a"] * 50 + ["b"] * 20 + ["c"] * 30  # none fits: the smallest is the nearest
    assert all(set(split_by_group(large, str, 10, seed)[1]) == {"b"} for seed in range(5))
    assert len(split_by_group([str(i) for i in range(50)], str, 0.2, 0)[1]) == 10
    with pytest.raises(UserError, match="leaves none to train on"):
        split_by_group(["one"] * 9, str, 3, 0)
    with pytest.raises(UserError, match="negative"):
        split_by_group(rows, str, -1, 0)


def test_split_holds_out_less_where_the_rest_is_one_group():
    rows = [str(i) for i in range(49)] + ["big"] * 951
    for seed in range(5):
        rest, held = split_by_group(rows, str, 100, seed)
        assert (rest, sorted(held)) == (["big"] * 951, sorted(rows[:49]))
    assert split_by_group(rows, str, 0.1, 0) == split_by_group(rows, str, 100, 0)


def test_split_of_a_few_rows():
    for count in (2, 3, 4):
        rows = [str(i) for i in range(count)]
        assert len(split_by_group(rows, str, 0.1, 0)[1]) == 1
        assert len(split_by_group(rows, str, 0.99, 0)[0]) == 1, "a share below 1 leaves a row"
        assert split_by_group(rows, str, 0, 0) == (rows, [])
    assert split_by_group(["one"] * 4, str, 0.1, 0) == (["one"] * 4, []), "one group can't be split"
    assert split_by_group(["one"], str, 0.1, 0) == (["one"], [])
    assert split_by_group([], str, 0.1, 0) == ([], [])


def test_split_is_the_same_in_every_process():
    code = (
        "from rlhf_lightning.data.split import split_by_group as s;"
        "print(s([str(i % 40) for i in range(90)], str, 12, 3)[1])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {(str(split_by_group([str(i % 40) for i in range(90)], str, 12, 3)[1]) + "\n").encode()}


def test_group_key():
    row = SimpleNamespace(prompt=SimpleNamespace(text="p"), meta={"title": 3})
    assert (group_key(None)(row), group_key("title")(row)) == ("p", "3")
    with pytest.raises(UserError, match=r"data.group='tittle'.*title"):
        group_key("tittle")(row)


def test_sources_hold_out_by_prompt(write):
    data = load_task_data(FORMAT, train=write("t.jsonl", demonstrations(200, 2)), test_size=20, validation_size=0.1)
    parts = [{r.prompt.text for r in part} for part in (data.train, data.validation, data.test)]
    assert [len(p) for p in (data.train, data.validation, data.test)] == [162, 18, 20]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts)) == 100
    assert [r.prompt for r in data.prompts] == [r.prompt for r in data.train]
    assert all(r.references for r in data.prompts)
    assert any("20 of 200 rows held out by prompt" in note for note in data.notes)
    again = load_task_data(FORMAT, train=write("t.jsonl", demonstrations(200, 2)), test_size=20, validation_size=0.1)
    assert again == data


def test_sources_given_parts_stay_and_overlap_is_told(write):
    train, test = write("t.jsonl", demonstrations(10)), write("u.jsonl", demonstrations(3))
    data = load_task_data(FORMAT, train=train, validation=test, test=test)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 3, 3)
    assert "test: 3 of 3 prompts are also in train" in data.notes


def test_sources_without_train(write):
    data = load_task_data(FORMAT, test=write("u.jsonl", demonstrations(3)))
    assert (data.train, data.validation, data.prompts, data.preferences) == ([], [], [], [])
    assert len(data.test) == 3
    assert load_task_data(FORMAT).notes == []


def test_sources_tell_of_a_line_break_that_is_none():
    (note,) = load_task_data(RowFormat(r"{prompt}\nAnswer:")).notes
    assert "no line break" in note
    assert load_task_data(RowFormat("{prompt}\nAnswer:")).notes == []


def test_sources_preferences(write):
    rows = [{"source": f"s{i // 3}", "chosen": "a", "rejected": "b"} for i in range(90)]
    rows += [{"source": "same", "chosen": "a", "rejected": "a"}] * 4
    data = load_task_data(FORMAT, preferences=write("p.jsonl", rows), test_size=9)
    assert (len(data.preferences), len(data.preferences_test)) == (81, 9)
    assert not {r.prompt.text for r in data.preferences} & {r.prompt.text for r in data.preferences_test}
    assert "preferences: 4 preference(s) dropped, chosen and rejected are equal" in data.notes


def test_sources_skip_counts_bad_rows_and_bad_lines(write):
    rows = [*demonstrations(3), "{broken\n", {"source": "x"}, {"source": "", "reference": "r"}, {"source": 1}]
    path = write("t.jsonl", rows)
    with pytest.raises(UserError, match=r"t\.jsonl, line 4: .*\n\(data.on_bad_row=skip"):
        load_task_data(FORMAT, train=path)
    data = load_task_data(FORMAT, train=path, test_size=0, validation_size=0, on_bad_row="skip")
    assert len(data.train) == 3
    (note,) = data.notes
    assert note.startswith("train: 4 bad row(s) skipped, such as: t.jsonl, line 4: this is no JSON")
    assert "line 5" in note
    assert "line 6" in note
    assert "line 7" not in note


def test_sources_nothing_left(write):
    path = write("t.jsonl", ["{broken\n", {"source": "x"}])
    with pytest.raises(UserError, match=r"^train: of .* no row is left\. train: 2 bad row"):
        load_task_data(FORMAT, train=path, on_bad_row="skip")


def test_sources_nothing_left_tells_of_this_part_alone(write):
    train, empty = write("t.jsonl", demonstrations(20)), write("p.jsonl", [{"source": "x", "chosen": "a"}])
    with pytest.raises(UserError) as caught:
        load_task_data(FORMAT, train=train, preferences=empty, on_bad_row="skip")
    assert "1 bad row" in str(caught.value)
    assert "held out" not in str(caught.value)


def test_sources_given_but_empty(write):
    for source in (write("t.jsonl", []), []):
        with pytest.raises(UserError, match=r"no rows|no row is left"):
            load_task_data(FORMAT, train=source)


def test_sources_prompts_learnt_from_and_held_out_are_told(write):
    train, test = write("t.jsonl", demonstrations(10)), write("u.jsonl", [{"source": "new", "reference": "r"}] * 2)
    pairs = write("p.jsonl", [{"source": "new", "chosen": "a", "rejected": "b"}])
    prompts = write("q.jsonl", [{"source": "new"}])
    given = {"train": train, "validation": test, "test": test, "preferences": pairs, "preferences_test": pairs}
    assert load_task_data(FORMAT, **given, prompts=prompts).notes == [
        "test: 2 of 2 prompts are also in preferences",
        "test: 2 of 2 prompts are also in prompts",
        "preferences_test: 1 of 1 prompts are also in preferences",
    ]


def test_sources_of_a_few_rows_have_a_test_part(write):
    data = load_task_data(FORMAT, train=write("t.jsonl", demonstrations(4)))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [2, 1, 1]


def test_sources_note_what_could_not_be_held_out(write):
    rows = demonstrations(5) + [{"source": "same", "reference": "r"}] * 15
    data = load_task_data(FORMAT, train=write("t.jsonl", rows), test_size=8, validation_size=0)
    assert (len(data.train), len(data.test)) == (15, 5)
    assert data.notes == ["test: 5 of 20 rows held out by prompt; 8 were wanted, but the others share one prompt"]


def test_sources_without_references(write):
    rows = write("t.jsonl", [{"source": "a"}, {"source": "b"}])
    for part in ("test", "validation"):
        with pytest.raises(UserError, match=r"line 1: there is no column 'references'.*data\.columns="):
            load_task_data(FORMAT, **{part: rows})
        data = load_task_data(FORMAT, **{part: rows}, need_references=False)
        assert [row.references for row in getattr(data, part)] == [[], []]


def test_sources_group_column_that_a_part_lacks(write):
    pairs = write("p.jsonl", [{"source": f"s{i}", "chosen": "a", "rejected": "b"} for i in range(9)])
    with pytest.raises(UserError, match=r"preferences_test is not given.*data\.group='title': there is no such column"):
        load_task_data(FORMAT, preferences=pairs, group="title")
    assert load_task_data(FORMAT, preferences=pairs, preferences_test=pairs, group="title").preferences


def test_sources_hold_out_by_a_column(write):
    rows = [{"source": f"s{i}", "reference": "r", "doc": i % 10} for i in range(100)]
    data = load_task_data(FORMAT, train=write("t.jsonl", rows), group="doc", test_size=20, validation_size=10)
    groups = [{r.meta["doc"] for r in part} for part in (data.train, data.validation, data.test)]
    assert [len(g) for g in groups] == [7, 1, 2]
    assert len(set.union(*groups)) == 10


def test_sources_limit_before_the_split(write):
    path = write("t.jsonl", demonstrations(100))
    data = load_task_data(FORMAT, train=path, limit=20, test_size=5, validation_size=5)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 5, 5]
    with pytest.raises(UserError, match=r"^test is not given.*holding out 20 of 20 rows.*leaves none to train on"):
        load_task_data(FORMAT, train=path, limit=20, test_size=20)


def test_sources_limit_is_seeded(write):
    path = write("t.jsonl", demonstrations(100))
    one, two, other = (
        load_task_data(FORMAT, train=path, limit=10, test_size=0, validation_size=0, seed=s) for s in (1, 1, 2)
    )
    assert len(one.train) == 10
    assert one == two != other
    for option in ({"limit": 0}, {"on_bad_row": "ignore"}):
        with pytest.raises(UserError, match=f"data.{next(iter(option))}"):
            load_task_data(FORMAT, train=path, **option)


def test_sources_renames_fit_parts_with_other_columns(write):
    train = write("t.jsonl", [{"en": f"s{i}", "zh": "r"} for i in range(30)])
    pairs = write("p.jsonl", [{"en": f"s{i}", "chosen": "a", "rejected": "b"} for i in range(30)])
    data = load_task_data(FORMAT, train=train, preferences=pairs, columns={"source": "en", "reference": "zh"})
    assert data.train
    assert data.preferences
    with pytest.raises(UserError, match=r"data.columns names 'weigth', which no row has"):
        load_task_data(FORMAT, train=train, columns={"source": "en", "reference": "zh", "w": "weigth"})


def test_sources_error_names_the_rename_that_found_nothing(write):
    path = write("t.jsonl", [{"en": "s", "zh": "r"}])
    with pytest.raises(UserError, match=r"no column 'source'.*data\.columns names 'eng': no such column was found"):
        load_task_data(FORMAT, train=path, columns={"source": "eng", "reference": "zh"})
    with pytest.raises(UserError, match=r"are en, zh\. Map it with data\.columns={reference: zh, source: en}"):
        load_task_data(FORMAT, train=path, columns={"sorce": "en", "reference": "zh"})


def test_read_prompts_without_references(write):
    path = write("in.jsonl", [{"en": "one"}, {"en": "two", "zh": "r"}])
    rows = read_prompts(path, FORMAT, {"source": "en", "reference": "zh"})
    assert [(r.prompt.text, r.references) for r in rows] == [("one", []), ("two", ["r"])]
    with pytest.raises(UserError, match="line 1: there is no column 'source'"):
        read_prompts(path, FORMAT)


def test_read_prompts_skips_and_tells(write):
    path = write("in.jsonl", [{"source": "one"}, {"source": ""}, "{broken\n"])
    notes = ["before"]
    with pytest.raises(UserError, match=r"line 2: .*\n\(data.on_bad_row=skip"):
        read_prompts(path, FORMAT, notes=notes)
    assert [row.prompt.text for row in read_prompts(path, FORMAT, None, "utf-8", "skip", notes)] == ["one"]
    assert len(notes) == 2
    assert notes[1].startswith("input: 2 bad row(s) skipped, such as: in.jsonl, line")
    with pytest.warns(UserWarning, match=r"^input: 2 bad row\(s\) skipped"):
        assert len(read_prompts(path, FORMAT, on_bad_row="skip")) == 1
    with pytest.raises(UserError, match=r"^input: of .* no row is left"):
        read_prompts(write("bad.jsonl", ["{\n"]), FORMAT, on_bad_row="skip")
    with pytest.raises(UserError, match=r"data\.on_bad_row must be error or skip"):
        read_prompts(path, FORMAT, on_bad_row="ignore")


def test_sources_unpaired(write):
    """Thumbs are read, held out by prompt, and looked at for leaks, as preferences are."""
    rows = [{"prompt": f"p{i // 3}", "completion": f"c{i}", "label": i % 2} for i in range(90)]
    data = load_task_data(FORMAT, unpaired=write("u.jsonl", rows), test_size=9)
    assert (len(data.unpaired), len(data.unpaired_test)) == (81, 9)
    assert not {r.prompt.text for r in data.unpaired} & {r.prompt.text for r in data.unpaired_test}
    given = {name: write(f"{name}.jsonl", rows[:3]) for name in ("unpaired", "unpaired_test")}
    data = load_task_data(FORMAT, **given)
    assert [row.label for row in data.unpaired] == [row.label for row in data.unpaired_test] == [False, True, False]
    assert data.notes == ["unpaired_test: 3 of 3 prompts are also in unpaired"]
    pairs = [{"prompt": "p0", "chosen": "a", "rejected": "b"}]
    data = load_task_data(
        FORMAT, **given, preferences=write("p.jsonl", pairs), preferences_test=write("q.jsonl", pairs)
    )
    assert [len(part) for part in data.judged] == [4, 4]


def test_sources_draw_whole_rankings(write):
    """A limit leaves no ranking with some of its pairs; one below every ranking is refused."""
    rows = [
        {"prompt": f"p{i}", "chosen": a, "rejected": b, "g": f"r{i}"}
        for i in range(20)
        for a, b in (("x", "y"), ("x", "z"), ("y", "z"))
    ]
    form, path = RowFormat("{prompt}", group="g"), write("p.jsonl", rows)
    data = load_task_data(form, preferences=path, preferences_test=path, limit=20, seed=3)
    counts = Counter(row.group for row in data.preferences)
    assert set(counts.values()) == {3}
    assert len(counts) == 6
    assert set(counts) != {f"r{i}" for i in range(6)}, "drawn at random"
    with pytest.raises(UserError, match=r"data\.limit=2 is less than the pairs of any ranking"):
        load_task_data(form, preferences=path, limit=2)
