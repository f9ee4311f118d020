"""Figures in words, and the few sentences that stand above all of them."""

from __future__ import annotations

from rlhf_lightning.comparison.words import p_text
from rlhf_lightning.data.files import count_of
from rlhf_lightning.feedback.report.build import Report
from rlhf_lightning.feedback.report.figures import Figure
from rlhf_lightning.report.human import coefficient

WIDE = 0.3
"""Width of an interval of a share from which on it says neither that there is something nor that there is not."""


def percent(value: float) -> str:
    """A share as a percentage.

    >>> percent(0.634)
    '63 %'
    """
    return f"{100 * value:.0f} %"


def plain(name: str) -> str:
    """A name of the log as words: ``edit_accepted`` is "edit accepted"."""
    return name.replace("_", " ")


def p_words(p: float) -> str:
    """A p value as papers print it."""
    return p_text(p)


def share_words(figure: Figure) -> str:
    """A share with its interval, or why there is none.

    >>> share_words(Figure(value=0.634, low=0.55, high=0.71, n=120)), share_words(Figure(why="no ties"))
    ('63 % (55 to 71)', 'no ties')
    """
    if figure.value is None:
        return figure.why or "unknown"
    ends = ""
    if figure.low is not None and figure.high is not None:
        ends = f" ({100 * figure.low:.0f} to {100 * figure.high:.0f})"
    return f"{percent(figure.value)}{ends}"


def coefficient_words(figure: Figure) -> str:
    """A coefficient with its interval, or why there is none."""
    if figure.value is None:
        return figure.why or "unknown"
    ends = ""
    if figure.low is not None and figure.high is not None:
        ends = f" ({coefficient(figure.low)} to {coefficient(figure.high)})"
    return f"{coefficient(figure.value)}{ends}"


def _no_bias(first: Figure) -> str:
    """What an interval with one half in it says, by its width."""
    wide = first.low is None or first.high is None or first.high - first.low > WIDE
    return "Whether the place sways people can't be told yet" if wide else "No position bias is seen"


def findings(report: Report) -> list[str]:
    """What the figures say, most important first."""
    told = []
    for one in report.agreement:
        if one.alpha.value is not None:
            what = one.kind if one.aspect is None else f"{one.kind}, {one.aspect}"
            told.append(f"People agree on {what} by alpha {coefficient_words(one.alpha)}.")
    told += [
        f"{duel.first} is preferred to {duel.second} in {share_words(duel.wins)} of {duel.wins.n} comparisons."
        for duel in report.models.duels[:3]
        if duel.wins.value is not None
    ]
    position, length = report.position, report.length
    if position.found and position.first.value is not None:
        place = "first" if position.first.value > 0.5 else "second"
        share = position.first.value if place == "first" else 1 - position.first.value
        told.append(f"The answer shown {place} wins {percent(share)} of comparisons: its place sways people.")
    elif position.p is not None:
        told.append(f"{_no_bias(position.first)}: the answer shown first wins {share_words(position.first)}.")
    if length.found and length.longer.value is not None:
        kind = "longer" if length.longer.value > 0.5 else "shorter"
        share = length.longer.value if kind == "longer" else 1 - length.longer.value
        told.append(f"The {kind} answer wins {percent(share)} of comparisons; it may be better, or just {kind}.")
    remarked = [person for person in report.people.each if person.remarks]
    if remarked:
        work = "works" if len(remarked) == 1 else "work"
        people = count_of(len(report.people.each), "people")
        told.append(f"{len(remarked)} of {people} {work} in ways worth a look: see People.")
    told += [f"A trend over time: {course.title}." for course in report.over_time if course.found]
    check = report.reward_model
    if check is not None:
        told.append(
            f"The reward model agrees with people on {share_words(check.accuracy)} of {count_of(check.pairs, 'pairs')}."
        )
    return told
