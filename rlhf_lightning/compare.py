"""``rlhf-compare``: what several runs did differently, and what came of it."""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.overlay import against_kl_figures, overlaid_figures
from rlhf_lightning.report.page import html_text, key, page
from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.report.runs import Run, differing_settings, find_runs, first_policy, group_runs, sft_policy
from rlhf_lightning.report.screen import table_width
from rlhf_lightning.report.summary import best, clean, decimals, number

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(eq=False)
class Field:
    """A column of the comparison: a text for each row, and for a metric the numbers behind it."""

    title: str
    texts: list[str]
    numbers: list[float | None] | None = None
    """The final policy's value, or a group's mean; None for a column of words."""
    spread: list[float | None] | None = None
    """The standard deviation over a group's runs (n - 1); None where there are fewer than two."""
    best: frozenset[int] = frozenset()


def compare(runs: Sequence[Run], metric: str | None = None, group_by: str | None = None) -> list[Field]:
    """The comparison as columns: a row for each run, or for each group of runs with mean and standard deviation.

    Args:
        runs: what to compare.
        metric: the metric to show; by default all, the runs' objectives first.
        group_by: the setting whose values make the groups, each task apart; ``n`` counts the runs that have the metric.

    Raises:
        UserError: no run has the metric or the setting. It lists those there are.
    """
    finals = [run.results.policies[-1].metrics for run in runs if run.results.policies]
    names = list(dict.fromkeys(name for metrics in finals for name in metrics))
    if metric is not None and metric not in names:
        raise UserError(f"--metric {metric}: no run has it; there are: {', '.join(names) or 'none'}")
    groups, leading = _groups(runs, group_by), [metric] if metric else _objectives(runs)
    rows = list(groups.values())
    fields = [Field(group_by or "run", list(groups))]
    measured = [sum(any(run.value(name) is not None for name in leading) for run in row) for row in rows]
    fields += [Field("n", list(map(str, measured)))] if group_by else _word_fields(runs)
    shown = [name for run in runs for group in ("task", "reward") for name in run.results.columns.get(group, [])]
    for name in dict.fromkeys([*leading, "kl", *([] if metric else shown)]):
        fields.append(_number_field(name, rows))
        if name in leading:
            gains = [_number_field(name, rows, over="first"), _number_field(name, rows, over="sft")]
            fields += gains[: 1 if gains[0].numbers == gains[1].numbers else 2]
    return [field for field in fields if field.numbers is None or any(value is not None for value in field.numbers)]


def _groups(runs: Sequence[Run], group_by: str | None) -> dict[str, list[Run]]:
    """The rows of the comparison by their title: single runs, or those with the same setting and the same task."""
    if not group_by:
        return {label: [run] for label, run in _labels(runs).items()}
    grouped = group_runs(runs, group_by)
    if len({run.results.task for run in runs}) == 1:
        return grouped
    parted: dict[str, list[Run]] = {}
    for value, same in grouped.items():
        for run in same:  # figures of different tasks have no mean
            title = value if value == run.results.task else f"{value}, {run.results.task}"
            parted.setdefault(title, []).append(run)
    return parted


def _objectives(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.results.objective for run in runs if run.results.objective))


def _labels(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by the part of their path that tells them apart."""
    paths = [run.path.resolve() for run in runs]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return {str(path.relative_to(common)): run for path, run in zip(paths, runs, strict=True)}


def _word_fields(runs: Sequence[Run]) -> list[Field]:
    """The settings that differ; the status and the final policy where they are not the usual or not all the same."""
    policies = [run.results.policies[-1].name if run.results.policies else "-" for run in runs]
    statuses = [run.results.status for run in runs]
    fields = [Field(name, values) for name, values in differing_settings(runs).items()]
    fields += [Field("status", statuses)] if set(statuses) != {"finished"} else []
    return fields + ([Field("policy", policies)] if len(set(policies)) > 1 else [])


def _number_field(name: str, rows: Sequence[Sequence[Run]], over: str | None = None) -> Field:
    """A metric of the final policies, or their gain over the first or the fine-tuned policy of the same run."""
    policy = {"first": first_policy, "sft": sft_policy}[over] if over else None
    means: list[float | None] = []
    spread: list[float | None] = []
    for row in rows:
        values = [value for run in row if (value := run.value(name, minus=policy)) is not None]
        means.append(statistics.fmean(values) if values else None)
        spread.append(statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None)
    places = decimals([mean for mean in means if mean is not None])
    texts = [number(mean, places, sign=over is not None) for mean in means]
    texts = [
        f"{text} ± {number(sd, places)}" if sd is not None else text for text, sd in zip(texts, spread, strict=True)
    ]
    runs = [run for row in rows for run in row]
    directions = {run.results.directions.get(name) for run in runs}
    # Numbers of different tasks are not comparable, so none of them is the best.
    comparable = len({run.results.task for run in runs}) == 1 and len(directions) == 1
    winners = best(means, directions.pop()) if comparable else set()
    return Field(f"{name} over {over}" if over else name, texts, means, spread, frozenset(winners))


def screen_table(fields: Sequence[Field], width: int) -> Table:
    """The comparison for the screen; what does not fit its width is named below, the last columns first to go."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = list(fields)
    while True:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="", caption_justify="left")
        for field in shown:
            table.add_column(Text(clean(field.title)), justify="right" if field.numbers else "left", no_wrap=True)
        for i in range(len(fields[0].texts)):
            table.add_row(*(Text(_short(field.texts[i]), "bold" if i in field.best else "") for field in shown))
        if table_width(table) <= width or len(shown) <= 2:
            break
        # Results keep half of the room at least, however many settings differ.
        words = [field for field in shown[1:] if field.numbers is None]
        metrics = [field for field in shown if field.numbers is not None]
        shown.remove((words if len(words) >= len(metrics) else metrics)[-1])
    missing = [clean(field.title) for field in fields if field not in shown]
    if missing:
        table.caption = Text(f"No room for {', '.join(missing)}: see --html or --csv")
    return table


