"""Which questions to ask next, of many that could be asked.

A part of them is always drawn at random from all: what is chosen for being unsure or far apart is no fair sample, and
only the random part tells how good a reward model is. Each choice says by which strategy it came, and with which
probability it was asked.
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
        strategy: by which it came: the one asked for, or ``random``. The random ones are a fair sample of all, those
            that the strategy would have taken too included.
        probability: with which it is asked, by chance or by the strategy: 1 for the most wanted. Weighed by its
            inverse, all that are asked stand for all that could have been (Horvitz and Thompson 1952).
    """

    place: int
    strategy: str
    probability: float


def usefulness(gaps: ArrayLike, strategy: Strategy) -> np.ndarray:
    """(n,) how much a strategy wants each pair; the most wanted first.

    Args:
        gaps: (m, n) or (n,) difference between the two candidates' rewards, by each of m reward models. It is read as
            the log-odds of the first one's win (Bradley and Terry).
        strategy: ``margin`` wants pairs of which it is least sure who wins: minus ``|p - 0.5|`` of the mean probability
            (uncertainty sampling, Lewis and Gale 1994). ``variance`` wants those that the models judge most
            differently: the variance of their probabilities, a measure of a committee's disagreement (the idea of
            Seung et al. 1992); it needs several models. ``gap`` wants those farthest apart by the mean difference.

    Raises:
        UserError: for ``variance`` with one model, a strategy that there isn't, or gaps that are no numbers.
        ValueError: for ``random``, which wants none more than another.
    """
    _known(strategy)
    if strategy == "random":
        raise ValueError("the strategy random wants no pair more than another")
    table = np.atleast_2d(np.asarray(gaps, dtype=float))
    if not np.isfinite(table).all():
        raise UserError("the reward model gives scores that are not finite, so no pairs can be chosen by them")
    p = 0.5 * (1 + np.tanh(table / 2))  # the logistic function, without overflow
    if strategy == "margin":
        return -np.abs(p.mean(0) - 0.5)
    if strategy == "gap":
        return np.abs(table.mean(0))
    if len(table) < 2:
        raise UserError("the strategy variance needs several reward models, and there is one")
    return p.var(0)


def choose(
    n: int, count: int, strategy: Strategy, gaps: ArrayLike | None, seed: int, random_share: float = LEAST_RANDOM
) -> list[Chosen]:
    """Choose questions: first the random part, of all; then the strategy takes those of the others it wants most.

    Args:
        n: how many there are to choose from.
        count: how many are wanted; all, where there are no more.
        strategy: how.
        gaps: (m, n) or (n,), as for `usefulness`; may be None for ``random`` alone.
        seed: of what is drawn.
        random_share: of the questions that is drawn at random, rounded up; at least `LEAST_RANDOM`.

    Returns:
        The chosen ones in random order: who stops early has judged a fair part of each kind. Of pairs wanted equally,
        those come first that a drawn order puts first; probabilities are those given that order.

    Raises:
        UserError: for a share too small, or as `usefulness`.
        ValueError: if there are no gaps, or not n of them.
    """
    _known(strategy)
    if not LEAST_RANDOM <= random_share <= 1:
        raise UserError(f"random_share must be from {LEAST_RANDOM} to 1, not {random_share}")
    draw = np.random.default_rng(seed)
    count = min(count, n)
    by_chance = count if strategy == "random" else math.ceil(random_share * count)
    chance = draw.permutation(n)[:by_chance]
    if strategy == "random":
        return [Chosen(int(i), "random", count / n) for i in chance]
    if gaps is None or np.shape(gaps)[-1:] != (n,):
        raise ValueError(f"the strategy {strategy} needs the gap of each of the {n} pairs")
    ties = draw.permutation(n)
    ranked = ties[np.argsort(-usefulness(gaps, strategy)[ties], kind="stable")]
    wanted = ranked[~np.isin(ranked, chance)][: count - by_chance]
    rank = {int(i): r for r, i in enumerate(ranked)}
    ways = [(int(i), strategy) for i in wanted] + [(int(i), "random") for i in chance]
    probability = _asked(n, by_chance, count - by_chance, np.array([rank[i] for i, _ in ways], dtype=int))
    chosen = [Chosen(i, way, float(p)) for (i, way), p in zip(ways, probability, strict=True)]
    return [chosen[i] for i in draw.permutation(len(chosen))]


def _known(strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise UserError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")


def _asked(n: int, by_chance: int, wanted: int, ranks: np.ndarray) -> np.ndarray:
    """(k,) with which probability pairs of some ranks (k,), from 0, are asked.

    One that is not drawn comes if of the ``rank`` before it fewer than ``wanted`` are left by the draw, that is more
    than ``rank - wanted`` were drawn: the upper tail of a hypergeometric distribution.
    """
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # of the factorials

    def ways(of: int, take: np.ndarray | int) -> np.ndarray:
        return np.asarray(log[of] - log[take] - log[of - take])

    def one(rank: int) -> float:
        if rank < wanted:
            return 1.0
        others = n - 1 - rank
        drawn = np.arange(max(rank - wanted + 1, by_chance - others, 0), min(rank, by_chance) + 1)
        tail = np.exp(ways(rank, drawn) + ways(others, by_chance - drawn) - ways(n - 1, by_chance)).sum()
        return float(min(1.0, by_chance / n + (1 - by_chance / n) * tail))

    return np.array([one(int(rank)) for rank in ranks])
