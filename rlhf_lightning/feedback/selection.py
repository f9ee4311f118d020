"""Which questions to ask next, of many that could be asked.

A part of them is always drawn at random, from all there are and before the rest is chosen: what is chosen for being
unsure or far apart is no fair sample, nor is what that leaves over, and only the random part tells how good a reward
model is. Each choice says by which strategy it came and with which probability.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from rlhf_lightning.errors import UserError

Strategy = Literal["random", "margin", "variance", "gap"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
LEAST_RANDOM = 0.2
"""Share of the questions that is drawn at random whatever the strategy."""


class Chosen(NamedTuple):
    """A question that is asked.

    Attributes:
        place: which of those that could be, from 0.
        strategy: by which it came: the one asked for, or ``random``.
        probability: with which it came: 1 where the strategy's order alone decides, among what chance left over.
    """

    place: int
    strategy: str
    probability: float


def usefulness(gaps: ArrayLike, strategy: Strategy) -> np.ndarray:
    """(n,) how much a strategy wants each pair; the most wanted first.

    Args:
        gaps: (m, n) or (n,) difference between the two candidates' rewards, by each of m reward models.
        strategy: ``margin`` wants pairs of which it is least sure who wins: minus ``|p - 0.5|`` of the mean probability
            (uncertainty sampling, Lewis and Gale 1994). ``variance`` wants those that the models judge most
            differently: the variance of their probabilities (query by committee, Seung et al. 1992); it needs several
            models. ``gap`` wants those farthest apart.

    Raises:
        UserError: for ``variance`` with one model, or a strategy that there isn't.
    """
    table = np.atleast_2d(np.asarray(gaps, dtype=float))
    p = 0.5 * (1 + np.tanh(table / 2))  # the logistic function, without overflow
    if strategy == "margin":
        return -np.abs(p.mean(0) - 0.5)
    if strategy == "variance":
        if len(table) < 2:
            raise UserError("the strategy variance needs several reward models, and there is one")
        return p.var(0)
    if strategy == "gap":
        return np.abs(table.mean(0))
    raise UserError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")


def choose(
    n: int, count: int, strategy: Strategy, gaps: ArrayLike | None, seed: int, random_share: float = LEAST_RANDOM
) -> list[Chosen]:
    """Choose questions.

    Args:
        n: how many there are to choose from.
        count: how many are wanted; all, where there are no more.
        strategy: how.
        gaps: as for `usefulness`; None, and without a part in it, for ``random``.
        seed: of what is drawn.
        random_share: of the questions that is drawn at random; at least `LEAST_RANDOM`.

    Returns:
        The chosen ones in random order: who stops early has judged a fair part of each kind.

    Raises:
        UserError: for a share too small, or as `usefulness`.
    """
    if not LEAST_RANDOM <= random_share <= 1:
        raise UserError(f"random_share must be from {LEAST_RANDOM} to 1, not {random_share}")
    draw = np.random.default_rng(seed)
    count = min(count, n)
    by_chance = count if strategy == "random" or gaps is None else math.ceil(random_share * count)
    order = [int(i) for i in draw.permutation(n)]
    drawn, rest = order[:by_chance], order[by_chance:]
    first: list[int] = []
    if by_chance < count:
        assert gaps is not None
        wanted = usefulness(gaps, strategy)[rest]  # ties fall at random
        first = [rest[i] for i in np.argsort(-wanted, kind="stable")[: count - by_chance]]
    chance = by_chance / n if n else 1.0
    chosen = [Chosen(i, strategy, 1.0) for i in first] + [Chosen(i, "random", chance) for i in drawn]
    return [chosen[i] for i in draw.permutation(len(chosen))]
