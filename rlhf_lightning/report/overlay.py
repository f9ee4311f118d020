"""Pictures that lay several runs over each other."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.report.curves import Curve, Line, draw, panels, read_curves, thin_out, time_of
from rlhf_lightning.report.page import figure
from rlhf_lightning.report.runs import Run
from rlhf_lightning.report.summary import plain_words

PANELS_PER_STAGE = 6
POINTS = 60  # of a curve: lines that lie over each other are told apart where they are smooth


def against_kl_figures(colored: Sequence[tuple[int, Run]], metrics: Sequence[str]) -> str:
    """The final policies' metric over their KL, and the score over the KL while the policy was trained."""
    figures = []
    for name in metrics:
        ends = [
            Line(Curve([kl], [value]), color, marked=True)
            for color, run in colored
            if (kl := run.value("kl")) is not None and (value := run.value(name)) is not None
        ]
        if ends:
            figures.append(figure(f"Final {plain_words(name)}", draw(ends, label=f"final {name}", x_label="KL")))
    paths = []
    for color, run in colored:
        for stage, curves in read_curves(run.path, run.results.stages).items():
            score = curves.get(f"{stage}/score", Curve([], []))
            distance = dict(zip(*curves.get(f"{stage}/kl", Curve([], [])), strict=True))
            points = [(distance[step], value) for step, value in zip(*score, strict=True) if step in distance]
            if points:
                path = Curve(*map(list, zip(*points, strict=True)))
                paths.append(Line(thin_out(path, POINTS), color))
    if paths:
        figures.append(figure("Score of the rollouts, in training", draw(paths, label="score over KL", x_label="KL")))
    return "".join(figures)


def overlaid_figures(stage: str, colored: Sequence[tuple[int, Run]], leading: Sequence[str] = ()) -> str:
    """A stage's first panels (``leading`` metrics before others), a line a run: validation where it was logged."""
    by_run = [(color, panels(stage, read_curves(run.path, [stage]).get(stage, {}), leading)) for color, run in colored]
    names = list(dict.fromkeys(panel.name for _, drawn in by_run for panel in drawn))[:PANELS_PER_STAGE]
    figures = []
    for name in names:
        same = [(color, panel) for color, drawn in by_run for panel in drawn if panel.name == name]
        validated = any(panel.validation for _, panel in same)
        curves = [(color, panel.validation if validated else panel.train) for color, panel in same]
        lines = [
            Line(thin_out(curve, POINTS), color, marked=len(curve.steps) <= 10) for color, curve in curves if curve
        ]
        aside = "validation" if validated else "training"
        figures.append(
            figure(plain_words(name), draw(lines, label=f"{stage}: {name}, all runs", x_label=time_of(stage)), aside)
        )
    return "".join(figures)
