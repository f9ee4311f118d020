from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Message
from rlhf_lightning.feedback.items import Item, read_items
from rlhf_lightning.feedback.payloads import Pairwise


def read(tmp_path: Path, *rows: dict, name: str = "q.jsonl") -> list[Item]:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return list(read_items(path))


@pytest.mark.parametrize(
    ("row", "kind", "texts"),
    [
        ({"a": "1", "b": "2"}, "pairwise", ["1", "2"]),
        ({"chosen": "1", "rejected": "2"}, "pairwise", ["1", "2"]),
        ({"completion": "1"}, "thumbs", ["1"]),
        ({"candidates": ["1", "2", "3"]}, "ranking", ["1", "2", "3"]),
        ({"candidates": ["1", {"text": "2", "model": "m"}]}, "pairwise", ["1", "2"]),
        ({"candidates": [], "kind": "label", "labels": ["x", "y"]}, "label", []),
    ],
)
def test_a_row_is_the_question_that_its_candidates_suggest(tmp_path, row, kind, texts):
    (item,) = read(tmp_path, {"prompt": "p", **row})
    assert item.kind == kind
    assert [candidate.text for candidate in item.candidates] == texts


def test_models_and_other_columns_are_kept(tmp_path):
    row = {"prompt": [{"role": "user", "content": "hi"}], "a": "1", "b": "2", "models": ["m", "n"], "topic": 3}
    (item,) = read(tmp_path, {**row, "language": "en", "expected": {"kind": "pairwise", "outcome": "win", "winner": 1}})
    assert [candidate.model for candidate in item.candidates] == ["m", "n"]
    assert item.asked.text == (Message(role="user", content="hi"),)
    assert item.asked.language == "en"
    assert item.asked.meta == {"topic": 3}
    assert item.expected == Pairwise(outcome="win", winner=1)


def test_what_was_written_is_read_back_and_the_same_question_has_one_id(tmp_path):
    first, again, other = read(tmp_path, *({"prompt": "p", "a": "1", "b": b} for b in ("2", "2", "3")))
    assert first.id == again.id != other.id
    (back,) = read(tmp_path, json.loads(first.to_json()))
    assert back == first


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"a": "1", "b": "2"}, "there is no column 'prompt'; the columns are a, b"),
        ({"prompt": "", "a": "1", "b": "2"}, "the field 'prompt' is empty"),
        ({"prompt": "p"}, "there are no candidates"),
        ({"prompt": "p", "a": "", "b": "2"}, "the field 'a' is empty"),
        ({"prompt": "p", "a": "1", "b": "1"}, "candidates 1 and 2 are equal"),
        ({"prompt": "p", "candidates": ["1", "2", "3", "2"]}, "candidates 2 and 4 are equal"),
        ({"asked": {"text": "p"}, "candidates": [{"text": "1"}, {"text": "1"}]}, "candidates 1 and 2 are equal"),
        ({"prompt": "p", "a": "1", "b": "2", "expected": {"kind": "rating", "winner": 0}}, "'rating' is not the quest"),
        ({"prompt": "p", "candidates": "x"}, "'candidates' must be a list"),
        ({"prompt": "p", "kind": "pairwise", "completion": "x"}, "takes 2 candidates, not 1"),
        ({"prompt": "p", "a": "1", "b": "2", "models": ["m"]}, "model of each of the 2"),
        ({"prompt": [{"role": "usr", "content": "x"}], "a": "1", "b": "2"}, r"'prompt\.0\.role': input should be"),
        ({"prompt": 5, "a": "1", "b": "2"}, "'prompt': must be a text"),
        ({"prompt": "p", "a": "1", "b": "2", "expected": "a"}, "'expected': must be an object"),
        ({"prompt": "p", "a": "1", "b": "2", "expected": {"winner": 0}}, "'expected': must say its kind"),
        ({"prompt": "p", "a": "1", "b": "2", "expected": {"kind": "thumbs", "up": [True, True]}}, "not the question's"),
        ({"prompt": "p", "a": "1", "b": "2", "kind": "rating", "aspects": "true"}, "'aspects': must be a list"),
        ({"prompt": "p", "a": "1", "kind": "label", "candidates": ["1"]}, "at least 2 labels"),
        ({"prompt": "p\ud800", "a": "1", "b": "2"}, "surrogate"),
    ],
)
def test_a_bad_row_is_told_by_file_line_and_field(tmp_path, row, word):
    with pytest.raises(UserError, match=rf"q\.jsonl, line 2: .*{word}"):
        read(tmp_path, {"prompt": "p", "a": "1", "b": "2"}, row)


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("promt", "prompt"),
        ("Prompt ", "prompt"),
        ("candidate", "candidates"),
        ("rater", "raters"),
        ("langauge", "language"),
        ("model", "models"),
        ("expcted", "expected"),
        ("rejectd", "rejected"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_column_that_is_almost_a_field_is_refused(tmp_path, column, field, ending):
    row = {"prompt": "p", "completion": "x", column: "1"}
    if field == "prompt":
        del row["prompt"]
    path = tmp_path / f"q.{ending}"
    rows = [json.dumps(row)] if ending == "jsonl" else [",".join(row), ",".join(row.values())]
    path.write_text("\n".join(rows) + "\n")
    line = 1 if ending == "jsonl" else 2
    with pytest.raises(UserError, match=rf"q\.{ending}, line {line}: .*{column!r} \(did you mean '{field}'\?\)"):
        list(read_items(path))


def test_other_columns_and_those_beside_the_field_they_are_like_are_meta(tmp_path):
    own = ["topic", "score", "label", "title", "reference", "references", "source", "split", "idx", "prompt_id", "user"]
    (item,) = read(tmp_path, {"prompt": "p", "completion": "x", **dict.fromkeys(own, 1)})
    assert item.asked.meta == dict.fromkeys(own, 1)
    (item,) = read(tmp_path, {"prompt": "p", "a": "x", "b": "y", "models": ["m", "n"], "model": "judge"})
    assert item.asked.meta == {"model": "judge"}
    with pytest.raises(UserError, match="did you mean 'labels'"):
        read(tmp_path, {"prompt": "p", "completion": "x", "kind": "label", "label": ["u", "v"]})


def test_a_table_has_a_column_for_each_candidate(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("prompt,a,b,c,model_a,model_b,model_c,topic\np,1,2,3,m,,n,t\nq,1,2,,m,,,\n")
    three, two = read_items(path)
    assert (three.kind, two.kind) == ("ranking", "pairwise")
    assert [(c.text, c.model) for c in three.candidates] == [("1", "m"), ("2", None), ("3", "n")]
    assert [(c.text, c.model) for c in two.candidates] == [("1", "m"), ("2", None)]
    assert three.asked.meta == {"topic": "t"}
    path.write_text("prompt,a,b,c\np,1,,3\n")
    with pytest.raises(UserError, match=r"line 2: there is a candidate 'c', and none before it: 'b'"):
        list(read_items(path))
    path.write_text("prompt,candidates\np,\"['1', '2']\"\n")
    with pytest.raises(UserError, match=r"line 2: .*'candidates' must be a list.*give a column to each: 'a', 'b'"):
        list(read_items(path))


def test_a_file_without_questions_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no item"):
        read(tmp_path)


def test_equal_candidates_that_are_not_compared_are_taken(tmp_path):
    (item,) = read(tmp_path, {"prompt": "p", "a": "1", "b": "1", "kind": "thumbs"})
    assert [candidate.text for candidate in item.candidates] == ["1", "1"]
