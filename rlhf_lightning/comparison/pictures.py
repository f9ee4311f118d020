"""Pictures over all rows: learning curves with bands, reward against KL, settings and metrics side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from rlhf_lightning.comparison.rows import Row, Rows
from rlhf_lightning.report.curves import Band, Curve, Line, draw, panels, thin_out, time_of
from rlhf_lightning.report.page import figure, html_text
from rlhf_lightning.report.runs import Run, natural, setting
from rlhf_lightning.report.summary import clean, plain_words

PANELS_PER_STAGE = 6
POINTS = 60
"""Of a curve: lines that lie over each other are told apart where they are smooth."""

WIDTH, HEIGHT = 440, 300
AXIS_WIDTH = 112
LABEL_HEIGHT = 13
LETTER_WIDTH = 6.5
"""Of a label's letters on average, rather too wide than too narrow."""

ALL_LABELLED = 8
"""The most rows of which each gets a label; of more, those of the Pareto front."""


class Spread(NamedTuple):
    """A logged value over the runs of a row: mean, lowest and highest at each step that all of them logged."""

    mean: Curve
    low: Curve
    high: Curve
    runs: int


class Panel(NamedTuple):
    """A logged value of a stage, of every row that has it."""

    stage: str
    name: str
    validation: bool
    rows: dict[int, Spread]


def spread(curves: Sequence[Curve]) -> Spread:
    """Mean, lowest and highest of curves, at the steps that all of them have."""
    shared = sorted(set(curves[0].steps).intersection(*(curve.steps for curve in curves)))
    values = [dict(zip(*curve, strict=True)) for curve in curves]
    by_step = [[of[step] for of in values] for step in shared]
    mean, low, high = (Curve(shared, [way(at) for at in by_step]) for way in (_mean, min, max))
    return Spread(mean, low, high, len(curves))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def curve_panels(rows: Sequence[Row], leading: Sequence[str]) -> list[Panel]:
    """The first values of each stage, validation where it was logged, of every row."""
    stages = dict.fromkeys(stage for row in rows for run in row.runs for stage in run.results.stages)
    found = []
    for stage in stages:
        by_row = [[panels(stage, run.curves().get(stage, {}), leading) for run in row.runs] for row in rows]
        names = dict.fromkeys(panel.name for row in by_row for run in row for panel in run)
        for name in list(names)[:PANELS_PER_STAGE]:
            same = [[panel for run in row for panel in run if panel.name == name] for row in by_row]
            validation = any(panel.validation for row in same for panel in row)
            drawn = {}
            for i, row in enumerate(same):
                curves = [curve for panel in row if (curve := panel.validation if validation else panel.train)]
                if curves and (over := spread(curves)).mean.steps:
                    drawn[i] = over
            if drawn:
                found.append(Panel(stage, name, validation, drawn))
    return found


def panel_figure(panel: Panel) -> str:
    """A panel: a line a row, the mean over its runs, and a band from the lowest to the highest of several."""
    drawn: list = []
    for color, over in panel.rows.items():
        if over.runs > 1:
            drawn.append(Band(thin_out(over.low, POINTS), thin_out(over.high, POINTS), color))
    for color, over in panel.rows.items():
        mean = thin_out(over.mean, POINTS)
        drawn.append(Line(mean, color, marked=len(mean.steps) <= 10))
    label = f"{panel.stage}: {panel.name}, all rows"
    aside = "validation" if panel.validation else "training"
    return figure(plain_words(panel.name), draw(drawn, label=label, x_label=time_of(panel.stage)), aside)


