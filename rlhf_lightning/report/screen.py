"""The report on the screen: the results table, a few samples, and where the rest lies."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.report.results import RunResults, Sample, read_samples
from rlhf_lightning.report.summary import (
    GROUP_TITLES,
    Column,
    all_notes,
    cautions,
    clean,
    headline,
    number,
    result_columns,
    stage_title,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

TEXT_LIMIT = 300
"""Characters of a sample's text that the screen shows; the page shows all."""

SIDE_BY_SIDE = 22
"""Terminal cells a column of text needs; with fewer the texts are stacked."""

IN_A_FILE = 140
"""Columns of what is written to a file or a pipe, which has no width of its own."""

DROP_ORDER = ("guardrails", "task", "reward")


def results_table(results: RunResults, width: int = 120) -> Table:
    """One row a policy, the metrics in groups, the best value of each metric that has a better direction in bold.

    A table wider than ``width`` loses columns, the last guardrail first, the objective never; its caption names them.
    """
    columns = result_columns(results)
    dropped: list[str] = []
    table = _build_table(results, columns, dropped)
    while table_width(table) > width and len(columns) > 1:
        least = _least_important(columns, results.objective)
        columns.remove(least)
        dropped.insert(0, clean(least.name))
        table = _build_table(results, columns, dropped)
    return table


def _least_important(columns: Sequence[Column], objective: str | None) -> Column:
    """The last guardrail, task metric or reward; the first of each group and the objective stay longest."""
    firsts = {column.group: column.name for column in reversed(columns)}
    order = [column for group in DROP_ORDER for column in reversed(columns) if column.group == group]
    order.sort(key=lambda column: (column.name == objective, firsts[column.group] == column.name))
    return order[0]


def _build_table(results: RunResults, columns: Sequence[Column], dropped: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = Text(f"No room for {', '.join(dropped)}: see report.html") if dropped else None
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption, caption_justify="left", header_style="")
    table.add_column(Text("\npolicy"), no_wrap=True)
    group = None
    for column in columns:
        # A group's title stands above its first column, and a blank at its left sets it apart.
        title = GROUP_TITLES[column.group] if column.group != group else ""
        group = column.group
        header = Text(f"{title}\n", style="dim").append(
            column.header, style="not dim bold" if column.name == results.objective else "not dim"
        )
        table.add_column(header, justify="right", no_wrap=True)
    for i, policy in enumerate(results.policies):
        cells = [Text(column.text(i), style="bold" if i in column.best else "") for column in columns]
        table.add_row(Text(clean(policy.name)), *cells)
    return table


def table_width(table: Table) -> int:
    """The terminal cells that the table takes where it may take any number."""
    from rich.console import Console

    console = Console(width=10_000)
    caption, table.caption = table.caption, None
    try:
        return console.measure(table).maximum
    finally:
        table.caption = caption


def samples_table(samples: Sequence[Sample], n: int = 3, width: int = 120) -> Table:
    """The first n samples: prompt, reference and every policy's completion with its scores.

    Side by side where each text has room for it, else one below the other.
    """
    from rich import box
    from rich.table import Table

    shown = list(samples)[:n]
    policies = list(dict.fromkeys(name for sample in shown for name in sample.completions))
    titles = ["prompt", "reference", *(clean(name) for name in policies)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_lines=True, expand=True)
    if width >= SIDE_BY_SIDE * len(titles):
        for title in titles:
            table.add_column(_plain(title), ratio=1, overflow="fold")
        for sample in shown:
            table.add_row(*_sample_cells(sample, policies))
        return table
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for sample in shown:
        for title, cell in zip(titles, _sample_cells(sample, policies), strict=True):
            table.add_row(_plain(title), cell, end_section=title == titles[-1])
    table.show_lines = False
    return table


def _plain(text: str) -> Text:
    """Text that rich prints as it stands: no markup, no emoji codes, no highlighting."""
    from rich.text import Text

    return Text(text)


