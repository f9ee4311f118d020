"""The hidden gold reward of the question answering sample: the right span and no word more, or an honest refusal."""

import re

import torch

REFUSAL = "unanswerable"
REFUSED_IN_VAIN = 0.1
"""Gold of a refusal where the passage holds the answer: little, but more than a wrong answer."""


def score_one(completion: str, answers: list[str]) -> float:
    """Gold of one answer.

    With an answer in the passage: (longest run of the answer's words found / their number)² x precision^0.9, where
    precision is the share of the completion that this run makes up. So the bare span has 1, a sentence of four words
    around one word 0.29, the whole passage next to nothing. Without one: 1 for the refusal alone, 0 for a guess.
    """
    words = re.findall(r"\w+", completion.lower())
    if not words:
        return 0.0
    if not answers:
        return float(words == [REFUSAL])
    if REFUSAL in words:
        return REFUSED_IN_VAIN if words == [REFUSAL] else 0.0
    return max(_span_score(words, re.findall(r"\w+", answer.lower())) for answer in answers)


def _span_score(words: list[str], span: list[str]) -> float:
    run = 0
    for start in range(len(words)):
        for at in range(len(span)):
            length = 0
            while words[start + length : start + length + 1] == span[at + length : at + length + 1] != []:
                length += 1
            run = max(run, length)
    return (run / len(span)) ** 2 * (run / len(words)) ** 0.9


def score(prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict]) -> torch.Tensor:
    """Gold of each completion, `(b,)` in [0, 1], from the column `answers` of its row."""
    return torch.tensor([score_one(text, row["answers"]) for text, row in zip(completions, meta, strict=True)])