def pareto_front(points: Sequence[tuple[float, float]], direction: str | None) -> list[int]:
    """The places of the points that no other beats: none has as good a metric at a KL as low, and one of them better.

    Args:
        points: KL and metric of each.
        direction: which way the metric is better; None counts as ``max``.
    """
    sign = -1 if direction == "min" else 1

    def beaten(i: int) -> bool:
        kl, value = points[i][0], sign * points[i][1]
        return any(
            k <= kl and sign * v >= value and (k < kl or sign * v > value) for j, (k, v) in enumerate(points) if j != i
        )

    return sorted((i for i in range(len(points)) if not beaten(i)), key=lambda i: points[i])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that part a range.

    >>> ticks(0, 1), ticks(12, 87)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [20.0, 40.0, 60.0, 80.0])
    """
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A range around values, with some room at its ends."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def frontier(rows: dict[int, Row], metric: str) -> str:
    """The final policies' metric over their KL: small dots are runs, rings the means of rows of several.

    Thin lines are what validation measured on the way. The dashed line is the Pareto front of the means. Empty where no
    run has both.

    Args:
        rows: of one task, by their places in the comparison, which are their colours.
        metric: to draw.
    """
    ends: dict[int, list[tuple[float, float, Run]]] = {}
    paths: dict[int, list[list[tuple[float, float]]]] = {}
    for i, row in rows.items():
        for run in row.runs:
            kl, value = run.value("kl"), run.value(metric)
            if kl is not None and value is not None and math.isfinite(kl) and math.isfinite(value):
                ends.setdefault(i, []).append((kl, value, run))
            for stage, curves in run.curves().items():
                looks = curves.get(f"{stage}/val/{metric}"), curves.get(f"{stage}/val/kl")
                if looks[0] and looks[1]:
                    far = dict(zip(*looks[1], strict=True))
                    path = [(far[step], v) for step, v in zip(*looks[0], strict=True) if step in far]
                    paths.setdefault(i, []).append([p for p in path if all(map(math.isfinite, p))])
    if not ends:
        return ""
    means = {i: (_mean([kl for kl, _, _ in e]), _mean([value for _, value, _ in e])) for i, e in ends.items()}
    around = [(kl, value) for e in ends.values() for kl, value, _ in e] + [
        p for q in paths.values() for r in q for p in r
    ]
    frame = _Frame(_range([kl for kl, _ in around]), _range([value for _, value in around]))
    parts = [frame.axes("KL from the reference policy", plain_words(metric))]
    for i, ways in paths.items():
        parts += [f'<polyline class="path" {_stroke(i)} points="{frame.points(way)}"/>' for way in ways if len(way) > 1]
    places = list(means)
    front = pareto_front(list(means.values()), rows[places[0]].direction(metric))
    best = [means[places[j]] for j in front]
    if len(best) > 1:
        parts.append(f'<polyline class="front" points="{frame.points(best)}"/>')
    for i, found in ends.items():
        for kl, value, run in found:
            x, y = frame.place(kl, value)
            title = f"{rows[i].name}, seed {run.results.seed}: {metric} {value:.4g} at KL {kl:.3g}"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" {_fill(i)}><title>{html_text(title)}</title></circle>'
            )
    taken: list[_Label] = []
    labelled = list(means) if len(means) <= ALL_LABELLED else [places[j] for j in front]
    for i in sorted(means, key=lambda i: -means[i][1]):
        x, y = frame.place(*means[i])
        if len(ends[i]) > 1:
            parts.append(f'<circle class="mean" cx="{x:.1f}" cy="{y:.1f}" r="5" {_stroke(i)}/>')
        label = _label(rows[i].tag, x, y, taken) if i in labelled else None
        if label is not None:
            taken.append(label)
            anchor, start = ('text-anchor="end" ', label.right) if label.before else ("", label.left)
            place = f'{anchor}x="{start:.1f}" y="{label.y:.1f}"'
            parts.append(f'<text class="halo" {place} {_fill(i)}>{html_text(label.text)}</text>')
    about = f"{rows[places[0]].task}: {plain_words(metric)} against KL of all final policies"
    return figure(f"{plain_words(metric)} against KL", _svg(parts, WIDTH, HEIGHT, about), rows[places[0]].task)


class _Label(NamedTuple):
    """A text in a picture: its ends, its base line, and whether it stands before its point."""

    text: str
    left: float
    right: float
    y: float
    before: bool


def _label(text: str, x: float, y: float, taken: Sequence[_Label]) -> _Label | None:
    """A label beside a point, inside the picture, as near as it finds room; None where there is none."""
    room = {False: WIDTH - 4 - (x + 9), True: x - 9 - _Frame.left}
    wanted = LETTER_WIDTH * len(text)
    before = room[False] < wanted and room[True] > room[False]
    text = _short(text, int(room[before] / LETTER_WIDTH))
    width = LETTER_WIDTH * len(text)
    left = x - 9 - width if before else x + 9
    for away in range(0, HEIGHT, 2):
        for at in (y + 4 + away, y + 4 - away):
            free = all(
                abs(at - other.y) >= LABEL_HEIGHT or left + width < other.left or other.right < left for other in taken
            )
            if free and _Frame.top + LABEL_HEIGHT / 2 <= at <= _Frame.bottom:
                return _Label(text, left, left + width, at, before)
    return None


class _Frame:
    """A picture's two linear scales."""

    left, right, top, bottom = 52.0, WIDTH - 12.0, 14.0, HEIGHT - 38.0

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point stands in the picture."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def points(self, path: Sequence[tuple[float, float]]) -> str:
        """A path as SVG writes it."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.place(*point) for point in path))

    def axes(self, x_label: str, y_label: str) -> str:
        """Grid, tick labels and titles."""
        parts = []
        for tick in ticks(*self.x):
            x = self.place(tick, self.y[0])[0]
            parts.append(f'<path class="grid" d="M{x:.1f} {self.top}V{self.bottom}"/>')
            parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{self.bottom + 14}">{tick:g}</text>')
        for tick in ticks(*self.y):
            y = self.place(self.x[0], tick)[1]
            parts.append(f'<path class="grid" d="M{self.left} {y:.1f}H{self.right}"/>')
            parts.append(f'<text class="tick" text-anchor="end" x="{self.left - 5}" y="{y + 4:.1f}">{tick:g}</text>')
        middle = (self.left + self.right) / 2
        parts.append(f'<text text-anchor="middle" x="{middle:.1f}" y="{HEIGHT - 6}">{html_text(x_label)}</text>')
        turned = f'transform="rotate(-90 12 {HEIGHT / 2})"'
        parts.append(f'<text text-anchor="middle" x="12" y="{HEIGHT / 2}" {turned}>{html_text(y_label)}</text>')
        return "".join(parts)


def parallel_axes(rows: Rows, metrics: Sequence[str]) -> str:
    """Every run as a line through its settings and its metrics; empty where there are fewer than three runs.

    Numbers stand in their order of size, with equal distances between the values of a setting.
    """
    colored = [(i, run) for i, row in enumerate(rows.rows) for run in row.runs]
    keys = [
        *(key for key in rows.keys if key != "seed"),
        *(["seed"] if len({r.results.seed for _, r in colored}) > 1 else []),
    ]
    scales: list[tuple[str, dict[int, float], list[tuple[float, str]]]] = []
    for key in keys:
        texts = [run.results.task if key == "task" else setting(run, key) for _, run in colored]
        values = sorted(dict.fromkeys(texts), key=natural)
        if len(values) > 1:
            up = {value: j / (len(values) - 1) for j, value in enumerate(values)}
            shown = values if len(values) <= 9 else [values[0], values[-1]]
            marks = [(up[value], _short(value, 15)) for value in shown]
            scales.append((key, {n: up[text] for n, text in enumerate(texts)}, marks))
    for name in metrics:
        known = {n: v for n, (_, run) in enumerate(colored) if (v := run.value(name)) is not None and math.isfinite(v)}
        if len(set(known.values())) > 1:
            low, high = min(known.values()), max(known.values())
            places = {n: (value - low) / (high - low) for n, value in known.items()}
            scales.append((name, places, [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]))
    if len(colored) < 3 or len(scales) < 2:
        return ""
    width = 70 + AXIS_WIDTH * (len(scales) - 1) + 70
    top, bottom = 40.0, HEIGHT - 16.0

    def place(axis: int, up: float) -> str:
        return f"{70 + AXIS_WIDTH * axis:.1f},{bottom - up * (bottom - top):.1f}"

    parts = []
    for n, (color, run) in enumerate(colored):
        points = [place(axis, known[n]) for axis, (_, known, _) in enumerate(scales) if n in known]
        title = html_text(f"{rows.rows[color].name}, seed {run.results.seed}")
        parts.append(
            f'<polyline class="run" {_stroke(color)} points="{" ".join(points)}"><title>{title}</title></polyline>'
        )
    for axis, (name, _, marks) in enumerate(scales):
        x = 70 + AXIS_WIDTH * axis
        parts.append(f'<path class="axis" d="M{x} {top}V{bottom}"/>')
        parts.append(f'<text text-anchor="middle" x="{x}" y="16">{html_text(_short(name.split(".")[-1], 17))}</text>')
        for height, text in marks:
            y = bottom - height * (bottom - top)
            parts.append(f'<text class="tick halo" x="{x + 5}" y="{y + 4:.1f}">{html_text(text)}</text>')
    return _svg(parts, width, HEIGHT, "Settings and results of every run", least=width)


def _svg(parts: Sequence[str], width: float, height: float, label: str, least: float = 0) -> str:
    style = f' style="min-width:{least:.0f}px"' if least else ""
    head = (
        f'<svg class="drawn" role="img" aria-label="{escape(clean(label))}" viewBox="0 0 {width:g} {height:g}"{style}>'
    )
    return f"{head}{''.join(parts)}</svg>"


def _stroke(row: int) -> str:
    return f'style="stroke:var(--c{row % 8})"'


def _fill(row: int) -> str:
    return f'style="fill:var(--c{row % 8})"'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
