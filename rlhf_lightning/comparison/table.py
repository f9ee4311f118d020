"""The table of the comparison: its columns, on the screen and as CSV."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf_lightning.comparison.rows import Row, Rows, row_value, why_left_out
from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import COLUMN_GROUPS, PolicyResult, RunResults
from rlhf_lightning.report.runs import Run, first_policy, policy_before, sft_policy
from rlhf_lightning.report.screen import table_width
from rlhf_lightning.report.summary import GROUP_TITLES, best, clean, decimals, number

if TYPE_CHECKING:
    from rich.table import Table

    from rlhf_lightning.comparison.significance import Tests

RUN_TITLES = ("run", "runs")
"""Of the columns with names of runs."""

HUMAN = "human"
"""Of the column with people's preferences."""

NAMED = 6
"""Settings that a note names, of all that differ."""

ARROWS = {"max": " ↑", "min": " ↓"}


@dataclass(eq=False)
class Field:
    """A column: a text for each row, and for a metric the numbers behind it."""

    title: str
    texts: list[str]
    group: str = ""
    """``task``, ``reward`` or ``guardrails`` of a metric, else empty."""
    numbers: list[float | None] | None = None
    """Means of the final policies' values over a row's runs; None for a column of words."""
    spread: list[float | None] | None = None
    """The standard deviation over a row's runs (n - 1); None where there are fewer than two."""
    best: frozenset[int] = frozenset()
    metric: str = ""
    """The metric whose value, not whose gain, it shows."""
    direction: str | None = None


def table_fields(rows: Rows, metric: str | None = None, tests: Tests | None = None) -> list[Field]:
    """The comparison as columns: settings, how many runs, the objective and its gains, then all other metrics.

    Args:
        rows: what is compared.
        metric: the metric to show; by default all, the objective first.
        tests: where given, values that differ from the baseline's for certain are marked by a star.

    Raises:
        UserError: no run has the metric. It lists those there are.
    """
    runs = [run for row in rows.rows for run in row.runs]
    names = dict.fromkeys(name for run in runs if run.final for name in run.final.metrics)
    if metric is not None and metric not in names:
        raise UserError(f"--metric {metric}: no finished run has it; there are: {', '.join(names) or 'none'}")
    single = all(len(row.runs) == 1 for row in rows.rows)
    fields = [Field("run", [rows.label(row.runs[0]) for row in rows.rows])] if single or not rows.keys else []
    if not single and not rows.keys:
        fields = [Field("runs", [row.name for row in rows.rows])]
    settings = [Field(key, [rows.shown(row.settings[key]) for row in rows.rows]) for key in rows.keys]
    if not single:  # before the settings that the names can do without, which leave a narrow screen first
        settings.insert(rows.telling, Field("n", [str(len(row.runs)) for row in rows.rows]))
    fields += settings
    leading = [metric] if metric else objectives(runs)
    for name in leading:
        fields.append(_metric_field(name, rows.rows, tests))
        gains = [_gain_field(name, rows.rows, over, policy) for over, policy in OTHERS.items()]
        fields += gains[: 1 if gains[0].numbers == gains[1].numbers else 2]
    if metric is None:
        fields.append(_human_field(rows.rows))
    groups = COLUMN_GROUPS if metric is None else ()
    placed = [name for group in groups for run in runs for name in run.results.columns.get(group, [])]
    others = dict.fromkeys(["kl", *placed, *(names if metric is None else [])])
    fields += [_metric_field(name, rows.rows, tests) for name in others if name not in leading]
    return [field for field in fields if field.numbers is None or any(value is not None for value in field.numbers)]


def objectives(runs: Sequence[Run]) -> list[str]:
    """What the runs are judged by, each once."""
    return list(dict.fromkeys(run.results.objective for run in runs if run.results.objective))


OTHERS: dict[str, Callable[[RunResults], PolicyResult | None]] = {"start": first_policy, "sft": sft_policy}
"""The policies that gains are told over."""


def group_of(name: str, runs: Sequence[Run]) -> str:
    """The group of a metric: ``task``, ``reward`` or ``guardrails``, which has also what is in no group."""
    groups = (group for run in runs for group, names in run.results.columns.items() if name in names)
    return next(groups, "guardrails")


