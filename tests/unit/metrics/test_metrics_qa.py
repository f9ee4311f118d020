"""Exact match and token F1: SQuAD's rules by hand, and against a literal transcription of them."""

import math
import random
import re
import string
from collections import Counter

import pytest

from rlhf_lightning.metrics import ExactMatch, TokenF1, exact_match, token_f1
from rlhf_lightning.metrics.qa import answer_tokens


@pytest.mark.parametrize(
    ("completion", "references", "em", "f1"),
    [
        ("the Eiffel Tower!", ["Eiffel tower"], 1, 1),
        ("Eiffel", ["Eiffel tower"], 0, 2 / 3),
        ("U.S.A.", ["USA"], 1, 1),
        ("twenty-one", ["twentyone"], 1, 1),  # punctuation is deleted, not a space
        ("a  an the", ["an"], 1, 1),  # nothing but articles: equal to the empty answer
        ("theatre", ["atre"], 0, 0),  # articles are whole words only
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # a bag: each token counts as often as in both
        ("big red dog", ["small cat", "red dog", "a big dog barks"], 0, 0.8),  # best reference
        ("completely wrong", ["right"], 0, 0),
        ("", ["Paris"], 0, 0),
        ("“Paris”", ["Paris"], 0, 0),  # SQuAD's script knows ASCII punctuation only
        # Unanswerable: no reference, or the no-answer text as the only one.
        ("", [], 1, 1),
        ("Unanswerable.", [], 1, 1),
        ("unanswerable", ["unanswerable"], 1, 1),
        ("", ["unanswerable"], 1, 1),
        ("", [""], 1, 1),
        ("Paris", [], 0, 0),
        ("Paris", ["unanswerable"], 0, 0),
        ("it is unanswerable", [], 0, 0),
        # Answerable: saying that there is no answer is wrong, also where a second reference says so.
        ("unanswerable", ["Paris"], 0, 0),
        ("unanswerable", ["unanswerable question"], 0, 0),
        ("", ["", "Paris"], 0, 0),
        ("Paris", ["unanswerable", "Paris"], 1, 1),
        # Chinese: each character a token, spaces and punctuation of every kind do not count.
        ("北京", ["北京。"], 1, 1),
        ("北 京", ["北京"], 1, 1),
        ("“北京”", ["北京"], 1, 1),
        ("北京市", ["北京"], 0, 0.8),
        ("京北", ["北京"], 0, 1),  # a bag of characters, but not the same answer
        ("1949年10月", ["1949年"], 0, 2 * 2 / (4 + 2)),
        ("在iPhone上", ["iphone 上"], 0, 0.8),
        ("A 股", ["股"], 0, 2 / 3),  # an article beside Chinese is no article
    ],
)
def test_by_hand(completion, references, em, f1):
    assert exact_match(completion, references) == em
    assert token_f1(completion, references) == pytest.approx(f1)


def squad_normalize(text):
    text = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction, gold):
    """The loop of SQuAD 2.0's evaluate script."""
    predicted, golds = squad_normalize(prediction).split(), squad_normalize(gold).split()
    common = Counter(predicted) & Counter(golds)
    same = sum(common.values())
    if len(predicted) == 0 or len(golds) == 0:
        return int(predicted == golds)
    if same == 0:
        return 0
    precision, recall = same / len(predicted), same / len(golds)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_squads_script_over_any_split(seed):
    rng = random.Random(seed)
    words = ["the", "Cat", "cat.", "dog", "an", "U.S.", "-", "éclair", "3,000"]
    completions = [" ".join(rng.choices(words, k=rng.randint(0, 4))) for _ in range(40)]
    references = [
        [" ".join(rng.choices(words, k=rng.randint(0, 3))) for _ in range(rng.randint(1, 3))] for _ in range(40)
    ]
    em = f1 = 0.0
    for text, row in zip(completions, references, strict=True):
        golds = [gold for gold in row if squad_normalize(gold)] or [""]
        em += max(squad_normalize(text) == squad_normalize(gold) for gold in golds)
        f1 += max(squad_f1(text, gold) for gold in golds)
    metrics = ExactMatch(), TokenF1()
    for part in (slice(0, 3), slice(3, 3), slice(3, 40)):
        for metric in metrics:
            metric.update(completions[part], references[part])
    assert metrics[0].compute().item() == pytest.approx(em / 40, abs=1e-9)
    assert metrics[1].compute().item() == pytest.approx(f1 / 40, abs=1e-9)
    assert 0 < em < f1 < 40


def test_no_answer_text_is_an_option():
    assert exact_match("I do not know.", [], no_answer="i do not know") == 1
    assert exact_match("unanswerable", [], no_answer="i do not know") == 0
    metric = TokenF1(no_answer="无法回答")
    metric.update(["无法回答。", "北京"], [["无法回答"], []])
    assert metric.compute().item() == 0.5
    exact = ExactMatch(no_answer="none")
    exact.update(["None", "unanswerable", "x"], [[], [], ["x"]])
    assert exact.compute().item() == pytest.approx(2 / 3)


def test_tokens_do_not_mix_scripts():
    assert answer_tokens("The GDP（国内生产总值）") == ["the", "gdp", "国", "内", "生", "产", "总", "值"]


@pytest.mark.parametrize("make", [ExactMatch, TokenF1])
def test_errors_and_no_rows(make):
    metric = make()
    with pytest.raises(ValueError, match="2 completions but 1"):
        metric.update(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"references\[1\] is not a list"):
        metric.update(["a", "b"], [["a"], "b"])
    metric.update([], [])
    assert math.isnan(metric.compute().item())
    assert make.higher_is_better is True
