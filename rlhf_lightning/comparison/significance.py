"""Whether two rows of the comparison differ for certain: paired tests over the held-out rows and over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rlhf_lightning.comparison.rows import Row
from rlhf_lightning.report.summary import improves
from rlhf_lightning.report.winrate import WinRate, win_rate

DRAWS = 2000
"""Resamples of the held-out rows."""

ALPHA = 0.05
"""A corrected p value below this is called certain."""


class Difference(NamedTuple):
    """A metric of a row against the baseline row.

    Attributes:
        baseline, value: means over the runs of each.
        change: ``value - baseline``.
        low, high: the 95 % interval of the change.
        p: two-sided.
        corrected: the same by Holm, over all tests of its family; see `correct`.
        better: whether the change is for the better; None where the metric has no better direction, or nothing changed.
    """

    baseline: float
    value: float
    change: float
    low: float
    high: float
    p: float
    corrected: float
    better: bool | None

    @property
    def certain(self) -> bool:
        """Whether chance is ruled out at the level `ALPHA`, after the correction."""
        return self.corrected < ALPHA

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``moved`` where neither side is better, or ``unsure``."""
        if not self.certain:
            return "unsure"
        return "moved" if self.better is None else "better" if self.better else "worse"


@dataclass
class Tests:
    """What tests of rows against baseline rows found."""

    against: dict[int, int]
    """Place of a row to the place of the baseline row of its task."""
    draws: int
    differences: dict[int, dict[str, Difference]] = field(default_factory=dict)
    """Place of a row to metric to how it differs."""
    wins: dict[int, dict[str, WinRate]] = field(default_factory=dict)
    """Place of a row to reward to how often its answers beat the baseline's, paired run by run."""
    untested: dict[int, str] = field(default_factory=dict)
    """Place of a row to why it can't be tested."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know of single figures."""


class Sampled(NamedTuple):
    """A row's metric on resampled held-out rows.

    Attributes:
        values: (m,) of its runs, as measured.
        resampled: (m, draws) of its runs, each resample the same rows for all of them.
        seeds: (m,) of its runs.
    """

    values: np.ndarray
    resampled: np.ndarray
    seeds: Sequence[int | None]


def difference(baseline: Sampled, other: Sampled, direction: str | None, seed: int = 0) -> Difference:
    """A paired test of the means over runs, not yet corrected for other tests.

    The error that the choice of held-out rows makes is that of a paired bootstrap (Koehn 2004; sacrebleu). To it is
    added the error of a mean over few seeds: draws of Student's t times the standard error over the runs. Where both
    sides have the same seeds it is that of the differences seed by seed, else the spread is pooled over both sides.
    With one run a side nothing is known of other seeds, and the test is of these two models.

    Args:
        baseline, other: the two sides, resampled alike.
        direction: which way is better: ``max``, ``min`` or None.
        seed: of the draws of Student's t.
    """
    change = float(other.values.mean() - baseline.values.mean())
    drawn = other.resampled.mean(0) - baseline.resampled.mean(0)
    drawn = drawn[np.isfinite(drawn)]
    error = drawn - drawn.mean()
    spread, free = _seed_error(baseline, other)
    if free:
        error = error + spread * np.random.default_rng(seed).standard_t(free, len(error))
    slack = 1e-9 * max(1.0, abs(change))  # equal but for rounding counts as equal
    p = (1 + int((np.abs(error) >= abs(change) - slack).sum())) / (1 + len(error))
    low, high = (change + np.percentile(error, [2.5, 97.5])).tolist()
    better = None if abs(change) <= slack else improves(change, direction)
    return Difference(
        float(baseline.values.mean()), float(other.values.mean()), change, low, high, min(p, 1.0), min(p, 1.0), better
    )


def _seed_error(baseline: Sampled, other: Sampled) -> tuple[float, int]:
    """The standard error of the difference over seeds, and its degrees of freedom; 0 where there are none."""
    a, b = baseline.values, other.values
    if same_seeds(baseline.seeds, other.seeds):
        return (float((b - a).std(ddof=1)) / math.sqrt(len(a)), len(a) - 1) if len(a) > 1 else (0.0, 0)
    free = len(a) + len(b) - 2
    if not free:
        return 0.0, 0
    pooled = math.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / free)
    return pooled * math.sqrt(1 / len(a) + 1 / len(b)), free


