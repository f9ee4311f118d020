"""Learning curves: read from Lightning's ``metrics.csv``, sorted into panels, drawn as SVG in the page's colours."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lightning.report.summary import plain_words

MAX_POINTS = 400
"""Points drawn of a curve; a longer one is averaged over equal stretches."""

FIRST = ("score", "reward", "reward/", "total_reward", "kl")
LATER = ("accuracy", "margin", "entropy", "length", "eos_rate", "kl_coef", "policy_loss", "value_loss")
LAST = ("lr", "grad_norm", "tokens", "padding", "seconds", "time")

SEEN = ("examples", "pairs", "unpaired", "episodes", "tokens")
"""What has been seen so far: axes, and no curves."""

# Matplotlib wants colours, the page has variables: these stand in for them and are replaced in the finished SVG.
INK, FAINT = "#010203", "#010204"
LINE_COLORS = tuple(f"#0203{n:02x}" for n in range(8))
DASHES: tuple = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D")


class Curve(NamedTuple):
    """One logged value over the steps of a stage."""

    steps: list[float]
    values: list[float]


class Panel(NamedTuple):
    """A logged value of a stage, in training and in validation, which share one picture."""

    name: str
    train: Curve | None
    validation: Curve | None

    @property
    def title(self) -> str:
        """The value's name in plain words."""
        return plain_words(self.name)


class Line(NamedTuple):
    """A line to draw."""

    curve: Curve
    color: int
    """Place in the page's palette; from 8 on the colours come again with another dash and marker."""
    marked: bool = False
    """Draw a dot at each point."""


class Area(NamedTuple):
    """A layer of a stack to draw: the space between two stairs.

    Attributes:
        edges: (n + 1) where the steps begin and end.
        low, high: (n) heights of its lower and upper side.
        color: place in the page's palette.
    """

    edges: list[float]
    low: list[float]
    high: list[float]
    color: int


class Band(NamedTuple):
    """What lies between two curves, to draw behind lines: faint, in a colour as `Line` has it."""

    low: Curve
    high: Curve
    color: int


def read_curves(run_dir: str | Path, stages: Iterable[str]) -> dict[str, dict[str, Curve]]:
    """Stage to logged name to curve, of the stages that have a ``metrics.csv``.

    A cell that is empty or no number is left out: a run that was killed can leave half a line. Where a resumed run
    logged a step again, the later value counts.
    """
    curves = {}
    for stage in stages:
        path = Path(run_dir) / stage / "metrics.csv"
        if path.is_file():
            curves[stage] = _read_csv(path)
    return curves


