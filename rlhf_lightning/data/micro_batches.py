"""How many rows go through a model at once, and which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens that go through together where nothing else is asked for. On a CPU more of them are hardly faster, and take
more memory: for their padding, and where there is a backward pass after each group."""


def micro_batches(lengths: Tensor, tokens: int | None = None, in_step: bool = False) -> list[Tensor]:
    """Cut rows into groups of like length, each of at most so many tokens, padding included.

    Args:
        lengths: (n,) of the rows. (Where prompts and responses are padded apart, a group can have more padding.)
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


def by_parts(compute: Callable[[Tensor], Tensor], groups: Sequence[Tensor]) -> Tensor:
    """What is computed of rows a group at a time, for all of them.

    Args:
        compute: gives (k, ...) for the positions (k,) of a group's rows.
        groups: as `micro_batches` gives them: each row is in one.

    Returns:
        (n, ...) in the order of the rows. Gradients flow through all groups.
    """
    return torch.cat([compute(rows) for rows in groups])[torch.cat(list(groups)).argsort()]


def columns(mask: Tensor, rows: Tensor) -> int:
    """How many columns of a mask (b, t) some of its rows (k,) need; at least one, so that an empty row has a place."""
    return max(int(mask[rows].sum(1).max()), 1)


def trimmed(
    prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor, rows: Tensor, left: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some rows of prompts and responses, without the columns that are padding in all of them.

    Args:
        prompt_ids, prompt_mask: (b, p), padded on the left with ``left``, else on the right.
        response_ids, response_mask: (b, r), padded on the right.
        rows: (k,) which rows.
        left: see above.

    Returns:
        The same four, ``(k, p')`` and ``(k, r')``.
    """
    width, kept = columns(response_mask, rows), columns(prompt_mask, rows)
    prompts = slice(prompt_mask.shape[1] - kept, None) if left else slice(kept)
    return (
        prompt_ids[rows, prompts],
        prompt_mask[rows, prompts],
        response_ids[rows, :width],
        response_mask[rows, :width],
    )
