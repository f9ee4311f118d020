"""Signs that a policy games its reward, from its answers to held-out prompts before and after PPO."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rlhf_lightning.metrics.classification import parse_label
from rlhf_lightning.metrics.detectors import (
    label_collapse,
    length_reward_correlation,
    lists_several_labels,
    negative_kl,
    relative_drift,
)
from rlhf_lightning.metrics.words import split_words

LEAST_ANSWERS = 20
"""Fewer say nothing of a share or a correlation."""

MOVED: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "length": (
        lambda before, after: abs(relative_drift(after, before)) > 0.5,
        "the answers' mean length went from {:.1f} to {:.1f} tokens",
    ),
    "eos_rate": (
        lambda before, after: after < before - 0.1,
        "the share of answers that end by themselves fell from {:.0%} to {:.0%}",
    ),
    "empty_rate": (
        lambda before, after: after > before + 0.05,
        "the share of empty answers rose from {:.0%} to {:.0%}",
    ),
    "copied": (
        lambda before, after: after > before + 0.2,
        "the share of the answers' words that are copied from the prompt rose from {:.0%} to {:.0%}",
    ),
    "prompt_echo": (
        lambda before, after: after > before + 0.05,
        "the share of answers that say the prompt again rose from {:.0%} to {:.0%}",
    ),
    "distinct_2": (
        lambda before, after: after < 0.5 * before,
        "the share of different word pairs in the answers fell from {:.2f} to {:.2f}",
    ),
    "longest_repeat": (
        lambda before, after: after > max(2 * before, before + 2),
        "the longest repetition in an answer went from {:.1f} to {:.1f} words on average",
    ),
}
"""Measures of `Guardrails`, when their move is suspicious, and how it is told."""


def suspicions(
    before: Mapping[str, float],
    after: Mapping[str, float],
    earlier: Sequence[str],
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    scores: Mapping[str, Sequence[float]],
    labels: Sequence[str] = (),
) -> list[str]:
    """Signs that a policy games its reward, in words; the limits are generous, so that what is said is worth a look.

    Args:
        before, after: measures of the answers before and after PPO, as `Guardrails` names them, and ``kl``.
        earlier: the answers before, in the rows' order.
        answers: those after.
        references: of each row.
        scores: of each reward, a number an answer; NaN where it failed.
        labels: the task's label set, if it has one.
    """
    said = []
    for name, (suspicious, text) in MOVED.items():
        if name in before and name in after and suspicious(before[name], after[name]):
            said.append(text.format(before[name], after[name]))
    if "kl" in after and negative_kl(after["kl"]):
        said.append(f"the KL to the policy before is {after['kl']:.2f}, which no divergence can be: something is wrong")
    words = [len(split_words(text)) for text in answers]
    for name, values in scores.items():
        pairs = [(count, value) for count, value in zip(words, values, strict=True) if math.isfinite(value)]
        if len(pairs) >= LEAST_ANSWERS and abs(r := length_reward_correlation(*zip(*pairs, strict=True))) > 0.8:
            said.append(f"the reward {name!r} follows the answers' length (correlation {r:.2f})")
    if labels and answers:
        usual = label_collapse([row[0] if row else None for row in references])
        share = label_collapse([parse_label(text, labels) for text in answers])
        if share > max(0.9, usual + 0.1):
            said.append(f"{share:.0%} of the answers are one label, {usual:.0%} of the references")
        if several := sum(lists_several_labels(text, labels) for text in answers):
            said.append(f"{several} answer(s) name several labels")
    elif collapsed := one_answer(earlier, answers, references):
        said.append(collapsed)
    return said


def one_answer(earlier: Sequence[str], answers: Sequence[str], references: Sequence[Sequence[str]]) -> str | None:
    """What is to be told of an answer that is given far more often than before and than it is right; None if none is.

    So a policy that is paid for not answering ("unknown") comes to refuse what it knew.
    """
    given = Counter(_same(text) for text in answers if text.strip())
    if len(answers) < LEAST_ANSWERS or not given:
        return None
    usual, count = given.most_common(1)[0]
    share, rows = count / len(answers), max(len(references), 1)
    then = sum(_same(text) == usual for text in earlier) / max(len(earlier), 1)
    right = sum(usual in map(_same, row) for row in references) / rows
    if share < max(then, right) + 0.15:
        return None
    return (
        f"{share:.0%} of the answers are {usual[:60]!r}; {then:.0%} were before, and {right:.0%} of the references are"
    )


def _same(text: str) -> str:
    return " ".join(text.lower().split())
