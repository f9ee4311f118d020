"""What people's use of answers says of them: weak comparisons, never labels, and how often they are right.

A sign of use leans towards one of two answers that the same person had to the same prompt. How much a lean is worth is
measured, not believed: its probability comes from how often that sign agreed with what people said where they said
something too, and its weight is at most `CAP`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_lightning.data.rows import PreferenceRow
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.pairs import Opinion, opinions
from rlhf_lightning.feedback.payloads import Implicit
from rlhf_lightning.feedback.rules import Dropped, Origin, Rules, prompt_key

CAP = 0.2
"""Most that a comparison from signs of use weighs, beside 1 for what a person said."""

CLIP = 10.0
"""Most that a click counts for having been made where few look."""

BELIEF, BELIEF_VOTES = 0.6, 20
"""Beforehand a sign is taken to be right with this probability, as if so many comparisons had shown it."""

SUREST = 0.9
"""Highest probability of a comparison from signs of use."""

LIKES = ("copy", "edit_accepted")
DISLIKES = ("regenerated", "rephrased", "abandoned")

Pair = tuple[str, str, str, str]
"""Person, prompt and the two texts, the smaller first."""


def _pair(person: str, prompt: str, a: str, b: str) -> Pair:
    return person, prompt, min(a, b), max(a, b)


class Lean(NamedTuple):
    """A sign that one text is better than another.

    Attributes:
        signal: which sign.
        better, worse: the texts.
        strength: 0 to 1: how marked it is.
        events: it was made of.
    """

    signal: str
    better: str
    worse: str
    strength: float
    events: tuple[Event, ...]


@dataclass
class _Visit:
    """What one person did with the answers to one prompt.

    Attributes:
        seen: the texts that were seen, in order.
        beside: pairs of texts (the smaller first) that were shown at once.
        done: events by signal and text.
    """

    seen: dict[str, None]
    beside: set[tuple[str, str]]
    done: dict[str, dict[str, list[Event]]]


def _visits(events: Sequence[Event]) -> dict[tuple[str, str], _Visit]:
    groups: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        if isinstance(event.payload, Implicit):
            groups[event.annotator.id, prompt_key(event.asked)].append(event)
    return {key: _visit(group) for key, group in groups.items()}


def _visit(group: Sequence[Event]) -> _Visit:
    done: dict[str, dict[str, list[Event]]] = defaultdict(lambda: defaultdict(list))
    shown: dict[str, None] = {}
    beside: set[tuple[str, str]] = set()
    for event in group:
        said = event.payload
        assert isinstance(said, Implicit)
        texts = [candidate.text.strip() for candidate in event.candidates]
        shown.update(dict.fromkeys(text for text in texts if text))
        beside.update(itertools.combinations(sorted(set(texts)), 2))
        # Of a whole page with several answers nobody knows which is meant.
        at = said.candidate if said.candidate is not None else 0 if len(texts) == 1 else None
        if at is not None and texts[at]:
            done[said.signal][texts[at]].append(event)
    looked_at = [text for by_text in done.values() for text in by_text]
    # Where impressions are recorded, what has none (and was not used) was not seen: it lost to nothing.
    return _Visit(dict.fromkeys(looked_at) if "impression" in done else shown, beside, done)


def leans(events: Sequence[Event], raw_dwell: bool = False) -> dict[Pair, list[Lean]]:
    """All signs that one answer is better than another, by person, prompt and pair.

    - dwell: time by character, as a z-score within the person: longer texts take longer, and people read at speeds of
      their own; of answers that were shown beside each other. Times of one person are compared in one unit alone. A
      time that was cut off by the record's end is a lower bound; where it is the smaller one, nothing is known. Times
      are in ms or counts (of looks, say); less than one counts as one.
    - click: what was clicked over what was seen beside it, weighed by the inverse of the probability that it was looked
      at (Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased Feedback", 2017, arXiv:1608.04468),
      at most `CLIP`; where that probability is not known it is taken for 1, which weighs least.
    - copy, edit accepted: over the other answers to that prompt that the person saw, then or later. Regenerated,
      rephrased, abandoned: those over it.

    What was scrolled or continued says nothing for or against an answer.

    Args:
        events: that hold, of any people; others than implicit ones are passed over.
        raw_dwell: compare times as they are, neither by length nor by person, for measurements.
    """
    visits = _visits(events)
    found: dict[Pair, list[Lean]] = defaultdict(list)
    for (person, prompt), visit in visits.items():
        for a, b in itertools.combinations(visit.seen, 2):
            pair = _pair(person, prompt, a, b)
            for signal in (*LIKES, *DISLIKES):
                one, other = visit.done[signal].get(a), visit.done[signal].get(b)
                if bool(one) != bool(other):
                    better, worse = (a, b) if bool(one) == (signal in LIKES) else (b, a)
                    found[pair].append(Lean(signal, better, worse, 1.0, tuple(one or other or ())))
            one, other = visit.done["click"].get(a), visit.done["click"].get(b)
            if bool(one) != bool(other) and pair[2:] in visit.beside:
                made = tuple(one or other or ())
                better, worse = (a, b) if one else (b, a)
                found[pair].append(Lean("click", better, worse, max(map(_click, made)) / CLIP, made))
    for pair, lean in _dwell(visits, raw_dwell):
        found[pair].append(lean)
    return dict(found)


def _click(event: Event) -> float:
    """A click's inverse propensity, clipped."""
    assert isinstance(event.payload, Implicit)
    return min(1 / event.payload.propensity, CLIP) if event.payload.propensity is not None else 1.0


class _Time(NamedTuple):
    score: float
    censored: bool
    events: tuple[Event, ...]


def _dwell(visits: Mapping[tuple[str, str], _Visit], raw: bool) -> Iterator[tuple[Pair, Lean]]:
    # By person and unit; within these by prompt and question (an answer may be shown again beside others), and text.
    times: dict[tuple[str, str], dict[tuple[str, str], dict[str, _Time]]] = defaultdict(lambda: defaultdict(dict))
    for (person, prompt), visit in visits.items():
        for text, group in visit.done["dwell"].items():
            parts: dict[tuple[str, str], list[tuple[Event, Implicit]]] = defaultdict(list)
            for event in group:
                if isinstance(event.payload, Implicit) and event.payload.unit in ("ms", "count"):
                    parts[event.payload.unit, event.question].append((event, event.payload))
            for (unit, question), part in parts.items():
                spent = sum(said.value for _, said in part)
                score = spent if raw else math.log(max(spent, 1.0) / len(text))
                censored = any(said.censored for _, said in part)
                times[person, unit][prompt, question][text] = _Time(score, censored, tuple(event for event, _ in part))
    for (person, _), shown in times.items():
        scores = [time.score for by_text in shown.values() for time in by_text.values()]
        spread = statistics.pstdev(scores) if len(set(scores)) > 1 else 0.0
        for (prompt, _), by_text in shown.items():
            for a, b in itertools.combinations(by_text, 2):
                pair = _pair(person, prompt, a, b)
                more, less = sorted((a, b), key=lambda text: by_text[text].score, reverse=True)
                apart = by_text[more].score - by_text[less].score
                if apart and spread and not by_text[less].censored and pair[2:] in visits[person, prompt].beside:
                    made = by_text[a].events + by_text[b].events
                    yield pair, Lean("dwell", more, less, min(1.0, apart / spread), made)


# --- how often they are right ----------------------------------------------------------------------------------------


class Accuracy(NamedTuple):
    """How often a sign agreed with what the same person said of the same two answers.

    Attributes:
        agreed, n: of so many comparisons.
        share, low, high: with Wilson's 95 % interval; NaN where n is 0.
    """

    agreed: int
    n: int
    share: float
    low: float
    high: float


def implicit_accuracy(events: Sequence[Event], raw_dwell: bool = False) -> dict[str, Accuracy]:
    """By sign how often it agrees with explicit preferences, where there are both.

    Args:
        events: that hold, explicit and implicit ones.
        raw_dwell: see `leans`.

    Returns:
        For each sign that leans anywhere; people's ties, and where they contradict themselves, count for nothing.
    """
    return _accuracy(leans(events, raw_dwell), _said(events))


def _said(events: Sequence[Event]) -> dict[Pair, str | None]:
    """What people prefer themselves: the better text by pair; None for neither, or now one and now the other."""
    said: dict[Pair, str | None] = {}
    for one in opinions([event for event in events if not isinstance(event.payload, Implicit)], Rules()):
        if isinstance(one, Opinion):
            better = {"first": one.first, "second": one.second}.get(one.says)
            pair = _pair(one.origin.annotators[0], prompt_key(one.origin.asked), one.first, one.second)
            said[pair] = better if said.get(pair, better) == better else None
    return said


def _accuracy(found: Mapping[Pair, Sequence[Lean]], said: Mapping[Pair, str | None]) -> dict[str, Accuracy]:
    from rlhf_lightning.feedback.statistics.intervals import wilson_interval

    counts: dict[str, list[int]] = {}
    for pair, signs in found.items():
        better = said.get(pair)
        for lean in signs:
            count = counts.setdefault(lean.signal, [0, 0])
            if better is not None:
                count[0] += lean.better == better
                count[1] += 1
    return {signal: Accuracy(agreed, n, *wilson_interval(agreed, n)) for signal, (agreed, n) in counts.items()}


def implicit_rows(events: Sequence[Event]) -> Iterator[PreferenceRow | Dropped]:
    """Weak preferences from signs of use, one for each person and pair that the person said nothing of.

    A sign's probability of being right is the mean of a Beta posterior: `BELIEF` beforehand, as if from `BELIEF_VOTES`
    comparisons, and those of `implicit_accuracy`. A sign that is no better than chance so counts for nothing. Where
    several signs lean on one pair, what their probabilities exceed 0.5 by is averaged, with its direction. The weight
    is `CAP` times the strength of the strongest.

    Args:
        events: that hold, explicit and implicit ones.
    """
    found, said = leans(events), _said(events)
    right = {
        signal: (one.agreed + BELIEF * BELIEF_VOTES) / (one.n + BELIEF_VOTES)
        for signal, one in _accuracy(found, said).items()
    }
    for pair, signs in found.items():
        judged = tuple(dict.fromkeys(event.id for lean in signs for event in lean.events))
        if pair in said:
            yield Dropped(judged, "the person said which is better")
            continue
        kept = [lean for lean in signs if right[lean.signal] > 0.5]
        if not kept:
            yield Dropped(judged, "a sign no better than chance")
            continue
        first = kept[0].better
        excess = statistics.fmean((right[x.signal] - 0.5) * (1 if x.better == first else -1) for x in kept)
        if abs(excess) < 1e-9:
            yield Dropped(judged, "signs contradict each other")
            continue
        lean = kept[0]
        chosen, rejected = (lean.better, lean.worse) if excess > 0 else (lean.worse, lean.better)
        origin = Origin.of([event for lean in kept for event in lean.events], "implicit")
        weight = CAP * max(lean.strength for lean in kept)
        probability = min(0.5 + abs(excess), SUREST)
        yield PreferenceRow(origin.prompt, chosen, rejected, weight, 0.0, probability, None, origin.meta)
