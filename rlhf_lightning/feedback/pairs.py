"""What one person says of two completions of one prompt, whatever kind of question it was said to."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Correction, Pairwise, Ranking, Rating, Spans, Thumbs
from rlhf_lightning.feedback.rules import Dropped, Origin, Rules, prompt_key
from rlhf_lightning.feedback.text import same_text

Says = Literal["first", "second", "tie", "both_bad"]

PENALTY: dict[str | None, float] = {None: 1.0, "minor": 1.0, "major": 5.0, "critical": 25.0}
"""Points a marked span costs, by its severity: MQM's multipliers (Lommel et al., "The Multi-Range Theory of Translation
Quality Measurement", 2024, arXiv:2405.16969); without one it counts as minor."""

EQUAL, EMPTY, TIED, CLOSE, ALONE, LEVEL = (
    "chosen equals rejected",
    "a text is empty",
    "tied",
    "ratings too close",
    "no pair: the person judged no other completion of the prompt",
    "the rater uses one value only",
)


@dataclass(frozen=True)
class Opinion:
    """What one person says of two completions.

    Attributes:
        origin: prompt and judgement.
        first, second: the completions, without space around them; they differ, and neither is empty.
        says: which is better.
        weight: of the pair.
        margin: of the pair, where one is better.
        group: name of the ranking that it is of.
        settled: whether an adjudicator says it.
    """

    origin: Origin
    first: str
    second: str
    says: Says
    weight: float = 1.0
    margin: float = 0.0
    group: str | None = None
    settled: bool = False

    @property
    def probability(self) -> float:
        """That the first is better, in this person's eyes."""
        return {"first": 1.0, "second": 0.0}.get(self.says, 0.5)


def opinions(events: Sequence[Event], rules: Rules) -> Iterator[Opinion | Dropped]:
    """All comparisons that explicit judgements make.

    A judgement of two is a comparison; a ranking of k makes k (k - 1) / 2, each of weight 2 / (k (k - 1)), and its id
    is their group (InstructGPT, Ouyang et al., 2022, arXiv:2203.02155, 3.5). Ratings, thumbs and marked spans are
    compared within one person and prompt, whether they are of one event or several (`rated_opinions`,
    `thumbs_opinions`). A correction is preferred over what it corrects, if more than space and Unicode's ways of
    writing changed.

    Args:
        events: that hold, of any kind.
        rules: see there.
    """
    rated: list[Rated] = []
    for event in events:
        payload = event.payload
        aspect = getattr(payload, "aspect", None)
        if isinstance(payload, Rating):
            rated += list(ratings(event, payload, rules.aspect))
        elif rules.aspect is not None and aspect != rules.aspect:
            continue
        elif isinstance(payload, Pairwise):
            yield from _pairwise(event, payload, rules)
        elif isinstance(payload, Ranking):
            yield from _ranking(event, payload)
        elif isinstance(payload, Correction):
            yield from _correction(event, payload)
        elif isinstance(payload, Spans):
            rated.append(Rated(event, event.candidates[payload.candidate].text.strip(), "spans", -penalty(payload)))
    yield from rated_opinions(rated, rules.gap)
    yield from thumbs_opinions([e for e in events if rules.aspect in (None, getattr(e.payload, "aspect", None))])


def _texts(event: Event) -> list[str]:
    return [candidate.text.strip() for candidate in event.candidates]


def settles(event: Event) -> bool:
    """Whether an event settles what others disagree on; annotators can't, whatever they send."""
    return bool(event.adjudicates) and event.annotator.role not in ("annotator", "user")


def _compared(opinion: Opinion) -> Opinion | Dropped:
    """The opinion, or why there can be no row of it: the readers of rows refuse empty and equal texts."""
    if not opinion.first or not opinion.second:
        return Dropped(opinion.origin.events, EMPTY)
    return Dropped(opinion.origin.events, EQUAL) if opinion.first == opinion.second else opinion


def _pairwise(event: Event, said: Pairwise, rules: Rules) -> Iterator[Opinion | Dropped]:
    first, second = _texts(event)
    says: Says = "both_bad" if said.outcome == "both_bad" else "tie"
    if said.outcome == "win":
        says = "first" if said.winner == 0 else "second"
    margin = rules.margin * (said.strength or 0)
    origin = Origin.of([event], aspect=said.aspect)
    yield _compared(Opinion(origin, first, second, says, margin=margin, settled=settles(event)))


def share_of(k: int) -> float:
    """Weight of each of the pairs among ``k`` completions, so that together they weigh 1."""
    return 2 / (k * (k - 1))


def _ranking(event: Event, said: Ranking) -> Iterator[Opinion | Dropped]:
    places: dict[str, list[int]] = defaultdict(list)
    for text, rank in zip(_texts(event), said.ranks, strict=True):
        if rank is not None:
            places[text].append(rank)
    for ranks in places.values():  # a text that stands there twice has the mean of its ranks
        for _ in range(len(ranks) - 1):
            yield Dropped((event.id,), EQUAL)
    if places.pop("", None) is not None:
        yield Dropped((event.id,), EMPTY)
    if len(places) < 2:
        yield Dropped((event.id,), ALONE)
        return
    mean = {text: statistics.fmean(ranks) for text, ranks in places.items()}
    origin = Origin.of([event], aspect=said.aspect)
    for a, b in itertools.combinations(mean, 2):
        says: Says = "first" if mean[a] < mean[b] else "second" if mean[a] > mean[b] else "tie"
        yield Opinion(origin, a, b, says, share_of(len(mean)), group=event.id, settled=settles(event))


