"""Each person: speed, monotony, biases, agreement with others, with known answers and with what they said before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Label, Pairwise, Thumbs, Value
from rlhf_lightning.feedback.report.agreement import (
    Compared,
    mean_likeness,
    with_adjudicator,
    with_gold,
    with_themselves,
)
from rlhf_lightning.feedback.report.biases import Length, Position, length_of, position_of
from rlhf_lightning.feedback.report.figures import CERTAIN, FEWEST, Figure, few, none, share, share_by
from rlhf_lightning.feedback.report.said import alike, better, choice, explicit, first_time, median, seconds, to_read
from rlhf_lightning.feedback.statistics.consensus import dawid_skene
from rlhf_lightning.feedback.statistics.raters import speed, straight_lining

HASTY = 0.1
"""Share of judgements too fast to have been read from which on it is told of."""


class Monotony(Value):
    """The longest run of one and the same choice, by the place on the screen.

    Attributes:
        kind: of question at which it is least likely; None where no choice has a place.
        longest: length of the run.
        choice: what was chosen.
        choices: of this kind, in all.
        p: probability of such a run or a longer one, were choices drawn from those of all people, with first and second
            made as frequent as each other; times the number of kinds.
        why: in words, where there is nothing to tell.
    """

    kind: str | None = None
    longest: int = 0
    choice: str | None = None
    choices: int = 0
    p: float | None = None
    why: str | None = None


class Person(Value):
    """One person's way of judging; what is said of the other people's is in `People`.

    Attributes:
        id, role: see there; ids name nobody.
        judged, skipped: judgements that hold, and questions skipped.
        median_seconds: for a judgement; None where times are not known.
        timed: judgements whose time is known.
        too_fast: share of the timed judgements that took less time than reading takes at twice the usual speed.
        position, length: see there; found is after Bonferroni, for the number of people.
        monotony: see there.
        with_others: mean likeness to others' judgements of the same questions.
        with_self: to their own, where a question was asked again.
        with_adjudicator: to what settled disagreements that they took part in.
        gold: to known answers.
        accuracy: probability that they are right by Dawid and Skene's model, of names alone (`People.accuracy_kind`).
        remarks: what is found, in words.
    """

    id: str
    role: str
    judged: int
    skipped: int
    median_seconds: float | None
    timed: int
    too_fast: Figure
    position: Position
    length: Length
    monotony: Monotony
    with_others: Figure
    with_self: Figure
    with_adjudicator: Figure
    gold: Figure
    accuracy: Figure
    remarks: list[str]


class People(Value):
    """All of them together, and one by one, who judged most first.

    Attributes:
        each: see there.
        with_others, with_self, with_adjudicator, gold: mean likeness (0 to 1) as in `Person`, of all people.
        accuracy_kind: kind of question that Dawid and Skene's model is fitted to: of pairwise, thumbs and label that of
            which most answers were given to questions with several; None where there is none.
    """

    each: list[Person]
    with_others: Figure
    with_self: Figure
    with_adjudicator: Figure
    gold: Figure
    accuracy_kind: str | None


OF = {
    "others": "comparisons with others' judgements",
    "self": "repeated questions",
    "adjudicator": "judgements that were settled",
    "gold": "questions with a known answer",
}


def people_of(log: Sequence[Event], holding: Sequence[Event]) -> People:
    """Look at each person.

    Args:
        log: all events, for what was skipped.
        holding: those that hold.
    """
    said = explicit(holding)
    own: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(said, key=lambda event: event.time):
        own[event.annotator.id].append(event)
    skipped = Counter(event.annotator.id for event in log if event.status == "skipped")
    pairs = alike(first_time(holding))
    others = [Compared(e.annotator.id, e.question, pair.likeness) for pair in pairs for e in (pair.one, pair.other)]
    compared = {
        "others": others,
        "self": with_themselves(holding),
        "adjudicator": with_adjudicator(holding),
        "gold": with_gold(holding),
    }
    kind, accuracy = _dawid_skene(first_time(holding))
    shares = _shares(said)
    by_person: dict[tuple[str, str], list[Compared]] = defaultdict(list)
    for what, found in compared.items():
        for one in found:
            by_person[one.person, what].append(one)
    each = []
    for name, events in own.items():
        likes = {what: mean_likeness(by_person[name, what], OF[what]) for what in compared}
        each.append(_person(name, events, skipped[name], likes, accuracy, shares, len(own)))
    each.sort(key=lambda person: -person.judged)
    whole = [pair.likeness for pair in pairs]
    return People(
        each=each,
        with_others=share_by(whole, [pair.one.question for pair in pairs], "pairs of people's judgements"),
        with_self=mean_likeness(compared["self"], OF["self"]),
        with_adjudicator=mean_likeness(compared["adjudicator"], OF["adjudicator"]),
        gold=mean_likeness(compared["gold"], OF["gold"]),
        accuracy_kind=kind,
    )


def _person(
    name: str,
    events: Sequence[Event],
    skipped: int,
    likes: dict[str, Figure],
    accuracy: dict[str, Figure],
    shares: dict[str, dict[Hashable, float]],
    people: int,
) -> Person:
    times = [seconds(event) for event in events]
    known = [time for time in times if time is not None]
    reading = to_read(events)
    pace = speed([np.nan if t is None else t for t in times], [n for n, _ in reading], [limit for _, limit in reading])
    too_fast = share(round(pace.too_fast * pace.judgements) if known else 0, len(known), "judgements of known time")
    position, length = position_of(events), length_of(events)
    position = position.model_copy(update={"found": position.p is not None and position.p * people < CERTAIN})
    length = length.model_copy(update={"found": length.p is not None and length.p * people < CERTAIN})
    monotony = _monotony(events, shares)
    remarks = []
    if position.found and position.first.value is not None:
        remarks.append(f"prefers what is shown {'first' if position.first.value > 0.5 else 'second'}")
    if length.found and length.longer.value is not None:
        remarks.append(f"prefers the {'longer' if length.longer.value > 0.5 else 'shorter'} answer")
    if monotony.p is not None and monotony.p * people < CERTAIN:
        remarks.append(f"chose {monotony.choice} {monotony.longest} times on end")
    if too_fast.value is not None and too_fast.value > HASTY:
        remarks.append("is often faster than reading allows")
    return Person(
        id=name,
        role=events[-1].annotator.role,
        judged=len(events),
        skipped=skipped,
        median_seconds=median(known),
        timed=len(known),
        too_fast=too_fast,
        position=position,
        length=length,
        monotony=monotony,
        with_others=likes["others"],
        with_self=likes["self"],
        with_adjudicator=likes["adjudicator"],
        gold=likes["gold"],
        accuracy=accuracy.get(name, none("no question of names was judged by others, too")),
        remarks=remarks,
    )


# --- monotony --------------------------------------------------------------------------------------------------------


def _shares(said: Sequence[Event]) -> dict[str, dict[Hashable, float]]:
    """How often each choice is made of each kind of question, by all people together."""
    counts: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for event in said:
        chosen = choice(event)
        if chosen is not None:
            counts[event.kind][chosen] += 1
    shares: dict[str, dict[Hashable, float]] = {kind: dict(count) for kind, count in counts.items()}
    if "pairwise" in shares:
        # Which answer stands first is drawn: a person who always says first differs from chance also where all do.
        pair = shares["pairwise"]
        half = (pair.get("first", 0) + pair.get("second", 0)) / 2
        shares["pairwise"] = {**pair, **({"first": half, "second": half} if half else {})}
    return shares


def _monotony(events: Sequence[Event], shares: dict[str, dict[Hashable, float]]) -> Monotony:
    by_kind: dict[str, list[Hashable]] = defaultdict(list)
    for event in events:
        chosen = choice(event)
        if chosen is not None:
            by_kind[event.kind].append(chosen)
    enough = {kind: chosen for kind, chosen in by_kind.items() if len(chosen) >= FEWEST}
    if not enough:
        most = max(map(len, by_kind.values()), default=0)
        return Monotony(choices=most, why=few(most, "choices of one kind with a known place"))
    found = {kind: straight_lining(chosen, shares[kind]) for kind, chosen in enough.items()}
    kind = min(found, key=lambda kind: found[kind].p)
    one = found[kind]
    return Monotony(
        kind=kind,
        longest=one.longest,
        choice=_words(one.choice),
        choices=one.choices,
        p=min(1.0, one.p * len(found)),
    )


def _words(chosen: Hashable) -> str:
    if isinstance(chosen, tuple):
        names = {True: "up", False: "down", None: "-"}
        return ", ".join(_words(part) if isinstance(part, tuple) else str(names.get(part, part)) for part in chosen)
    return str(chosen).replace("_", " ")


# --- Dawid and Skene -------------------------------------------------------------------------------------------------


def _dawid_skene(events: Sequence[Event]) -> tuple[str | None, dict[str, Figure]]:
    votes: dict[str, list[tuple[Hashable, str, str]]] = defaultdict(list)
    for event in events:
        said, person = event.payload, event.annotator.id
        if isinstance(said, Pairwise):
            votes[event.kind].append(((event.question, said.aspect), person, better(event, said)))
        elif isinstance(said, Label):
            votes[event.kind].append(((event.question, said.aspect, said.candidate), person, said.label))
        elif isinstance(said, Thumbs):
            for i, up in enumerate(said.up):
                if up is not None:
                    votes[event.kind].append(((event.question, said.aspect, i), person, str(up)))
    shared = {kind: _of_several(cast) for kind, cast in votes.items()}
    kind = max(shared, key=lambda kind: len(shared[kind]), default=None)
    if kind is None or not shared[kind]:
        return None, {}
    cast = shared[kind]
    numbered = [{value: i for i, value in enumerate(dict.fromkeys(column))} for column in zip(*cast, strict=True)]
    columns = [np.array([names[vote[i]] for vote in cast]) for i, names in enumerate(numbered)]
    fit = dawid_skene(columns[0], columns[1], columns[2])
    given = Counter(person for _, person, _ in cast)
    figures = {}
    for person, i in numbered[1].items():
        n, of = given[str(person)], f"{kind} judgements of questions that others judged, too"
        accuracy = float(fit.accuracy[i])
        figures[str(person)] = none(few(n, of), n) if n < FEWEST else Figure(value=accuracy, n=n)
    return kind, figures


def _of_several(cast: Sequence[tuple[Hashable, str, str]]) -> list[tuple[Hashable, str, str]]:
    """The votes on what several people voted on."""
    voters: dict[Hashable, set[str]] = defaultdict(set)
    for thing, person, _ in cast:
        voters[thing].add(person)
    return [vote for vote in cast if len(voters[vote[0]]) > 1]
