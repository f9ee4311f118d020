"""Where the time of each stage went: its phases, its speed and its padding, as numbers, in words and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean

from rlhf_lightning.report.curves import Area, Curve, Line, draw_together, read_curves, thin_out, time_of
from rlhf_lightning.report.page import figure, html_text, key
from rlhf_lightning.report.results import StageTime
from rlhf_lightning.report.screen import duration
from rlhf_lightning.report.summary import stage_title

PARTS = ("sample", "score", "forward", "update")
"""Phases that a round of PPO says itself; they are within its step."""

COLORS = {"step": 0, "data": 1, "update": 0, "sample": 1, "forward": 2, "score": 3, "rest": 7}
"""A phase's place in the page's palette."""

SPEED, PADDING = 4, 5
"""Likewise."""

STRETCHES = 60
"""Points of a picture; more steps are averaged over equal stretches, which keeps the areas as they are."""

ABOUT = (
    "Of the training alone: validation, checkpoints, loading models and the measuring after a stage are left out. Data "
    "is the wait for a batch, from the end of the step before it, in which loggers also write; rest is what a round "
    "does beside its phases."
)


def is_about_time(name: str) -> bool:
    """Whether the picture shows a logged value, by its name without the stage."""
    return name.startswith("seconds/") or name in ("tokens_per_second", "padding")


def phases(stage: str, curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """The seconds of each step by phase; 0 where a step did not log it. Empty where nothing was timed.

    PPO's phases are within its step: ``rest`` is what they leave of it, with the wait for the prompts.
    """
    prefix = f"{stage}/seconds/"
    found = {
        name.removeprefix(prefix): dict(zip(*curve, strict=True))
        for name, curve in curves.items()
        if name.startswith(prefix)
    }
    steps = sorted({step for values in found.values() for step in values})
    spent = {name: [values.get(step, 0.0) for step in steps] for name, values in found.items()}
    parts = [name for name in PARTS if name in spent]
    if parts and "step" in spent:
        waits = spent.pop("data", [0.0] * len(steps))
        whole = spent.pop("step")
        spent["rest"] = [
            max(wait + all_of_it - sum(spent[part][i] for part in parts), 0.0)
            for i, (wait, all_of_it) in enumerate(zip(waits, whole, strict=True))
        ]
    return {name: Curve(steps, spent[name]) for name in COLORS if name in spent}


def stage_time(stage: str, curves: Mapping[str, Curve]) -> StageTime | None:
    """What a stage's curves say of its time; None where nothing was timed.

    Steps that were not logged, as with ``log_every_n_steps`` above 1, are taken to be like the others.
    """
    spent = phases(stage, curves)
    if not spent:
        return None
    steps = next(iter(spent.values())).steps
    share = (steps[-1] + 1) / len(steps)
    seconds = {name: share * sum(curve.values) for name, curve in spent.items()}
    seconds = dict(sorted(seconds.items(), key=lambda item: -item[1]))
    rate = mean_speed(curves.get(f"{stage}/tokens_per_second"), spent)
    padding = curves.get(f"{stage}/padding")
    mean_padding = fmean(padding.values) if padding else None
    return StageTime(in_words(stage, seconds, rate, mean_padding), seconds, rate, mean_padding)


def mean_speed(rates: Curve | None, spent: Mapping[str, Curve]) -> float | None:
    """Tokens a second over all steps whose speed is known: each weighted by the time it took."""
    if rates is None:
        return None
    steps = next(iter(spent.values())).steps
    took = dict(zip(steps, map(sum, zip(*(curve.values for curve in spent.values()), strict=True)), strict=True))
    known = [(rate, took[step]) for step, rate in zip(*rates, strict=True) if took.get(step)]
    whole = sum(time for _, time in known)
    return sum(rate * time for rate, time in known) / whole if whole else None


def in_words(stage: str, seconds: Mapping[str, float], rate: float | None, padding: float | None) -> str:
    """One line: the whole, the share of each phase, speed and padding.

    >>> in_words("sft", {"step": 59.0, "data": 3.0}, 1234.5, 0.31)
    '1 min 2 s: step 95 %, data 5 %; 1,234 tokens/s, 31 % padding'
    """
    whole = sum(seconds.values())
    shares = ", ".join(f"{name} {100 * time / whole:.0f} %" for name, time in seconds.items() if whole)
    more = [] if rate is None else [f"{rate:,.0f} {tokens_of(stage)}/s"]
    more += [] if padding is None else [f"{100 * padding:.0f} % padding"]
    total = f"{duration(whole)}: {shares}" if shares else duration(whole)
    return "; ".join(part for part in (total, ", ".join(more)) if part)


def tokens_of(stage: str) -> str:
    """What a stage's speed counts: PPO's the tokens that it samples."""
    return "response tokens" if stage == "ppo" else "tokens"


def read_times(run_dir: str | Path, stages: list[str]) -> dict[str, StageTime]:
    """Where the time of each stage of a run went; stages in which nothing was timed are left out."""
    told = {stage: stage_time(stage, curves) for stage, curves in read_curves(run_dir, stages).items()}
    return {stage: time for stage, time in told.items() if time is not None}


def stack(spent: Mapping[str, Curve], limit: int = STRETCHES) -> list[Area]:
    """Phases one above the other, thinned out to at most ``limit`` stretches."""
    curves = {name: thin_out(curve, limit) for name, curve in spent.items()}
    centres = next(iter(curves.values())).steps
    between = [(a + b) / 2 for a, b in pairwise(centres)]
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 0.5
    edges = [centres[0] - half, *between, 2 * centres[-1] - between[-1] if between else centres[-1] + half]
    layers = accumulate(
        (curve.values for curve in curves.values()),
        lambda below, values: [a + b for a, b in zip(below, values, strict=True)],
        initial=[0.0] * len(centres),
    )
    return [Area(edges, low, high, COLORS[name]) for name, (low, high) in zip(curves, pairwise(layers), strict=True)]


def time_section(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """The part of the page that shows it, for stages in which something was timed."""
    figures = "".join(_stage_figure(stage, drawn) for stage, drawn in curves.items())
    return f'<h2>Where the time went</h2><p class="dim">{ABOUT}</p>{figures}' if figures else ""


def _stage_figure(stage: str, curves: Mapping[str, Curve]) -> str:
    spent, time = phases(stage, curves), stage_time(stage, curves)
    if time is None:
        return ""
    unit = time_of(stage)
    parts: list[tuple[str, list[Line | Area]]] = [(f"seconds a {unit}", [*stack(spent)])]
    if rates := curves.get(f"{stage}/tokens_per_second"):
        parts.append((f"{tokens_of(stage)} / s", [Line(thin_out(rates, STRETCHES), SPEED)]))
    if padding := curves.get(f"{stage}/padding"):
        percent = Curve(padding.steps, [100 * share for share in padding.values])
        parts.append(("padding, %", [Line(thin_out(percent, STRETCHES), PADDING)]))
    title = stage_title(stage)
    picture = draw_together(parts, label=f"{title}: where the time went", x_label=unit, from_zero=True)
    legend = key([(COLORS[name], name) for name in reversed(spent)])
    words = f'<p class="dim">{html_text(time.words)}</p>'
    return f'<div class="panels wide">{figure(title, f"{legend}{picture}{words}")}</div>'
