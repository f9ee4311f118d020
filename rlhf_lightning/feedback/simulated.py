"""Annotators who are no people: they judge by a hidden score, with noise, biases and tastes of their own.

They stand in for people where a way of working is tried out: how much noise a loop bears, what a choice of questions
saves. What they say is marked as theirs (role ``simulated``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Annotator, Event, Shown, Timing
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Pairwise, Ranking, Rating, Thumbs

START = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""When simulated people begin: their events are the same whenever they are made."""


@dataclass(frozen=True)
class Simulated:
    """A group of simulated annotators.

    Attributes:
        noise: one number for each of them, in units of the score. A pair is judged as Bradley and Terry have it:
            ``P(first better) = sigmoid(gap / noise)``, so at 0 the better one always wins, and at a noise as large as
            the gap it wins 73 of 100 times. Rankings are drawn by Plackett and Luce's rule. What is judged by itself
            (ratings, thumbs) gets logistic noise of this scale: ``P(thumb up) = sigmoid((worth - 0.5) / noise)``.
        taste: standard deviation of what each text is worth to one of them and to no other, in units of the score. It
            stays the same when the same one is asked again: disagreement, not noise.
        position: what being shown first is worth; negative where it counts against a text.
        length: what a text of e (2.7) times as many characters is worth more.
        tie: gap as felt, with its noise, below which two texts are called equal. In a ranking a text comes after those
            that are better by more than this.
        lapse: share of judgements that are made without looking: by chance, whatever is shown first.
    """

    noise: Sequence[float] = (0.06, 0.18, 0.4)
    taste: float = 0.0
    position: float = 0.0
    length: float = 0.0
    tie: float = 0.0
    lapse: float = 0.0

    def __post_init__(self) -> None:
        if not self.noise or any(not 0 <= value < math.inf for value in self.noise):
            raise UserError(f"simulated.noise must be a list of numbers from 0 on, not {list(self.noise)}")
        for name in ("taste", "tie"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"simulated.{name} must be a number from 0 on, not {getattr(self, name)}")
        for name in ("position", "length"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"simulated.{name} must be a finite number, not {getattr(self, name)}")
        if not 0 <= self.lapse <= 1:
            raise UserError(f"simulated.lapse must be a share from 0 to 1, not {self.lapse}")

    def judge(
        self,
        item: Item,
        scores: Sequence[float],
        person: int,
        seed: int = 0,
        project: str = "default",
        key: str | None = None,
    ) -> Event:
        """What one of them says to a question; the same whenever it is asked with this seed.

        Args:
            item: of kind pairwise, ranking, rating or thumbs.
            scores: (k,) hidden score of each candidate; for ratings 0 is the scale's lower end and 1 its upper one, and
                half of that is where thumbs turn up.
            person: which of them, from 0; people beyond the last begin anew with the first one's noise.
            seed: of all that is drawn.
            project: of the event.
            key: what the draws follow from beside the seed; the question's id, where it is not given.

        Raises:
            ValueError: for another kind of question, another number of scores, or one that is no number.
        """
        if len(scores) != len(item.candidates):
            raise ValueError(f"{len(scores)} scores for {len(item.candidates)} candidates")
        if not all(map(math.isfinite, scores)):
            raise ValueError(f"item {item.id}: the hidden scores {list(scores)} are not all finite")
        name = f"simulated-{person}"
        draw = random.Random(f"{seed}|{name}|{item.id if key is None else key}")
        order = draw.sample(range(len(scores)), len(scores))
        worth = [
            score
            + self.taste * random.Random(f"{seed}|{name}|taste|{candidate.hash}").gauss(0, 1)
            + self.position * (i == order[0])
            + self.length * math.log(1 + len(candidate.text))
            for i, (score, candidate) in enumerate(zip(scores, item.candidates, strict=True))
        ]
        noise = self.noise[person % len(self.noise)]
        if draw.random() < self.lapse:
            worth, noise = [draw.random() for _ in worth], 0.0
        alone = item.kind in ("rating", "thumbs")
        felt = [value + noise * (_logistic(draw) if alone else _gumbel(draw)) for value in worth]
        seconds = sum(len(candidate.text) for candidate in item.candidates) / 20
        shown = START + timedelta(seconds=draw.random() * 86_400)
        return Event(
            id=f"{name}-{seed}-{item.id}",
            time=shown + timedelta(seconds=seconds),
            project=project,
            task=item.task,
            item=item.id,
            kind=item.kind,
            asked=item.asked,
            candidates=item.candidates,
            shown=Shown(order=tuple(order), seed=seed, strategy=item.strategy, probability=item.probability),
            annotator=Annotator(id=name, role="simulated"),
            timing=Timing(shown=shown, submitted=shown + timedelta(seconds=seconds), active_ms=int(1000 * seconds)),
            expected=item.expected,
            repeats=item.repeats,
            payload=self._said(item, felt),
        )

    def _said(self, item: Item, felt: Sequence[float]) -> Pairwise | Ranking | Rating | Thumbs:
        if item.kind == "pairwise":
            gap = felt[0] - felt[1]
            if abs(gap) < self.tie or gap == 0:
                return Pairwise(outcome="tie")
            return Pairwise(outcome="win", winner=0 if gap > 0 else 1)
        if item.kind == "ranking":
            return Ranking(ranks=tuple(1 + sum(other > value + self.tie for other in felt) for value in felt))
        if item.kind == "rating":
            values = [_on_scale(value, item.low, item.high) for value in felt]
            return Rating(
                values={aspect: tuple(values) for aspect in item.aspects or ("overall",)}, low=item.low, high=item.high
            )
        if item.kind == "thumbs":
            return Thumbs(up=tuple(value > 0.5 for value in felt))
        raise ValueError(f"no simulated annotator answers questions of kind {item.kind}")


def _gumbel(draw: random.Random) -> float:
    """Noise of which the difference of two is logistic, and by which the order of many follows Plackett and Luce."""
    return -math.log(-math.log(draw.random() or 1e-300))


def _logistic(draw: random.Random) -> float:
    """Noise with mean 0: Gumbel's is above 0 on average, and would make all that is judged by itself better."""
    return _gumbel(draw) - _gumbel(draw)


def _on_scale(value: float, low: float, high: float) -> float:
    """A value from 0 to 1 on a scale with steps of 1 from its lower end; a scale shorter than that has no steps."""
    at = min(1.0, max(0.0, value)) * (high - low)
    return min(high, low + (at if high - low <= 1 else math.floor(at + 0.5)))
