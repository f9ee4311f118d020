"""What the models are worth in people's eyes: Bradley-Terry strengths, and the win rate of each two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Pairwise, Ranking, Value
from rlhf_lightning.feedback.report.figures import FEWEST, Figure, few, figure, share_by
from rlhf_lightning.feedback.report.said import explicit
from rlhf_lightning.feedback.rows import usable
from rlhf_lightning.feedback.rules import prompt_key
from rlhf_lightning.feedback.statistics.strength import groups, strengths, win_matrix


class Match(NamedTuple):
    """One comparison of two models' answers.

    Attributes:
        first, second: the models.
        score: of the first: 1 it won, 0 it lost, 0.5 neither.
        prompt: key of the prompt.
        event: the judgement.
    """

    first: str
    second: str
    score: float
    prompt: str
    event: Event


class Model(Value):
    """One model's place.

    Attributes:
        name: see there.
        strength: ``P(i beats j) = sigmoid(strength_i - strength_j)``; the mean of its table is 0.
        wins: probability of beating another model of its table, drawn at random.
        comparisons: that it took part in.
    """

    name: str
    strength: Figure
    wins: Figure
    comparisons: int


class Table(Value):
    """Models that were compared with each other, be it through others, the strongest first.

    Attributes:
        models: see there.
        separated: whether some never lost to the rest: how far apart these are is a matter of the prior.
        why: in words, where there are too few comparisons for strengths.
    """

    models: list[Model]
    separated: bool = False
    why: str | None = None


class Duel(Value):
    """How often one model's answers were preferred to another's.

    Attributes:
        first, second: the models.
        wins: share of comparisons that the first won, a tie counting one half; the interval takes all comparisons of
            one prompt for one.
        won, tied, lost: comparisons.
        prompts: that were compared.
        people: who compared.
    """

    first: str
    second: str
    wins: Figure
    won: int
    tied: int
    lost: int
    prompts: int
    people: int


class Models(Value):
    """What people say of the models: by blind comparisons of two and rankings, what was settled as it was settled.

    Attributes:
        tables: one for each group of models that were compared with each other, the largest first.
        duels: each two models that were compared directly.
        seen: comparisons that are left out as the models' names were shown.
        nameless: comparisons that are left out as a model is not known, or both answers are of one.
    """

    tables: list[Table]
    duels: list[Duel]
    seen: int
    nameless: int


def matches_of(events: Sequence[Event]) -> tuple[list[Match], int, int]:
    """Blind comparisons of two models, and how many are left out as they were not blind, and as no two models compete.

    Args:
        events: that hold; gold questions, repeats and what an adjudicator settled take no part.
    """
    runs = {str(event.asked.meta["run"]) for event in events if "run" in event.asked.meta}
    made, seen, nameless = [], 0, 0
    for event in usable(explicit(events)):
        if not isinstance(event, Event):
            continue
        for i, j, score in _pairs(event):
            names = [_name(event, place, len(runs) > 1) for place in (i, j)]
            if names[0] is None or names[1] is None or names[0] == names[1]:
                nameless += 1
            elif not event.shown.blind:
                seen += 1
            else:
                made.append(Match(names[0], names[1], score, prompt_key(event.asked), event))
    return made, seen, nameless


def _name(event: Event, place: int, several: bool) -> str | None:
    """A model's name; of several runs, which call theirs alike, with the run's."""
    model, run = event.candidates[place].model, event.asked.meta.get("run")
    return f"{run}: {model}" if several and model is not None and run is not None else model


def _pairs(event: Event) -> list[tuple[int, int, float]]:
    said = event.payload
    if isinstance(said, Pairwise):
        return [(0, 1, 0.5 if said.winner is None else float(said.winner == 0))]
    if isinstance(said, Ranking):
        ranked = [(i, rank) for i, rank in enumerate(said.ranks) if rank is not None]
        return [(i, j, 0.5 + (a < b) / 2 - (a > b) / 2) for (i, a), (j, b) in combinations(ranked, 2)]
    return []


def models_of(events: Sequence[Event]) -> Models:
    """Tables and win rates from judgements that hold."""
    matches, seen, nameless = matches_of(events)
    names = list(dict.fromkeys(name for match in matches for name in (match.first, match.second)))
    place = {name: i for i, name in enumerate(names)}
    wins = win_matrix(
        [place[m.first] for m in matches], [place[m.second] for m in matches], [m.score for m in matches], len(names)
    )
    parts = sorted(groups(wins + wins.T), key=lambda part: -len(part))
    tables = [_table([names[i] for i in part], matches) for part in parts]
    return Models(tables=tables, duels=duels_of(matches), seen=seen, nameless=nameless)


def _table(names: Sequence[str], matches: Sequence[Match]) -> Table:
    place = {name: i for i, name in enumerate(names)}
    own = [match for match in matches if match.first in place]
    prompts = {match.prompt for match in own}
    of = f"prompts with a comparison of {' and '.join(names)}" if len(names) == 2 else "prompts with a comparison"
    if len(prompts) < FEWEST:
        plain = [
            Model(name=name, strength=Figure(why="too few"), wins=Figure(why="too few"), comparisons=_count(name, own))
            for name in names
        ]
        return Table(models=plain, why=few(len(prompts), of))
    found = strengths(
        [place[m.first] for m in own],
        [place[m.second] for m in own],
        [m.score for m in own],
        np.unique([m.prompt for m in own], return_inverse=True)[1],
        names,
    )
    models = [
        Model(
            name=one.name,
            strength=figure(one.log_strength, one.comparisons, "undefined"),
            wins=figure(one.win, one.comparisons, "undefined"),
            comparisons=one.comparisons,
        )
        for one in found.models
    ]
    return Table(models=models, separated=found.separated)


def _count(name: str, matches: Sequence[Match]) -> int:
    return sum(name in (match.first, match.second) for match in matches)


def duels_of(matches: Sequence[Match]) -> list[Duel]:
    """The win rate of each two models, who have most comparisons first; the one that won more often is the first."""
    by_pair: dict[tuple[str, str], list[Match]] = defaultdict(list)
    for match in matches:
        by_pair[min(match.first, match.second), max(match.first, match.second)].append(match)
    duels = []
    for (one, other), own in by_pair.items():
        ahead = sum(m.score if m.first == one else 1 - m.score for m in own) * 2 >= len(own)
        duels.append(duel(one, other, own) if ahead else duel(other, one, own))
    return sorted(duels, key=lambda duel: -duel.wins.n)


def duel(first: str, second: str, matches: Sequence[Match]) -> Duel:
    """The win rate of one model against another, of comparisons of the two."""
    scores = [match.score if match.first == first else 1 - match.score for match in matches]
    prompts = [match.prompt for match in matches]
    return Duel(
        first=first,
        second=second,
        wins=share_by(scores, prompts, "comparisons won"),
        won=scores.count(1.0),
        tied=scores.count(0.5),
        lost=scores.count(0.0),
        prompts=len(set(prompts)),
        people=len({match.event.annotator.id for match in matches}),
    )
