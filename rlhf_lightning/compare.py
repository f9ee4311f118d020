"""``rlhf-compare``: what several runs did differently, and what came of it."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.comparison.rows import Rows, make_rows
from rlhf_lightning.comparison.table import csv_text, screen_table, table_fields, table_notes
from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.report.runs import Run, find_runs

if TYPE_CHECKING:
    from rich.console import Console

    from rlhf_lightning.comparison.significance import Tests

WANDB = "wandb:"
"""What the name of a W&B project begins with, to be told from a folder."""

SUMMARY_ANSWERS = 10_000
"""Answers that a summary at the end of a sweep still tests: a few seconds."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script ``rlhf-compare``.

    Returns:
        The exit status: 0; 1 where ``--against`` finds that a metric fell; 2 for a mistake of the user's.
    """
    options = _parser().parse_args(argv)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as rlhf-train does, for metrics of the user's own
    try:
        runs = _runs(options.paths)
        return _gate(runs, options.against) if options.against else _compare(runs, options)
    except (UserError, OSError) as error:
        print(f"rlhf-compare: {error}", file=sys.stderr)
        return 2
    except Exception:
        if not options.against:
            raise
        traceback.print_exc()  # status 1, as Python has it, would tell a CI that a metric fell
        return 2


def _runs(paths: Sequence[str]) -> list[Run]:
    """The runs in folders, and in W&B projects given as ``wandb:ENTITY/PROJECT``."""
    from rlhf_lightning.report.wandb_source import runs_of_project

    folders = [path for path in paths if not path.startswith(WANDB)]
    projects = [path.removeprefix(WANDB) for path in paths if path.startswith(WANDB)]
    return [*(find_runs(folders) if folders else []), *(run for path in projects for run in runs_of_project(path))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlhf-compare",
        description="Compare runs: their settings, results, curves and answers. Runs that differ in nothing but their "
        "seed are one row, with mean and standard deviation; rows are tested against the first one.",
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="run folders or folders above them; outputs/multiruns/LATEST; wandb:ENTITY/PROJECT",
    )
    add("--metric", metavar="NAME", help="the metric to compare (default: all, the objective first)")
    add("--group-by", metavar="KEY,...", help="make rows of the runs with the same values of these settings")
    add("--each", action="store_true", help="make a row of each run")
    add("--baseline", metavar="ROW", help="the row to test against: KEY=VALUE,... or a run (default: the first row)")
    add("--no-tests", action="store_true", help="leave the tests out, which take some seconds")
    add("--html", metavar="OUT", help="write a page: table, curves, KL frontier, settings, answers side by side")
    add("--csv", metavar="OUT", help="write the table as CSV, unrounded, with all tests")
    add("--wandb", metavar="ENTITY/PROJECT", help="save a W&B workspace of the runs, which are there")
    add("--against", metavar="BASELINE", help="a gate for CI: status 1 if PATH's runs are worse than those of BASELINE")
    return parser


def _check_output(path: str | None, option: str) -> None:
    """Refuse a file that can't be written, before anything is computed for it."""
    if path is None:
        return
    if Path(path).is_dir():
        raise UserError(f"{option} {path} is a folder: give the name of a file")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {Path(path).parent}")


def _compare(runs: Sequence[Run], options: argparse.Namespace) -> int:
    from rlhf_lightning.report.screen import standard_output

    _check_output(options.csv, "--csv")
    _check_output(options.html, "--html")
    rows = make_rows(runs, options.group_by, options.each)
    fields = table_fields(rows, options.metric)  # before any test: it refuses what there is not
    baseline = rows.find(options.baseline) if rows.rows else 0
    tests = None
    if len(rows.rows) > 1 and not options.no_tests:
        from rlhf_lightning.comparison.significance import compare_rows

        tests = compare_rows(rows.rows, baseline, only=[options.metric] if options.metric else None)
        fields = table_fields(rows, options.metric, tests)
    console = standard_output()
    _print(console, rows, fields, tests)
    if options.csv:
        write_atomic(options.csv, csv_text(rows, tests))
        console.print(f"Table: {options.csv}", markup=False, soft_wrap=True)
    if options.html:
        from rlhf_lightning.comparison.page import comparison_page

        write_atomic(options.html, comparison_page(rows, fields, tests, options.metric))
        console.print(f"Page: {options.html}", markup=False, soft_wrap=True)
    if options.wandb:
        from rlhf_lightning.report.workspace import save_workspace

        console.print(f"Workspace: {save_workspace(options.wandb, runs)}", markup=False, soft_wrap=True)
    return 0


def _print(console: Console, rows: Rows, fields: Sequence, tests: Tests | None) -> None:
    from rich.text import Text

    from rlhf_lightning.comparison.words import findings, left_out_lines, method
    from rlhf_lightning.report.screen import show

    if rows.rows:
        show(console, screen_table(fields, console.width))
    for note in table_notes(rows, fields):
        show(console, Text(note, "dim"))
    if tests is not None:
        for line in findings(rows, tests):
            show(console, Text(line if line.endswith(":") else f"• {line}"))
        for note in tests.notes:
            show(console, Text(f"Note: {note}", "dim"))
        if tests.differences:
            show(console, Text(method(rows.rows, tests), "dim"))
    if rows.left_out:
        show(console, Text(f"Left out of all figures ({len(rows.left_out)}):", "yellow"))
        for line in left_out_lines(rows):
            show(console, Text(f"• {line}"))


def _gate(runs: Sequence[Run], baseline: str) -> int:
    from rlhf_lightning.comparison.gate import against, gate_lines

    found = against(runs, _runs([baseline]))
    print("\n".join(gate_lines(found.tests, runs[0].results.objective)))
    for name in found.left_out:
        print(f"{name} is not tested: it is not a number in the baseline.")
    for name in found.lost:
        print(f"{name} was a number in the baseline and is none now, which is worse.")
    fallen = [*found.lost, *(name for name, test in found.tests.items() if test.verdict == "worse")]
    print(f"Worse for certain: {', '.join(fallen)}" if fallen else "Nothing is worse for certain.")
    return 1 if fallen else 0


def print_summary(folder: Path) -> None:
    """Print the comparison of all runs below a folder, as at the end of a sweep; failed jobs are listed.

    Rows are tested where that is quick; else it says how to get it. It never raises: a sweep that is done stays done
    whatever its runs left.
    """
    try:
        _summary(folder)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(f"The runs can't be compared: {reason}", file=sys.stderr)


def _summary(folder: Path) -> None:
    from rich.text import Text

    from rlhf_lightning.report.screen import standard_output

    console = standard_output()
    rows = make_rows(find_runs([folder]))
    answers = sum(run.results.held_out or 0 for row in rows.rows for run in row.runs)
    tests = None
    if len(rows.rows) > 1 and "torch" in sys.modules and answers <= SUMMARY_ANSWERS:
        from rlhf_lightning.comparison.significance import compare_rows

        tests = compare_rows(rows.rows)
    _print(console, rows, table_fields(rows, tests=tests), tests)
    what = "" if tests or len(rows.rows) < 2 else "the tests, "
    more = Text(f"For {what}the curves and the answers: rlhf-compare {folder} --html comparison.html", "dim")
    console.print(more, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
