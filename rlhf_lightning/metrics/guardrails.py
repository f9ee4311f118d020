"""Measures that show how a policy games its reward: length, repetition, copying, loss of diversity.

None of them is better high or low. Compare them with their values before PPO.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from rlhf_lightning.metrics._shared import from_fixed, ratio, scalar, to_fixed
from rlhf_lightning.metrics.words import split_sentences, split_words

BUCKETS = 2**20
"""Size of the bitmaps that count distinct things: 1 MiB each."""

ECHO_TAIL = 8
"""A completion that holds this many words from the prompt's end echoes it."""

ECHO_SENTENCE = 3
"""A shorter last sentence ("Answer:") says nothing when a completion begins with it."""


def bucket(text: str) -> int:
    """The bitmap's bucket of a text. Equal on every rank and in every run, which Python's own hash is not."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def estimate_distinct(filled: int) -> int:
    """How many distinct things fill this many of the buckets: ``-m ln(1 - filled / m)``, rounded.

    Linear counting (Whang et al. 1990). Exact for few things, but for chance collisions; the standard error is below
    0.1 % up to 10^6 distinct things and about 1 % at 8 * 10^6. Above that the bitmap is full and the estimate too low.

    >>> estimate_distinct(3), estimate_distinct(BUCKETS // 2)
    (3, 726817)
    """
    return round(-BUCKETS * math.log1p(-min(filled, BUCKETS - 1) / BUCKETS))


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order."""
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def longest_repeat(words: Sequence[str]) -> int:
    """Words in the longest stretch that is one n-gram two or more times in a row; 0 if none follows itself.

    Any n counts, and whole repetitions only: of "a b a b a" the stretch is "a b a b".

    >>> longest_repeat("so very very very good".split()), longest_repeat("a b a b a".split())
    (3, 4)
    """
    ids: dict[str, int] = {}
    text = np.array([ids.setdefault(word, len(ids)) for word in words], dtype=np.int64)
    longest = 0
    for period in range(1, len(text) // 2 + 1):
        if longest >= len(text) // period * period:
            continue  # no stretch of this period could be longer
        differs = np.flatnonzero(text[period:] != text[:-period])
        # Where words equal those one period before on r >= period places in a row, the n-gram stands r // period + 1
        # times in a row.
        run = int(np.diff(differs, prepend=-1, append=len(text) - period).max()) - 1
        if run >= period:
            longest = max(longest, (run // period + 1) * period)
    return longest


def copied_share(completion: Sequence[str], prompt: Sequence[str], n: int = 3) -> float:
    """The share of a completion's words that lie in a fragment of n or more words which the prompt holds; 0 to 1.

    The coverage of Grusky et al. 2018 (Newsroom) without the shorter fragments, which chance brings about. 0 for a
    completion without words.

    >>> copied_share("we saw the old grey cat".split(), "the old grey cat slept".split())
    0.6666666666666666
    """
    known = set(ngrams(prompt, n))
    # A word lies in a copied fragment of n or more words exactly if it lies in a copied n-gram.
    copied = {i + k for i, gram in enumerate(ngrams(completion, n)) if gram in known for k in range(n)}
    return len(copied) / len(completion) if completion else 0.0


def echoes_prompt(completion: str, prompt: str) -> bool:
    """Whether a completion says the prompt's end again.

    It does if it begins with the prompt's last sentence (of three words or more), or if it holds, anywhere, the last
    eight words of a prompt that has as many. Words are compared without case and punctuation.

    >>> echoes_prompt("What is the capital? It is Rome.", "Italy is old. What is the capital?")
    True
    >>> echoes_prompt("Rome is the capital.", "Italy is old. What is the capital?")
    False
    """
    words, prompt_words = split_words(completion), split_words(prompt)
    sentences = [found for found in map(split_words, split_sentences(prompt)) if found]
    last = sentences[-1] if sentences else []
    if len(last) >= ECHO_SENTENCE and words[: len(last)] == last:
        return True
    return len(prompt_words) >= ECHO_TAIL and tuple(prompt_words[-ECHO_TAIL:]) in ngrams(words, ECHO_TAIL)


class Guardrails(Metric):
    """Measures of a policy's completions that a rising reward should not move far.

    Words are those of :func:`~rlhf_lightning.metrics.words.split_words`: lower case, no punctuation, every Chinese or
    Japanese character a word. :meth:`compute` gives a dict of

    - ``length``: mean number of tokens, from ``lengths``;
    - ``eos_rate``: share of completions that ended by themselves;
    - ``empty_rate``: share of completions without text;
    - ``distinct_1``, ``distinct_2``: distinct n-grams over all n-grams of the corpus (Li et al. 2016); NaN where there
      is no n-gram. It falls as a corpus grows, so compare corpora of equal size;
    - ``longest_repeat``: mean of :func:`longest_repeat`; here punctuation marks are words too, since a policy that
      collapses often repeats a mark;
    - ``copied``: mean of :func:`copied_share` with respect to the prompt;
    - ``prompt_echo``: share of completions that say the prompt's end again (:func:`echoes_prompt`);
    - ``duplicates``: share of completions that an equal one makes superfluous: 1 - distinct / all, so n equal ones give
      (n - 1) / n.

    All but the first are 0 to 1, or words. Distinct n-grams and completions are estimated from bitmaps, which ranks can
    merge; see :func:`estimate_distinct` for the error. Without rows every value is NaN.

    Args:
        copied_ngram: Words of the shortest fragment that counts as copied.

    Raises:
        ValueError: copied_ngram is not positive.

    >>> metric = Guardrails()
    >>> metric.update(["no no no", "a cat"], prompts=["Hi?", "A cat?"], lengths=[4, 3], ended=[True, False])
    >>> {name: round(value.item(), 2) for name, value in metric.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
    {'length': 3.5, 'eos_rate': 0.5, 'empty_rate': 0.0, 'longest_repeat': 1.5, 'copied': 0.0, 'prompt_echo': 0.0,
     'distinct_1': 0.6, 'distinct_2': 0.67, 'duplicates': 0.0}
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = None

    rows: Tensor
    tokens: Tensor
    ended: Tensor
    empty: Tensor
    repeated: Tensor
    copied: Tensor
    echoes: Tensor
    unigrams: Tensor
    bigrams: Tensor
    seen_unigrams: Tensor
    seen_bigrams: Tensor
    seen_completions: Tensor

    def __init__(self, copied_ngram: int = 3) -> None:
        super().__init__()
        if copied_ngram < 1:
            raise ValueError(f"copied_ngram={copied_ngram} has to be 1 or more")
        self.copied_ngram = copied_ngram
        for state in ("rows", "tokens", "ended", "empty", "repeated", "copied", "echoes", "unigrams", "bigrams"):
            self.add_state(state, torch.tensor(0), dist_reduce_fx="sum")
        for state in ("seen_unigrams", "seen_bigrams", "seen_completions"):
            self.add_state(state, torch.zeros(BUCKETS, dtype=torch.uint8), dist_reduce_fx="max")

    def update(
        self,
        completions: list[str],
        prompts: list[str],
        lengths: Sequence[int] | Tensor,
        ended: Sequence[bool] | Tensor,
    ) -> None:
        """Add rows.

        Args:
            completions: The policy's texts.
            prompts: What they answer, as plain text.
            lengths: Tokens of each completion.
            ended: Whether each completion ended with an end-of-sequence token.

        Raises:
            ValueError: The four lists differ in length.
        """
        sizes = {len(completions), len(prompts), len(lengths), len(ended)}
        if len(sizes) > 1:
            raise ValueError(
                f"{len(completions)} completions, {len(prompts)} prompts, {len(lengths)} lengths and {len(ended)} "
                "ended flags: give one of each a row"
            )
        self.rows += len(completions)
        self.tokens += sum(int(length) for length in lengths)
        self.ended += sum(bool(flag) for flag in ended)
        self.empty += sum(not text.strip() for text in completions)
        self.repeated += sum(longest_repeat(split_words(text, punctuation=True)) for text in completions)
        self.echoes += sum(echoes_prompt(text, prompt) for text, prompt in zip(completions, prompts, strict=True))

        words = [split_words(text) for text in completions]
        shares = (copied_share(w, split_words(p), self.copied_ngram) for w, p in zip(words, prompts, strict=True))
        self.copied += sum(to_fixed(share) for share in shares)

        unigrams = [word for row in words for word in row]
        bigrams = [" ".join(pair) for row in words for pair in ngrams(row, 2)]
        self.unigrams += len(unigrams)
        self.bigrams += len(bigrams)
        _mark(self.seen_unigrams, unigrams)
        _mark(self.seen_bigrams, bigrams)
        _mark(self.seen_completions, (text.strip() for text in completions))

    def compute(self) -> dict[str, Tensor]:
        """The measures of all rows on all ranks."""
        rows = int(self.rows)
        values = {
            "length": ratio(int(self.tokens), rows),
            "eos_rate": ratio(int(self.ended), rows),
            "empty_rate": ratio(int(self.empty), rows),
            "longest_repeat": ratio(int(self.repeated), rows),
            "copied": ratio(from_fixed(int(self.copied)), rows),
            "prompt_echo": ratio(int(self.echoes), rows),
            "distinct_1": _distinct_share(self.seen_unigrams, int(self.unigrams)),
            "distinct_2": _distinct_share(self.seen_bigrams, int(self.bigrams)),
            "duplicates": 1 - _distinct_share(self.seen_completions, rows),
        }
        return {name: scalar(value, self.device) for name, value in values.items()}


def _mark(bitmap: Tensor, texts: Iterable[str]) -> None:
    """Set the bucket of every text."""
    buckets = [bucket(text) for text in set(texts)]
    bitmap[torch.tensor(buckets, dtype=torch.int64, device=bitmap.device)] = 1


def _distinct_share(bitmap: Tensor, total: int) -> float:
    """Distinct things that a bitmap saw, over all of them."""
    return ratio(min(estimate_distinct(int(bitmap.count_nonzero())), total), total)
