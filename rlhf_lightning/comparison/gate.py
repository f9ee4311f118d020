"""The gate of ``rlhf-compare PATH --against BASELINE``: did the objective or a task metric fall for certain?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rlhf_lightning.comparison.rows import Row, make_rows, why_left_out
from rlhf_lightning.comparison.significance import Difference, compare_rows
from rlhf_lightning.comparison.words import p_text
from rlhf_lightning.errors import UserError
from rlhf_lightning.report.runs import Run
from rlhf_lightning.report.summary import clean, decimals, number

VERDICTS = {"better": "better", "worse": "WORSE", "moved": "moved", "unsure": "no certain change"}


class Gate(NamedTuple):
    """What the gate found.

    Attributes:
        tests: the objective and the task's metrics, of those that are numbers on both sides.
        lost: those that were numbers in the baseline, and are none now.
        left_out: those that were no numbers in the baseline.
    """

    tests: dict[str, Difference]
    lost: list[str]
    left_out: list[str]


def against(runs: Sequence[Run], baseline: Sequence[Run]) -> Gate:
    """The objective and the task's metrics of some runs, which differ in nothing but their seeds, against others.

    Raises:
        UserError: a run that is not finished, runs of several settings on one side, another task, other held-out rows,
            or a metric that can't be tested, but for one that is not a number.
    """
    old, new = _one_row(baseline, "the baseline"), _one_row(runs, "what is held against it")
    if old.task != new.task:
        raise UserError(f"--against: the baseline's task is {old.task}, not {new.task}")
    results = old.runs[0].results
    names = list(dict.fromkeys([*([old.objective] if old.objective else []), *results.columns.get("task", [])]))
    left_out = [name for name in names if _is_nan(old, name)]
    lost = [name for name in names if _is_nan(new, name) and name not in left_out]
    if old.objective in left_out:
        raise UserError(f"--against: the objective, {old.objective}, is not a number in the baseline")
    tests = compare_rows([old, new], only=names)
    if 1 in tests.untested:
        raise UserError(f"--against: nothing can be tested: {tests.untested[1]}")
    missing = [name for name in names if name not in {*tests.differences[1], *lost, *left_out}]
    if missing:
        reasons = "; ".join(tests.notes) or "it was not measured on both sides"
        raise UserError(f"--against: {', '.join(missing)} can't be tested: {reasons}")
    return Gate({name: tests.differences[1][name] for name in names if name in tests.differences[1]}, lost, left_out)


def _is_nan(row: Row, metric: str) -> bool:
    """Whether a metric was measured in a row's runs and is not a number in all of them."""
    values = row.values(metric)
    return bool(values) and not all(map(math.isfinite, values))


def _one_row(runs: Sequence[Run], side: str) -> Row:
    rows = make_rows(runs)
    for label, run in rows.left_out.items():
        raise UserError(f"--against: {side} has a run that is not finished: {label} {why_left_out(run)}")
    if len(rows.rows) != 1:
        differ = ", ".join(rows.keys) or "the same seeds twice"
        raise UserError(
            f"--against: {side} has {len(rows.rows)} rows of runs ({differ}): give runs that differ by seed"
        )
    return rows.rows[0]


def gate_lines(tests: dict[str, Difference], objective: str | None) -> list[str]:
    """A line for each metric: both values, the difference, its interval, the p value and the verdict."""
    cells = [("", "baseline", "now", "change", "95 % interval", "p (Holm)", "verdict")]
    for name, test in tests.items():
        places = decimals([test.baseline, test.value])
        low, high = number(test.low, places, sign=True), number(test.high, places, sign=True)
        title = f"{clean(name)}{' (objective)' if name == objective else ''}"
        values = (number(test.baseline, places), number(test.value, places), number(test.change, places, sign=True))
        cells.append((title, *values, f"{low} to {high}", p_text(test.corrected), VERDICTS[test.verdict]))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if i in (0, 6) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return [line.rstrip() for line in lines]