def _short(text: str, limit: int = 40) -> str:
    text = " ".join(clean(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def csv_text(fields: Sequence[Field]) -> str:
    """The comparison as CSV: numbers unrounded, standard deviations in columns of their own."""
    columns: list[tuple[str, list]] = []
    for field in fields:
        columns.append((field.title, field.texts if field.numbers is None else field.numbers))
        if any(value is not None for value in field.spread or []):
            columns.append((f"{field.title} sd", field.spread or []))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([title for title, _ in columns])
    writer.writerows(zip(*(values for _, values in columns), strict=True))
    return text.getvalue()


def html_page(runs: Sequence[Run], fields: Sequence[Field], metric: str | None, group_by: str | None) -> str:
    """The comparison as a page: the table, the metric against the KL, and the learning curves over each other."""
    groups = _groups(runs, group_by)
    colored = [(color, run) for color, row in enumerate(groups.values()) for run in row]
    differ = {} if group_by else differing_settings(runs)
    about = [", ".join(f"{name}={_short(values[i])}" for name, values in differ.items()) for i in range(len(groups))]
    names = [f"{group_by}={name}" if group_by else f"{name}: {text}" for name, text in zip(groups, about, strict=True)]
    legend = key(list(enumerate(names)))
    heads = "".join(f"<th>{html_text(field.title)}</th>" for field in fields)
    rows = "".join(
        "<tr>"
        + "".join(f"<td{' class=best' if i in field.best else ''}>{html_text(field.texts[i])}</td>" for field in fields)
        + "</tr>"
        for i in range(len(fields[0].texts))
    )
    parts = [
        f"<header><p>{len(runs)} runs</p><h1>Comparison</h1></header>",
        f'<div class="card"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>',
    ]
    against_kl = against_kl_figures(colored, [metric] if metric else _objectives(runs))
    if against_kl:
        parts.append(f'<h2>Against the KL</h2>{legend}<div class="panels">{against_kl}</div>')
    for stage in dict.fromkeys(stage for run in runs for stage in run.results.stages):
        overlaid = overlaid_figures(stage, colored, [metric] if metric else _objectives(runs))
        if overlaid:
            parts.append(f'<h2>Learning curves: {html_text(stage)}</h2>{legend}<div class="panels">{overlaid}</div>')
    return page("Comparison of runs", "\n".join(parts))


def print_summary(folder: Path) -> None:
    """Show what the runs below a folder came to."""
    from rich.console import Console

    console = Console()
    console.print(screen_table(compare(find_runs([folder])), console.width))


def main(argv: Sequence[str] | None = None) -> int:
    """The console script ``rlhf-compare``. Returns the exit status: 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="rlhf-compare", description="Compare runs: their settings, results and curves."
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="run folders or folders above them; outputs/multiruns/LATEST"
    )
    parser.add_argument("--metric", metavar="NAME", help="the metric to compare (default: all, the objective first)")
    parser.add_argument("--group-by", metavar="KEY", help="mean and standard deviation over runs with the same KEY")
    parser.add_argument("--html", metavar="OUT", help="write a page with the table and the learning curves")
    parser.add_argument("--csv", metavar="OUT", help="write the table as CSV, unrounded")
    options = parser.parse_args(argv)
    from rich.console import Console

    try:
        runs = find_runs(options.paths)
        fields = compare(runs, options.metric, options.group_by)
        console = Console()
        console.print(screen_table(fields, console.width))
        if options.csv:
            write_atomic(options.csv, csv_text(fields))
        if options.html:
            write_atomic(options.html, html_page(runs, fields, options.metric, options.group_by))
            console.print(f"Page: {options.html}", markup=False, soft_wrap=True)
    except (UserError, OSError) as error:
        print(f"rlhf-compare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
