"""The frame of every page: one HTML file, its style inside, nothing fetched, light and dark."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from html import escape

from rlhf_lightning.report.curves import Curve, Line, Panel, draw, time_of
from rlhf_lightning.report.summary import clean

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d2025; --dim: #666c75; --faint: #d5d7d9;
  --more: #1d202540; --good: #18794e; --bad: #c2352b; --warn: #fdf3d7; --warn-ink: #6b4a00;
  --c0: #2766c8; --c1: #d9730d; --c2: #1f8a5b; --c3: #b0307a; --c4: #7a55c7; --c5: #8a6d1a; --c6: #1497a8;
  --c7: #777d86 }
@media (prefers-color-scheme: dark) { :root { --page: #15171a; --card: #1e2125; --ink: #e6e7e9; --dim: #9aa1ab;
  --faint: #3a3e45; --more: #000a; --good: #5cc98f; --bad: #f2857b; --warn: #3a3016; --warn-ink: #f0d58a;
  --c0: #6ea4f4; --c1: #f2a052; --c2: #57c08f; --c3: #ea7fbd; --c4: #ab8ff0; --c5: #d3b455; --c6: #55c6d4;
  --c7: #a6acb5 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system,
  "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px }
header p { margin: 0; color: var(--dim) }
h1 { font-size: 25px; line-height: 1.3; margin: 4px 0 10px; font-weight: 650; letter-spacing: -.01em }
h2 { font-size: 18px; margin: 34px 0 10px; font-weight: 650 }
h3 { font-size: 15px; margin: 20px 0 8px; font-weight: 600 }
.dim, figcaption span { color: var(--dim); font-weight: 400 }
.warn { background: var(--warn); color: var(--warn-ink); padding: 9px 13px; border-radius: 7px; margin: 8px 0 }
.results { max-width: 700px }
.card { border: 1px solid var(--faint); border-radius: 9px; padding: 6px 16px; overflow-x: auto;
  background: linear-gradient(to right, var(--card) 40%, transparent) left / 40px 100% no-repeat local,
  linear-gradient(to left, var(--card) 40%, transparent) right / 40px 100% no-repeat local,
  linear-gradient(to right, var(--more), transparent) left / 14px 100% no-repeat scroll,
  linear-gradient(to left, var(--more), transparent) right / 14px 100% no-repeat scroll, var(--card) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 7px 10px; text-align: right; vertical-align: top; border-top: 1px solid var(--faint);
  white-space: nowrap }
tr:first-child > * { border-top: 0 }
th { font-weight: 600; color: var(--dim) }
table:not(.sortable) thead th { white-space: normal; vertical-align: bottom }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
th:last-child, td:last-child { padding-right: 0 }
tbody th { color: var(--ink); font-weight: 400; white-space: normal }
tbody th small, td small { display: block; color: var(--dim); font-size: 12.5px; line-height: 1.35;
  font-weight: 400 }
tr.group th { font-size: 12px; text-transform: uppercase; letter-spacing: .06em; color: var(--dim);
  padding-top: 16px;
  border-top: 0 }
tr.group + tr > * { border-top: 0 }
td.best, tr.objective th { font-weight: 700 }
small.good { color: var(--good) } small.bad { color: var(--bad) }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 90px }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%), 1fr)); gap: 12px }
.panels.wide { grid-template-columns: minmax(0, 640px) }
figure { margin: 0; background: var(--card); border: 1px solid var(--faint); border-radius: 9px;
  padding: 10px 12px 6px }
figcaption { font-weight: 600; font-size: 13.5px; display: flex; justify-content: space-between; gap: 10px;
  margin-bottom: 4px }
figcaption span { font-variant-numeric: tabular-nums; white-space: nowrap; font-size: 12.5px }
figure svg * { stroke-linejoin: round; stroke-linecap: butt }
figure svg { display: block; width: 100%; height: auto; font-family: inherit }
.key { display: flex; flex-wrap: wrap; gap: 3px 16px; margin: 0 0 10px; padding: 0; list-style: none;
  font-size: 13.5px;
  color: var(--dim) }
.key i { display: inline-block; width: 20px; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: 6px }
.bar { display: grid; grid-template-columns: minmax(110px, 165px) 1fr 52px; gap: 10px; align-items: center;
  margin: 9px 0 }
.bar b { display: block; height: 12px; border-radius: 6px; background: var(--c0) }
.bar b.base { background: var(--c7) }
.bar div { background: var(--page); border-radius: 6px } .bar span:last-child { text-align: right }
.sample { background: var(--card); border: 1px solid var(--faint); border-radius: 9px; margin: 0 0 12px;
  padding: 12px 16px;
  display: grid; gap: 12px 22px; grid-template-columns: repeat(auto-fit, minmax(min(230px, 100%), 1fr)) }
.sample .prompt { grid-column: 1 / -1; border-bottom: 1px solid var(--faint); padding-bottom: 10px }
.sample h4 { margin: 0 0 3px; font-size: 12px; color: var(--dim); font-weight: 600 }
.sample p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 15em; overflow-y: auto }
.sample small { color: var(--dim); font-variant-numeric: tabular-nums }
details { margin: 10px 0 } summary { cursor: pointer; font-weight: 600 }
details > :nth-child(2) { margin-top: 12px }
pre { background: var(--card); border: 1px solid var(--faint); border-radius: 9px; padding: 12px 16px;
  overflow-x: auto;
  font-size: 13px; line-height: 1.45 }
ul.plain { padding-left: 20px; margin: 6px 0 } code { overflow-wrap: anywhere }
@media (max-width: 560px) { main { padding: 18px 12px 40px } h1 { font-size: 21px } .card { padding: 4px 12px }
  th, td { padding: 7px 6px } }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A page's own content security policy: even markup that slipped through could neither run nor fetch anything."""


