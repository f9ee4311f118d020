"""How far people agree: with each other by kind and aspect, with themselves, and with who settles disagreements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.pairs import settles
from rlhf_lightning.feedback.payloads import Correction, Label, Pairwise, Ranking, Rating, Thumbs, Value
from rlhf_lightning.feedback.report.figures import FEWEST, Figure, few, figure, none, share_by
from rlhf_lightning.feedback.report.said import alike, better, explicit, first_time, same
from rlhf_lightning.feedback.statistics.agreement import (
    Level,
    alpha_interval,
    bootstrap_interval,
    category_counts,
    cohen_kappa,
    fleiss_kappa,
)
from rlhf_lightning.feedback.statistics.intervals import ratio_interval

LEVELS: dict[str, Level] = {
    "pairwise": "nominal",
    "ranking": "ordinal",
    "rating": "interval",
    "thumbs": "nominal",
    "label": "nominal",
}
"""What each kind's values mean; corrections and spans have none that could be equal by chance."""

ONE_ANSWER = "all gave one and the same answer, so that chance alone would agree as well"
QUESTIONS = "questions with two judgements"


class Agreement(Value):
    """Of one kind of question, and of one aspect where aspects are judged.

    Attributes:
        kind, aspect: see there.
        level: of the values: nominal (pairwise, thumbs, label), ordinal (ranks), interval (ratings); None where texts
            or marks are compared.
        people, questions, judgements: of the questions that two people judged, or more.
        raw: share of equal ones among all pairs of values of one question (spans: the mean of Dice's coefficient of the
            marked characters).
        cohen: kappa, of two people; squared differences count for ranks and ratings.
        fleiss: kappa, of names with the same number of judgements for each question.
        alpha: Krippendorff's, for any number of judgements. Intervals are of a bootstrap over questions.
    """

    kind: str
    aspect: str | None
    level: str | None
    people: int
    questions: int
    judgements: int
    raw: Figure
    cohen: Figure
    fleiss: Figure
    alpha: Figure


class _One(NamedTuple):
    """A value that one person gave one thing; ``unit`` names it, its first part is the question."""

    unit: tuple[str, int]
    person: str
    value: str | float


def agreements(events: Sequence[Event]) -> list[Agreement]:
    """Of all kinds and aspects among judgements that hold; gold, repeats and adjudications take no part."""
    alone = first_time(events)
    by_kind: dict[tuple[str, str | None], list[_One]] = defaultdict(list)
    for event in alone:
        for aspect, one in _values(event):
            by_kind[event.kind, aspect].append(one)
    made = [_of_values(kind, aspect, values) for (kind, aspect), values in by_kind.items()]
    for kind in ("spans", "correction"):
        texts = [event for event in alone if event.kind == kind]
        if texts:
            made.append(_of_texts(kind, texts))
    return made


def _values(event: Event) -> Iterator[tuple[str | None, _One]]:
    said, question, person = event.payload, event.question, event.annotator.id
    if isinstance(said, Pairwise):
        yield said.aspect, _One((question, 0), person, better(event, said))
    elif isinstance(said, Label):
        place = -1 if said.candidate is None else said.candidate
        yield said.aspect, _One((question, place), person, said.label)
    elif isinstance(said, Ranking):
        for i, rank in enumerate(said.ranks):
            if rank is not None:
                yield said.aspect, _One((question, i), person, float(rank))
    elif isinstance(said, Rating):
        for aspect, numbers in said.values.items():
            for i, value in enumerate(numbers):
                if value is not None:
                    yield aspect, _One((question, i), person, (value - said.low) / (said.high - said.low))
    elif isinstance(said, Thumbs):
        for i, up in enumerate(said.up):
            if up is not None:
                yield said.aspect, _One((question, i), person, str(up))


def _of_values(kind: str, aspect: str | None, values: Sequence[_One]) -> Agreement:
    level = LEVELS[kind]
    names = {name: i for i, name in enumerate(sorted({str(one.value) for one in values}))}
    by_unit: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for one in values:
        value = one.value if isinstance(one.value, float) else names[one.value]
        by_unit[one.unit][one.person] = float(value)
    shared = {unit: said for unit, said in by_unit.items() if len(said) > 1}
    everybody = sorted({person for said in shared.values() for person in said})
    questions = len({unit[0] for unit in shared})
    if questions < FEWEST:
        nothing = none(few(questions, QUESTIONS), questions)
        figures = dict.fromkeys(("raw", "cohen", "fleiss", "alpha"), nothing)
    else:
        figures = _coefficients(shared, everybody, level, questions)
    return Agreement(
        kind=kind,
        aspect=aspect,
        level=level,
        people=len(everybody),
        questions=questions,
        judgements=len({(unit[0], person) for unit, said in shared.items() for person in said}),
        raw=figures["raw"],
        cohen=figures["cohen"],
        fleiss=figures["fleiss"],
        alpha=figures["alpha"],
    )


