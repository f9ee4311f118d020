"""Label parsing by hand; accuracy and macro F1 against scikit-learn."""

import math
import random

import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from rlhf_lightning.metrics import LabelAccuracy, LabelF1, label_match, parse_label

SENTIMENT = ["positive", "negative", "neutral"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"),
        ("  Positive.\n", "positive"),
        ('"NEGATIVE"', "negative"),
        ("“neutral”。", "neutral"),
        ('"positive."', "positive"),
        ("`positive`!", "positive"),
        ("positive or negative", None),
        ("positive, negative", None),
        ("positive negative", None),
        ("positive/negative", None),
        ("positive positive", None),
        ("not positive", None),
        ("positively", None),
        ("pos", None),
        ("The answer is positive", None),
        ("positive\nBecause it is good", None),
        ("-positive", None),
        ("", None),
        ("...", None),
    ],
)
def test_parse_label(text, label):
    assert parse_label(text, SENTIMENT) == label


def test_parse_label_gives_the_labels_own_spelling():
    assert parse_label("sci/tech", ["World", "Sci/Tech"]) == "Sci/Tech"
    assert parse_label("积极。", ["积极", "消极"]) == "积极"
    assert parse_label("very positive", ["positive", "very positive"]) == "very positive"
    assert parse_label("C++.", ["C", "C++"]) == "C++"
    assert parse_label("yes", ["Yes", "yes."]) is None  # two labels fit


def random_rows(seed, labels, rows=60):
    rng = random.Random(seed)
    noise = ["positive or negative", "", "maybe"]
    gold = [rng.choice(labels) for _ in range(rows)]
    predicted = [rng.choice([*labels, rng.choice(noise)]) for _ in range(rows)]
    texts = [rng.choice([p, p.upper(), f' "{p}".']) for p in predicted]
    return texts, [p if p in labels else "none of them" for p in predicted], gold


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("used", [SENTIMENT, ["positive", "negative"]])
def test_equal_to_sklearn_over_any_split(seed, used):
    """Also with a label that no row has (``used`` leaves neutral out)."""
    texts, predicted, gold = random_rows(seed, used)
    accuracy, f1 = LabelAccuracy(SENTIMENT), LabelF1(SENTIMENT)
    for part in (slice(0, 7), slice(7, 7), slice(7, None)):
        for metric in (accuracy, f1):
            metric.update(texts[part], [[label] for label in gold[part]])
    expected = precision_recall_fscore_support(gold, predicted, labels=SENTIMENT, average="macro", zero_division=0)
    unparsed = predicted.count("none of them") / len(texts)
    assert unparsed > 0
    actual = {name: value.item() for name, value in f1.compute().items()}
    assert actual == pytest.approx(
        {"precision": expected[0], "recall": expected[1], "f1": expected[2], "unparsed": unparsed}, abs=1e-9
    )
    actual = {name: value.item() for name, value in accuracy.compute().items()}
    assert actual == pytest.approx({"accuracy": accuracy_score(gold, predicted), "unparsed": unparsed}, abs=1e-9)


def test_naming_every_label_is_wrong():
    metric = LabelAccuracy(SENTIMENT)
    metric.update(["positive, negative, neutral"] * 3, [[label] for label in SENTIMENT])
    assert {name: value.item() for name, value in metric.compute().items()} == {"accuracy": 0, "unparsed": 1}


def test_label_match():
    assert label_match("Positive!", ["positive"], SENTIMENT) == 1
    assert label_match("negative", ["positive"], SENTIMENT) == 0
    assert label_match("both", ["positive"], SENTIMENT) == 0
    with pytest.raises(ValueError, match="exactly one of the labels"):
        label_match("positive", ["great"], SENTIMENT)


@pytest.mark.parametrize("make", [LabelAccuracy, LabelF1])
def test_errors_and_no_rows(make):
    metric = make(SENTIMENT)
    with pytest.raises(ValueError, match=r"references\[1\] = \['great'\]"):
        metric.update(["positive", "positive"], [["positive"], ["great"]])
    with pytest.raises(ValueError, match=r"references\[0\]"):
        metric.update(["positive"], [["positive", "negative"]])
    with pytest.raises(ValueError, match=r"references\[0\] is empty"):
        metric.update(["positive"], [[]])
    with pytest.raises(ValueError, match="1 completions but 0"):
        metric.update(["positive"], [])
    assert metric.rows == 0  # a refused batch leaves no trace
    metric.update(["positive"], [["Positive", "positive."]])  # two spellings of one label
    assert metric.rows == 1
    metric.reset()
    metric.update([], [])
    assert all(math.isnan(value.item()) for value in metric.compute().values())
    for labels in ([], "positive", ["yes", "Yes."], ["yes", "..."]):
        with pytest.raises(ValueError, match="label"):
            make(labels)
