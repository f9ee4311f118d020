"""Which runs are one row of the comparison, and which take no part in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.runs import Run, differing_settings, natural, setting, setting_names
from rlhf_lightning.report.summary import brief

NAME_LIMIT = 70
"""Characters of a row's settings that still make a name."""


@dataclass(eq=False)
class Row:
    """Runs that differ in nothing but their seeds, or in nothing that was asked for."""

    name: str
    """What tells it apart from the other rows, in words."""
    tag: str
    """The same without the settings' names, where there is little room."""
    settings: dict[str, str]
    """The settings by which rows are told apart, and this row's values."""
    runs: list[Run]
    """In the order of their seeds."""

    @property
    def task(self) -> str:
        """The task of all its runs."""
        return self.runs[0].results.task

    @property
    def objective(self) -> str | None:
        """What its runs are judged by."""
        return self.runs[0].results.objective

    @property
    def seeds(self) -> list[int | None]:
        """The seeds of its runs."""
        return [run.results.seed for run in self.runs]

    @property
    def said(self) -> set[str]:
        """Its settings as ``KEY=VALUE``, by each of their names, with all digits and with few."""
        ways = [(key, {value, brief(value)}) for full, value in self.settings.items() for key in _ends(full)]
        return {f"{key}={value}" for key, values in ways for value in values}

    def direction(self, metric: str) -> str | None:
        """Which way of a metric is better: ``max``, ``min`` or None."""
        return self.runs[0].results.directions.get(metric)

    def values(self, metric: str) -> list[float]:
        """A metric of the final policies, of the runs that have it."""
        return [value for run in self.runs if (value := run.value(metric)) is not None]


@dataclass(eq=False)
class Rows:
    """What is compared."""

    keys: list[str]
    """The settings by which runs were told apart: the columns beside the results, those of the names first."""
    telling: int
    """How many of them make the names."""
    rows: list[Row]
    """Sorted by the values of the settings, numbers as numbers."""
    left_out: dict[str, Run]
    """Runs that did not finish, or measured no policy, by their labels: they take no part."""
    labels: dict[str, Run]
    """All runs, by the part of their path that tells them apart."""
    shown: Callable[[str], str] = str
    """A setting's value as it is shown: short, where rows are told apart that way."""

    @property
    def mixed(self) -> list[str]:
        """Settings beside the seed that are not the same in all runs of a row."""
        found = dict.fromkeys(key for row in self.rows for key in differing_settings(row.runs))
        return [key for key in found if key != "seed"]

    def label(self, run: Run) -> str:
        """A run's short name."""
        return next(label for label, other in self.labels.items() if other is run)

    def find(self, given: str | None) -> int:
        """The place of the row that a user calls by its name, by settings (``KEY=VALUE,...``) or by a run of it.

        Args:
            given: as given; None is the first row.

        Raises:
            UserError: no row is called so, or several are.
        """
        if given is None:
            return 0
        wanted = {part.strip() for part in given.split(",")}
        found = [
            i
            for i, row in enumerate(self.rows)
            if given == row.name or any(self.label(run) == given for run in row.runs) or wanted <= row.said
        ]
        if len(found) != 1:
            said = "are several rows" if found else "is no row"
            raise UserError(f"--baseline {given} {said}; there are: {'; '.join(row.name for row in self.rows)}")
        return found[0]


