import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Message
from rlhf_lightning.loop.candidates import different, prompt_of, prompts_of_round, question


@given(n=st.integers(1, 50), count=st.integers(1, 60), seed=st.integers(0, 9), turns=st.integers(1, 6))
def test_no_prompt_comes_twice_in_a_round_and_all_come_before_any_comes_again(n, count, seed, turns):
    seen: list[int] = []
    for turn in range(turns):
        places = prompts_of_round(n, count, turn * min(n, count), seed)
        assert len(set(places)) == len(places) == min(n, count)
        seen += places
    whole = min(len(seen), n)
    if n % min(n, count) == 0:
        assert len(set(seen[:whole])) == whole
    assert set(seen) <= set(range(n))


def test_a_round_asks_about_the_same_prompts_again_only_with_the_same_seed():
    assert prompts_of_round(100, 10, 10, 0) == prompts_of_round(100, 10, 10, 0)
    assert prompts_of_round(100, 10, 10, 0) != prompts_of_round(100, 10, 10, 1)


def test_equal_answers_are_one_and_one_is_no_question():
    assert different(["a", "a", "b", "c"], 2) == ["a", "b"]
    assert different(["a", "a", "a"], 2) is None


@pytest.mark.parametrize("text", ["plain", [{"role": "user", "content": "hi"}]])
def test_a_question_keeps_prompt_columns_and_references(text):
    row = PromptRow(Prompt(text), ["ref"], {"document": "d"})
    item = question("p", row, ["a", "b", "c"], ["m"] * 3, {"seed": 1}, "qa", strategy="margin")
    assert item.kind == "ranking"
    assert question("p", row, ["a", "b"], ["m"] * 2, {}, "qa").kind == "pairwise"
    assert item.asked.meta == {"document": "d", "references": ["ref"]}
    assert prompt_of(item.asked) == Prompt(text)
    assert item.candidates[0].settings == {"seed": 1}
    again = question("p", row, ["a", "b", "c"], ["m"] * 3, {"seed": 1}, "qa", strategy="margin")
    assert item.id == again.id
    assert item.id != question("q", row, ["a", "b", "c"], ["m"] * 3, {"seed": 1}, "qa").id  # another run's own
    if text != "plain":
        assert item.asked.text == (Message(role="user", content="hi"),)


def test_half_a_surrogate_pair_does_not_stop_a_question():
    item = question("p", PromptRow(Prompt("p")), ["a\ud800", "b"], ["m", "m"], {}, "qa")
    assert item.candidates[0].text == "a?"


def test_a_column_that_no_question_can_hold_is_told():
    row = PromptRow(Prompt("Why?"), [], {"bleu": float("nan")})
    with pytest.raises(UserError, match=r"'Why\?'.*'meta': bleu is nan"):
        question("p", row, ["a", "b"], ["m", "m"], {}, "qa")
