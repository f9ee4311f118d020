"""How many rows go through a model at once."""

from __future__ import annotations

import torch
from torch import Tensor

TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens at once where nothing else is asked for. On a CPU more of them take more memory, and are hardly faster."""


def micro_batches(lengths: Tensor, tokens: int | None = None, in_step: bool = False) -> list[Tensor]:
    """Cut rows into groups of like length, each of at most so many tokens, padding included.

    Args:
        lengths: (n,) of the rows.
        tokens: the most that a group may hold; a longer row is a group of its own. None is `TOKENS`.
        in_step: all ranks get equally many groups, as models need whose weights are dealt out to them. They must have
            equally many rows.

    Returns:
        Positions of each group's rows, the longest first.
    """
    tokens = tokens or TOKENS.get(lengths.device.type, TOKENS["cuda"])
    order = lengths.argsort(descending=True, stable=True)
    sizes: list[int] = []
    longest = 0
    for length in lengths[order].tolist():
        if sizes and (sizes[-1] + 1) * longest <= tokens:
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    if in_step:
        count = torch.tensor(len(sizes), device=lengths.device)
        torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX)
        while len(sizes) < count:
            largest = sizes.index(max(sizes))
            half = sizes[largest] // 2
            sizes[largest : largest + 1] = [half, sizes[largest] - half]
    return list(order.split(sizes))
