"""What the tests found, in words: what got better for certain, what broke, and how it was tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhf_lightning.comparison.rows import Row, Rows, why_left_out
from rlhf_lightning.comparison.significance import ALPHA, Difference, Tests
from rlhf_lightning.report.runs import setting
from rlhf_lightning.report.summary import clean, decimals, number
from rlhf_lightning.report.winrate import WinRate


def p_text(p: float) -> str:
    """A p value as papers print it.

    >>> p_text(0.0312), p_text(0.00049), p_text(0.5), p_text(1.0)
    ('p = .031', 'p < .001', 'p = .50', 'p = 1')
    """
    if p < 0.001:
        return "p < .001"
    return "p = 1" if p > 0.995 else f"p = {f'{p:.3f}' if p < 0.1 else f'{p:.2f}'}".replace("0.", ".", 1)


def change_text(test: Difference) -> str:
    """A difference with its interval and p value: "+0.050 (95 % 0.020 to 0.080, p = .003)"."""
    places = decimals([test.change, test.low, test.high])
    low, high = number(test.low, places, sign=True), number(test.high, places, sign=True)
    return f"{number(test.change, places, sign=True)} (95 % {low} to {high}, {p_text(test.corrected)})"


def sentence(row: Row, tests: Mapping[str, Difference]) -> str:
    """What a row changed against the baseline: "x=1 raises gold by 0.05 (p = .003), but lowers eos_rate by ..."."""
    found = {verdict: [n for n, t in tests.items() if t.verdict == verdict] for verdict in ("better", "worse", "moved")}
    for names in found.values():
        names.sort(key=lambda name: (name != row.objective, tests[name].corrected))
    said = [_phrase({name: tests[name] for name in found["better"]})] if found["better"] else []
    if found["worse"]:
        worse = _phrase({name: tests[name] for name in found["worse"]})
        said.append(f"but {worse}" if said else f"{worse}, which is worse")
    if found["moved"]:
        said.append(_phrase({name: tests[name] for name in found["moved"]}) + ", neither better nor worse in itself")
    text = f"{clean(row.name)} {', '.join(said)}." if said else f"{clean(row.name)} changes nothing for certain."
    unsure = [name for name, test in tests.items() if test.verdict == "unsure" and test.change]
    if row.objective in unsure:
        text += f" Not certain of {clean(row.objective)}: {change_text(tests[row.objective])}."
    others = [clean(name) for name in unsure if name != row.objective]
    return text + (f" No certain difference in {', '.join(others)}." if others and said else "")


def _phrase(tests: Mapping[str, Difference]) -> str:
    clauses = []
    for verb, sign in (("raises", 1), ("lowers", -1)):
        changes = [
            f"{clean(name)} by {number(abs(test.change), decimals([test.change]))} ({p_text(test.corrected)})"
            for name, test in tests.items()
            if test.change * sign > 0
        ]
        if changes:
            clauses.append(f"{verb} {_listed(changes)}")
    return " and ".join(clauses)


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def win_text(wins: Mapping[str, WinRate]) -> str:
    """Win rates in a line, but for those where every answer is a tie; empty where there are none."""
    told = [
        f"{_percent(win.rate)} % by {clean(name)} ({_percent(win.low)} to {_percent(win.high)}; "
        f"{_percent(win.level)} % at equal length)"
        for name, win in wins.items()
        if (win.low, win.high) != (0.5, 0.5)
    ]
    return f"Its answers win {', '.join(told)}." if told else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def method(rows: Sequence[Row], tests: Tests) -> str:
    """How it was tested, and what that can't tell."""
    several = max(len(row.runs) for row in rows) > 1
    seeds = " and Student's t over seeds" if several else ""
    text = (
        f"Tests: paired bootstrap over the held-out rows ({tests.draws} resamples){seeds}; p values are corrected by "
        f"Holm, the objective's for each other, those of all other metrics likewise; certain is p < {ALPHA:g}."
    ).replace("0.05", ".05")
    if any(len(rows[i].runs) == 1 for i in [*tests.differences, *tests.against.values()]):
        text += " Where a row is one run, a test tells of its model alone, not of what another seed would give."
    return text


def findings(rows: Rows, tests: Tests) -> list[str]:
    """The sentences on all rows that have a baseline, under one that names it; certain gains of the objective first."""
    said = []
    for base in dict.fromkeys(tests.against.values()):
        said.append(f"Against {_about(rows.rows[base])}:")
        same = [i for i in tests.against if tests.against[i] == base]
        for i in sorted(same, key=lambda i: _rank(rows.rows[i], tests.differences.get(i, {}))):
            if i in tests.untested:
                said.append(f"{clean(rows.rows[i].name)} is not tested: {tests.untested[i]}.")
            else:
                wins = win_text(tests.wins.get(i, {}))
                said.append(f"{sentence(rows.rows[i], tests.differences[i])}{f' {wins}' if wins else ''}")
    return said


def _about(row: Row) -> str:
    seeds = [str(seed) for seed in row.seeds if seed is not None]
    return clean(row.name) + (f" (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" if seeds else "")


def _rank(row: Row, tests: Mapping[str, Difference]) -> tuple[int, float]:
    objective = tests.get(row.objective or "")
    certain = sum(test.certain for test in tests.values())
    return (-2 if objective is not None and objective.certain else -1 if certain else 0, -certain)


def left_out_lines(rows: Rows) -> list[str]:
    """The runs that take no part, each with its settings where they are known, its status and reason."""
    lines = []
    for label, run in rows.left_out.items():
        named = dict.fromkeys(
            [*rows.keys[: rows.telling], *(key for key in rows.keys if key in run.overridden), "seed"]
        )
        known = [f"{key}={setting(run, key)}" for key in named if setting(run, key) != "-"]
        about = f" ({', '.join(known)})" if known else ""
        lines.append(clean(f"{label}{about} {why_left_out(run)}"))
    return lines
