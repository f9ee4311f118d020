"""Replacing what was found: placeholders, overlaps, texts of any kind and length, and the real data sets."""

from __future__ import annotations

import csv
import gzip
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.feedback.privacy.pii import Finding, find, for_review, replace, scrub

VALUES = [
    *["a@example.com", "b.c@example.org", "13812345678", "+86 138 1234 5678", "(512) 555-0134", "512-555-0134"],
    *["+44 20 7946 0958", "00442079460958", "010-62345678", "4111 1111 1111 1111", "6200000000000005", "A123456789"],
    *["DE89 3704 0044 0532 0130 00", "81.2.69.142", "2a00:1450:4001:81b::200e", "http://u:p@x.org/a", "www.x.org/~a"],
    *["219-09-9998", "AB123456C", "11010519491231002X", "110105491231002", "E12345678", "A123456(3)", "A1234563"],
    *["anna at example dot com", "a [at] b.com", "電話 1234567", "call 555-0134", "x.com/anna", "[PHONE_3]", "[EMAIL]"],
]
GLUE = st.one_of(
    st.sampled_from(["", " ", "-", ".", ",", "/", ":", "+", "(", ")", "[", "]", "@", "x", "1", "的", "，", "。", "　"]),
    st.sampled_from(
        ["phone ", "card no. ", "version ", "身份证", "_", "\u200b", "\0", "[PHONE", "_1]", "１", "٣", "\n"]
    ),
    st.text(max_size=6),
)
TEXTS = st.lists(st.one_of(GLUE, st.sampled_from(VALUES)), max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_places_are_right_and_apart(text: str) -> None:
    found = find(text)
    assert all(f.text == text[f.start : f.end] and f.text for f in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_nothing_is_left_behind(text: str) -> None:
    scrubbed = replace(text, find(text))
    assert find(scrubbed) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_scrubbing_twice_is_scrubbing_once(texts: list[str]) -> None:
    once = scrub(texts)
    assert scrub(once.texts) == (once.texts, [[] for _ in texts])


@given(st.text(st.characters(exclude_categories=["Nd", "Cs"], exclude_characters="@＠:/.．dD")))
def test_text_without_digits_and_signs_is_unchanged(text: str) -> None:
    assert scrub([text]) == ([text], [[]])


def test_the_same_value_has_the_same_number_in_all_texts() -> None:
    texts = ["我是13812345678", "Call +86 138-1234-5678 or 139 1234 5678, A@x.org", "a@X.org，１３９１２３４５６７８"]
    assert scrub(texts).texts == ["我是[PHONE_1]", "Call [PHONE_1] or [PHONE_2], [EMAIL_1]", "[EMAIL_1]，[PHONE_2]"]


def test_numbers_go_on_after_those_in_the_text() -> None:
    assert scrub(["[EMAIL_2] wrote", "to a@x.org"]).texts == ["[EMAIL_2] wrote", "to [EMAIL_3]"]


def test_only_some_findings_can_be_replaced() -> None:
    text = "https://en.wikipedia.org/wiki/A by a@x.org"
    certain = [f for f in find(text) if f.certain]
    assert replace(text, certain) == "https://en.wikipedia.org/wiki/A by [EMAIL_1]"
    assert [f.kind for f in for_review(find(text))] == ["URL"]


def test_findings_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match="not in this text"):
        replace("nothing here", find("a@example.com"))
    twice = Finding("EMAIL", 0, 3, "a@b", True)
    with pytest.raises(ValueError, match="overlaps"):
        replace("a@b", [twice, twice])


def test_a_finding_does_not_show_its_text() -> None:
    assert "example" not in repr(find("a@example.com"))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("https://x.org/13812345678/a@b.org", "URL", "https://x.org/13812345678/a@b.org"),
        ("mail 13812345678@qq.com", "EMAIL", "13812345678@qq.com"),
        ("0044 0532 0130 00, DE89 3704 0044 0532 0130 00", "IBAN", "DE89 3704 0044 0532 0130 00"),
        ("phone 219-09-9998", "US_SSN", "219-09-9998"),
    ],
)
def test_of_overlapping_ones_the_longest_or_most_specific_remains(text: str, kind: str, value: str) -> None:
    assert (kind, value) in [(f.kind, f.text) for f in find(text)]
    assert sum(text.find(value) < f.end and f.start < text.find(value) + len(value) for f in find(text)) == 1


LONG = [value + glue for value in VALUES for glue in ["", "-", ".", " ", "+", "(", "/", "@", "_", ",", "的"]]
LONG += [
    "1",
    "a",
    "0",
    "+",
    "(",
    "[",
    " ",
    ".",
    "@",
    "%",
    ":",
    "-",
    "1.",
    "1-",
    "1 ",
    "a.",
    "a-",
    "a@",
    "a@b.",
    "f:",
    "://",
]
LONG += [
    "http://",
    "www.",
    "a.com/",
    "(1",
    "+1 ",
    "a at ",
    "a dot ",
    "a [at] ",
    "AB",
    "DE89 ",
    "\u200b",
    "1\u200b",
    "１",
    "的",
]


def _seconds(text: str) -> float:
    times = []
    for _ in range(2):
        start = time.process_time()
        find(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("unit", LONG)
def test_time_grows_as_the_text(unit: str) -> None:
    """Eight times the text may take no more than 20 times as long: quadratic would be 64. The floor hides the clock's
    own error; what is below it can't be quadratic in a way that matters at that length."""
    short, long = (unit * (size // len(unit)) for size in (500, 4000))
    assert _seconds(long) < 20 * max(_seconds(short), 0.003)


def test_a_megabyte() -> None:
    text = "联系 anna@example.com or 138 1234 5678, in 1914-1918. The quick brown fox; x = 1234567. " * 12_000
    assert len(text) > 1_000_000
    assert len(find(text)) == 24_000


def test_hardly_a_false_alarm_in_real_text(shared_data: Path) -> None:
    """Questions to a bank, sentences of a dictionary and abstracts of papers hold years, sums of money, measurements,
    versions and citations, but, read by hand, no personal data besides links."""
    texts = [line.split("\t")[i] for line in _lines(shared_data / "tatoeba_enzh" / "cmn.txt") for i in (0, 1)]
    for part in ("train", "test"):
        with (shared_data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
        texts += [" ".join(json.loads(line)["source"]) for line in _lines(shared_data / "scitldr" / f"{part}.jsonl")]
    assert [f.text for text in texts for f in find(text) if f.kind != "URL"] == []


def test_what_real_dialogues_hold_is_found(shared_data: Path) -> None:
    with gzip.open(shared_data / "hh_rlhf" / "harmless-base" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = {f.text for row in rows for f in find(row["chosen"]) + find(row["rejected"]) if f.certain}
    assert {"(512) 555-2994", "+1 (202) 456-1111", "323-856-7866", "kathy.bates@gmail.com", "859-56-0028"} <= found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