def _coefficients(
    shared: dict[tuple[str, int], dict[str, float]], everybody: list[str], level: Level, questions: int
) -> dict[str, Figure]:
    width = max(map(len, shared.values()))
    table = np.full((len(shared), width), np.nan)  # a rater's column does not matter to any but Cohen's kappa
    for row, said in zip(table, shared.values(), strict=True):
        row[: len(said)] = list(said.values())
    clusters = [unit[0] for unit in shared]
    cluster = np.unique(clusters, return_inverse=True)[1]
    equal, pairs = _equal_pairs(table)
    found = ratio_interval(np.bincount(cluster, equal), np.bincount(cluster, pairs))
    raw = figure(found, questions, "nothing to compare")
    alpha = figure(alpha_interval(table, level, clusters=cluster), questions, ONE_ANSWER)
    if len(everybody) == 2:
        both = np.array([[said[person] for person in everybody] for said in shared.values()])
        weights = None if level == "nominal" else "quadratic"
        found = bootstrap_interval(both, lambda t: cohen_kappa(t[:, 0], t[:, 1], weights), clusters=cluster)  # type: ignore[arg-type]
        cohen = figure(found, questions, ONE_ANSWER)
    else:
        cohen = none(f"it is of two people, here are {len(everybody)}")
    sizes = sorted({len(said) for said in shared.values()})
    if level != "nominal":
        fleiss = none("it is of names, here are numbers")
    elif len(sizes) > 1:
        fleiss = none(f"questions have {sizes[0]} to {sizes[-1]} judgements: alpha takes them")
    else:
        found = bootstrap_interval(table, lambda t: fleiss_kappa(category_counts(t)[0]), clusters=cluster)
        fleiss = figure(found, questions, ONE_ANSWER)
    return {"raw": raw, "cohen": cohen, "fleiss": fleiss, "alpha": alpha}


def _equal_pairs(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(units,) pairs of equal values of each unit, and all its pairs."""
    equal, pairs = np.zeros(len(table)), np.zeros(len(table))
    for j in range(1, table.shape[1]):
        both = ~np.isnan(table[:, j, None] + table[:, :j])
        equal += (both & (table[:, j, None] == table[:, :j])).sum(1)
        pairs += both.sum(1)
    return equal, pairs


def _of_texts(kind: str, events: Sequence[Event]) -> Agreement:
    groups: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        groups[event.question].append(event)
    shared = [group for group in groups.values() if len(group) > 1]
    people = {event.annotator.id for group in shared for event in group}
    if isinstance(events[0].payload, Correction):
        raw = none("people seldom write the same text")
    elif len(shared) < FEWEST:
        raw = none(few(len(shared), QUESTIONS), len(shared))
    else:
        likes = [[one.likeness for one in alike(group)] for group in shared]
        found = ratio_interval([sum(like) for like in likes], [len(like) for like in likes])
        raw = figure(found, len(shared), "nothing to compare")
    no_chance = none("texts and marks are not equal by chance in a way that could be told")
    return Agreement(
        kind=kind,
        aspect=None,
        level=None,
        people=len(people),
        questions=len(shared),
        judgements=sum(map(len, shared)),
        raw=raw,
        cohen=no_chance,
        fleiss=no_chance,
        alpha=no_chance,
    )


class Compared(NamedTuple):
    """Likeness of a person's judgement to another one of the same question."""

    person: str
    question: str
    likeness: float


def with_themselves(events: Sequence[Event]) -> list[Compared]:
    """Repeated questions: what a person said again against what the same person said before."""
    log = explicit(events)
    before = {(e.annotator.id, e.question): e for e in log if e.repeats is None}
    made = []
    for event in log:
        if event.repeats is None:
            continue
        if (old := before.get((event.annotator.id, f"{event.project}/{event.repeats}"))) is not None:
            like = same(event, old)
            if like is not None:
                made.append(Compared(event.annotator.id, event.question, like))
    return made


def with_adjudicator(events: Sequence[Event]) -> list[Compared]:
    """What people said against what settled their disagreement."""
    log = explicit(events)
    by_id = {event.id: event for event in log}
    return [
        Compared(old.annotator.id, event.question, like)
        for event in log
        if settles(event)
        for name in event.adjudicates
        if (old := by_id.get(name)) is not None and (like := same(old, event)) is not None
    ]


def with_gold(events: Sequence[Event]) -> list[Compared]:
    """What people said to questions whose answer is known, against that."""
    made = []
    for event in explicit(events):
        if event.expected is not None:
            like = same(event, event.model_copy(update={"payload": event.expected}))
            if like is not None:
                made.append(Compared(event.annotator.id, event.question, like))
    return made


def mean_likeness(compared: Sequence[Compared], of: str) -> Figure:
    """The mean likeness, of one person or of all."""
    return share_by([one.likeness for one in compared], [one.question for one in compared], of)