def _correction(event: Event, said: Correction) -> Iterator[Opinion | Dropped]:
    original, edited = event.candidates[said.candidate].text.strip(), said.text.strip()
    if same_text(original, edited):
        yield Dropped((event.id,), "the correction changes nothing")
        return
    origin = Origin.of([event], "correction", said.aspect)
    yield _compared(Opinion(origin, edited, original, "first", settled=settles(event)))


def penalty(said: Spans) -> float:
    """Sum of the points that marked spans cost (`PENALTY`); 0 where nothing is marked.

    The longer a text, the more can be wrong with it: completions of one prompt are compared as they are, other texts
    should be by the word.
    """
    return sum(PENALTY[span.severity] for span in said.spans)


# --- ratings ---------------------------------------------------------------------------------------------------------


class Rated(NamedTuple):
    """A number that one person gave one text for one aspect; higher is better."""

    event: Event
    text: str
    aspect: str
    value: float


def ratings(event: Event, said: Rating, aspect: str | None = None) -> Iterator[Rated]:
    """The numbers of a rating, as shares of its scale: 0 the low end, 1 the high one."""
    for name, values in said.values.items():
        if aspect in (None, name):
            for text, value in zip(_texts(event), values, strict=True):
                if value is not None:
                    yield Rated(event, text, name, (value - said.low) / (said.high - said.low))


def rated_opinions(rated: Sequence[Rated], gap: float) -> Iterator[Opinion | Dropped]:
    """Comparisons of texts that one person rated for one prompt.

    People use a scale in ways of their own, so numbers are z-normalised within person and aspect first (over all
    prompts; population standard deviation), as direct assessments in translation are (Graham et al., "Continuous
    Measurement Scales in Human Evaluation of Machine Translation", 2013); who gives one value only says nothing.
    Differences are then averaged over the aspects for which both texts were rated. Marks of spans are compared among
    each other alone.

    Args:
        rated: any number of people and prompts.
        gap: differences below it, in standard deviations, give nothing; equal ratings are a tie.
    """
    by_scale: dict[tuple[str, bool, str], list[float]] = defaultdict(list)
    for one in rated:
        by_scale[_scale(one)].append(one.value)
    spread = {scale: statistics.pstdev(values) for scale, values in by_scale.items() if len(set(values)) > 1}

    by_prompt: dict[tuple[str, bool, str], list[Rated]] = defaultdict(list)
    for one in rated:
        by_prompt[one.event.annotator.id, _spans(one), prompt_key(one.event.asked)].append(one)
    for group in by_prompt.values():
        usable = [one for one in group if _scale(one) in spread]
        alone = len({one.text for one in group}) < 2
        for one in group if alone else [one for one in group if _scale(one) not in spread]:
            yield Dropped((one.event.id,), ALONE if alone else LEVEL)
        if not alone and usable:
            yield from _within_prompt(usable, spread, gap)


def _spans(one: Rated) -> bool:
    return one.event.kind == "spans"


def _scale(one: Rated) -> tuple[str, bool, str]:
    return one.event.annotator.id, _spans(one), one.aspect


def _within_prompt(
    group: Sequence[Rated], spread: dict[tuple[str, bool, str], float], gap: float
) -> Iterator[Opinion | Dropped]:
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    events: dict[str, list[Event]] = defaultdict(list)
    for one in group:
        # The person's mean falls out of a difference.
        values[one.text][one.aspect].append(one.value / spread[_scale(one)])
        events[one.text].append(one.event)
    for a, b in itertools.combinations(values, 2):
        judged = [*events[a], *events[b]]
        shared = [aspect for aspect in values[a] if aspect in values[b]]
        ids = tuple(dict.fromkeys(event.id for event in judged))
        if not shared:
            yield Dropped(ids, "no aspect in common")
            continue
        apart = statistics.fmean(statistics.fmean(values[a][x]) - statistics.fmean(values[b][x]) for x in shared)
        if abs(apart) < 1e-9:
            says: Says = "tie"
        elif abs(apart) < gap - 1e-9:
            yield Dropped(ids, CLOSE)
            continue
        else:
            says = "first" if apart > 0 else "second"
        settled = all(settles(event) for event in judged)
        yield _compared(Opinion(Origin.of(judged), a, b, says, share_of(len(values)), settled=settled))


# --- thumbs ----------------------------------------------------------------------------------------------------------


def thumbs_opinions(events: Iterable[Event]) -> Iterator[Opinion | Dropped]:
    """Comparisons of texts of one prompt of which one person gave the one a thumb up and the other a thumb down.

    Two thumbs up (or down) are no tie: what is above a bar may be anywhere above it. The last thumb for a text counts.
    """
    groups: dict[tuple[str, str], dict[str, tuple[bool, Event]]] = defaultdict(dict)
    for event in events:
        if isinstance(event.payload, Thumbs):
            for text, up in zip(_texts(event), event.payload.up, strict=True):
                if up is not None and text:
                    groups[event.annotator.id, prompt_key(event.asked)][text] = (up, event)
    for group in groups.values():
        for (a, (up, one)), (b, (other_up, other)) in itertools.combinations(group.items(), 2):
            if up != other_up:
                settled = settles(one) and settles(other)
                says: Says = "first" if up else "second"
                yield Opinion(Origin.of([one, other]), a, b, says, share_of(len(group)), settled=settled)
