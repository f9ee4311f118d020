"""Held-out parts that share no group with the rest."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rlhf_lightning.data.files import listed
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
            raise UserError(f"data.group={column!r}: there is no such column; the columns are {listed(row.meta)}")
        return str(row.meta[column])

    return key


def rows_wanted(size: float, count: int) -> int:
    """How many of ``count`` rows a size asks for: it is a number of them, or a share below 1."""
    return round(size * count) if size < 1 else int(size)


def split_by_group(
    rows: Sequence[Row], key: Callable[[Row], str], size: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """Hold out whole groups until ``size`` rows are reached, and as few more as groups allow.

    Groups come in random order; one that is too large for what is still wanted is passed over, and only if the others
    are not enough, the smallest of these is taken too; where that would leave no row, fewer rows are held out. Of two
    groups and more, a share holds out at least one row, and leaves at least one.

    Args:
        rows: what to split.
        key: the group of a row.
        size: rows to hold out: a number of them, or a share below 1.
        seed: of the choice; the same everywhere.

    Returns:
        The rest and the held-out rows, each in the order they came.

    Raises:
        UserError: if all rows are wanted, or all are of one group, or the size is negative.
    """
    if size < 0:
        raise UserError(f"a held-out part of {size} rows: data.validation_size and data.test_size can't be negative")
    wanted = rows_wanted(size, len(rows))
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[key(row)].append(i)
    if 0 < size < 1 and len(groups) > 1:
        wanted = min(max(wanted, 1), len(rows) - 1)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    held: set[int] = set()
    large = []
    for name in names:
        if len(held) + len(groups[name]) <= wanted:
            held.update(groups[name])
        else:
            large.append(name)
    if len(held) < wanted and large:
        smallest = groups[min(large, key=lambda name: len(groups[name]))]
        if len(held) + len(smallest) < len(rows):
            held.update(smallest)
    if rows and wanted and len(held) in (0, len(rows)):
        raise UserError(
            f"holding out {wanted} of {len(rows)} rows in {len(groups)} group(s) leaves none to train on: "
            "lower data.validation_size or data.test_size, give held-out rows as a file, or choose another data.group"
        )
    return [row for i, row in enumerate(rows) if i not in held], [row for i, row in enumerate(rows) if i in held]
