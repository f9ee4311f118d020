"""The page of a comparison: one file that fetches nothing, readable without its script, on a phone, in the dark."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from rlhf_lightning.comparison.importance import FEWEST_RUNS, importances
from rlhf_lightning.comparison.page_data import page_data, safe_json
from rlhf_lightning.comparison.pictures import ALL_LABELLED, Panel, curve_panels, frontier, panel_figure, parallel_axes
from rlhf_lightning.comparison.rows import Row, Rows
from rlhf_lightning.comparison.significance import Difference, Tests
from rlhf_lightning.comparison.table import ARROWS, Field, objectives, table_notes
from rlhf_lightning.comparison.words import change_text, findings, left_out_lines, method, p_text
from rlhf_lightning.report.page import html_text, key, page
from rlhf_lightning.report.runs import Run
from rlhf_lightning.report.summary import GROUP_TITLES, decimals, number, plain_words, stage_title

SHOWN = 6
"""Answers that a reader without the script sees."""

AXES = 4
"""Metrics beside the objective that are axes of the picture of settings and results."""

CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORDS = re.compile(rf"[{CJK}]|\s+|[^\s{CJK}]+")
"""Words, spaces, and characters of scripts without spaces between words."""

STYLE = """
.card.results { max-width: 760px }
table.sortable th button { all: unset; cursor: pointer; font-weight: 600 }
table.sortable th[aria-sort=ascending] button::after { content: " ▲" }
table.sortable th[aria-sort=descending] button::after { content: " ▼" }
table.sortable tbody th { min-width: min(230px, 34vw) }
table.sortable thead tr:first-child th { padding-bottom: 0; font-size: 12px; text-transform: uppercase;
  letter-spacing: .06em; font-weight: 400 }
table.sortable thead tr:last-child th { border-top: 0; padding-top: 2px }
table.sortable .word { text-align: left }
i.row { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px }
:focus-visible, table.sortable th button:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px }
button.plain, select, input[type=search] { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--faint); border-radius: 7px; padding: 6px 11px; max-width: 100% }
button.plain { cursor: pointer } button.plain:hover { border-color: var(--c0) }
.buttons { display: flex; flex-wrap: wrap; gap: 8px; margin: 12px 0 }
.controls { display: grid; gap: 10px 14px; grid-template-columns: repeat(auto-fit, minmax(min(220px, 100%), 1fr));
  margin: 0 0 12px; padding: 0; border: 0 }
