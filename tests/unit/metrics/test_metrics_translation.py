"""BLEU, chrF and TER against sacrebleu's corpus_score over the whole corpus."""

import copy
import math
import pickle
import random
from itertools import zip_longest

import pytest
import sacrebleu

from rlhf_lightning.metrics import BLEU, TER, ChrF, sentence_bleu, sentence_chrf, sentence_ter

WORDS = ["the", "cat", "sat", "on", "a", "mat", ",", "and", "then", "The", "dog", "barked", ".", "it's", "3.5", "!"]
HANZI = "猫坐在垫子上然后狗叫了。，今天abc天气很好3"

METRICS = {
    "bleu": (lambda: BLEU(), lambda: sacrebleu.BLEU()),
    "bleu-lower-char": (
        lambda: BLEU(tokenize="char", lowercase=True),
        lambda: sacrebleu.BLEU(tokenize="char", lowercase=True),
    ),
    "bleu-zh": (lambda: BLEU(tokenize="zh"), lambda: sacrebleu.BLEU(tokenize="zh")),
    "bleu-floor": (lambda: BLEU(smooth_method="floor"), lambda: sacrebleu.BLEU(smooth_method="floor")),
    "bleu-floor-value": (
        lambda: BLEU(smooth_method="floor", smooth_value=0.3),
        lambda: sacrebleu.BLEU(smooth_method="floor", smooth_value=0.3),
    ),
    "bleu-add-k": (lambda: BLEU(smooth_method="add-k"), lambda: sacrebleu.BLEU(smooth_method="add-k")),
    "bleu-none": (lambda: BLEU(smooth_method="none"), lambda: sacrebleu.BLEU(smooth_method="none")),
    "chrf": (lambda: ChrF(), lambda: sacrebleu.CHRF()),
    "chrf++": (lambda: ChrF(word_order=2), lambda: sacrebleu.CHRF(word_order=2)),
    "chrf-lower": (lambda: ChrF(lowercase=True), lambda: sacrebleu.CHRF(lowercase=True)),
    "ter": (lambda: TER(), lambda: sacrebleu.TER()),
    "ter-zh": (
        lambda: TER(normalized=True, asian_support=True),
        lambda: sacrebleu.TER(normalized=True, asian_support=True),
    ),
    "ter-case-punct": (
        lambda: TER(no_punct=True, case_sensitive=True),
        lambda: sacrebleu.TER(no_punct=True, case_sensitive=True),
    ),
}


def corpus_score(scorer, completions, references):
    return scorer.corpus_score(completions, [list(stream) for stream in zip_longest(*references)]).score


def accumulate(metric, completions, references, sizes):
    start = 0
    for size in sizes:
        metric.update(completions[start : start + size], references[start : start + size])
        start += size
    assert start == len(completions)
    return metric.compute().item()


def random_text(rng, chinese):
    if chinese:
        return "".join(rng.choices(HANZI, k=rng.randint(0, 14)))
    return " ".join(rng.choices(WORDS, k=rng.randint(0, 14)))


def random_corpus(seed, rows=13):
    """Rows with 1 to 3 references, some of them close to the completion, some texts empty."""
    rng = random.Random(seed)
    completions, references = [], []
    for _ in range(rows):
        chinese = rng.random() < 0.3
        row = [random_text(rng, chinese) for _ in range(rng.randint(1, 3))]
        near = row[0][: rng.randint(0, len(row[0]))]
        completions.append(rng.choice([near, row[0], random_text(rng, chinese)]))
        references.append(row)
    return completions, references


def random_split(seed, total):
    rng = random.Random(seed)
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(rng.randint(0, total - sum(sizes)))
    return sizes


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_sacrebleu_over_any_split(name, seed):
    ours, theirs = METRICS[name]
    completions, references = random_corpus(seed)
    expected = corpus_score(theirs(), completions, references)
    for split_seed in range(3):
        actual = accumulate(ours(), completions, references, random_split(split_seed, len(completions)))
        assert actual == pytest.approx(expected, abs=1e-6)