def _metric_field(name: str, rows: Sequence[Row], tests: Tests | None) -> Field:
    """A metric of the final policies, a star at what differs from the baseline for certain."""
    runs = [run for row in rows for run in row.runs]
    directions = {row.direction(name) for row in rows}
    direction = directions.pop() if len(directions) == 1 else None
    made = _numbers(name, [row.values(name) for row in rows])
    certain = tests.differences if tests else {}
    made.texts = [
        f"{text} *" if name in certain.get(i, {}) and certain[i][name].certain else text
        for i, text in enumerate(made.texts)
    ]
    # Numbers of different tasks, and of different reward models, are not comparable, so none of them is the best.
    if len({row.task for row in rows}) == 1 and not (tests and name in tests.other_judges):
        made.best = frozenset(best(made.numbers or [], direction))
    made.group, made.metric, made.direction = group_of(name, runs), name, direction
    return made


def _gain_field(
    name: str, rows: Sequence[Row], over: str, policy: Callable[[RunResults], PolicyResult | None]
) -> Field:
    """What the final policies gained over another policy of the same run."""
    values = [[v for run in row.runs if (v := run.value(name, minus=policy)) is not None] for row in rows]
    made = _numbers(f"over {over}", values)
    places = decimals([mean for mean in made.numbers or [] if mean is not None])
    made.texts = [number(mean, places, sign=True) for mean in made.numbers or []]  # the spread is beside the metric
    made.group = group_of(name, [run for row in rows for run in row.runs])
    return made


def _human_field(rows: Sequence[Row]) -> Field:
    """How often people prefer the final policies' answers to those of the policy before; mean over a row's runs."""
    made = _numbers(HUMAN, [human_rates(row.runs) for row in rows])
    made.texts = [
        text if mean is None else f"{100 * mean:.0f} %"
        for mean, text in zip(made.numbers or [], made.texts, strict=True)
    ]
    made.direction = "max"
    return made


def human_rates(runs: Sequence[Run]) -> list[float]:
    """Of runs whose final policy people compared with the one before it."""
    said = [run.human(policy_before) for run in runs]
    return [one.rate for one in said if one is not None and one.rate is not None]


def _numbers(title: str, values: Sequence[Sequence[float]]) -> Field:
    means = [statistics.fmean(row) if row else None for row in values]
    spread = [statistics.stdev(row) if len(row) > 1 and all(map(math.isfinite, row)) else None for row in values]
    places = decimals([mean for mean in means if mean is not None])
    texts = [
        number(mean, places) + (f" ± {number(sd, places)}" if sd is not None else "")
        for mean, sd in zip(means, spread, strict=True)
    ]
    return Field(title, texts, numbers=means, spread=spread)


def table_notes(rows: Rows, fields: Sequence[Field]) -> list[str]:
    """What one must know to read the table: what else differs within a row, and what tells a task's metric from the
    reward of the same name."""
    notes = [f"Within a row these differ too: {_named(rows.mixed)}."] if rows.mixed else []
    others = [key for key in rows.keys[rows.telling :] if key not in ("task", "stages")]
    if others and rows.telling:
        notes.append(f"Rows that differ in {', '.join(rows.keys[: rows.telling])} also differ in {_named(others)}.")
    names = {field.metric for field in fields}
    twice = [name for name in names if f"reward/{name}" in names]
    told = [
        f"{name} is the score of the whole corpus, reward/{name} the mean of the answers' rewards" for name in twice
    ]
    if any(field.title == HUMAN for field in fields):
        notes.append("human: how often people prefer the final policy's answers to those of the policy before it.")
    return [*notes, *([f"{'; '.join(sorted(told))}, each on its own scale."] if told else [])]


def _named(settings: Sequence[str]) -> str:
    more = f" and {len(settings) - NAMED} more" if len(settings) > NAMED else ""
    return f"{', '.join(settings[:NAMED])}{more}"