.controls label { display: grid; gap: 3px; font-size: 13px; color: var(--dim); min-width: 0 }
.controls label > * { color: var(--ink); font-size: 15px; width: 100% }
.controls label.check { display: flex; align-items: center; gap: 8px; color: var(--ink); font-size: 15px }
.controls label.check input { width: auto }
mark { background: color-mix(in srgb, var(--c1) 26%, transparent); color: inherit; border-radius: 3px; padding: 0 1px }
.side-a mark { background: color-mix(in srgb, var(--c0) 26%, transparent) }
.sample small { display: block; white-space: pre-wrap; overflow-wrap: anywhere; margin-top: 4px }
.panels.large { grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)) }
.scroll { overflow-x: auto }
figure text { fill: var(--ink) } svg.drawn text { font-size: 12px }
svg.drawn text.tick { fill: var(--dim); font-size: 11px }
figure .grid { stroke: var(--faint); stroke-width: .5; fill: none } figure .axis { stroke: var(--dim); fill: none }
figure .path { fill: none; stroke-width: 1; opacity: .6 } figure .mean { fill: none; stroke-width: 2 }
figure .front { fill: none; stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 5 3; opacity: .7 }
figure .run { fill: none; stroke-width: 1.7; opacity: .75 } figure .run:hover { stroke-width: 4; opacity: 1 }
figure .halo { paint-order: stroke; stroke: var(--card); stroke-width: 3px }
ul.findings { padding-left: 20px } ul.findings li { margin: 5px 0 }
.bar { grid-template-columns: minmax(110px, 190px) 1fr minmax(52px, 130px) }
.bar span { overflow-wrap: anywhere }
"""


def comparison_page(rows: Rows, fields: Sequence[Field], tests: Tests | None, metric: str | None) -> str:
    """The whole page.

    Args:
        rows: what is compared.
        fields: the table's columns.
        tests: what is certain of it.
        metric: the only one to show, beside the KL; by default the objectives come first.
    """
    runs = [run for row in rows.rows for run in row.runs]
    leading = [metric] if metric else objectives(runs)
    panels = curve_panels(rows.rows, leading) if runs else []
    data = page_data(rows, tests, panels)
    parts = [
        _header(rows),
        _findings_section(rows, tests),
        _table_section(rows, fields, tests),
        _frontier_section(rows, leading),
        _curves_section(rows, panels),
        _settings_section(rows, leading),
        _answers_section(data),
        _left_out_section(rows),
        f'<script type="application/json" id="data">{safe_json(data)}</script>',
    ]
    script = files("rlhf_lightning.comparison").joinpath("page.js").read_text(encoding="utf-8")
    return page("Comparison of runs", "\n".join(part for part in parts if part), STYLE, script)


def _header(rows: Rows) -> str:
    runs = sum(len(row.runs) for row in rows.rows)
    tasks = ", ".join(dict.fromkeys(row.task for row in rows.rows))
    facts = [tasks] if tasks else []
    facts.append(f"{runs} finished run{'s' * (runs != 1)} in {len(rows.rows)} row{'s' * (len(rows.rows) != 1)}")
    warning = ""
    if rows.left_out:
        n = len(rows.left_out)
        which = "run takes" if n == 1 else "runs take"
        warning = f'<p class="warn">{n} {which} no part in any figure: <a href="#left-out">which, and why</a></p>'
    return f"<header><p>{html_text(' · '.join(facts))}</p><h1>Comparison of runs</h1></header>{warning}"


def _findings_section(rows: Rows, tests: Tests | None) -> str:
    if tests is None:
        return ""
    parts: list[str] = []
    items: list[str] = []
    for line in [*findings(rows, tests), ":"]:
        if line.endswith(":"):
            parts += [f'<ul class="findings">{"".join(items)}</ul>'] if items else []
            parts += [f"<p>{html_text(line)}</p>"] if line != ":" else []
            items = []
        else:
            items.append(f"<li>{html_text(line)}</li>")
    notes = "".join(f'<p class="dim">Note: {html_text(note)}</p>' for note in tests.notes)
    how = f'<p class="dim">{html_text(method(rows.rows, tests))}</p>' if tests.differences else ""
    return f"<h2>What is certain</h2>{''.join(parts)}{notes}{how}"


def _table_section(rows: Rows, fields: Sequence[Field], tests: Tests | None) -> str:
    if not rows.rows:
        return "<p>No run has finished.</p>"
    results = _table(rows, [field for field in fields if field.group or field.title == "n"], tests, "results")
    settings = [field for field in fields if not field.group and field.title in rows.keys]
    folded = ""
    if len(settings) > 1:  # one is the row's name
        table = _table(rows, settings, None, "settings")
        folded = f"<details><summary>Settings that differ</summary>{table}</details>"
    notes = " ".join(table_notes(rows, fields))
    stars = "" if tests is None else " Below it the change against the baseline, * where it is certain."
    several = any(len(row.runs) > 1 for row in rows.rows)
    spread = " ± is the standard deviation over the runs of a row." if several else ""
    buttons = "".join(
        f'<button type="button" class="plain" id="get-{what}">{title} as CSV</button>'
        for what, title in (("table", "Table"), ("curves", "Drawn curves"), ("answers", "Answers"))
    )
    return (
        f"<h2>Results of the final policies</h2>{results}"
        f'<p class="dim">Bold: the best.{spread}{stars} {html_text(notes)}</p>{folded}'
        f'<div class="buttons needs-script" hidden>{buttons}</div>'
    )


def _table(rows: Rows, shown: Sequence[Field], tests: Tests | None, about: str) -> str:
    """A table that the script makes sortable."""
    titles, heads, last = ["<th></th>"], ['<th scope="col">row</th>'], ""
    for field in shown:
        title = GROUP_TITLES.get(field.group, "") if field.group != last else ""
        last = field.group
        titles.append(f"<th>{title}</th>")
        arrow = ARROWS.get(field.direction or "", "")
        word = "" if field.numbers else ' class="word"'
        heads.append(f'<th scope="col"{word}>{html_text(field.title)}{arrow}</th>')
    body = []
    for i, row in enumerate(rows.rows):
        name = f'<i class="row" style="background:var(--c{i % 8})"></i>{html_text(row.name)}'
        cells = [f'<th scope="row" title="{html_text(row.name)}" data-value="{i}">{name}</th>']
        for field in shown:
            test = tests.differences.get(i, {}).get(field.metric) if tests else None
            cells.append(_cell(field, i, test))
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="card" tabindex="0" role="region" aria-label="table of {about}"><table class="sortable"><thead>'
        f"<tr>{''.join(titles)}</tr><tr>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(field: Field, i: int, test: Difference | None) -> str:
    value = field.numbers[i] if field.numbers else None
    sort = f' data-value="{value:.10g}"' if value is not None and math.isfinite(value) else ""
    sort = sort or (' data-value=""' if field.numbers else "")
    text = field.texts[i].removesuffix(" *")
    text = text.replace("-", "\N{MINUS SIGN}") if value is not None else text
    small = ""
    if test is not None:
        kind = {"better": ' class="good"', "worse": ' class="bad"'}.get(test.verdict, "")
        change = number(test.change, decimals([test.change, test.baseline]), sign=True).replace("-", "\N{MINUS SIGN}")
        star = " *" if test.certain else ""
        small = f'<small{kind} title="{html_text(change_text(test))}">{change}{star}, {p_text(test.corrected)}</small>'
    kinds = [kind for kind, holds in (("best", i in field.best), ("word", not field.numbers)) if holds]
    return f'<td{f""" class="{" ".join(kinds)}" """.rstrip() if kinds else ""}{sort}>{html_text(text)}{small}</td>'


def _legend(rows: Rows) -> str:
    return key([(i, row.name) for i, row in enumerate(rows.rows)])


def _frontier_section(rows: Rows, leading: Sequence[str]) -> str:
    by_task: dict[str, dict[int, Row]] = {}
    for i, row in enumerate(rows.rows):
        by_task.setdefault(row.task, {})[i] = row
    figures = "".join(frontier(same, name) for same in by_task.values() for name in leading)
    if not figures:
        return ""
    about = (
        "How far a policy went from its reference, and what it gained. Dots are runs, rings the means of rows, thin "
        "lines what validation measured on the way. The dashed line is the Pareto front: no row is better at less KL."
    )
    if any(len(same) > ALL_LABELLED for same in by_task.values()):
        about += f" Of more than {ALL_LABELLED} rows only those on it are named; point at a dot for its name."
    return f'<h2>Reward against KL</h2><p class="dim">{about}</p><div class="panels large">{figures}</div>'


def _curves_section(rows: Rows, panels: Sequence[Panel]) -> str:
    parts = []
    band = (
        ""
        if all(over.runs == 1 for panel in panels for over in panel.rows.values())
        else ('<p class="dim">A line is the mean over the runs of a row, its band from the lowest to the highest.</p>')
    )
    for stage in dict.fromkeys(panel.stage for panel in panels):
        figures = "".join(panel_figure(panel) for panel in panels if panel.stage == stage)
        title = f"Learning curves of {'the reward model' if stage == 'reward' else stage_title(stage)}"
        parts.append(f'<h2>{html_text(title)}</h2>{band}{_legend(rows)}<div class="panels">{figures}</div>')
    return "".join(parts)


def _settings_section(rows: Rows, leading: Sequence[str]) -> str:
    runs = [run for row in rows.rows for run in row.runs]
    if len({run.results.task for run in runs}) != 1 or not leading:
        return ""
    results = runs[0].results
    others = [*results.columns.get("task", [])[:2], *results.columns.get("reward", []), "eos_rate"]
    metrics = list(dict.fromkeys([*leading, "kl", *others]))[: len(leading) + AXES]
    picture = parallel_axes(rows, metrics)
    found = importances(runs, leading[0])
    if not picture and not found:
        return ""
    parts = ["<h2>Settings and results</h2>"]
    if picture:
        about = "A line is a run, in the colour of its row; at the ends of a metric its lowest and highest value."
        parts.append(f'<p class="dim">{about}</p>{_legend(rows)}<figure class="scroll" tabindex="0">{picture}</figure>')
    if found:
        bars = "".join(
            f'<div class="bar"><span>{html_text(one.setting)}</span>'
            f'<div><b style="width: {100 * one.share:.1f}%"></b></div>'
            f"<span>{100 * one.share:.0f} %{_trend_text(one.trend)}</span></div>"
            for one in found
        )
        about = (
            f"Share of the variance of {plain_words(leading[0])} over {found[0].runs} runs that lies between a "
            "setting's values (eta squared, corrected for chance), each by itself. In brackets the rank correlation."
        )
        parts.append(
            f'<h3>What explains it</h3><p class="dim">{html_text(about)}</p><div class="card results">{bars}</div>'
        )
    elif picture:
        parts.append(f'<p class="dim">{html_text(_unexplained(runs, leading[0]))}</p>')
    return "".join(parts)


def _unexplained(runs: Sequence[Run], metric: str) -> str:
    """Why nothing is said of what explains a metric."""
    values = [value for run in runs if (value := run.value(metric)) is not None and math.isfinite(value)]
    if len(values) < FEWEST_RUNS:
        return f"What explains {plain_words(metric)} can be told once {FEWEST_RUNS} runs have it."
    if len(set(values)) == 1:
        return f"{plain_words(metric)} is the same in all runs: there is nothing to explain."
    return (
        f"What explains {plain_words(metric)} can't be told: no setting has one value in several runs and another "
        "in others."
    )


def _trend_text(trend: float | None) -> str:
    return "" if trend is None else f" ({number(trend, 2, sign=True)})".replace("-", "\N{MINUS SIGN}")


def _answers_section(data: dict[str, Any]) -> str:
    if len(data["policies"]) < 2:
        return ""
    a, b = data["chosen"]
    left, right = data["policies"][a], data["policies"][b]
    first = data["sets"][left["set"]][:SHOWN] if left["set"] == right["set"] else []
    cards = "".join(_card(row, i, left, right) for i, row in enumerate(first))
    held = max(data["held"], default=0)
    about = "Words that differ are marked."
    if any(len(rows) < all_of_them for rows, all_of_them in zip(data["sets"], data["held"], strict=True)):
        most = max(map(len, data["sets"]))
        about += f" The page holds the first {most} of {held} held-out rows; all are in samples.jsonl."
    return (
        f'<h2 id="answers-title">Answers side by side</h2><p class="dim">{about}</p>'
        '<div class="controls needs-script" hidden role="group" aria-labelledby="answers-title">'
        '<label>A<select id="side-a"></select></label><label>B<select id="side-b"></select></label>'
        '<label>order<select id="order"></select></label>'
        '<label>filter by text<input type="search" id="filter" autocomplete="off"></label>'
        '<label class="check"><input type="checkbox" id="differ">only where they differ</label></div>'
        '<p class="dim" id="told" aria-live="polite"></p>'
        f'<div id="answers">{cards}</div><button type="button" class="plain" id="more" hidden>more</button>'
    )


def _card(row: dict[str, Any], i: int, left: dict[str, Any], right: dict[str, Any]) -> str:
    """An answer of two policies, as a reader without the script sees it."""
    a, b = marked_words(left["texts"][i], right["texts"][i])
    cells = "".join(
        f'<div class="side-{side.lower()}"><h4>{side}: {html_text(policy["label"])}</h4><p dir="auto">{text}</p></div>'
        for side, policy, text in (("A", left, a), ("B", right, b))
    )
    references = "\n".join(row["references"])
    reference = f'<div><h4>reference</h4><p dir="auto">{html_text(references)}</p></div>' if references else ""
    head = f'<h4>prompt {html_text(row["id"])}</h4><p dir="auto">{html_text(row["prompt"])}</p>'
    return f'<article class="sample"><div class="prompt">{head}</div>{reference}{cells}</article>'


def marked_words(a: str, b: str) -> tuple[str, str]:
    """Two texts as HTML, the words marked that the other one has not."""
    left, right = WORDS.findall(a), WORDS.findall(b)
    sides: list[list[str]] = [[], []]
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for side, words in ((0, left[i1:i2]), (1, right[j1:j2])):
            text = html_text("".join(words))
            sides[side].append(text if kind == "equal" or not text else f"<mark>{text}</mark>")
    made = ["".join(side) or '<span class="dim">(empty)</span>' for side in sides]
    return made[0], made[1]


def _left_out_section(rows: Rows) -> str:
    if not rows.left_out:
        return ""
    items = "".join(f"<li>{html_text(line)}</li>" for line in left_out_lines(rows))
    return f'<h2 id="left-out">Left out of all figures</h2><ul class="plain">{items}</ul>'