DEGENERATE = {
    "empty hypothesis among others": (["", "the cat sat on the mat"], [["a dog"], ["the cat sat on a mat"]]),
    "only empty hypotheses": (["", ""], [["a dog"], ["a cat"]]),
    "all empty": (["", ""], [[""], [""]]),
    "empty references, text": (["a dog"], [[""]]),
    "one token": (["cat"], [["cat"]]),
    "no 4-gram match": (["the cat sat on mats today"], [["the cat sat in a hat today"]]),
    "no match at all": (["x y z w v"], [["a b c d e"]]),
    # 6 words against 5 and 7: the shorter of two equally near lengths has to be taken (torchmetrics takes the first).
    "tie in reference length": (["a b c d e f"], [["a b c d e f g", "a b c d e"]]),
    "tie, other order": (["a b c d e f"], [["a b c d e", "a b c d e f g"]]),
    "fewer references in the first row": (["a b c d", "a b c d"], [["a b c"], ["x", "a b c d", "y z"]]),
    "fewer references in the last row": (["a b c d", "a b c d"], [["x", "a b c d", "y z"], ["a b c"]]),
    "empty string beside a reference": (["a b c d"], [["", "a b c d e"]]),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_corpora(name, case):
    ours, theirs = METRICS[name]
    completions, references = DEGENERATE[case]
    expected = corpus_score(theirs(), completions, references)
    assert accumulate(ours(), completions, references, [1] * len(completions)) == pytest.approx(expected, abs=1e-6)


def test_smoothing_and_ties_matter_in_the_cases_above():
    """The cases that torchmetrics gets wrong are not trivially 0 or 100 here."""
    no_match = accumulate(BLEU(), *DEGENERATE["no 4-gram match"], [1])
    assert 1 < no_match < 50
    completions, references = DEGENERATE["tie in reference length"]
    assert accumulate(BLEU(), completions, references, [1]) == pytest.approx(100)


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_no_rows_have_no_score(name):
    metric = METRICS[name][0]()
    metric.update([], [])
    assert math.isnan(metric.compute().item())


@pytest.mark.parametrize("name", ["bleu", "bleu-zh", "chrf++", "ter-zh"])
def test_signature_is_sacrebleus(name):
    ours, theirs = METRICS[name]
    metric, scorer = ours(), theirs()
    with pytest.raises(RuntimeError, match="compute"):
        metric.signature()
    completions, references = ["a b", "c d"], [["a b", "a"], ["c d", "c"]]
    accumulate(metric, completions, references, [1, 1])
    corpus_score(scorer, completions, references)
    assert metric.signature() == str(scorer.get_signature())
    assert "nrefs:2|" in metric.signature()
    metric.update(["e"], [["e"]])
    metric.compute()
    metric.reset()  # what Lightning does at an epoch's end
    assert "nrefs:var|" in metric.signature()


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_reset_copy_and_pickle(name):
    metric = METRICS[name][0]()
    metric.update(["a b c d e"], [["a b c x d"]])
    before = metric.compute().item()
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert other.compute().item() == before
    metric.reset()
    metric.update(["q r s t u"], [["q r s t u"]])
    assert metric.compute().item() == pytest.approx(0 if name == "ter" else 100)


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_forward_gives_the_batch_and_keeps_the_corpus(name):
    ours, theirs = METRICS[name]
    metric = ours()
    batches = [(["a b c d e"], [["a b c d e"]]), (["a b x d e f"], [["a b c d e f", "a"]])]
    for completions, references in batches:
        assert metric(completions, references).item() == pytest.approx(corpus_score(theirs(), completions, references))
    completions, references = [[row for part in column for row in part] for column in zip(*batches, strict=True)]
    assert metric.compute().item() == pytest.approx(corpus_score(theirs(), completions, references), abs=1e-6)


@pytest.mark.parametrize("make", [BLEU, ChrF, TER])
def test_bad_rows_are_named(make):
    with pytest.raises(ValueError, match="2 completions but 1"):
        make().update(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"references\[1\] is empty"):
        make().update(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match=r"references\[0\] is not a list"):
        make().update(["a"], ["a reference"])
    with pytest.raises(ValueError, match=r"completions\[0\]"):
        make().update([None], [["a"]])


def test_unknown_options():
    with pytest.raises(ValueError, match="13a"):
        BLEU(tokenize="chinese")
    with pytest.raises(ValueError, match="add-k"):
        BLEU(smooth_method="laplace")
    with pytest.raises(ValueError, match="word_order"):
        ChrF(word_order=-1)
    with pytest.raises(ValueError, match="chinese"):
        sentence_bleu("a", ["a"], tokenize="chinese")


@pytest.mark.parametrize("seed", range(4))
def test_sentence_scores_equal_sacrebleus(seed):
    for completion, row in zip(*random_corpus(seed), strict=True):
        bleu = sacrebleu.BLEU(effective_order=True).sentence_score(completion, row).score
        assert sentence_bleu(completion, row) == pytest.approx(bleu, abs=1e-9)
        bleu_zh = sacrebleu.BLEU(effective_order=True, tokenize="zh").sentence_score(completion, row).score
        assert sentence_bleu(completion, row, tokenize="zh") == pytest.approx(bleu_zh, abs=1e-9)
        chrf = sacrebleu.CHRF(word_order=2).sentence_score(completion, row).score
        assert sentence_chrf(completion, row, word_order=2) == pytest.approx(chrf, abs=1e-9)
        ter = sacrebleu.TER().sentence_score(completion, row).score
        assert sentence_ter(completion, row) == pytest.approx(ter, abs=1e-9)


@pytest.mark.parametrize("score", [sentence_bleu, sentence_chrf, sentence_ter])
def test_sentence_scores_need_a_reference(score):
    with pytest.raises(ValueError, match="empty"):
        score("a", [])


def test_directions():
    assert BLEU.higher_is_better is True
    assert ChrF.higher_is_better is True
    assert TER.higher_is_better is False
