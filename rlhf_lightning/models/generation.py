"""How completions are drawn, and what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        greedy: always the most likely token; the rest is then unused.
        temperature: what logits are divided by.
        top_k: draw among the k most likely; 0 is all. Truncated sampling makes KL estimates wrong: not for training.
        top_p: draw among the most likely that together have this probability; 1 is all.
        seed: of the draws.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


class Completions(NamedTuple):
    """What a model answered to b prompts.

    Attributes:
        texts: decoded, without special tokens.
        ids: (b, r) int64, padded on the right; for a classifier (b, 1), the label's index.
        mask: (b, r) bool, true up to and including the first end-of-sequence token.
        ended: (b,) bool, whether there is one.
        logprobs: (b, r) of the tokens at the sampling temperature, where they were had on the way; else None.
        values: (b, r) of the states in which they were drawn, likewise.
    """

    texts: list[str]
    ids: Tensor
    mask: Tensor
    ended: Tensor
    logprobs: Tensor | None = None
    values: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """(b,) tokens of each completion, the end-of-sequence token included."""
        return self.mask.sum(1)


def mask_after_end(ids: Tensor, eos_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens belong to a response: those up to and including its first end-of-sequence token.

    Args:
        ids: (b, r).
        eos_ids: (e,) the ids that end a response.

    Returns:
        ``mask (b, r)`` and ``ended (b,)``, both bool.
    """
    is_end = torch.isin(ids, eos_ids)
    ends_before = is_end.long().cumsum(1) - is_end.long()
    return ends_before == 0, is_end.any(1)


def uniforms(ids: Sequence[int], width: int, seed: int, turn: int = 0) -> Tensor:
    """The random numbers that rows are sampled with: they follow from seed, turn and row alone.

    So a row is answered alike whatever shares its batch, on whichever rank, before or after an interruption.

    Args:
        ids: of the b rows; a row that occurs again in a batch gets other numbers than before.
        width: numbers a row.
        seed: of all.
        turn: which time the rows are answered.

    Returns:
        (b, width) float64 in [0, 1).
    """
    drawn = np.empty((len(ids), width))
    for i, entropy in enumerate(row_entropy(ids, seed, turn)):
        drawn[i] = np.random.default_rng(entropy).random(width)
    return torch.from_numpy(drawn)


def placed(u: Tensor, device: torch.device) -> Tensor:
    """Random numbers on the device that uses them; on Apple's, which has no float64, rounded to float32 below 1."""
    return u.float().clamp(max=1 - 2**-24).to(device) if device.type == "mps" else u.to(device)


def row_entropy(ids: Sequence[int], seed: int, turn: int = 0) -> list[tuple[int, int, int, int]]:
    """What a row's random numbers are made of, for numpy; a row that occurs again in a batch has other numbers."""
    times: Counter[int] = Counter()
    made = []
    for id in ids:
        made.append((seed, turn, id % 2**32, times[id]))
        times[id] += 1
    return made


def draw(logits: Tensor, u: Tensor) -> Tensor:
    """One token a row, by the inverse of the cumulative distribution.

    Args:
        logits: (b, v); -inf is never drawn.
        u: (b,) in [0, 1).

    Returns:
        (b,) int64.
    """
    if logits.device.type == "mps":  # sums of this length need float64
        return draw(logits.cpu(), u.cpu()).to(logits.device)
    cumulative = logits.float().softmax(-1).double().cumsum(-1)
    # The first token whose cumulative probability is above u; one of probability 0 adds nothing, so is never first.
    at = (u.to(cumulative) * cumulative[:, -1]).unsqueeze(1)
    return torch.searchsorted(cumulative, at, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


class _Draw:
    """Leaves of a step's tokens only the one that its random number stands for."""

    def __init__(self, u: Tensor, start: int) -> None:
        self.u, self.start = u, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = draw(scores, self.u[:, input_ids.shape[1] - self.start])
        return torch.full_like(scores, -torch.inf).scatter_(1, token.unsqueeze(1), 0.0)


def processors(sampling: Sampling, u: Tensor, start: int) -> LogitsProcessorList:
    """What turns the greedy `generate` of transformers into one that samples with given random numbers.

    Args:
        sampling: how.
        u: (b, r) in [0, 1).
        start: tokens that a decoder's input has before the first is drawn.
    """
    from transformers import LogitsProcessorList
    from transformers.generation.logits_process import TemperatureLogitsWarper

    made = LogitsProcessorList()
    if sampling.temperature != 1:
        made.append(TemperatureLogitsWarper(float(sampling.temperature)))
    made += truncations(sampling)
    made.append(_Draw(u, start))
    return made


def truncations(sampling: Sampling) -> LogitsProcessorList:
    """What leaves of the logits, already divided by the temperature, those of the tokens that may be drawn."""
    from transformers import LogitsProcessorList
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    made = LogitsProcessorList()
    if sampling.top_k:
        made.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        made.append(TopPLogitsWarper(sampling.top_p))
    return made