def _read_csv(path: Path) -> dict[str, Curve]:
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    points: dict[str, dict[float, float]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        step = _to_number(row.get("step"))
        if step is None or not math.isfinite(step):
            continue
        for name, cell in row.items():
            value = _to_number(cell)
            if name not in (None, "step", "epoch") and value is not None:
                points.setdefault(name, {})[step] = value
    return {name: Curve(*map(list, zip(*sorted(pairs.items()), strict=True))) for name, pairs in points.items()}


def _to_number(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) else None
    except ValueError:
        return None


def panels(stage: str, curves: Mapping[str, Curve], leading: Sequence[str] = ()) -> list[Panel]:
    """A stage's curves as panels, the telling ones first: rewards and KL, validation metrics, losses, then the rest.

    A value that was never a number has none.

    Args:
        stage: whose they are.
        curves: by the names they were logged under.
        leading: metrics that come before all others, such as the objective and the task's own.
    """
    train: dict[str, Curve] = {}
    validation: dict[str, Curve] = {}
    for name, curve in curves.items():
        short = name.removeprefix(f"{stage}/")
        # Lightning logs one value under two names where it is asked for both; the finer one is drawn.
        if short.endswith("_epoch") and f"{name.removesuffix('_epoch')}_step" in curves:
            continue
        if short in SEEN or not any(map(math.isfinite, curve.values)):
            continue
        short = short.removesuffix("_step")
        (validation if short.startswith("val/") else train)[short.removeprefix("val/")] = curve
    names = sorted({**train, **validation}, key=lambda name: (_rank(name, train, validation, leading), name))
    return [Panel(name, train.get(name), validation.get(name)) for name in names]


def _rank(name: str, train: Mapping[str, Curve], validation: Mapping[str, Curve], leading: Sequence[str]) -> int:
    if name in leading:
        return leading.index(name) - len(leading)
    if name == "loss":
        return 200 if "kl" in train else 0  # the loss of PPO says little
    for base, group in ((10, FIRST), (300, LATER), (500, LAST)):
        for i, entry in enumerate(group):
            if name == entry or (entry.endswith("/") and name.startswith(entry)) or (base == 500 and entry in name):
                return base + i
    return 100 if name in validation else 400


TIMES = ("step", "round")


def time_of(stage: str) -> str:
    """What a stage's curves are drawn over: PPO logs once a round of several optimizer steps."""
    return TIMES[stage == "ppo"]


def draw(lines: Sequence[Line | Area | Band], *, label: str, x_label: str = "step", y_label: str = "") -> str:
    """One small picture as an ``<svg>`` element, its colours the page's variables ``--ink``, ``--faint``, ``--c0``...

    Args:
        lines: what to draw.
        label: what the picture shows, for readers that cannot see it.
        x_label: the title of the horizontal axis.
        y_label: the title of the vertical axis, if it has one.
    """
    return draw_together([(y_label, lines)], label=label, x_label=x_label)


def draw_together(
    parts: Sequence[tuple[str, Sequence[Line | Area | Band]]],
    *,
    label: str,
    x_label: str = "step",
    mark: float | None = None,
    from_zero: bool = False,
) -> str:
    """Pictures one above the other that share the horizontal axis, as one ``<svg>`` element; see `draw`.

    Args:
        parts: of each the title of its vertical axis, and its lines and bands or the layers of its stack.
        label: what the picture shows, for readers that cannot see it.
        x_label: the title of the horizontal axis.
        mark: where a vertical line goes through all of them.
        from_zero: let the vertical axes begin at 0, so that heights can be compared.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": label,
        "text.parse_math": False,
        "font.size": 8,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.alpha": 0.5,
        "grid.linewidth": 0.5,
        "axes.formatter.limits": (-3, 5),
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(settings):
        heights = [1.6 if any(isinstance(line, Area) for line in lines) else 1.0 for _, lines in parts]
        wide, high = (3.7, 2.2) if len(parts) == 1 else (6.4, 0.5 + 1.3 * sum(heights))
        figure = Figure(figsize=(wide, high))
        FigureCanvasSVG(figure)
        # Room for tick labels of seven digits, in inches: a layout that measures them takes twice as long to draw.
        left = 0.85 if any(y_label for y_label, _ in parts) else 0.62
        edges = {"left": left / wide, "right": 1 - 0.12 / wide, "bottom": 0.42 / high, "top": 1 - 0.2 / high}
        grid: Any = {**edges, "height_ratios": heights}
        stacked = figure.subplots(len(parts), sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
        for axes, (y_label, lines) in zip(stacked, parts, strict=True):
            for line in lines:
                if isinstance(line, Line):
                    _plot(axes, line)
                else:
                    _fill(axes, line) if isinstance(line, Area) else _shade(axes, line)
            if from_zero:
                axes.set_ylim(bottom=0)
            if mark is not None:
                axes.axvline(mark, color=INK, linewidth=0.8, linestyle=DASHES[1])
            axes.set_ylabel(y_label)
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        figure.align_ylabels(stacked)
        stacked[-1].set_xlabel(x_label)
        steps = {"integer": True, "min_n_ticks": 1} if x_label in TIMES else {}
        stacked[-1].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], **steps))
        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(picture.getvalue(), label)


def _plot(axes: Any, line: Line) -> None:
    curve = thin_out(line.curve)
    marker = MARKERS[line.color // len(LINE_COLORS) % len(MARKERS)] if line.marked or len(curve.steps) == 1 else None
    axes.plot(
        curve.steps,
        [value if math.isfinite(value) else math.nan for value in curve.values],
        color=LINE_COLORS[line.color % len(LINE_COLORS)],
        linestyle=DASHES[line.color // len(LINE_COLORS) % len(DASHES)],
        linewidth=1.3,
        marker=marker,
        markersize=3.5,
    )


def _fill(axes: Any, area: Area) -> None:
    color = LINE_COLORS[area.color % len(LINE_COLORS)]
    # The thin line of the same colour closes the seam that is seen where two areas meet.
    axes.stairs(area.high, area.edges, baseline=area.low, fill=True, facecolor=color, edgecolor=color, linewidth=0.3)


def _shade(axes: Any, band: Band) -> None:
    low, high = thin_out(band.low), thin_out(band.high)
    color = LINE_COLORS[band.color % len(LINE_COLORS)]
    axes.fill_between(low.steps, low.values, high.values, color=color, alpha=0.16, linewidth=0)


def thin_out(curve: Curve, limit: int = MAX_POINTS) -> Curve:
    """The curve itself if it has at most ``limit`` points, else the means of ``limit`` equal stretches of it."""
    n = len(curve.steps)
    if n <= limit:
        return curve
    edges = [n * i // limit for i in range(limit + 1)]

    def means(numbers: Sequence[float]) -> list[float]:
        return [sum(numbers[a:b]) / (b - a) for a, b in pairwise(edges)]

    return Curve(means(curve.steps), means(curve.values))


def _inline(svg: str, label: str) -> str:
    """Matplotlib's file as an element of a page: no prologue, scalable, ids of its own, the page's colours and font."""
    from html import escape

    svg = svg[svg.index("<svg") :]
    # Matplotlib's <style> would hold for the whole page; the page has the same rule for its pictures.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    opening = f'<svg role="img" aria-label="{escape(label)}" viewBox='
    svg = re.sub(r"<svg [^>]*?viewBox=(\"[^\"]*\")[^>]*>", lambda match: f"{opening}{match[1]}>", svg, count=1)
    # Several pictures share the page, and clip paths are found by id.
    prefix = "p" + hashlib.blake2b(label.encode("utf-8", "replace"), digest_size=5).hexdigest()
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = svg.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)")
    for n, color in enumerate(LINE_COLORS):
        svg = svg.replace(color, f"var(--c{n})")
    return svg.strip()
