"""``report.html``: a run's results on one page that needs nothing else, to be mailed, archived or read on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import yaml

from rlhf_lightning.report.curves import Curve, Line, draw_together, panels, read_curves, time_of
from rlhf_lightning.report.human import human_section, read_human
from rlhf_lightning.report.page import figure, html_text, key, page, panel_figure
from rlhf_lightning.report.results import RunResults, Sample, read_samples, write_atomic
from rlhf_lightning.report.rounds import rounds_section
from rlhf_lightning.report.screen import duration
from rlhf_lightning.report.secrets import hide_secrets
from rlhf_lightning.report.summary import (
    GROUP_TITLES,
    Column,
    all_notes,
    cautions,
    decimals,
    headline,
    headline_metric,
    improves,
    number,
    plain_words,
    result_columns,
    stage_title,
)
from rlhf_lightning.report.times import is_about_time, time_section
from rlhf_lightning.report.winrate import win_rate

OPEN_PANELS = 9
"""Learning curves of a stage that are shown at once; the rest unfold."""

SAMPLES = 6
EXTREMES = 3
"""Samples shown from the first on, and of those that gained or lost most."""

FOLDED_SAMPLES = 60
"""Further samples that the page holds, folded away. All are in samples.jsonl."""


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run folder from what the folder holds, and return its path.

    What is missing is left out, so a run that was stopped has a report, which says so.

    Raises:
        UserError: no readable ``metrics.json``, or a malformed ``samples.jsonl``.
    """
    run_dir = Path(run_dir)
    results = RunResults.read(run_dir / "metrics.json")
    samples = read_samples(run_dir / "samples.jsonl")
    curves = read_curves(run_dir, results.stages)
    # What the run is judged by comes first among the curves, too.
    leading = [name for name in (results.objective, *results.columns.get("task", [])[:2]) if name]
    sections = [
        _header(results),
        _results_section(results),
        human_section(read_human(run_dir)),
        rounds_section(results),
        _win_rate_section(samples, results),
        _over_optimisation_section(curves.get("ppo", {}), results),
        *(_stage_section(stage, drawn, leading) for stage, drawn in curves.items()),
        _reward_model_section(results),
        _samples_section(samples, results),
        time_section(curves),
        _settings_section(run_dir),
        _notes_section(results),
    ]
    path = run_dir / "report.html"
    write_atomic(path, page(f"{results.task}: report", "\n".join(section for section in sections if section)))
    return path


def _header(results: RunResults) -> str:
    facts = [results.task]
    if results.seed is not None:
        facts.append(f"seed {results.seed}")
    if results.held_out is not None:
        facts.append(f"{results.held_out} held-out rows")
    facts += [f"{stage_title(stage)} {duration(seconds)}" for stage, seconds in results.seconds.items()]
    if results.status != "finished":
        facts.append(results.status)
    warnings = "".join(f'<p class="warn">{html_text(caution)}</p>' for caution in cautions(results))
    return f"<header><p>{html_text(' · '.join(facts))}</p><h1>{html_text(headline(results))}</h1></header>{warnings}"


def _results_section(results: RunResults) -> str:
    """The metrics as rows and the policies as columns: so it fits a phone, and a change stands beside its value."""
    columns = result_columns(results)
    if not columns:
        return ""
    heads = "".join(f'<th scope="col">{html_text(stage_title(policy.name))}</th>' for policy in results.policies)
    rows = []
    group = None
    for column in columns:
        if column.group != group:
            group = column.group
            head = f'<th colspan="{len(results.policies) + 1}" scope="colgroup">{GROUP_TITLES[group]}</th>'
            rows.append(f'<tr class="group">{head}</tr>')
        rows.append(_metric_row(column, is_objective=column.name == results.objective))
    return (
        '<h2>Results on held-out rows</h2><div class="card results"><table><thead><tr><th></th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="dim">Below each value: the change to the policy before it. Bold: the best, where one side is better '
        "(↑ higher, ↓ lower).</p>"
    )


def _metric_row(column: Column, is_objective: bool) -> str:
    cells = []
    for i in range(len(column.values)):
        change = column.change(i)
        small = ""
        if change is not None:
            better = improves(change, column.direction)
            kind = "" if better is None else ' class="good"' if better else ' class="bad"'
            small = f"<small{kind}>{_minus(number(change, column.places, sign=True))}</small>"
        cells.append(f"<td{' class=best' if i in column.best else ''}>{_minus(column.text(i))}{small}</td>")
    words = plain_words(column.name)
    about = [words] if words.lower().replace("-", "") != column.name.lower().replace("_", " ") else []
    if is_objective:
        about.append("objective")
    small = f"<small>{html_text(', '.join(about))}</small>" if about else ""
    head = f'<th scope="row">{html_text(column.header)}{small}</th>'
    return f"<tr{' class=objective' if is_objective else ''}>{head}{''.join(cells)}</tr>"


def _minus(text: str) -> str:
    return text if text == "-" else text.replace("-", "\N{MINUS SIGN}")


