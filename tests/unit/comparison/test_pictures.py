"""What the pictures show: bands over seeds, the Pareto front, what explains a metric."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.run_folders import write_run
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f_oneway, spearmanr

from rlhf_lightning.comparison.importance import importances
from rlhf_lightning.comparison.pictures import (
    _label,
    curve_panels,
    frontier,
    panel_figure,
    parallel_axes,
    pareto_front,
    spread,
    ticks,
)
from rlhf_lightning.comparison.rows import make_rows
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.report.curves import Curve
from rlhf_lightning.report.runs import Run, find_runs

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


def test_a_band_is_over_the_steps_that_all_runs_have() -> None:
    over = spread([Curve([0, 1, 2], [1.0, 2.0, 9.0]), Curve([0, 1, 3], [3.0, 2.0, 9.0])])
    assert over.mean == Curve([0, 1], [2.0, 2.0])
    assert (over.low.values, over.high.values, over.runs) == ([1.0, 2.0], [3.0, 2.0], 2)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.sampled_from(["max", "min", None]))
def test_on_the_pareto_front_is_what_no_other_beats(points: list[tuple[float, float]], direction: str | None) -> None:
    front = pareto_front(points, direction)
    sign = -1 if direction == "min" else 1

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and sign * a[1] >= sign * b[1] and a != b

    assert front
    for i, point in enumerate(points):
        assert (i in front) == (not any(beats(other, point) for other in points))
    assert [points[i] for i in front] == sorted(points[i] for i in front)


@given(numbers, st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert len(found) <= 12
    assert all(low - 1e-6 * width - 1e-9 <= tick <= low + width + 1e-6 * width + 1e-9 for tick in found)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for kl_coef, quality in (("0.02", 0.5), ("0.1", 0.9)):
        for seed in (1, 2, 3):
            write_run(tmp_path / f"{kl_coef} {seed}", kl_coef, seed, quality)
    return tmp_path


def test_rows_are_drawn_with_a_band(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep])).rows
    panels = curve_panels(rows, ["gold"])
    assert [(panel.stage, panel.name, panel.validation) for panel in panels] == [
        ("ppo", "gold", True),
        ("ppo", "score", False),
        ("ppo", "kl", True),
    ]
    assert panels[0].rows[1].mean == Curve([0, 1], [0.3, 0.9])
    drawn = panel_figure(panels[0])
    assert drawn.count("opacity: 0.16") == 2
    assert "var(--c0)" in drawn
    assert "var(--c1)" in drawn


def test_the_frontier_has_every_run_its_path_and_the_front(sweep: Path) -> None:
    drawn = frontier(dict(enumerate(make_rows(find_runs([sweep])).rows)), "gold")
    svg = ElementTree.fromstring(re.search("<svg.*</svg>", drawn)[0])
    by_class = [element.get("class") for element in svg.iter()]
    assert (by_class.count("path"), by_class.count("mean")) == (6, 2)
    assert len([element for element in svg.iter("circle") if element.get("class") is None]) == 6
    assert "ppo.kl_coef=0.1, seed 2: gold" in drawn
    assert frontier(dict(enumerate(make_rows(find_runs([sweep])).rows)), "bleu") == ""


@pytest.mark.parametrize(("rows", "labels"), [(8, 8), (30, None)])
def test_labels_stay_inside_the_picture_and_apart(tmp_path: Path, rows: int, labels: int | None) -> None:
    """All points at one place, the worst case; of many rows only the Pareto front has labels."""
    for i in range(rows):
        write_run(tmp_path / str(i), f"0.{i + 1:02}", quality=0.6 if labels else 0.3 + 0.02 * i)
    shown = make_rows(find_runs([tmp_path])).rows
    drawn = frontier(dict(enumerate(shown)), "gold")
    svg = ElementTree.fromstring(re.search("<svg.*</svg>", drawn)[0])
    texts = [element for element in svg.iter("text") if element.get("class") == "halo"]
    front = pareto_front([(row.values("kl")[0], row.values("gold")[0]) for row in shown], "max")
    assert len(texts) == (labels or len(front))
    assert len(front) < 8 or labels
    heights = sorted(float(text.get("y")) for text in texts)
    assert all(b - a >= 12.9 for a, b in pairwise(heights))
    assert all(14 <= y <= 262 for y in heights)
    for text in texts:
        x, width = float(text.get("x")), 6 * len(text.text)
        assert (x - width >= 0) if text.get("text-anchor") else (x + width <= 440)


@given(st.text(min_size=1, max_size=60), st.floats(52, 428), st.floats(14, 262))
def test_a_label_is_inside_wherever_its_point_is(text: str, x: float, y: float) -> None:
    label = _label(text, x, y, [])
    assert label is not None
    assert label.left >= 0
    assert label.right <= 440


def test_every_run_is_a_line_through_its_settings_and_results(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep]))
    svg = ElementTree.fromstring(parallel_axes(rows, ["gold", "kl"]))
    lines = list(svg.iter("polyline"))
    assert len(lines) == 6
    assert all(len(line.get("points").split()) == 3 for line in lines)  # the setting, the seed, gold; kl is the same
    assert parallel_axes(make_rows(find_runs([sweep / "0.1 1", sweep / "0.02 1"])), ["gold"]) == ""


def made(settings: dict[str, str], value: float) -> Run:
    return Run(Path("/r"), RunResults("qa", policies=[PolicyResult("ppo", None, {"gold": value})]), settings)


def test_what_explains_a_metric() -> None:
    """Against the F test of scipy: epsilon squared is (F - 1) / (F + (n - k) / (k - 1))."""
    rng = np.random.default_rng(0)
    settings = [{"lr": str(10.0 ** -(i % 3)), "seed": str(i % 4), "id": str(i)} for i in range(12)]
    values = [0.5 * (i % 3) + 0.2 * rng.normal() for i in range(12)]
    found = {
        one.setting: one for one in importances([made(s, v) for s, v in zip(settings, values, strict=True)], "gold")
    }
    assert list(found) == ["lr", "seed"]
    groups = [values[start::3] for start in range(3)]
    ratio = f_oneway(*groups).statistic
    assert found["lr"].share == pytest.approx((ratio - 1) / (ratio + 9 / 2))
    assert found["lr"].trend == pytest.approx(spearmanr([float(s["lr"]) for s in settings], values).statistic)
    assert (found["lr"].runs, found["lr"].values) == (12, 3)
    assert 0 <= found["seed"].share < 0.3


@pytest.mark.parametrize("values", [[0.1, 0.2, 0.3, 0.4, 0.5], [0.5] * 8, [math.nan] * 8])
def test_of_too_little_nothing_is_said(values: list[float]) -> None:
    runs = [made({"lr": str(i % 2), "seed": str(i)}, value) for i, value in enumerate(values)]
    assert importances(runs, "gold") == []


def test_words_as_values_have_no_trend() -> None:
    runs = [made({"model": "ab"[i % 2]}, i % 2 + i / 100) for i in range(8)]
    (one,) = importances(runs, "gold")
    assert one.trend is None
    assert one.share > 0.9