def html_text(text: object) -> str:
    """Any text as HTML shows it: escaped, without control characters."""
    return escape(clean(text))


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page around a body that is HTML already; the title is escaped here.

    Args:
        title: its title.
        body: what it shows.
        style: rules beside those of every page.
        script: the one script that may run, named by its hash in the page's policy.
    """
    policy, scripts = POLICY, ""
    if script:
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy, scripts = f"{POLICY}; script-src 'sha256-{digest}'", f"<script>{script}</script>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html_text(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main>\n{body}\n</main>{scripts}</body></html>\n"
    )


def figure(title: str, picture: str, aside: str = "") -> str:
    """A picture under its title, with a few words at the right of it."""
    return f"<figure><figcaption>{html_text(title)}<span>{html_text(aside)}</span></figcaption>{picture}</figure>"


def key(entries: Sequence[tuple[int, str]]) -> str:
    """What the lines' colours, as in :class:`Line`, stand for."""
    styles = ("solid", "dashed", "dotted", "double")
    items = []
    for color, label in entries:
        style = f"border-color: var(--c{color % 8}); border-top-style: {styles[color // 8 % 4]}"
        items.append(f'<li><i style="{style}"></i>{html_text(label)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def panel_figure(stage: str, panel: Panel) -> str:
    """A panel of one run: training in the first colour, validation in the second with a dot at each point."""
    lines = []
    if panel.train:
        lines.append(Line(panel.train, 0))
    if panel.validation:
        lines.append(Line(panel.validation, 1, marked=len(panel.validation.steps) <= 40))
    shown, label = panel.validation or panel.train, f"{stage}: {panel.title}"
    return figure(panel.title, draw(lines, label=label, x_label=time_of(stage)), span_text(shown) if shown else "")


def span_text(curve: Curve) -> str:
    """The first and the last value of a curve: "0.5 → 0.71"."""
    first, last = curve.values[0], curve.values[-1]
    text = f"{first:.3g}" if len(curve.values) == 1 else f"{first:.3g} → {last:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
