"""The rounds of a loop as a table: what people said, what the reward model made of it, what PPO gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.report.page import html_text
from rlhf_lightning.report.results import RunResults
from rlhf_lightning.report.summary import number

if TYPE_CHECKING:
    from rich.table import Table

Figures = Mapping[str, float | None]
"""Figures of one round by name; see `COLUMNS`."""

COLUMNS = {
    "questions": ("questions", "asked of people in this round"),
    "pairs": ("pairs", "that the reward model learnt from, of all judgements so far"),
    "foretold": (
        "foretold",
        "share of this round's n randomly asked comparisons that the last round's reward model got right",
    ),
    "accuracy": (
        "accuracy",
        "of this round's reward model on n held-out comparisons, of this round and those before it; like foretold of "
        "such as were asked at random, as chosen ones are no fair sample",
    ),
    "learned": ("reward gained", "by PPO in this round, as this round's reward model has it"),
    "objective": ("objective gained", "by PPO in this round"),
    "kl": ("kl", "nats from the policy of the round before"),
    "win_rate": (
        "people prefer it",
        "share of comparisons with the answers of the round before that it won, with its 95 % interval",
    ),
}
"""Figures of a round: a column's title, and what it says. ``win_low``, ``win_high`` and ``compared`` belong to the
last, ``new_pairs`` and ``held_out`` are the counts of ``foretold`` and ``accuracy``; ``judgements`` counts all."""

SHARES = {"foretold": "new_pairs", "accuracy": "held_out"}
"""Shares, and of how many."""

COUNTS = ("questions", "pairs")


def cell(figures: Figures, name: str) -> str:
    """A figure of a round as the table shows it; a dash where there is none."""
    value = figures.get(name)
    if value is None:
        return "-"
    if name in COUNTS:
        return f"{value:.0f}"
    if name == "win_rate":
        return f"{value:.0%} ({figures['win_low']:.0%} to {figures['win_high']:.0%}, n = {figures['compared']:.0f})"
    if name in SHARES:
        count = figures.get(SHARES[name])
        return f"{value:.0%}" if count is None else f"{value:.0%} (n = {count:.0f})"
    return number(value, 3, sign=name in ("learned", "objective"))


def shown_columns(rounds: Sequence[Figures]) -> list[str]:
    """The columns of which some round has a value."""
    return [name for name in COLUMNS if any(figures.get(name) is not None for figures in rounds)]


def rounds_table(results: RunResults) -> Table:
    """A row for each round, for the screen."""
    from rich.table import Table

    table = Table(box=None, title="Rounds", title_justify="left", title_style="bold")
    table.add_column("round", justify="right")
    names = shown_columns(results.rounds)
    for name in names:
        table.add_column(COLUMNS[name][0], justify="right")
    for place, figures in enumerate(results.rounds, 1):
        table.add_row(str(place), *(cell(figures, name) for name in names))
    return table


def _html_cell(text: str) -> str:
    """What stands in brackets below the figure: side by side they make the table wider than the page."""
    value, _, about = text.partition(" (")
    small = f"<small>{html_text(about.removesuffix(')'))}</small>" if about else ""
    return f"<td>{html_text(value)}{small}</td>"


def rounds_section(results: RunResults) -> str:
    """The same as HTML; empty for a run that is no loop."""
    if not results.rounds:
        return ""
    names = shown_columns(results.rounds)
    heads = "".join(f'<th scope="col">{html_text(COLUMNS[name][0])}</th>' for name in names)
    rows = []
    for place, figures in enumerate(results.rounds, 1):
        cells = "".join(_html_cell(cell(figures, name)) for name in names)
        rows.append(f'<tr><th scope="row">{place}</th>{cells}</tr>')
    words = "; ".join(f"{COLUMNS[name][0]}: {COLUMNS[name][1]}" for name in names)
    return (
        f'<h2>Rounds</h2><div class="card"><table><thead><tr><th scope="col">round</th>{heads}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="dim">{html_text(words[:1].upper() + words[1:])}. '
        "A reward that is gained while the objective or people's preference falls is the reward model being gamed.</p>"
    )