def same_seeds(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two rows, in the order of their seeds, have the same ones, each once."""
    return list(a) == list(b) and None not in a and len(set(a)) == len(a)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for each other by Holm's step-down method (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def correct(
    found: Mapping[int, Mapping[str, Difference]], leading: Callable[[int], str | None]
) -> dict[int, dict[str, Difference]]:
    """The differences with corrected p values: those of the objective for each other, and all others for each other.

    Args:
        found: of each row, by metric.
        leading: a row's objective.
    """
    families: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
    for i, by_name in found.items():
        for name in by_name:
            families[name == leading(i)].append((i, name))
    made: dict[int, dict[str, Difference]] = {i: {} for i in found}
    corrected: dict[tuple[int, str], float] = {}
    for places in families.values():
        corrected |= zip(places, holm([found[i][name].p for i, name in places]), strict=True)
    for i, by_name in found.items():  # in the order of the metrics
        made[i] = {name: test._replace(corrected=corrected[i, name]) for name, test in by_name.items()}
    return made


def compare_rows(
    rows: Sequence[Row], baseline: int = 0, draws: int = DRAWS, only: Iterable[str] | None = None
) -> Tests:
    """Test every row against the baseline, and rows of other tasks against the first one of their task.

    Loads torch and the metrics' packages: a few seconds.

    Args:
        rows: of a comparison.
        baseline: the place of the row that the others are held against.
        draws: resamples.
        only: the metrics to test; by default all that follow from the answers.
    """
    from rlhf_lightning.comparison.answers import Answers, held_out_rows

    firsts = {rows[i].task: i for i in [*reversed(range(len(rows))), baseline]}
    tests = Tests({i: firsts[row.task] for i, row in enumerate(rows) if firsts[row.task] != i}, draws)
    answers, wanted = Answers(draws), None if only is None else set(only)
    asked = {id(run): held_out_rows(run) for row in rows for run in row.runs}
    notes: dict[str, None] = {}
    known: dict[int, dict[str, Sampled]] = {}

    def sampled(i: int) -> dict[str, Sampled]:
        if i not in known:
            by_run = []
            for run in rows[i].runs:
                figures, refused = answers.figures(run)
                by_run.append(figures)
                notes.update({f"no test of {name} in {rows[i].name}: {why}": None for name, why in refused.items()})
            shared = [name for name in by_run[0] if all(name in figures for figures in by_run)]
            known[i] = {
                name: Sampled(
                    np.array([run.value(name) for run in rows[i].runs], dtype=float),
                    np.stack([figures[name] for figures in by_run]),
                    rows[i].seeds,
                )
                for name in shared
                if wanted is None or name in wanted
            }
        return known[i]

    found: dict[int, dict[str, Difference]] = {}
    for i, base in tests.against.items():
        row, first = rows[i], asked[id(rows[base].runs[0])]
        if not first or not all(asked[id(run)] for run in row.runs):
            tests.untested[i] = "there is no samples.jsonl to test with"
        elif any(asked[id(run)] != first for run in [*rows[base].runs, *row.runs]):
            tests.untested[i] = (
                "only answers to the same prompts with the same references are paired, these have others"
            )
        else:
            a, b = sampled(base), sampled(i)
            names = [
                name for name in (row.runs[0].final.metrics if row.runs[0].final else []) if name in a and name in b
            ]
            found[i] = {name: difference(a[name], b[name], row.direction(name), seed=i) for name in names}
            tests.wins[i] = win_rates(rows[base], row)
    tests.differences = correct(found, lambda i: rows[i].objective)
    tests.notes = list(notes)
    return tests


def win_rates(baseline: Row, row: Row) -> dict[str, WinRate]:
    """How often a row's answers beat the baseline's to the same prompts, by each reward, run by run.

    Runs are paired by their seeds where both rows have the same ones, else in their order, as far as there are pairs.
    """
    from rlhf_lightning.metrics import split_words

    pairs = list(zip(baseline.runs, row.runs, strict=False))
    found = {}
    for name in row.runs[0].results.columns.get("reward", []):
        sign = -1.0 if row.direction(name) == "min" else 1.0
        sides: list[list[np.ndarray]] = [[], []]
        lengths: list[list[np.ndarray]] = [[], []]
        for pair in pairs:
            for side, run in enumerate(pair):
                policy = run.final.name if run.final else ""
                samples = [sample for sample in run.samples() if policy in sample.completions]
                scores = [sample.scores.get(policy, {}).get(name, math.nan) for sample in samples]
                sides[side].append(sign * np.array(scores))
                lengths[side].append(np.array([float(len(split_words(s.completions[policy]))) for s in samples]))
        old, new = (np.stack(side, 1) for side in sides)
        old_lengths, new_lengths = (np.stack(side, 1) for side in lengths)
        rate = win_rate(old, new, old_lengths, new_lengths)
        if rate is not None:
            found[name] = rate
    return found
