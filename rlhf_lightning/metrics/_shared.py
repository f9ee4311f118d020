"""What every metric of this package has in common: row checks, whole-number sums and the type of a result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

FIXED_POINT = 2**32
"""Scores are summed in units of 2**-32.

Whole numbers add up to the same sum in every order, so the result does not depend on how rows were split into batches
or ranks, and they need no float64, which Apple's GPUs lack. The rounding costs at most 1.2e-10 a row; an int64 holds
the sum of 2**31 rows that score 1.
"""


def to_fixed(value: float) -> int:
    """A score as a whole number of units of 2**-32."""
    return round(value * FIXED_POINT)


def from_fixed(total: int) -> float:
    """The inverse of :func:`to_fixed`."""
    return total / FIXED_POINT


def ratio(numerator: float, denominator: float) -> float:
    """``numerator / denominator``, and NaN for nothing divided by nothing: an empty corpus has no score."""
    return numerator / denominator if denominator else math.nan


def scalar(value: float, device: torch.device) -> torch.Tensor:
    """A result as a tensor of no dimensions: float64, since float32 rounds a score of 100 by 4e-6."""
    return torch.tensor(value, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def check_rows(
    completions: Sequence[str], references: Sequence[Sequence[str]], *, reference_needed: bool = True
) -> None:
    """Check that every completion has its list of references.

    Args:
        completions: One text a row.
        references: The row's reference texts, as a list also when there is one.
        reference_needed: Whether a row without a reference is an error.

    Raises:
        ValueError: The lengths differ, a row is not a list of texts, or it is empty where a reference is needed. The
            message names the row's index.
    """
    if len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions but {len(references)} lists of references")
    for index, (completion, row) in enumerate(zip(completions, references, strict=True)):
        if not isinstance(completion, str):
            raise ValueError(f"completions[{index}] is {type(completion).__name__}, expected a string")
        # A bare string would pass for a list of one-letter references.
        if isinstance(row, str) or not all(isinstance(text, str) for text in row):
            raise ValueError(f"references[{index}] is not a list of strings: {row!r:.80}")
        if reference_needed and not row:
            raise ValueError(f"references[{index}] is empty: this metric needs at least one reference a row")
