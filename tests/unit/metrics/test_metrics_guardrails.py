"""Guardrails by hand-computed cases, and the detectors."""

import math
import random
import statistics

import pytest
import torch

from rlhf_lightning.metrics import (
    Guardrails,
    copied_share,
    echoes_prompt,
    label_collapse,
    length_reward_correlation,
    lists_several_labels,
    longest_repeat,
    negative_kl,
    relative_drift,
)
from rlhf_lightning.metrics.guardrails import BUCKETS, bucket, estimate_distinct


def measure(completions, prompts=None, lengths=None, ended=None, **options):
    rows = len(completions)
    metric = Guardrails(**options)
    metric.update(completions, prompts or [""] * rows, lengths or [0] * rows, ended or [False] * rows)
    return {name: value.item() for name, value in metric.compute().items()}


def test_by_hand():
    result = measure(
        ["the cat saw the cat", "THE cat!", " ", "the cat saw the cat"],
        prompts=["I say the cat saw", "", "x", "dogs"],
        lengths=[6, 3, 1, 6],
        ended=[True, True, False, True],
    )
    assert result == pytest.approx(
        {
            "length": 4,
            "eos_rate": 0.75,
            "empty_rate": 0.25,
            "distinct_1": 3 / 12,  # the, cat, saw
            "distinct_2": 3 / 9,  # the cat, cat saw, saw the
            "longest_repeat": 0,
            "copied": (3 / 5) / 4,  # "the cat saw" of the first
            "prompt_echo": 0,
            "duplicates": 1 / 4,  # 3 distinct of 4
        }
    )


def test_chinese_characters_are_words():
    result = measure(["猫猫猫", "今天天气好"], prompts=["", "今天天气如何"])
    assert result["distinct_1"] == pytest.approx(5 / 8)
    assert result["longest_repeat"] == pytest.approx((3 + 2) / 2)
    assert result["copied"] == pytest.approx((4 / 5) / 2)


def test_repeated_punctuation_is_seen():
    assert measure(["Good !!!!!"])["longest_repeat"] == 5


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("", 0),
        ("a", 0),
        ("a b c", 0),
        ("a b a", 0),  # repeated, but not at once
        ("a a", 2),
        ("x a a a y", 3),
        ("a b a b", 4),
        ("a b a b a b", 6),
        ("a b a b a", 4),  # whole repetitions
        ("x a b c a b c y a a", 6),
        ("a a b b b a a b b b", 10),
        ("a a a a a a a", 7),
    ],
)
def test_longest_repeat(text, longest):
    assert longest_repeat(text.split()) == longest


def brute_force_repeat(words):
    best = 0
    for start in range(len(words)):
        for n in range(1, len(words)):
            times = 1
            while words[start + times * n : start + (times + 1) * n] == words[start : start + n]:
                times += 1
            if times > 1 and start + times * n <= len(words):
                best = max(best, times * n)
    return best


@pytest.mark.parametrize("seed", range(3))
def test_longest_repeat_equals_brute_force(seed):
    rng = random.Random(seed)
    for _ in range(150):
        words = rng.choices("ab" if seed else "abc", k=rng.randint(0, 16))
        assert longest_repeat(words) == brute_force_repeat(words), words


@pytest.mark.parametrize(
    ("completion", "prompt", "n", "share"),
    [
        ("a b c d", "x a b c y", 3, 3 / 4),
        ("a b c d", "a b x c d", 3, 0),
        ("a b c d", "a b x c d", 2, 1),
        ("a b c a b c", "a b c", 3, 1),
        ("a b c d e", "a b c d z c d e", 3, 1),  # overlapping fragments count a word once
        ("a b", "a b", 3, 0),
        ("", "a b c", 3, 0),
        ("a b c", "", 3, 0),
        ("a x b", "b a", 1, 2 / 3),
    ],
)
def test_copied_share(completion, prompt, n, share):
    assert copied_share(completion.split(), prompt.split(), n) == pytest.approx(share)


def test_shortest_copied_fragment_is_an_option():
    assert measure(["a b x"], prompts=["a b y"], copied_ngram=2)["copied"] == pytest.approx(2 / 3)
    assert measure(["a b x"], prompts=["a b y"])["copied"] == 0


@pytest.mark.parametrize(
    ("completion", "prompt", "echo"),
    [
        ("the dog ran home. Le chien", "Translate: x.\nThe dog ran home!", True),
        ("Le chien. The dog ran home", "Translate: x.\nThe dog ran home!", False),  # not at the beginning
        ("the dog ran", "The dog ran home!", False),
        ("Answer: 3", "How many?\nAnswer:", False),  # two words or less say nothing
        ("How many are there? Three", "How many are there?\n\n", True),
        ("so, one two three four five six seven eight nine", "Now one two three. Four five six seven eight nine", True),
        ("so, two three four five six seven eight nine ten", "Now one two three. Four five six seven eight nine", True),
        ("so, three four five six seven eight nine", "Now one two three. Four five six seven eight nine", False),
        ("法国的首都是哪里？巴黎", "请回答。法国的首都是哪里？", True),
        ("巴黎", "请回答。法国的首都是哪里？", False),
        ("", "法国的首都是哪里？", False),
        ("anything", "", False),
    ],
)
def test_echoes_prompt(completion, prompt, echo):
    assert echoes_prompt(completion, prompt) is echo