def screen_table(fields: Sequence[Field], width: int) -> Table:
    """The comparison for the screen; what does not fit its width is named below, the last columns first to go."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = list(fields)
    while True:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="", caption_justify="left")
        group = ""
        for column in shown:
            # A group's title stands above its first column.
            title = GROUP_TITLES.get(column.group, "") if column.group != group else ""
            group = column.group
            heading = Text(f"{title}\n", style="dim").append(
                clean(column.title) + ARROWS.get(column.direction or "", ""), style="not dim"
            )
            table.add_column(heading, justify="right" if column.numbers else "left", no_wrap=True)
        for i in range(len(fields[0].texts)):
            texts = [_fitting(column, i, width) for column in shown]
            table.add_row(
                *(Text(text, "bold" if i in column.best else "") for text, column in zip(texts, shown, strict=True))
            )
        if table_width(table) <= width or len(shown) <= 2:
            break
        # Results keep half of the room at least, however many settings differ.
        words = [column for column in shown[1:] if column.numbers is None]
        metrics = [column for column in shown if column.numbers is not None]
        shown.remove((words if len(words) >= len(metrics) else metrics)[-1])
    missing = [clean(column.title) for column in fields if column not in shown]
    if missing:
        table.caption = Text(f"No room for {', '.join(missing)}: see --html or --csv")
    return table


def _fitting(column: Field, i: int, width: int) -> str:
    """A cell's text; a run's folder, whose beginning and end both tell, is shortened in the middle to leave room."""
    if column.title not in RUN_TITLES:
        return short(column.texts[i])
    text = " ".join(clean(column.texts[i]).split())
    limit = max(20, width // 4)
    return text if len(text) <= limit else f"{text[: limit - limit // 2 - 1]}…{text[-(limit // 2) :]}"


def short(text: str, limit: int = 40) -> str:
    """A text on one line of at most so many characters."""
    text = " ".join(clean(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def csv_text(rows: Rows, tests: Tests | None = None) -> str:
    """Everything unrounded, a line a row: settings, runs, each metric with what the tests found, then runs left out.

    After a metric's mean come ``sd``, the ``change`` against the baseline row, its 95 % interval ``low`` and ``high``,
    ``p`` and ``p corrected``. The objective also has its gains over the first and over the fine-tuned policy.
    """
    runs = [run for row in rows.rows for run in row.runs]
    names = list(dict.fromkeys([*objectives(runs), *(n for run in runs if run.final for n in run.final.metrics)]))
    lines = []
    for i, row in enumerate(rows.rows):
        line: dict[str, Any] = {"row": row.name, "status": "finished", **row.settings}
        line |= {"n": len(row.runs), "seeds": " ".join(map(str, row.seeds)), "task": row.task}
        rates = human_rates(row.runs)
        line[HUMAN] = statistics.fmean(rates) if rates else None
        line["runs"] = " ".join(rows.label(run) for run in row.runs)
        for name in names:
            values = row.values(name)
            line[name] = statistics.fmean(values) if values else None
            line[f"{name} sd"] = (
                statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
            )
            test = tests.differences.get(i, {}).get(name) if tests else None
            if test is not None:
                found = {"change": test.change, "low": test.low, "high": test.high, "p": test.p}
                line |= {f"{name} {key}": value for key, value in {**found, "p corrected": test.corrected}.items()}
        lines.append(line)
        for name in objectives(row.runs):
            for over, policy in OTHERS.items():
                gains = [gain for run in row.runs if (gain := run.value(name, minus=policy)) is not None]
                line[f"{name} over {over}"] = statistics.fmean(gains) if gains else None
    for label, run in rows.left_out.items():
        known = {key: value for key in rows.keys if (value := row_value(run, key)) != "-"}
        told = {"status": run.results.status, **known, "n": 0, "seeds": run.results.seed, "task": run.results.task}
        lines.append({"row": label, **told, "runs": label, "reason": why_left_out(run)})
    order = {
        "row": None,
        "status": None,
        **dict.fromkeys(rows.keys),
        "n": None,
        "seeds": None,
        "task": None,
        "runs": None,
        HUMAN: None,
    }
    parts = ("", " sd", *(f" over {over}" for over in OTHERS), " change", " low", " high", " p", " p corrected")
    wanted = [*order, *(f"{name}{part}" for name in names for part in parts), "reason"]
    columns = [column for column in wanted if any(line.get(column) is not None for line in lines)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
