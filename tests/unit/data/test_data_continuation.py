"""Texts split into an opening and how they go on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.continuation import ContinuationFormat
from rlhf_lightning.data.files import Record
from rlhf_lightning.data.sources import load_task_data
from rlhf_lightning.errors import UserError

WORDS = st.lists(st.text(st.sampled_from("abé.,"), min_size=1, max_size=5), min_size=2, max_size=20)
GAPS = st.sampled_from([" ", "  ", "\n", "\t"])


def record(**values):
    return Record("reviews.jsonl, line 7", values)


@given(WORDS, GAPS, st.integers(1, 3), st.integers(0, 6))
def test_opening_and_rest_are_the_text(words, gap, least, more):
    text = gap.join(words)
    form = ContinuationFormat(least=least, most=least + more)
    if len(words) <= least:
        with pytest.raises(UserError, match=rf"line 7: the field 'text' has {len(words)} word\(s\); an opening of"):
            form.sft_row(record(text=text))
        return
    row = form.sft_row(record(text=text))
    assert least <= len(row.prompt.text.split()) <= least + more
    assert text.startswith(row.prompt.text)
    assert row.prompt.text.split() + row.completion.split() == words
    assert form.prompt_row(record(text=text)).prompt == row.prompt, "each row is split in the same way every time"
    assert form.prompt_row(record(text=text)).references == [row.completion]


def test_every_number_of_words_is_drawn():
    form = ContinuationFormat(least=2, most=4)
    texts = [f"one two three four five six {i}" for i in range(60)]
    assert {len(form.prompt_row(record(text=text)).prompt.text.split()) for text in texts} == {2, 3, 4}


def test_columns_of_the_row_alone_travel_along():
    form = ContinuationFormat(text="review")
    values = {"review": "It was a very good film indeed", "label": "pos"}
    assert form.prompt_row(record(**values)).meta == form.sft_row(record(**values)).meta == values


def test_rows_with_a_prompt_are_taken_as_they_are():
    row = ContinuationFormat().prompt_row(record(prompt="Once upon"), need_references=False)
    assert (row.prompt.text, row.references) == ("Once upon", [])


def test_another_column_is_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"there is no column 'text'; .*Did you mean 'texts'\?.*\{text: texts\}"):
        ContinuationFormat().prompt_row(record(texts="a b c d"))


@pytest.mark.parametrize(("least", "most"), [(0, 3), (4, 3)])
def test_numbers_of_words_that_make_no_sense_are_refused(least, most):
    with pytest.raises(UserError, match=r"task\.format\.least"):
        ContinuationFormat(least=least, most=most)


def test_a_file_of_texts_becomes_demonstrations_and_prompts(tmp_path):
    path = tmp_path / "reviews.txt"
    path.write_text("".join(f"film number {i} was really good\n" for i in range(10)))
    data = load_task_data(ContinuationFormat(), train=path, test_size=2, validation_size=1, need_references=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (7, 1, 2)
    assert {f"{row.prompt.text} {row.completion}" for row in data.train} <= set(path.read_text().split("\n"))