def test_distinct_and_duplicates_of_a_collapsed_policy():
    result = measure(["yes"] * 32)
    assert result["distinct_1"] == pytest.approx(1 / 32)
    assert result["duplicates"] == pytest.approx(31 / 32)
    assert math.isnan(result["distinct_2"])  # there is no bigram
    assert measure([f"text {i}" for i in range(32)])["duplicates"] == 0
    assert measure(["yes", " yes\n", "Yes"])["duplicates"] == pytest.approx(1 / 3)  # but for white space around them


def test_distinct_estimate_is_close_for_many_words():
    rng = random.Random(0)
    words = [str(rng.randrange(40_000)) for _ in range(60_000)]
    result = measure([" ".join(words[i : i + 30]) for i in range(0, len(words), 30)])
    assert result["distinct_1"] == pytest.approx(len(set(words)) / len(words), rel=5e-3)


def test_estimate_ends():
    assert estimate_distinct(0) == 0
    assert estimate_distinct(1) == 1
    assert estimate_distinct(BUCKETS) == estimate_distinct(BUCKETS - 1)  # full, yet finite


def test_buckets_are_the_same_in_every_process():
    """A pinned value: ranks and runs could not merge their bitmaps over Python's salted hash."""
    assert bucket("the 猫") == 399588


def test_batches_add_up():
    completions = ["a b c", "a b", "", "c c", "a b c"]
    prompts, lengths, ended = ["a b c"] * 5, [3, 2, 0, 2, 3], [True, False, True, True, False]
    metric = Guardrails()
    for part in (slice(0, 2), slice(2, 2), slice(2, 5)):
        metric.update(completions[part], prompts[part], lengths[part], ended[part])
    assert {name: value.item() for name, value in metric.compute().items()} == measure(
        completions, prompts, lengths, ended
    )


def test_accepts_tensors_of_lengths_and_flags():
    metric = Guardrails()
    metric.update(["a", "b"], ["", ""], torch.tensor([1, 4]), torch.tensor([True, False]))
    assert metric.compute()["length"].item() == 2.5
    assert metric.compute()["eos_rate"].item() == 0.5


def test_errors_and_no_rows():
    with pytest.raises(ValueError, match="2 completions, 1 prompts, 2 lengths and 2 ended"):
        Guardrails().update(["a", "b"], ["a"], [1, 1], [True, True])
    with pytest.raises(ValueError, match="copied_ngram"):
        Guardrails(copied_ngram=0)
    metric = Guardrails()
    metric.update([], [], [], [])
    assert all(math.isnan(value.item()) for value in metric.compute().values())


def test_length_reward_correlation():
    lengths, rewards = [3, 9, 4, 12, 7], [0.1, 0.5, 0.6, 0.3, 0.2]
    assert length_reward_correlation(lengths, rewards) == pytest.approx(statistics.correlation(lengths, rewards))
    assert length_reward_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert length_reward_correlation([1, 2, 3], [0.1, 0.1, 0.1]) == 0
    assert length_reward_correlation([5, 5], [1, 2]) == 0
    assert length_reward_correlation([5], [1]) == 0
    assert length_reward_correlation([], []) == 0
    with pytest.raises(ValueError, match="2 lengths but 1"):
        length_reward_correlation([1, 2], [1])
    with pytest.raises(ValueError, match="finite"):
        length_reward_correlation([1, 2], [1, math.nan])


def test_label_collapse():
    assert label_collapse(["a", "a", "a"]) == 1
    assert label_collapse(["a", "b", "b", "c"]) == 0.5
    assert label_collapse([None, None, "a"]) == pytest.approx(1 / 3)
    assert label_collapse([None]) == 0
    assert label_collapse([]) == 0


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("positive or negative", True),
        ("Positive, NEGATIVE.", True),
        ("positive", False),
        ("positive positive", False),
        ("not positive", False),
        ("positively negative", False),  # whole words
        ("very positive", False),  # the longest label only
        ("very positive or positive", True),
        ("", False),
    ],
)
def test_lists_several_labels(text, several):
    assert lists_several_labels(text, ["positive", "very positive", "negative"]) is several


def test_lists_several_labels_in_other_scripts():
    assert lists_several_labels("是积极还是消极", ["积极", "消极"]) is True
    assert lists_several_labels("这是积极的", ["积极", "消极"]) is False
    assert lists_several_labels("C or C++?", ["C", "C++"]) is True
    assert lists_several_labels("anything", []) is False


def test_relative_drift():
    assert relative_drift(15, 10) == pytest.approx(0.5)
    assert relative_drift(-5, -10) == pytest.approx(0.5)  # up is up
    assert relative_drift(0, 0) == 0
    assert relative_drift(-1, 0) == -math.inf


def test_negative_kl():
    assert negative_kl(0.0) is False
    assert negative_kl(-0.05) is False
    assert negative_kl(-0.05, tolerance=0.01) is True
    assert negative_kl(-1.0) is True
    assert negative_kl(math.nan) is True