ABOUT_PPO = (
    "Training values are of responses drawn at random, and their KL is estimated from the drawn tokens. Validation is "
    "of greedy answers to held-out prompts, as are the results above unless evaluate says otherwise, and their KL sums "
    "over the whole vocabulary at each token: the two need not be equal."
)


def _over_optimisation_section(curves: dict[str, Curve], results: RunResults) -> str:
    """What PPO was paid, what it was meant to do, and how far it went: where the first rises alone it games it."""
    wanted = {"Reward": ["score"], "KL": ["kl", "val/kl"]}
    if results.objective is not None:
        wanted = {"Reward": ["score"], plain_words(results.objective): [f"val/{results.objective}"], "KL": wanted["KL"]}
    parts = []
    for title, names in wanted.items():
        lines = [
            Line(curves[f"ppo/{name}"], int(name.startswith("val/")), marked=name.startswith("val/"))
            for name in names
            if f"ppo/{name}" in curves
        ]
        if lines:
            parts.append((title, lines))
    if len(parts) < 2:
        return ""
    rounds = results.exported.get("ppo")
    titles = ", ".join(title for title, _ in parts)
    label = f"PPO: {titles}, round by round" + ("" if rounds is None else f"; exported after round {rounds:.0f}")
    exported = "" if rounds is None else f" The dashed line is where the exported policy was: after round {rounds:.0f}."
    mark = None if rounds is None else rounds - 1  # the first is logged as 0
    picture = draw_together(parts, label=label, x_label=time_of("ppo"), mark=mark)
    return (
        "<h2>Reward, objective and KL</h2>"
        f'<p class="dim">A reward that rises while the objective falls is being gamed.{exported}</p>'
        f"{key([(0, 'training'), (1, 'validation')])}"
        f'<div class="panels wide">{figure(titles, picture)}</div>'
    )


def _win_rate_section(samples: Sequence[Sample], results: RunResults) -> str:
    """The last policy's answers against those of the one before it, prompt by prompt."""
    if len(results.policies) < 2:
        return ""
    from rlhf_lightning.metrics.words import split_words  # here: it loads torch

    old, new = (policy.name for policy in results.policies[-2:])
    both = [s for s in samples if old in s.completions and new in s.completions]
    lengths = [[float(len(split_words(s.completions[name]))) for s in both] for name in (old, new)]
    rows = []
    for name in results.columns.get("reward", []):
        scores = [[s.scores.get(policy, {}).get(name, math.nan) for s in both] for policy in (old, new)]
        if results.directions.get(name) == "min":
            scores = [[-score for score in given] for given in scores]
        found = win_rate(*scores, *lengths)
        if found is not None:
            cells = "".join(
                f"<td>{rate:.0%}<small>{low:.0%} to {high:.0%}</small></td>"
                for rate, low, high in (found[:3], found[3:6])
            )
            rows.append(f'<tr><th scope="row">{html_text(name)}</th>{cells}</tr>')
    if not rows:
        return ""
    return (
        f"<h2>{html_text(stage_title(new))} against {html_text(stage_title(old))}, answer by answer</h2>"
        '<div class="card results"><table><thead><tr><th scope="col">share of wins by</th><th scope="col">as it is'
        f'</th><th scope="col">at equal length</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        '<p class="dim">A tie counts one half. Below: 95 % intervals (bootstrap over prompts). At equal length: what '
        "remains when the part that an answer\u2019s length plays is taken out (logistic regression).</p>"
    )


def _stage_section(stage: str, curves: dict[str, Curve], leading: Sequence[str]) -> str:
    drawn = [panel for panel in panels(stage, curves, leading) if not is_about_time(panel.name)]
    if not drawn:
        return ""
    legend = ""
    if any(panel.validation for panel in drawn):
        legend = key([(0, "training"), (1, "validation")])
    figures = [panel_figure(stage, panel) for panel in drawn]
    more = ""
    if figures[OPEN_PANELS:]:
        folded = f'<div class="panels">{"".join(figures[OPEN_PANELS:])}</div>'
        more = f"<details><summary>{len(figures) - OPEN_PANELS} more</summary>{folded}</details>"
    about = f'<p class="dim">{ABOUT_PPO}</p>' if stage == "ppo" else ""
    title = f"Learning curves of {'the reward model' if stage == 'reward' else stage_title(stage)}"
    return f'<h2>{html_text(title)}</h2>{about}{legend}<div class="panels">{"".join(figures[:OPEN_PANELS])}</div>{more}'


