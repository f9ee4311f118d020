"""What the tests found, in words: what got better for certain, what broke, and how it was tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhf_lightning.comparison.rows import Row, Rows, why_left_out
from rlhf_lightning.comparison.significance import ALPHA, Difference, Tests, same_seeds
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


def sentence(row: Row, tests: Mapping[str, Difference], unknown: Sequence[str] = ()) -> str:
    """What a row changed against the baseline: "x=1 raises gold by 0.05 (p = .003), but lowers eos_rate by ...".

    Args:
        row: the row.
        tests: its metrics against those of the baseline.
        unknown: metrics that both have and that were not tested.
    """
    if not tests:
        return f"{clean(row.name)}: none of its metrics can be tested."
    lead = row.objective if row.objective in tests else next(iter(tests))
    found = {verdict: [n for n, t in tests.items() if t.verdict == verdict] for verdict in ("better", "worse", "moved")}
    for names in found.values():
        names.sort(key=lambda name: (name != lead, tests[name].corrected))
    said = [_phrase({name: tests[name] for name in found["better"]})] if found["better"] else []
    if found["worse"]:
        worse = _phrase({name: tests[name] for name in found["worse"]})
        said.append(f"but {worse}" if said else f"{worse}, which is worse")
    if found["moved"]:
        said.append(_phrase({name: tests[name] for name in found["moved"]}) + ", neither better nor worse in itself")
    text = f"{clean(row.name)} {', '.join(said)}." if said else f"{clean(row.name)} changes nothing for certain."
    unsure = [name for name, test in tests.items() if test.verdict == "unsure" and test.change]
    if lead in unsure:
        text += f" Not certain of {clean(lead)}: {change_text(tests[lead])}."
    others = [clean(name) for name in unsure if name != lead]
    text += f" No certain difference in {', '.join(others)}." if others and said else ""
    return text + (f" Not tested: {', '.join(map(clean, unknown))}." if unknown else "")


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
        f"{_percent(win.rate)} % by {clean(name)} ({_interval(win)}{_percent(win.level)} % at equal length)"
        for name, win in wins.items()
        if not win.tied
    ]
    return f"Its answers win {', '.join(told)}." if told else ""


def _interval(win: WinRate) -> str:
    """The ends of the interval, which knows nothing of other seeds: only where one run is held against one."""
    return f"{_percent(win.low)} to {_percent(win.high)}; " if win.pairs == 1 else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def method(rows: Sequence[Row], tests: Tests) -> str:
    """How it was tested, and what that can't tell."""
    several = max(len(row.runs) for row in rows) > 1
    seeds = " and Student's t over seeds" if several else ""
    text = (
        f"Tests: paired bootstrap over the held-out rows ({tests.draws} resamples){seeds}; p values are corrected by "
        "Holm, the objective's of all rows for each other, those of a row's other metrics for each other; certain is "
        f"p < {ALPHA:g}."
    ).replace("0.05", ".05")
    if any(len(rows[i].runs) == len(rows[tests.against[i]].runs) == 1 for i in tests.differences):
        text += " Where both rows are one run, a test tells of these models alone, not of what other seeds would give."
    if any(tests.wins.values()):
        text += f" {_about_wins(rows, tests)}"
    return text


def _about_wins(rows: Sequence[Row], tests: Tests) -> str:
    """Which runs were held against each other, and what the intervals of win rates leave out."""
    sides = [(rows[tests.against[i]], rows[i]) for i, wins in tests.wins.items() if wins]
    several = [side for side in sides if max(len(row.runs) for row in side) > 1]
    told = []
    if several:
        by_seed = [same_seeds(a.seeds, b.seeds) for a, b in several]
        ways = ["with the same seed"] * any(by_seed)
        ways += ["in the order of their seeds, where one row has fewer these again"] * (not all(by_seed))
        told.append(f"Win rates are over pairs of runs {', else '.join(ways)}, without an interval.")
    if len(several) < len(sides):
        told.append("Intervals of win rates are over prompts alone.")
    return " ".join(told)


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
                told = sentence(rows.rows[i], tests.differences[i], tests.unknown.get(i, []))
                wins = win_text(tests.wins.get(i, {}))
                said.append(f"{told}{f' {wins}' if wins else ''}")
    return said


def _about(row: Row) -> str:
    seeds = [str(seed) for seed in row.seeds if seed is not None]
    return clean(row.name) + (f" (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" if seeds else "")


def _rank(row: Row, tests: Mapping[str, Difference]) -> tuple[int, float]:
    objective = tests.get(row.objective or "")
    gains = sum(test.verdict == "better" for test in tests.values())
    return (-2 if objective is not None and objective.verdict == "better" else -1 if gains else 0, -gains)


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
