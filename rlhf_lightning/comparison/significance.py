"""Whether two rows of the comparison differ for certain: paired tests over the held-out rows and over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rlhf_lightning.comparison.judges import other_judges
from rlhf_lightning.comparison.rows import Row
from rlhf_lightning.report.runs import Run
from rlhf_lightning.report.summary import improves
from rlhf_lightning.report.winrate import WinRate, win_rate

T_DRAWS = 10
"""Draws of the error over seeds for each resample of the rows; its tails are long."""

DRAWS = 2000
"""Resamples of the held-out rows."""

FEWEST_ROWS = 10
"""With fewer held-out rows nothing is tested: a bootstrap of a few rows knows nothing of others."""

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
    unknown: dict[int, list[str]] = field(default_factory=dict)
    """Place of a row to the metrics, of those that both sides have, that were not tested."""
    other_judges: set[str] = field(default_factory=set)
    """Rewards that another model gave in some row: their figures are on several scales."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know of single figures."""


class Sampled(NamedTuple):
    """A row's metric on resampled held-out rows.

    Attributes:
        values: (m,) of its runs, as measured.
        resampled: (m, draws) of its runs, each resample the same rows for all of them.
        seeds: (m,) of its runs.
        rows: held-out rows that were drawn from, of the run that has the fewest.
    """

    values: np.ndarray
    resampled: np.ndarray
    seeds: Sequence[int | None]
    rows: int


def difference(baseline: Sampled, other: Sampled, direction: str | None) -> Difference:
    """A paired test of the means over runs, not yet corrected for other tests.

    The error that the choice of held-out rows makes is that of a paired bootstrap (Koehn 2004; sacrebleu), times
    ``sqrt(n / (n - 1))``, as the spread of n rows is too small by that. To it is added the error of a mean over few
    seeds: draws of Student's t times the standard error over the runs. Where both sides have the same seeds it is that
    of the differences seed by seed, else the spread is pooled over both sides. With one run a side nothing is known of
    other seeds, and the test is of these two models.

    Where no draw is as far off as the change, p is the tail of a normal distribution, or with an error over seeds of
    Student's t with the degrees of freedom of Welch and Satterthwaite. It is never less than ``2 ** (1 - n)``, what a
    randomisation test of n rows can give at the least.

    Args:
        baseline, other: the two sides, resampled alike.
        direction: which way is better: ``max``, ``min`` or None.
    """
    change = float(other.values.mean() - baseline.values.mean())
    rows = min(baseline.rows, other.rows)
    drawn = other.resampled.mean(0) - baseline.resampled.mean(0)
    drawn = drawn[np.isfinite(drawn)]
    error = (drawn - drawn.mean()) * math.sqrt(rows / (rows - 1))
    of_rows = float(error.std())
    spread, free = _seed_error(baseline, other)
    if free:
        # The same draws for all rows, each with both signs: what is found depends on the two sides alone, and mirrored
        # sides give the mirrored interval.
        drawn_t = spread * np.random.default_rng(0).standard_t(free, (T_DRAWS, len(error)))
        error = np.concatenate([error + drawn_t, error - drawn_t]).ravel()
    slack = 1e-9 * max(1.0, abs(change))  # equal but for rounding counts as equal
    further = int((np.abs(error) >= abs(change) - slack).sum())
    p = (1 + further) / (1 + len(error))
    if not further:
        p = min(p, _tail(abs(change), of_rows, spread, free))
    p = min(max(p, 2.0 ** (1 - rows)), 1.0)
    low, high = (change + np.percentile(error, [2.5, 97.5])).tolist()
    better = None if abs(change) <= slack else improves(change, direction)
    return Difference(float(baseline.values.mean()), float(other.values.mean()), change, low, high, p, p, better)


def _tail(change: float, of_rows: float, of_seeds: float, free: int) -> float:
    """The two-sided tail beyond a change whose standard error is made of that of rows and that of ``free`` degrees."""
    total = math.hypot(of_rows, of_seeds)
    if total == 0:
        return 0.0
    if not free or of_seeds == 0:
        return math.erfc(change / total / math.sqrt(2))
    return student_tail(change / total, math.floor(free * (total / of_seeds) ** 4))


