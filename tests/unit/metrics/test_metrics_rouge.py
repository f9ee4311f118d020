"""ROUGE against the rouge_score package, and the tokenizer that makes it work beyond ASCII."""

import math
import random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from rlhf_lightning.metrics import ROUGE, WordTokenizer, sentence_rouge, split_sentences, split_words
from rlhf_lightning.metrics.rouge import ROUGE_KINDS

ASCII = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=60)


def random_corpus(seed, rows=9):
    rng = random.Random(seed)
    words = ["The", "cats", "are", "sitting,", "quietly;", "on", "it's", "mats\nand", "3", "dogs!\nrunning", "away."]

    def text():
        return " ".join(rng.choices(words, k=rng.randint(0, 18)))

    return [text() for _ in range(rows)], [[text() for _ in range(rng.randint(1, 3))] for _ in range(rows)]


def package_means(completions, references, **options):
    scorer = RougeScorer(ROUGE_KINDS, **options)
    scores = [scorer.score_multi(row, text) for text, row in zip(completions, references, strict=True)]
    return {kind: fmean(score[kind].fmeasure for score in scores) for kind in ROUGE_KINDS}


@pytest.mark.parametrize("tokenizer", [None, "rouge_score"])
@pytest.mark.parametrize("use_stemmer", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_rouge_score_over_any_split(tokenizer, use_stemmer, seed):
    completions, references = random_corpus(seed)
    metric = ROUGE(tokenizer=tokenizer, use_stemmer=use_stemmer)
    for part in (slice(0, 1), slice(1, 1), slice(1, 6), slice(6, None)):
        metric.update(completions[part], references[part])
    actual = {kind: value.item() for kind, value in metric.compute().items()}
    expected = package_means(completions, references, use_stemmer=use_stemmer)
    assert actual == pytest.approx(expected, abs=1e-6)
    assert 0 < actual["rouge2"] < actual["rouge1"] < 1
    assert actual["rougeL"] != actual["rougeLsum"]  # the corpus has lines


@settings(max_examples=200, deadline=None)
@given(ASCII, st.booleans())
def test_words_of_ascii_text_are_rouge_scores(text, use_stemmer):
    assert WordTokenizer(use_stemmer).tokenize(text) == DefaultTokenizer(use_stemmer).tokenize(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_words_of_any_text_hold_no_space_and_with_punctuation_lose_nothing_visible(text):
    words = split_words(text)
    assert all(word and not any(char.isspace() for char in word) for word in words)
    assert [w for w in split_words(text, punctuation=True) if w in words] == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我爱北京天安门。", ["我", "爱", "北", "京", "天", "安", "门"]),
        ("用Python3写", ["用", "python3", "写"]),
        ("Naïve Café, Straße", ["naïve", "café", "straße"]),
        ("cafe\u0301", ["café"]),  # a combining accent
        ("Привет, мир!", ["привет", "мир"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ねこ カフェ", ["ね", "こ", "カ", "フ", "ェ"]),
        ("ＡＢＣ１２", ["abc12"]),
        ("snake_case a-b", ["snake", "case", "a", "b"]),
        ("", []),
        ("!?。", []),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_chinese_scores_with_our_tokenizer_only():
    completions, references = ["我爱北京"], [["我爱上海"]]
    ours, theirs = ROUGE(), ROUGE(tokenizer="rouge_score")
    for metric in (ours, theirs):
        metric.update(completions, references)
    assert ours.compute()["rouge1"].item() == pytest.approx(0.5)
    assert ours.compute()["rouge2"].item() == pytest.approx(1 / 3)
    assert theirs.compute()["rouge1"].item() == 0


def test_best_reference_is_chosen_for_each_kind():
    # "a b" is the best for rouge2, "d c b a" for rouge1: the result mixes them, as score_multi does.
    completion, row = "a b c d", ["a b", "d c b a"]
    assert sentence_rouge(completion, row, "rouge1") == pytest.approx(1)
    assert sentence_rouge(completion, row, "rouge2") == pytest.approx(0.5)
    assert sentence_rouge(completion, row, "rougeL") == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_sentences_change_rougelsum_alone():
    completion, row = "He slept. She ran. 他睡了。她跑了。", ["She ran. He slept. 她跑了。他睡了。"]
    metrics = ROUGE(sentences=True), ROUGE(sentences=False)
    for metric in metrics:
        metric.update([completion], [row])
    split, whole = ({kind: value.item() for kind, value in metric.compute().items()} for metric in metrics)
    assert split["rougeLsum"] == pytest.approx(1)
    assert whole["rougeLsum"] < 1
    assert {**split, "rougeLsum": 0} == {**whole, "rougeLsum": 0}
    by_lines = RougeScorer(["rougeLsum"], tokenizer=WordTokenizer()).score(
        "\n".join(split_sentences(row[0])), "\n".join(split_sentences(completion))
    )
    assert split["rougeLsum"] == pytest.approx(by_lines["rougeLsum"].fmeasure, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Pi is 3.14 here.", ["Pi is 3.14 here."]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("他说：“不。”然后走了。", ["他说：“不。”", "然后走了。"]),
        ("真的？！是的。", ["真的？！", "是的。"]),
        ("a\n\nb", ["a", "b"]),
        (" \n", []),
    ],
)
def test_split_sentences(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("case", [("", ["a"]), ("a", [""]), ("", [""]), ("!", ["?"]), ("a", ["a"])])
def test_degenerate_texts(case):
    completion, row = case
    metric = ROUGE()
    metric.update([completion], [row])
    actual = {kind: value.item() for kind, value in metric.compute().items()}
    assert actual == pytest.approx(package_means([completion], [row]))


def test_no_rows_have_no_score():
    metric = ROUGE()
    metric.update([], [])
    assert all(math.isnan(value.item()) for value in metric.compute().values())


def test_errors():
    with pytest.raises(ValueError, match=r"references\[1\] is empty"):
        ROUGE().update(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="nltk"):
        ROUGE(tokenizer="nltk")
    with pytest.raises(ValueError, match="use_stemmer"):
        ROUGE(tokenizer=WordTokenizer(), use_stemmer=True)
    with pytest.raises(ValueError, match="rouge9"):
        sentence_rouge("a", ["a"], "rouge9")
    with pytest.raises(ValueError, match="empty"):
        sentence_rouge("a", [])


def test_stemmer_is_switched_on_and_leaves_short_words():
    completion, row = "running cats", ["run cat"]
    assert sentence_rouge(completion, row, "rouge1") == 0
    assert sentence_rouge(completion, row, "rouge1", use_stemmer=True) == 1
    metric = ROUGE(use_stemmer=True)
    metric.update([completion], [row])
    assert metric.compute()["rouge1"].item() == 1
    text = "It was his gas bus; ponies running."
    assert WordTokenizer(use_stemmer=True).tokenize(text) == DefaultTokenizer(use_stemmer=True).tokenize(text)


def test_own_tokenizer():
    class Letters:
        def tokenize(self, text):
            return list(text)

    assert sentence_rouge("abc", ["abd"], "rouge1", tokenizer=Letters()) == pytest.approx(2 / 3)