def _reward_model_section(results: RunResults) -> str:
    measures = results.reward_model
    if not measures:
        return ""
    bars = {"accuracy": ("Reward model", ""), "longer_wins": ("The longer one wins", "base")}
    rows = []
    for name in (name for name in bars if name in measures):
        title, kind = bars[name]
        share = 100 * min(max(measures[name], 0.0), 1.0) if math.isfinite(measures[name]) else 0.0
        bar = f'<div><b class="{kind}" style="width: {share:.1f}%"></b></div>'
        rows.append(f'<div class="bar"><span>{title}</span>{bar}<span>{number(measures[name], 3)}</span></div>')
    others = []
    for name, value in measures.items():
        if name not in bars:
            head = f'<th scope="row">{html_text(plain_words(name))}</th>'
            others.append(f"<tr>{head}<td>{_minus(number(value, decimals([value])))}</td></tr>")
    table = f"<table><tbody>{''.join(others)}</tbody></table>" if others else ""
    return (
        "<h2>Reward model on held-out preferences</h2>"
        '<p class="dim">Share of the pairs in which the chosen response gets the higher score. Guessing gets 0.5.</p>'
        f'<div class="card results">{"".join(rows)}{table}</div>'
    )


def _samples_section(samples: Sequence[Sample], results: RunResults) -> str:
    if not samples:
        return ""
    policies = list(dict.fromkeys(name for sample in samples for name in sample.completions))
    parts = [f"<h2>Samples</h2>{''.join(_sample(sample, policies) for sample in samples[:SAMPLES])}"]
    parts.append(_extremes(samples, policies, results))
    rest = samples[SAMPLES : SAMPLES + FOLDED_SAMPLES]
    if rest:
        folded = "".join(_sample(row, policies) for row in rest)
        parts.append(f"<details><summary>{len(rest)} more</summary><div>{folded}</div></details>")
    if len(samples) > SAMPLES + FOLDED_SAMPLES:
        parts.append(f'<p class="dim">All {len(samples)} rows are in samples.jsonl.</p>')
    return "".join(parts)


def _extremes(samples: Sequence[Sample], policies: Sequence[str], results: RunResults) -> str:
    """The rows that the last policy changed most against the one before it: where to look for what it learnt."""
    if len(samples) <= SAMPLES or len(policies) < 2:
        return ""
    old, new = policies[-2:]
    objective = headline_metric(results)
    shared = [name for name in samples[0].scores.get(new, {}) if name in samples[0].scores.get(old, {})]
    names = [name for name in shared if objective and name == objective.name] or shared
    if not names:
        return ""
    sign = -1 if results.directions.get(names[0]) == "min" else 1

    def gain(sample: Sample) -> float | None:
        try:
            value = sign * (sample.scores[new][names[0]] - sample.scores[old][names[0]])
        except KeyError:
            return None
        return value if math.isfinite(value) else None  # a reward that failed: NaN has no place in an order

    gains = sorted(((value, i) for i, row in enumerate(samples) if (value := gain(row)) is not None), reverse=True)
    parts = []
    for title, picked in (
        ("gained most", [i for value, i in gains[:EXTREMES] if value > 0]),
        ("lost most", [i for value, i in reversed(gains[-EXTREMES:]) if value < 0]),
    ):
        if picked:
            rows = "".join(_sample(samples[i], policies) for i in picked)
            parts.append(f"<h3>Where {html_text(stage_title(new))} {title} in {html_text(names[0])}</h3>{rows}")
    return "".join(parts)


def _sample(sample: Sample, policies: Sequence[str]) -> str:
    """One row: the prompt across, below it the reference and each policy's completion side by side."""
    blocks = [("reference", "\n".join(sample.references), "")] if sample.references else []
    for name in policies:
        scores = "  ".join(f"{key} {number(value, 2)}" for key, value in sample.scores.get(name, {}).items())
        blocks.append((stage_title(name), sample.completions.get(name, ""), scores))
    cells = "".join(
        f'<div><h4>{html_text(title)}</h4><p dir="auto">{html_text(text) or "<span class=dim>(empty)</span>"}</p>'
        f"{f'<small>{html_text(_minus(scores))}</small>' if scores else ''}</div>"
        for title, text, scores in blocks
    )
    prompt = (
        f'<div class="prompt"><h4>prompt {html_text(sample.id)}</h4><p dir="auto">{html_text(sample.prompt)}</p></div>'
    )
    return f'<div class="sample">{prompt}{cells}</div>'


def _settings_section(run_dir: Path) -> str:
    parts = []
    for name, title in (("overrides", "Overrides"), ("config", "Composed config")):
        path = run_dir / ".hydra" / f"{name}.yaml"
        text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
        if text and text != "[]":
            parts.append(f"<details><summary>{title}</summary><pre>{html_text(_without_secrets(text))}</pre></details>")
    return f"<h2>Settings</h2>{''.join(parts)}" if parts else ""


def _without_secrets(text: str) -> str:
    """The same YAML, with secrets hidden; nothing of it where it can't be read."""
    try:
        return yaml.safe_dump(hide_secrets(yaml.safe_load(text)), sort_keys=False, allow_unicode=True, width=120)
    except yaml.YAMLError:  # its message may quote a line
        return "not readable"


def _notes_section(results: RunResults) -> str:
    parts = []
    if notes := all_notes(results):
        parts.append(f'<h2>Notes</h2><ul class="plain">{"".join(f"<li>{html_text(note)}</li>" for note in notes)}</ul>')
    if results.versions:
        versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
        parts.append(f'<p class="dim">Made with {html_text(versions)}.</p>')
    return "".join(parts)
