"""A reward that is nothing but what people said: ``R = f(feedback)``."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Rating, Thumbs
from rlhf_lightning.feedback.rows import usable
from rlhf_lightning.feedback.rules import prompt_key


def reward_of(events: Sequence[Event]) -> dict[tuple[str, str], float]:
    """What people's thumbs and ratings make of each completion that has some.

    A thumb up is 1, one down is 0; a rating is its share of the scale, averaged over aspects. First a person's are
    averaged, then people's, so that who judged twice counts once.

    Args:
        events: that hold (`events.current`); repeats count too, and what an adjudicator settled does not.

    Returns:
        ``{(SHA-256 of the prompt as one text, SHA-256 of the completion): 0 to 1}``, see `rules.prompt_key` and
        `Candidate.hash`.
    """
    given: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in usable(events, checks=True):
        if not isinstance(event, Event):
            continue
        for i, candidate in enumerate(event.candidates):
            value = _value(event, i)
            if value is not None:
                given[prompt_key(event.asked), candidate.hash][event.annotator.id].append(value)
    return {
        key: statistics.fmean(statistics.fmean(values) for values in people.values()) for key, people in given.items()
    }


def _value(event: Event, candidate: int) -> float | None:
    said = event.payload
    if isinstance(said, Thumbs):
        up = said.up[candidate]
        return None if up is None else float(up)
    if isinstance(said, Rating):
        width = said.high - said.low
        shares = [(v[candidate] - said.low) / width for v in said.values.values() if v[candidate] is not None]  # type: ignore[operator]
        return statistics.fmean(shares) if shares else None
    return None
