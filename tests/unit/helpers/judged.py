"""Judgements by simulated annotators, whose ways are known."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rlhf_lightning.feedback.events import Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.simulated import Simulated

QUALITY = {"base": 0.3, "sft": 0.5, "ppo": 0.7}


def question(i: int, models: Sequence[str] = ("base", "ppo"), kind: str = "pairwise", **more: object) -> Item:
    """A question whose candidates differ in length, whatever wrote them."""
    draw = random.Random(f"{i}")
    texts = [f"{model} {i} " + "word " * draw.randint(5, 60) for model in models]
    candidates = tuple(Candidate(text=text.strip(), model=model) for text, model in zip(texts, models, strict=True))
    return Item(kind=kind, asked=Asked(text=f"Question {i}?", language="en"), candidates=candidates, **more)  # type: ignore[arg-type]


def ask(
    people: Simulated,
    n: int = 100,
    persons: Sequence[int] = (0, 1, 2),
    models: Sequence[str] = ("base", "ppo"),
    kind: str = "pairwise",
    scores: Sequence[float] | None = None,
    seed: int = 0,
) -> list[Event]:
    """What they say to n questions; the models' quality is `QUALITY`, if no scores are given."""
    worth = scores or [QUALITY[model] for model in models]
    return [people.judge(question(i, models, kind), worth, person, seed) for i in range(n) for person in persons]
