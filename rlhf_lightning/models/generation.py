"""How completions are drawn, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        greedy: always the most likely token; the rest is then unused.
        temperature: what logits are divided by.
        top_k: draw among the k most likely; 0 is all. Truncated sampling makes KL estimates wrong: not for training.
        top_p: draw among the most likely that together have this probability; 1 is all.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class Completions(NamedTuple):
    """What a model answered to b prompts.

    Attributes:
        texts: decoded, without special tokens.
        ids: (b, r) int64, padded on the right; for a classifier (b, 1), the label's index.
        mask: (b, r) bool, true up to and including the first end-of-sequence token.
        ended: (b,) bool, whether there is one.
    """

    texts: list[str]
    ids: Tensor
    mask: Tensor
    ended: Tensor

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
