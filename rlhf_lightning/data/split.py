"""Held-out parts that share no group with the rest."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rlhf_lightning.errors import UserError

Row = TypeVar("Row", bound=Any)


def group_key(column: str | None) -> Callable[[Any], str]:
    """What must not be on both sides of a split: a column's value, or the prompt itself where it is None.

    The function it returns raises `UserError` for a row without the column.
    """

    def key(row: Any) -> str:
        if column is None:
            return str(row.prompt.text)
        if column not in row.meta:
            raise UserError(f"data.group={column!r}: there is no such column; the columns are {', '.join(row.meta)}")
        return str(row.meta[column])

    return key


def split_by_group(
    rows: Sequence[Row], key: Callable[[Row], str], size: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """Hold out whole groups until ``size`` rows are reached.

    Args:
        rows: what to split.
        key: the group of a row.
        size: rows to hold out: a number of them, or a share below 1.
        seed: of the choice; the same everywhere.

    Returns:
        The rest and the held-out rows, each in the order they came.

    Raises:
        UserError: if nothing would be left.
    """
    wanted = round(size * len(rows)) if size < 1 else int(size)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[key(row)].append(i)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    held: set[int] = set()
    for name in names:
        if len(held) >= wanted:
            break
        held.update(groups[name])
    if rows and wanted and len(held) == len(rows):
        raise UserError(
            f"holding out {wanted} of {len(rows)} rows in {len(groups)} group(s) leaves none to train on: "
            "lower data.validation_size or data.test_size, give held-out rows as a file, or choose another data.group"
        )
    return [row for i, row in enumerate(rows) if i not in held], [row for i, row in enumerate(rows) if i in held]
