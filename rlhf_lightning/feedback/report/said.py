"""Judgements as the report looks at them: who said what of which question, at which place on the screen, how fast."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from rlhf_lightning.data.files import count_of
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Correction, Implicit, Label, Pairwise, Ranking, Rating, Spans, Thumbs
from rlhf_lightning.feedback.server.comparing import likeness, to_stored
from rlhf_lightning.feedback.statistics.raters import READING_LIMIT

DENSE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Characters of Chinese and Japanese."""

DENSITY = 3.2
"""Characters of English that say as much as one of Chinese (see `READING_LIMIT`)."""


def explicit(events: Iterable[Event]) -> list[Event]:
    """What people said, without signs of use."""
    return [event for event in events if not isinstance(event.payload, Implicit)]


def first_time(events: Iterable[Event]) -> list[Event]:
    """What annotators said by themselves of questions whose answer nobody knows: no gold, repeat or adjudication.

    Candidates are in the order in which the question's first judgement has them; one of other candidates is left out.
    Of two judgements of one person, question and aspect the later one counts.
    """
    alone = [e for e in explicit(events) if not e.gold and e.repeats is None and not e.adjudicates]
    kept = {(e.annotator.id, e.question, e.kind, getattr(e.payload, "aspect", None)): e for e in aligned(alone)}
    return list(kept.values())


def aligned(events: Iterable[Event]) -> Iterator[Event]:
    """Judgements of one question with its candidates in one order."""
    first: dict[tuple[str, str], Event] = {}
    for event in events:
        reference = first.setdefault((event.question, event.kind), event)
        wanted = [candidate.hash for candidate in reference.candidates]
        hashes = [candidate.hash for candidate in event.candidates]
        if hashes == wanted:
            yield event
        elif sorted(hashes) == sorted(wanted) and len(set(wanted)) == len(wanted) and event.payload is not None:
            order = [wanted.index(one) for one in hashes]
            shown = event.shown.model_copy(update={"order": tuple(order[i] for i in event.shown.order)})
            payload = to_stored(event.payload, order)
            yield event.model_copy(update={"payload": payload, "candidates": reference.candidates, "shown": shown})


def better(event: Event, said: Pairwise) -> str:
    """Which of two is better, the candidates being in the order of their hashes: as good as drawn.

    In some logs the winner, or the newer model's answer, is always stored first. By places in the log people would
    then seem to agree by chance, as one answer is so frequent.
    """
    if said.winner is None:
        return str(said.outcome)
    turned = event.candidates[0].hash > event.candidates[1].hash
    return "second" if (said.winner == 1) != turned else "first"


class Alike(NamedTuple):
    """Two people's judgements of one question, and how far they say the same, from 0 to 1."""

    one: Event
    other: Event
    likeness: float


def alike(events: Iterable[Event]) -> list[Alike]:
    """Each two people's judgements of one question, where they can be compared (`comparing.likeness`)."""
    groups: dict[tuple[str, str, str | None], list[Event]] = defaultdict(list)
    for event in events:
        groups[event.question, event.kind, getattr(event.payload, "aspect", None)].append(event)
    return [
        Alike(a, b, like)
        for group in groups.values()
        for a, b in combinations(group, 2)
        if a.annotator.id != b.annotator.id and (like := same(a, b)) is not None
    ]


def same(a: Event, b: Event) -> float | None:
    """How far two judgements of the same candidates in the same order say the same."""
    if a.payload is None or b.payload is None or a.kind != b.kind:
        return None
    if [c.hash for c in a.candidates] != [c.hash for c in b.candidates]:
        return None
    return likeness(a.payload, b.payload)


