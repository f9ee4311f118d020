"""BLEU, chrF and TER as sacrebleu computes them, over any number of batches and processes.

These scores are not means over rows: each is a formula over statistics summed over the corpus. The metrics keep those
sums, so the result is the one of a single ``corpus_score`` over all rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import sacrebleu
import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.metrics._shared import check_rows, from_fixed, scalar, to_fixed

_NO_COUNT = 2**31


def _streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """References by row in sacrebleu's form: the first one of every row, the second, ..., None for a missing one."""
    return [list(stream) for stream in zip_longest(*references)]


class _SacreBLEUMetric(Metric):
    """The part that BLEU, ChrF and TER share: summed statistics, and the reference counts that the signature names."""

    is_differentiable = False
    full_state_update = False

    sums: Tensor
    rows: Tensor
    fewest_references: Tensor
    most_references: Tensor

    def __init__(self, scorer: sacrebleu.BLEU | sacrebleu.CHRF | sacrebleu.TER, statistics: int) -> None:
        super().__init__()
        self._scorer: Any = scorer
        self._corpus_references: int | None = None
        self.add_state("sums", torch.zeros(statistics, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("fewest_references", torch.tensor(_NO_COUNT), dist_reduce_fx="min")
        self.add_state("most_references", torch.tensor(0), dist_reduce_fx="max")

    @abstractmethod
    def _statistics(self, completions: list[str], streams: list[list[Any]]) -> list[int]:
        """What is summed over the corpus: the counts of some rows, whose references are in sacrebleu's form."""

    @abstractmethod
    def _score(self, sums: list[int]) -> float:
        """The score of a corpus with these counts."""

    def update(self, completions: list[str], references: list[list[str]]) -> None:
        """Add rows.

        Args:
            completions: One text a row.
            references: One or more references a row; rows may have different numbers of them.

        Raises:
            ValueError: The lengths differ or a row has no reference; the message names its index.
        """
        check_rows(completions, references)
        if not completions:
            return
        statistics = self._statistics(list(completions), _streams(references))
        counts = [len(row) for row in references]
        self.sums += torch.tensor(statistics, dtype=torch.int64, device=self.sums.device)
        self.rows += len(completions)
        self.fewest_references.clamp_(max=min(counts))
        self.most_references.clamp_(min=max(counts))

    def compute(self) -> Tensor:
        """The score of all rows on all ranks; NaN when there is none."""
        if not self.rows:
            return scalar(float("nan"), self.device)
        fewest, most = int(self.fewest_references), int(self.most_references)
        self._corpus_references = most if fewest == most else -1  # -1: sacrebleu's "varies"
        return scalar(self._score(self.sums.tolist()), self.device)

    def signature(self) -> str:
        """Sacrebleu's signature (references, options, version) of the corpus that :meth:`compute` saw last.

        Two scores are comparable only if their signatures are equal.

        Raises:
            RuntimeError: Nothing was computed yet, so the number of references is unknown.
        """
        if self._corpus_references is None:
            raise RuntimeError("the signature names the number of references: call compute() first")
        self._scorer.num_refs = self._corpus_references
        return str(self._scorer.get_signature())


class BLEU(_SacreBLEUMetric):
    """BLEU of a corpus on sacrebleu's scale, 0 to 100, equal to ``sacrebleu.BLEU(...).corpus_score``.

    Source: Papineni et al. 2002; Post 2018 (sacrebleu). torchmetrics' own SacreBLEUScore differs: it has no "exp"
    smoothing and resolves ties between reference lengths otherwise.

    Args:
        tokenize: One of sacrebleu's tokenizers: "13a" for languages with spaces, "zh" for Chinese, "char", "intl", ...
        lowercase: Ignore case.
        smooth_method: For n-gram orders without a match: "exp", "floor", "add-k" or "none".
        smooth_value: The constant of "floor" and "add-k"; None: sacrebleu's (0.1 and 1).

    Raises:
        ValueError: Unknown tokenizer or smoothing method.

    >>> metric = BLEU()
    >>> metric.update(["the cat sat on the mat"], [["the cat sat on the mat", "a cat sat there"]])
    >>> metric.update(["a dog barked loudly"], [["a dog barked"]])
    >>> round(metric.compute().item(), 2)
    83.76
    """

    higher_is_better = True

    def __init__(
        self,
        tokenize: str = "13a",
        lowercase: bool = False,
        smooth_method: str = "exp",
        smooth_value: float | None = None,
    ) -> None:
        _check_tokenizer(tokenize)
        if smooth_method not in sacrebleu.BLEU.SMOOTH_DEFAULTS:
            known = ", ".join(sacrebleu.BLEU.SMOOTH_DEFAULTS)
            raise ValueError(f"smooth_method={smooth_method!r} is unknown to sacrebleu, which has {known}")
        scorer = sacrebleu.BLEU(
            lowercase=lowercase, force=True, tokenize=tokenize, smooth_method=smooth_method, smooth_value=smooth_value
        )
        super().__init__(scorer, statistics=2 + 2 * scorer.max_ngram_order)
        # Counts without smoothing: "add-k" adds its constant to the counts that it reports, so that sums over batches
        # would hold it several times.
        self._counter = sacrebleu.BLEU(lowercase=lowercase, force=True, tokenize=tokenize, smooth_method="none")

    def _statistics(self, completions: list[str], streams: list[list[Any]]) -> list[int]:
        counted = self._counter.corpus_score(completions, streams)
        return [counted.sys_len, counted.ref_len, *counted.counts, *counted.totals]

    def _score(self, sums: list[int]) -> float:
        scorer: sacrebleu.BLEU = self._scorer
        orders = scorer.max_ngram_order
        return scorer.compute_bleu(
            correct=sums[2 : 2 + orders],
            total=sums[2 + orders :],
            sys_len=sums[0],
            ref_len=sums[1],
            smooth_method=scorer.smooth_method,
            smooth_value=scorer.smooth_value,
        ).score


class ChrF(_SacreBLEUMetric):
    """ChrF of a corpus on sacrebleu's scale, 0 to 100, equal to ``sacrebleu.CHRF(...).corpus_score``.

    An F2 score over character n-grams up to 6; it needs no tokenizer and serves every script. Source: Popović 2015 and
    2017 (chrF++); sacrebleu.

    Args:
        word_order: Longest word n-gram that counts as well: 0 gives chrF, 2 gives chrF++.
        lowercase: Ignore case.

    Raises:
        ValueError: word_order is negative.

    >>> metric = ChrF()
    >>> metric.update(["the cat sat"], [["the cat sat down"]])
    >>> round(metric.compute().item(), 2)
    66.02
    """

    higher_is_better = True

    def __init__(self, word_order: int = 0, lowercase: bool = False) -> None:
        if word_order < 0:
            raise ValueError(f"word_order={word_order} is negative")
        scorer = sacrebleu.CHRF(word_order=word_order, lowercase=lowercase)
        super().__init__(scorer, statistics=3 * (scorer.char_order + word_order))

    # sacrebleu shows chrF's statistics through no public name. The two methods below have been its own seam between
    # counting and scoring since 2.0; tests compare them with corpus_score.
    def _statistics(self, completions: list[str], streams: list[list[Any]]) -> list[int]:
        by_row = self._scorer._extract_corpus_statistics(completions, streams)
        return [sum(column) for column in zip(*by_row, strict=True)]

    def _score(self, sums: list[int]) -> float:
        return self._scorer._compute_score_from_stats(sums).score


class TER(_SacreBLEUMetric):
    """Translation edit rate of a corpus in percent, equal to ``sacrebleu.TER(...).corpus_score``: lower is better.

    Edits (insert, delete, substitute a word, shift a run of words) over the mean reference length; above 100 when a
    text needs more edits than its reference has words. Slow on long texts unlike their references: sacrebleu's search
    for shifts takes seconds for 200 words. Source: Snover et al. 2006; sacrebleu.

    Args:
        normalized: Tokenize as tercom does, else words are what stands between spaces.
        no_punct: Drop punctuation.
        asian_support: With ``normalized``, split Chinese and Japanese into characters.
        case_sensitive: Distinguish upper and lower case.

    >>> metric = TER()
    >>> metric.update(["a cat sat on the mat"], [["the cat sat on the mat"]])
    >>> round(metric.compute().item(), 2)
    16.67
    """

    higher_is_better = False

    def __init__(
        self,
        normalized: bool = False,
        no_punct: bool = False,
        asian_support: bool = False,
        case_sensitive: bool = False,
    ) -> None:
        super().__init__(sacrebleu.TER(normalized, no_punct, asian_support, case_sensitive), statistics=2)

    def _statistics(self, completions: list[str], streams: list[list[Any]]) -> list[int]:
        counted = self._scorer.corpus_score(completions, streams)
        # A row's reference length is a mean over its references, so not a whole number.
        return [int(counted.num_edits), to_fixed(counted.ref_length)]

    def _score(self, sums: list[int]) -> float:
        edits, reference_length = sums[0], from_fixed(sums[1])
        if reference_length > 0:
            return 100 * edits / reference_length
        # sacrebleu's convention where every reference is empty: right only if every completion is empty too.
        return 100.0 if edits > 0 else 0.0


def _check_tokenizer(tokenize: str) -> None:
    if tokenize not in sacrebleu.BLEU.TOKENIZERS:
        known = ", ".join(sorted(sacrebleu.BLEU.TOKENIZERS))
        raise ValueError(f"tokenize={tokenize!r} is unknown to sacrebleu, which has {known}")


# One scorer for each set of options: a reward scores many single rows, and a tokenizer is costly to build.
@lru_cache(maxsize=16)
def _sentence_bleu_scorer(tokenize: str, lowercase: bool) -> sacrebleu.BLEU:
    _check_tokenizer(tokenize)
    return sacrebleu.BLEU(lowercase=lowercase, force=True, tokenize=tokenize, effective_order=True)


@lru_cache(maxsize=16)
def _sentence_chrf_scorer(word_order: int, lowercase: bool) -> sacrebleu.CHRF:
    return sacrebleu.CHRF(word_order=word_order, lowercase=lowercase)


@lru_cache(maxsize=16)
def _sentence_ter_scorer(normalized: bool, no_punct: bool, asian_support: bool, case_sensitive: bool) -> sacrebleu.TER:
    return sacrebleu.TER(normalized, no_punct, asian_support, case_sensitive)


def sentence_bleu(completion: str, references: Sequence[str], tokenize: str = "13a", lowercase: bool = False) -> float:
    """BLEU of one text, 0 to 100: sacrebleu's sentence score, with exp smoothing and effective order.

    Raises:
        ValueError: There is no reference, or the tokenizer is unknown.

    >>> round(sentence_bleu("the cat sat", ["the cat sat down"]), 2)
    71.65
    """
    check_rows([completion], [references])
    return _sentence_bleu_scorer(tokenize, lowercase).sentence_score(completion, references).score


def sentence_chrf(completion: str, references: Sequence[str], word_order: int = 0, lowercase: bool = False) -> float:
    """ChrF of one text, 0 to 100: sacrebleu's sentence score, the best over the references.

    Raises:
        ValueError: There is no reference.
    """
    check_rows([completion], [references])
    return _sentence_chrf_scorer(word_order, lowercase).sentence_score(completion, references).score


def sentence_ter(
    completion: str,
    references: Sequence[str],
    normalized: bool = False,
    no_punct: bool = False,
    asian_support: bool = False,
    case_sensitive: bool = False,
) -> float:
    """Translation edit rate of one text in percent, 0 or more, lower is better: sacrebleu's sentence score.

    Raises:
        ValueError: There is no reference.
    """
    check_rows([completion], [references])
    scorer = _sentence_ter_scorer(normalized, no_punct, asian_support, case_sensitive)
    return scorer.sentence_score(completion, references).score