def _sample_cells(sample: Sample, policies: Sequence[str]) -> list:
    from rich.text import Text

    cells = [Text(_short(sample.prompt)), Text("\n".join(_short(text) for text in sample.references[:2]))]
    for name in policies:
        completion = _short(sample.completions.get(name, ""))
        cell = Text(completion) if completion else Text("(empty)", "dim italic")
        scores = sample.scores.get(name, {})
        if scores:
            cell.append("\n" + "  ".join(f"{clean(key)} {number(value, 2)}" for key, value in scores.items()), "dim")
        cells.append(cell)
    return cells


def _short(text: str) -> str:
    text = clean(text).strip()
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1].rstrip() + "…"


def standard_output() -> Console:
    """A console as wide as the terminal; a file or a pipe takes `IN_A_FILE` columns."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else IN_A_FILE)


def show(console: Console, shown: Table | Text) -> None:
    """Print a table or a text, without breaking a word or a path in two, so that it can be copied.

    In a file a text is one line, and no line is filled up with spaces.
    """
    from rich.cells import cell_len
    from rich.text import Text

    if isinstance(shown, Text):
        too_long = any(cell_len(word) > console.width for word in shown.plain.split())
        console.print(shown, soft_wrap=too_long or not console.is_terminal)
    elif console.is_terminal:
        console.print(shown)
    else:
        with console.capture() as captured:
            console.print(shown)
        console.print(Text("\n".join(line.rstrip() for line in captured.get().splitlines())), soft_wrap=True)


def print_report(run_dir: str | Path, console: Console | None = None, n_samples: int = 3) -> None:
    """Print a run's results, a few samples, the notes, and the paths of its folder and page.

    Raises:
        UserError: the folder holds no readable ``metrics.json``, or a malformed ``samples.jsonl``.
    """
    from rich.text import Text

    console = console or standard_output()
    run_dir = Path(run_dir)
    results = RunResults.read(run_dir / "metrics.json")
    console.print()
    seed = "" if results.seed is None else f", seed {results.seed}"
    rows = "" if results.held_out is None else f", {results.held_out} held-out rows"
    show(console, Text(clean(f"{results.task}{seed}{rows}"), style="dim"))
    show(console, Text(headline(results), style="bold"))
    for caution in cautions(results):
        show(console, Text(caution, style="yellow"))
    if results.policies:
        show(console, results_table(results, console.width))
    if results.rounds:
        from rlhf_lightning.report.rounds import rounds_table

        show(console, rounds_table(results))
    if results.reward_model:
        show(console, Text(_reward_model_line(results.reward_model)))
    samples = read_samples(run_dir / "samples.jsonl")
    if samples and n_samples:
        show(console, samples_table(samples, n_samples, console.width))
    for note in all_notes(results):
        show(console, Text(f"Note: {clean(note)}", style="dim"))
    if results.seconds:
        times = ", ".join(f"{stage_title(clean(name))} {duration(value)}" for name, value in results.seconds.items())
        show(console, Text(f"Time: {times}", style="dim"))
    # Paths stay on one line, so that they can be copied and clicked.
    console.print(Text(f"Run folder: {run_dir}"), soft_wrap=True)
    page = run_dir / "report.html"
    console.print(Text(f"Report: {page}" if page.exists() else f"Report: none written at {page}"), soft_wrap=True)


def _reward_model_line(measures: dict[str, float]) -> str:
    names = {"accuracy": "accuracy", "longer_wins": "longer-wins baseline"}
    ordered = sorted(measures.items(), key=lambda item: list(names).index(item[0]) if item[0] in names else len(names))
    told = [f"{names.get(name, clean(name).replace('_', ' '))} {number(value, 3)}" for name, value in ordered]
    return f"Reward model: {', '.join(told)}"


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(61.2), duration(4.31), duration(7380)
    ('1 min 1 s', '4.3 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
