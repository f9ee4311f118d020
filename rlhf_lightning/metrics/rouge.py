"""ROUGE as rouge_score computes it, for every script and without downloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.metrics._shared import check_rows, from_fixed, ratio, scalar, to_fixed
from rlhf_lightning.metrics.words import WordTokenizer, split_sentences

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Tokenizer(Protocol):
    """What rouge_score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        ...


def _scorer(kinds: tuple[str, ...], tokenizer: str | Tokenizer | None, use_stemmer: bool) -> RougeScorer:
    """The package's scorer over the chosen tokenizer; see :class:`ROUGE` for the arguments."""
    from rouge_score.rouge_scorer import RougeScorer  # here: it loads nltk, which most tasks don't need

    unknown = set(kinds) - set(ROUGE_KINDS)
    if unknown:
        raise ValueError(f"unknown kind of ROUGE: {sorted(unknown)}; there are {', '.join(ROUGE_KINDS)}")
    if tokenizer is None:
        return RougeScorer(kinds, tokenizer=WordTokenizer(use_stemmer))
    if tokenizer == "rouge_score":
        return RougeScorer(kinds, use_stemmer=use_stemmer)
    if isinstance(tokenizer, str):
        raise ValueError(f"tokenizer={tokenizer!r}: give None, 'rouge_score' or an object with tokenize(text)")
    if use_stemmer:
        raise ValueError("use_stemmer is an option of the two built-in tokenizers: stem inside of your own")
    return RougeScorer(kinds, tokenizer=tokenizer)


def _one_sentence_a_line(text: str) -> str:
    """The form in which rougeLsum finds sentences. Only white space changes, so the other kinds score the same."""
    return "\n".join(split_sentences(text))


def _f_measures(completion: str, references: Sequence[str], scorer: RougeScorer, sentences: bool) -> dict[str, float]:
    """F-measure of each kind, the best over the references for each kind on its own (rouge_score's score_multi)."""
    if sentences:
        completion, references = _one_sentence_a_line(completion), [_one_sentence_a_line(r) for r in references]
    return {kind: float(score.fmeasure) for kind, score in scorer.score_multi(references, completion).items()}


class ROUGE(Metric):
    """Mean ROUGE F-measures of a corpus, 0 to 1, under rouge_score's names: rouge1, rouge2, rougeL, rougeLsum.

    With several references a row counts with the best of them for each kind. Source: Lin 2004; the rouge_score package
    does the scoring. torchmetrics' own ROUGEScore keeps lists as states, which deadlocks ranks that update unequally.

    Args:
        tokenizer: None: words of any script, each Chinese or Japanese character a word; equal to rouge_score on ASCII
            text (see :class:`~rlhf_lightning.metrics.words.WordTokenizer`). "rouge_score": the package's own, which
            drops every non-ASCII letter. Or any object with ``tokenize(text) -> list[str]``.
        use_stemmer: Reduce English words to their stems.
        sentences: Split texts into sentences for rougeLsum by punctuation (rules, no download). False: a sentence is a
            line, as rouge_score has it.

    Raises:
        ValueError: An unknown tokenizer, or the stemmer together with a tokenizer of one's own.

    >>> metric = ROUGE()
    >>> metric.update(["the cat sat", "猫坐着"], [["the cat sat down"], ["猫坐着", "猫在睡"]])
    >>> {kind: round(score.item(), 3) for kind, score in metric.compute().items()}
    {'rouge1': 0.929, 'rouge2': 0.9, 'rougeL': 0.929, 'rougeLsum': 0.929}
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True

    f_measures: Tensor
    rows: Tensor

    def __init__(
        self, tokenizer: str | Tokenizer | None = None, use_stemmer: bool = False, sentences: bool = False
    ) -> None:
        super().__init__()
        self.sentences = sentences
        self._scorer = _scorer(ROUGE_KINDS, tokenizer, use_stemmer)
        self.add_state("f_measures", torch.zeros(len(ROUGE_KINDS), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Add rows.

        Args:
            completions: One text a row.
            references: One or more references a row.

        Raises:
            ValueError: The lengths differ or a row has no reference; the message names its index.
        """
        check_rows(completions, references)
        for completion, row in zip(completions, references, strict=True):
            scores = _f_measures(completion, row, self._scorer, self.sentences)
            fixed = [to_fixed(scores[kind]) for kind in ROUGE_KINDS]
            self.f_measures += torch.tensor(fixed, dtype=torch.int64, device=self.f_measures.device)
        self.rows += len(completions)

    def compute(self) -> dict[str, Tensor]:
        """The means over all rows on all ranks; NaN when there is none."""
        rows = int(self.rows)
        return {
            kind: scalar(ratio(from_fixed(total), rows), self.device)
            for kind, total in zip(ROUGE_KINDS, self.f_measures.tolist(), strict=True)
        }


def sentence_rouge(
    completion: str,
    references: Sequence[str],
    kind: str = "rougeL",
    tokenizer: str | Tokenizer | None = None,
    use_stemmer: bool = False,
    sentences: bool = False,
) -> float:
    """ROUGE F-measure of one text, 0 to 1, the best over its references. The arguments are those of :class:`ROUGE`.

    Raises:
        ValueError: There is no reference, or an option is unknown.

    >>> round(sentence_rouge("the cat sat", ["the cat sat down"], kind="rouge2"), 2)
    0.8
    """
    check_rows([completion], [references])
    return _f_measures(completion, references, _scorer((kind,), tokenizer, use_stemmer), sentences)[kind]