def student_tail(t: float, free: int) -> float:
    """P(abs(T) > t) of Student's t with so many degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4).

    >>> round(student_tail(12.706, 1), 4), round(student_tail(2.776, 4), 4)
    (0.05, 0.05)
    """
    free = min(free, 1000)  # from here on it is the normal distribution but for a trifle
    angle = math.atan2(t, math.sqrt(free))
    cosine, odd = math.cos(angle), free % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, free, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return max(1 - inside, 0.0)


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
    """The differences with corrected p values.

    The objective's tests of all rows are corrected for each other, as the best row is picked by them; all other metrics
    of a row for each other, as they are read as what else became of that row.

    Args:
        found: of each row, by metric.
        leading: a row's objective.
    """
    families: dict[int | None, list[tuple[int, str]]] = {}
    for i, by_name in found.items():
        for name in by_name:
            families.setdefault(None if name == leading(i) else i, []).append((i, name))
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
            known[i] = {}
            for name in by_run[0]:
                if (wanted is not None and name not in wanted) or not all(name in figures for figures in by_run):
                    continue
                values = np.array([run.value(name) for run in rows[i].runs], dtype=float)
                fewest = min(figures[name].rows for figures in by_run)
                if not np.isfinite(values).all():
                    notes[f"no test of {name} in {rows[i].name}: it is not a number there"] = None
                elif fewest < FEWEST_ROWS:
                    notes[f"no test of {name} in {rows[i].name}: {_too_few(fewest)} have it"] = None
                else:
                    draws_of = np.stack([figures[name].values for figures in by_run])
                    known[i][name] = Sampled(values, draws_of, rows[i].seeds, fewest)
        return known[i]

    found: dict[int, dict[str, Difference]] = {}
    for i, base in tests.against.items():
        row, other = rows[i], rows[base]
        why = _not_paired(other, row, asked)
        if why:
            tests.untested[i] = why
            continue
        refused = other_judges(other, row)
        tests.other_judges |= refused.keys()
        notes.update({f"{name} {why}": None for name, why in refused.items()})
        a, b = sampled(base), sampled(i)
        measured = [name for name in _measured(row) if name in _measured(other)]
        measured = [name for name in measured if wanted is None or name in wanted]
        names = [name for name in measured if name in a and name in b and name not in refused]
        found[i] = {name: difference(a[name], b[name], row.direction(name)) for name in names}
        tests.unknown[i] = [name for name in measured if name not in names]
        tests.wins[i] = win_rates(other, row, [name for name in _rewards(row) if name not in refused])
    tests.differences = correct(found, lambda i: rows[i].objective)
    tests.notes = list(notes)
    return tests


def _measured(row: Row) -> list[str]:
    return list(row.runs[0].final.metrics) if row.runs[0].final else []


def _rewards(row: Row) -> list[str]:
    return row.runs[0].results.columns.get("reward", [])


def _too_few(rows: int) -> str:
    return f"only {rows} held-out row{'s' * (rows != 1)}, of {FEWEST_ROWS} at least,"


def _not_paired(baseline: Row, row: Row, asked: Mapping[int, tuple]) -> str | None:
    """Why the answers of two rows can't be paired; None where they can."""
    if not all(asked[id(run)] for run in [*baseline.runs, *row.runs]):
        return "there is no samples.jsonl to test with"
    if any(asked[id(a)] != asked[id(b)] for a, b in pairs(baseline, row)):
        return (
            "only answers to the same prompts with the same references are paired, these have others; "
            "give data.test, or data.seed=0 for the same split in all runs"
        )
    fewest = min(len(asked[id(run)]) for run in row.runs)
    return None if fewest >= FEWEST_ROWS else f"{_too_few(fewest)} can be compared"


def pairs(baseline: Row, row: Row) -> list[tuple[Run, Run]]:
    """Runs of two rows that are held against each other.

    Seed by seed where both rows have the same ones; else in their order, the shorter side again from its start.
    """
    most = max(len(baseline.runs), len(row.runs))
    return [(baseline.runs[k % len(baseline.runs)], row.runs[k % len(row.runs)]) for k in range(most)]


def win_rates(baseline: Row, row: Row, names: Iterable[str]) -> dict[str, WinRate]:
    """How often a row's answers beat the baseline's to the same prompts, by each reward, over all `pairs` of runs.

    Args:
        baseline, row: the two sides.
        names: of the rewards.
    """
    from rlhf_lightning.metrics import split_words

    both = pairs(baseline, row)
    found = {}
    for name in names:
        sign = -1.0 if row.direction(name) == "min" else 1.0
        sides: list[list[np.ndarray]] = [[], []]
        lengths: list[list[np.ndarray]] = [[], []]
        for pair in both:
            for side, run in enumerate(pair):
                policy = run.final.name if run.final else ""
                samples = [sample for sample in run.samples() if policy in sample.completions]
                scores = [sample.scores.get(policy, {}).get(name, math.nan) for sample in samples]
                sides[side].append(sign * np.array(scores))
                lengths[side].append(np.array([float(len(split_words(s.completions[policy]))) for s in samples]))
        if len({len(scores) for scores in sides[0]}) == 1:
            old, new, old_lengths, new_lengths = (np.stack(of, 1) for of in (*sides, *lengths))
        else:  # each seed has held-out rows of its own
            old, new, old_lengths, new_lengths = (np.concatenate(of) for of in (*sides, *lengths))
        rate = win_rate(old, new, old_lengths, new_lengths)
        if rate is not None:
            found[name] = rate._replace(pairs=len(both))
    return found
