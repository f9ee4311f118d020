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
from rlhf_lightning.feedback.events import Annotator, Event, Pairwise, Ranking, Rating, Shown, Thumbs, Timing
from rlhf_lightning.feedback.items import Item

START = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""When simulated people begin: their events are the same whenever they are made."""


@dataclass(frozen=True)
class Simulated:
    """A group of simulated annotators.

    Attributes:
        noise: one number for each of them, in units of the score. A pair is judged as Bradley and Terry have it:
            ``P(first better) = sigmoid(gap / noise)``, so at 0 the better one always wins, and at a noise as large as
            the gap it wins 73 of 100 times. Rankings are drawn by Plackett and Luce's rule.
        taste: standard deviation of what each text is worth to one of them and to no other, in units of the score. It
            stays the same when the same one is asked again: disagreement, not noise.
        position: what being shown first is worth.
        length: what a text that is e (2.7) times as long is worth more.
        tie: gap below which two texts are called equal.
        lapse: share of judgements that are made without looking.
    """

    noise: Sequence[float] = (0.06, 0.18, 0.4)
    taste: float = 0.0
    position: float = 0.0
    length: float = 0.0
    tie: float = 0.0
    lapse: float = 0.0

    def __post_init__(self) -> None:
        if not self.noise or any(not value >= 0 for value in self.noise):
            raise UserError(f"simulated.noise must be a list of numbers from 0 on, not {list(self.noise)}")
        for name in ("taste", "tie"):
            if not getattr(self, name) >= 0:
                raise UserError(f"simulated.{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.lapse <= 1:
            raise UserError(f"simulated.lapse must be a share from 0 to 1, not {self.lapse}")

    def judge(self, item: Item, scores: Sequence[float], person: int, seed: int = 0, project: str = "default") -> Event:
        """What one of them says to a question; the same whenever it is asked with this seed.

        Args:
            item: of kind pairwise, ranking, rating or thumbs.
            scores: (k,) hidden score of each candidate.
            person: which of them, from 0; people beyond the last begin anew with the first one's noise.
            seed: of all that is drawn.
            project: of the event.

        Raises:
            ValueError: for another kind of question, or another number of scores.
        """
        if len(scores) != len(item.candidates):
            raise ValueError(f"{len(scores)} scores for {len(item.candidates)} candidates")
        name = f"simulated-{person}"
        draw = random.Random(f"{seed}|{name}|{item.id}")
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
        # Gumbel noise on each: their difference is logistic, and the order of many follows Plackett and Luce.
        felt = [value - noise * math.log(-math.log(draw.random() or 1e-300) or 1e-300) for value in worth]
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
            steps = item.high - item.low
            values = [min(item.high, max(item.low, round(item.low + steps * value))) for value in felt]
            return Rating(
                values={aspect: tuple(values) for aspect in item.aspects or ("overall",)}, low=item.low, high=item.high
            )
        if item.kind == "thumbs":
            return Thumbs(up=tuple(value > 0.5 for value in felt))
        raise ValueError(f"no simulated annotator answers questions of kind {item.kind}")