# --- places on the screen --------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A comparison of two as it was on the screen.

    Attributes:
        event: the judgement.
        score: of the answer shown first: 1 it won, 0 it lost, 0.5 neither.
        first, second: the texts, the one shown first before the other.
        known: whether it is known which one was shown first; else they are as they are stored.
    """

    event: Event
    score: float
    first: str
    second: str
    known: bool


def comparisons(events: Iterable[Event]) -> list[Shown]:
    """All comparisons of two, whoever made them and why."""
    made = []
    for event in events:
        said = event.payload
        if isinstance(said, Pairwise):
            order = event.shown.order or (0, 1)
            score = 0.5 if said.winner is None else float(said.winner == order[0])
            texts = [event.candidates[i].text for i in order]
            made.append(Shown(event, score, texts[0], texts[1], bool(event.shown.order)))
    return made


def choice(event: Event) -> Hashable | None:
    """What was chosen, by places on the screen; None for what is written or marked, and where no place is known."""
    said, order = event.payload, event.shown.order
    if isinstance(said, Label):
        return said.label
    if not order:
        return None
    if isinstance(said, Pairwise):
        if said.winner is None:
            return said.outcome
        return "first" if said.winner == order[0] else "second"
    if isinstance(said, Thumbs):
        return tuple(said.up[i] for i in order)
    if isinstance(said, Ranking):
        return tuple(said.ranks[i] for i in order)
    if isinstance(said, Rating):
        return tuple((aspect, *(values[i] for i in order)) for aspect, values in sorted(said.values.items()))
    return None


# --- time ------------------------------------------------------------------------------------------------------------


def seconds(event: Event) -> float | None:
    """How long it took: while the page was in front and used, or else from its being shown to its being submitted."""
    timing = event.timing
    if timing.active_ms is not None:
        return timing.active_ms / 1000
    if timing.shown is not None and timing.submitted is not None:
        return max(0.0, (timing.submitted - timing.shown).total_seconds())
    return None


def to_read(events: Sequence[Event]) -> list[tuple[int, float]]:
    """Of each judgement of one person, in the order of time: characters to be read, and how many a second nobody reads.

    All candidates are to be read, and the prompt and its context where the person sees them for the first time. The
    limit follows the script: a character of Chinese or Japanese takes as long as `DENSITY` of English.
    """
    seen: set[str] = set()
    told = []
    for event in events:
        parts = [candidate.text for candidate in event.candidates]
        for part in (event.asked.plain, event.asked.context or ""):
            if part not in seen:
                parts.append(part)
                seen.add(part)
        text = "".join(parts)
        dense = len(DENSE.findall(text))
        told.append((len(text), READING_LIMIT * len(text) / (len(text) + (DENSITY - 1) * dense or 1) or READING_LIMIT))
    return told


# --- in words --------------------------------------------------------------------------------------------------------


def letter(place: int) -> str:
    """A candidate's name in the report."""
    return chr(ord("A") + place)


def answer(event: Event) -> str:
    """What was said, in a few words; candidates are A, B, ... in their order.

    >>> from rlhf_lightning.feedback.events import Candidate, Asked, Annotator
    >>> said = {"kind": "ranking", "ranks": [2, 1, 2]}
    >>> texts = tuple(Candidate(text=t) for t in "xyz")
    >>> answer(Event(item="i", kind="ranking", asked=Asked(text="?"), candidates=texts, annotator={"id": "p"},
    ...              payload=said))
    'B > A = C'
    """
    said = event.payload
    if isinstance(said, Pairwise):
        return f"{letter(said.winner)} better" if said.winner is not None else str(said.outcome).replace("_", " ")
    if isinstance(said, Ranking):
        ranked = sorted((rank, i) for i, rank in enumerate(said.ranks) if rank is not None)
        text = ""
        for (before, _), (rank, i) in zip([(None, 0), *ranked], ranked, strict=False):
            text += f"{'' if before is None else ' = ' if rank == before else ' > '}{letter(i)}"
        return text
    if isinstance(said, Rating):
        rated = (f"{name} {', '.join('-' if v is None else f'{v:g}' for v in vs)}" for name, vs in said.values.items())
        return "; ".join(rated)
    if isinstance(said, Thumbs):
        return ", ".join({True: "up", False: "down", None: "-"}[up] for up in said.up)
    if isinstance(said, Label):
        return said.label
    if isinstance(said, Spans):
        return count_of(len(said.spans), "marks")
    if isinstance(said, Correction):
        return "corrected"
    return event.kind


def median(values: Sequence[float]) -> float | None:
    """The median, None of nothing."""
    return statistics.median(values) if values else None
