"""The hidden gold rewards: graded, bounded, and not to be gamed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rlhf_lightning.tasks.classification import gold as classification
from rlhf_lightning.tasks.overlap import ordered_overlap
from rlhf_lightning.tasks.qa import gold as qa
from rlhf_lightning.tasks.summarization import gold as summarization
from rlhf_lightning.tasks.translation import gold as translation

DOCUMENT = (
    "On Monday, Norvik announced a plan for Oslo. The company will cut 300 jobs by May. "
    "A rival in Lima has a similar plan. Last year the number was 40."
)
CONTEXT = "Anna lives in Oslo. Anna has a grey cat. Ben lives in Lima. Ben drinks green tea."
ROWS = {
    summarization: {"document": DOCUMENT, "facts": "Norvik cuts 300 jobs Oslo"},
    translation: {
        "source": "The teacher bought three books at the market yesterday.",
        "words": "老师 昨天 在市场 买 了 三 本 书 。",
    },
    qa: {"context": CONTEXT, "question": "What pet does Anna have?", "answers": ["grey cat"]},
    classification: {"text": "The food was bad, but the view was great.", "topic": "positive"},
}
BEST_FIRST = {
    summarization: [
        "Norvik cuts 300 jobs in Oslo",
        "Norvik cuts jobs in Oslo",
        "Norvik cuts 40 jobs in Oslo",
        "Norvik cuts 40 jobs in Lima",
        "Halden hires 40 nurses in Lima",
    ],
    translation: [
        "老师昨天在市场买了三本书。",
        "老师昨天在市场买了三个书。",
        "老师买了三本书在市场昨天。",
        "老师买了四个书在市场昨天。",
        "我们明天在公园卖五把椅子。",
    ],
    qa: ["grey cat", "Anna has a grey cat.", "black cat", "unanswerable", "Oslo"],
    classification: ["positive", "positive tech", "negative", "tech"],
}
WORTHLESS = {
    summarization: [
        "",
        " \n",
        DOCUMENT,
        "in in in in in in",
        "Oslo jobs 300 cuts Norvik",
        "Officials said that it was reported that officials said that Norvik cuts 300 jobs in Oslo",
        "Norvik Halden cuts hires opens 40 300 600 jobs nurses shops in Lima Madrid Oslo Delhi",
        "Halden cuts 40 jobs in Lima",
        "Norvik " * 20,
        "Norvik cuts 300 jobs in Oslo " * 3,
        "标题",
    ],
    translation: [
        "",
        "。",
        "The teacher bought three books at the market yesterday.",
        "书本三了买市场在昨天老师",
        "老师老师老师老师老师老师",
        "老师昨天在市场买了三本书。" * 2,
        "我们明天想在公园卖五把椅子。",
        "老师医生昨天明天在市场公园买卖了三四本个把书猫。",
    ],
    qa: [
        "",
        "unanswerable",
        CONTEXT,
        CONTEXT * 3,
        "Oslo Lima green tea Anna Ben grey cat unanswerable",
        "grey cat unanswerable",
        "tea",
        "Anna",
        "Ben drinks green tea.",
    ],
    classification: [
        "",
        "negative",
        "tech",
        "great",
        "negative positive",
        "tech sports positive negative",
        "positive " * 3,
        "The food was bad, but the view was great.",
    ],
}
GOLDS = pytest.mark.parametrize("gold", list(ROWS), ids=lambda gold: gold.__name__.split(".")[-2])


def score(gold, *completions, **changes):
    rows = [ROWS[gold] | changes] * len(completions)
    return gold.score([""] * len(rows), list(completions), [[]] * len(rows), rows)


@GOLDS
def test_gold_is_a_vector_of_floats(gold):
    scores = score(gold, *BEST_FIRST[gold])
    assert scores.shape == (len(BEST_FIRST[gold]),)
    assert scores.dtype == torch.float32


@GOLDS
def test_gold_ranks_from_best_to_worst(gold):
    scores = score(gold, *BEST_FIRST[gold])
    assert scores[0] == 1
    assert (scores[1:-1] < 0.99).all()
    assert (scores.diff() <= 0).all()
    assert len(scores.unique()) >= 4


@GOLDS
def test_garbage_and_tricks_score_low(gold):
    for completion, value in zip(WORTHLESS[gold], score(gold, *WORTHLESS[gold]), strict=True):
        assert value < 0.2, completion


@GOLDS
def test_words_added_to_the_best_never_pay(gold):
    best = BEST_FIRST[gold][0]
    more = [f"{word} {best}" for word in best.split()] + [f"{best} {word}" for word in best.split()]
    assert (score(gold, *more) < 0.95).all()


@GOLDS
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_gold_of_any_text_is_between_0_and_1(gold, data):
    known = st.sampled_from([*BEST_FIRST[gold], *WORTHLESS[gold]])
    texts = data.draw(st.lists(st.one_of(st.text(max_size=30), known), min_size=1, max_size=3))
    value = score(gold, "".join(texts))
    assert ((value >= 0) & (value <= 1)).all()


@GOLDS
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_shuffled_best_output_does_not_beat_the_best(gold, data):
    best = BEST_FIRST[gold][0]
    units = list(best) if gold is translation else best.split()
    shuffled = data.draw(st.permutations(units))
    assert score(gold, ("" if gold is translation else " ").join(shuffled)) <= 1


def test_refusal_is_right_only_where_there_is_no_answer():
    assert score(qa, "unanswerable", "Unanswerable.", answers=[]).tolist() == [1, 1]
    assert score(qa, "grey cat", "unanswerable grey cat", "", answers=[]).tolist() == [0, 0, 0]


def test_any_of_several_answers_is_right():
    assert score(qa, "grey cat", "cat", answers=["cat", "grey cat"]).tolist() == [1, 1]


def test_both_headline_forms_and_both_time_positions_are_right():
    assert score(summarization, "Norvik to cut 300 jobs in Oslo") == 1
    assert score(translation, "昨天老师在市场买了三本书。") == 1


def test_ordered_overlap_counts_in_order_matches_only():
    assert ordered_overlap(["a", "b", "c"], ["a", "c"], [1, 3]) == (1.0, 2 / 3)
    assert ordered_overlap(["c", "a"], ["a", "c"], [1, 3]) == (0.75, 0.5)
    assert ordered_overlap([], ["a"], [1]) == (0.0, 0.0)
