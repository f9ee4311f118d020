"""What of a machine's places remains in what is passed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.report.secrets import hide_paths


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/anna/my rows.jsonl", "my rows.jsonl"),
        ("~/rows.jsonl", "rows.jsonl"),
        ("../../anna/rows.jsonl", "rows.jsonl"),
        ("./rows.jsonl", "rows.jsonl"),
        ("/srv/models/policy/", "policy"),
        ("C:\\Users\\anna\\rows.csv", "rows.csv"),
        ("file:///home/anna/rows.csv", "rows.csv"),
        ("data.train=/home/anna/rows.jsonl", "data.train=rows.jsonl"),
        ("{source: /home/anna/a.en, reference: /home/anna/a.zh}", "{source: a.en, reference: a.zh}"),
        ("the run failed: no file '/home/anna/rows.jsonl'", "the run failed: no file 'rows.jsonl'"),
        ("https://anna:pass@host/score", "https://(hidden)@host/score"),
    ],
)
def test_folders_are_left_out(text: str, shown: str) -> None:
    assert hide_paths(text) == shown
    assert hide_paths({"a": [text], "n": 1}) == {"a": [shown], "n": 1}


@pytest.mark.parametrize(
    "text",
    [
        "google-t5/t5-small",
        "hub:owner/name#split",
        "http://127.0.0.1:8000/v1/score",
        "{document}\nTL;DR:",
        "true/false/neither",
        "Answer yes / no: {question}",
        "12/11/2026",
        "rows/train.jsonl",
        "</div></section>",
        "/",
        "",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert hide_paths(text) == text


words = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=6), words, st.sampled_from(["", "data.train=", "see ", "['"]))
def test_no_folder_of_an_absolute_path_is_left(folders: list[str], name: str, before: str) -> None:
    assert hide_paths(f"{before}/{'/'.join(folders)}/{name}.jsonl") == f"{before}{name}.jsonl"
