"""Exact match and token F1 for short answers, as SQuAD 1.1 and 2.0 score them, and as MLQA does for Chinese."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.metrics._shared import check_rows, from_fixed, ratio, scalar, to_fixed
from rlhf_lightning.metrics.words import is_cjk

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)

NO_ANSWER = "unanswerable"
"""The default text of the answer that there is none."""


def answer_tokens(text: str) -> list[str]:
    """The tokens by which answers are compared.

    Text without Chinese or Japanese characters: SQuAD's normalisation, which lowers case, deletes ASCII punctuation and
    the articles a, an and the, and splits at white space. Text with them: MLQA's for Chinese, which deletes the
    punctuation of every script, keeps articles and makes each such character a token.

    >>> answer_tokens("The U.S. Army!"), answer_tokens("在 iPhone 上。")
    (['us', 'army'], ['在', 'iphone', '上'])
    """
    text = text.lower()
    if not any(map(is_cjk, text)):
        text = "".join(char for char in text if char not in _ASCII_PUNCTUATION)
        return _ARTICLES.sub(" ", text).split()
    kept = (c for c in text if c not in _ASCII_PUNCTUATION and not unicodedata.category(c).startswith("P"))
    return "".join(f" {char} " if is_cjk(char) else char for char in kept).split()


def _f1(predicted: list[str], gold: list[str]) -> float:
    """The harmonic mean of precision and recall over two bags of tokens; an empty one matches only an empty one."""
    if not predicted or not gold:
        return float(predicted == gold)
    common = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * common / (len(predicted) + len(gold))


def _answer_sets(completion: str, references: Sequence[str], no_answer: str) -> tuple[list[str], list[list[str]]]:
    """The completion's tokens and those of each possible answer; no tokens stand for "there is no answer".

    As in SQuAD 2.0, references that give no answer do not count beside others that give one.
    """
    none = answer_tokens(no_answer)

    def tokens(text: str) -> list[str]:
        found = answer_tokens(text)
        return [] if found == none else found

    golds = [gold for gold in map(tokens, references) if gold]
    return tokens(completion), golds or [[]]


def exact_match(completion: str, references: Sequence[str], no_answer: str = NO_ANSWER) -> float:
    """1 if the completion equals one of the references after normalisation, else 0.

    Without references, or with ``no_answer`` as the only one, a question is unanswerable: then an empty completion and
    ``no_answer`` are right and everything else is wrong.

    >>> exact_match("The Eiffel Tower.", ["Eiffel Tower"]), exact_match("", []), exact_match("Paris", [])
    (1.0, 1.0, 0.0)
    """
    predicted, golds = _answer_sets(completion, references, no_answer)
    return float(predicted in golds)


def token_f1(completion: str, references: Sequence[str], no_answer: str = NO_ANSWER) -> float:
    """Token overlap (F1, 0 to 1) with the closest reference. Unanswerable questions: as :func:`exact_match`.

    >>> token_f1("in Paris, France", ["Paris"])
    0.5
    """
    predicted, golds = _answer_sets(completion, references, no_answer)
    return max(_f1(predicted, gold) for gold in golds)


class ExactMatch(Metric):
    """The share of completions equal to one of their references after SQuAD's normalisation, 0 to 1.

    Source: Rajpurkar et al. 2016 and 2018 (SQuAD 1.1, 2.0); Lewis et al. 2020 (MLQA) for Chinese. See
    :func:`exact_match` and :func:`answer_tokens`.

    Args:
        no_answer: The text that says that a question cannot be answered.

    >>> metric = ExactMatch()
    >>> metric.update(["the Nile", "unanswerable"], [["Nile", "River Nile"], []])
    >>> metric.compute().item()
    1.0
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True

    matches: Tensor
    rows: Tensor

    def __init__(self, no_answer: str = NO_ANSWER) -> None:
        super().__init__()
        self.no_answer = no_answer
        self.add_state("matches", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Add rows; a row without references is an unanswerable question.

        Raises:
            ValueError: The lengths differ, or a row is not a list of texts; the message names its index.
        """
        check_rows(completions, references, reference_needed=False)
        pairs = zip(completions, references, strict=True)
        self.matches += int(sum(exact_match(text, row, self.no_answer) for text, row in pairs))
        self.rows += len(completions)

    def compute(self) -> Tensor:
        """The share over all rows on all ranks; NaN when there is none."""
        return scalar(ratio(int(self.matches), int(self.rows)), self.device)


class TokenF1(Metric):
    """The mean token overlap (F1) of completions with their closest reference, 0 to 1, as SQuAD computes it.

    Sources and argument: those of :class:`ExactMatch`. See :func:`token_f1`.

    >>> metric = TokenF1()
    >>> metric.update(["in Paris, France", "北京市"], [["Paris"], ["北京"]])
    >>> round(metric.compute().item(), 2)
    0.65
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True

    f1_sum: Tensor
    rows: Tensor

    def __init__(self, no_answer: str = NO_ANSWER) -> None:
        super().__init__()
        self.no_answer = no_answer
        self.add_state("f1_sum", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Add rows; a row without references is an unanswerable question.

        Raises:
            ValueError: The lengths differ, or a row is not a list of texts; the message names its index.
        """
        check_rows(completions, references, reference_needed=False)
        pairs = zip(completions, references, strict=True)
        self.f1_sum += sum(to_fixed(token_f1(text, row, self.no_answer)) for text, row in pairs)
        self.rows += len(completions)

    def compute(self) -> Tensor:
        """The mean over all rows on all ranks; NaN when there is none."""
        return scalar(ratio(from_fixed(int(self.f1_sum)), int(self.rows)), self.device)