def _ends(name: str) -> list[str]:
    """A dotted name, and its last parts.

    >>> _ends("ppo.rewards.chrf")
    ['ppo.rewards.chrf', 'rewards.chrf', 'chrf']
    """
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def make_rows(runs: Sequence[Run], group_by: str | None = None, each: bool = False) -> Rows:
    """Sort runs into rows, named by as few settings as tell them apart.

    Runs of other tasks or other stages are never in one row. Runs that are not finished are in none.

    Args:
        runs: all of them.
        group_by: settings whose values make a row, with commas between; by default all that differ but the seed.
        each: make every run a row of its own.

    Raises:
        UserError: a setting of ``group_by`` is none of these runs'.
    """
    labels = _labels(runs)
    done = {label: run for label, run in labels.items() if run.results.status == "finished" and run.final}
    finished = list(done.values())
    keys = setting_names(runs, group_by) if group_by else list(differing_settings(finished))
    keys = [key for key in keys if group_by or each or key != "seed"]
    keys += [key for key in ("task", "stages") if key not in keys and len({row_value(r, key) for r in finished}) > 1]
    telling = keys
    if not group_by:
        telling = _telling({key: [row_value(run, key) for run in finished] for key in keys})
        keys = [*telling, *(key for key in keys if key not in telling)]
    told_apart = _told_apart(done, keys, group_by, each)
    shown = brief if len({tuple(map(brief, values)) for values in told_apart}) == len(told_apart) else str
    rows = []
    for values, same in sorted(told_apart.items(), key=lambda item: [natural(value) for value in item[0]]):
        settings = dict(zip(keys, values, strict=False))
        names = [f"{key}={shown(settings[key])}" for key in telling]
        name = ", ".join([*names, *values[len(keys) :]])
        first = next(label for label, run in done.items() if run is same[0])
        if each or not name or len(name) > NAME_LIMIT:
            name = first if len(same) == 1 else "all runs" if len(told_apart) == 1 else f"{first} and its like"
        tag = ", ".join([*(shown(settings[key]) for key in telling), *values[len(keys) :]]) if "=" in name else name
        rows.append(
            Row(name, tag, settings, sorted(same, key=lambda run: (run.results.seed is None, run.results.seed or 0)))
        )
    left_out = {label: run for label, run in labels.items() if label not in done}
    return Rows(keys, len(telling), rows, left_out, labels, shown)


def _telling(columns: dict[str, list[str]]) -> list[str]:
    """Settings that are enough to tell runs apart as well as all do, found one by one; in the order given.

    >>> _telling({"a": ["1", "1", "2"], "b": ["x", "x", "x"], "c": ["1", "1", "2"], "d": ["5", "6", "5"]})
    ['a', 'd']
    """

    def kinds(names: Sequence[str]) -> int:
        return len(set(zip(*(columns[name] for name in names), strict=True)))

    found: list[str] = []
    while kinds(found) < kinds(list(columns)):
        found.append(max(columns, key=lambda name: kinds([*found, name])))  # the first of those that are as good
    return [name for name in columns if name in found]


def _told_apart(
    runs: dict[str, Run], keys: Sequence[str], group_by: str | None, each: bool
) -> dict[tuple[str, ...], list[Run]]:
    """Runs with the same values of the settings; where a seed comes twice among them also with the same folder."""
    folders = {label: str(Path(label).parent) for label in runs}
    themselves = {label: label for label in runs}
    grouped: dict[tuple[str, ...], list[Run]] = {}
    # The same settings and the same seed twice are a run before a change of something else and one after it.
    for place in [themselves] if each else [{}] if group_by else [{}, folders, themselves]:
        grouped = {}
        for label, run in runs.items():
            values = (*(row_value(run, key) for key in keys), *([place[label]] if place else []))
            grouped.setdefault(values, []).append(run)
        if all(len({run.results.seed for run in same}) == len(same) for same in grouped.values()):
            break
    return grouped


def row_value(run: Run, key: str) -> str:
    """A run's value of a setting; task and stages are those of its results."""
    if key == "task":
        return run.results.task
    return ", ".join(run.results.stages) if key == "stages" else setting(run, key)


def _labels(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by the part of their path that tells them apart."""
    if not runs:
        return {}
    if len({run.path.is_absolute() for run in runs}) > 1:  # folders beside runs from elsewhere have no common part
        return {str(run.path): run for run in runs}
    common = os.path.commonpath([run.path.parent for run in runs])
    return {str(run.path.relative_to(common)): run for run in runs}


TELLING = {
    "failed": (r"the run failed: (.*)", r"(\S+ failed after \d+ optimizer steps: .*)"),
    "interrupted": (r"(\S+ was interrupted after \d+ optimizer steps.*)",),
    "pruned": (r"pruned (after .*)",),
}
"""The notes that tell of a status, in the order of how well they do."""


def why_left_out(run: Run) -> str:
    """A run's status and what its notes say of it, in a line."""
    status = run.results.status
    if status == "finished":
        return "measured no policy"
    if status == "running":
        return "ended without a word, or is still running"
    for pattern in TELLING[status]:
        for note in reversed(run.results.notes):  # a run that was resumed may have failed before
            if told := re.fullmatch(pattern, note, re.DOTALL):
                return f"{status}: {' '.join(told[1].split())}"
    return status
