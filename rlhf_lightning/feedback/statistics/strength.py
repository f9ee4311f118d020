"""Bradley-Terry strengths of models from comparisons of their answers, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.statistics.intervals import CONFIDENCE, DRAWS, Estimate, percentile_interval

RIDGE = 0.05
"""Precision of a Gaussian prior on the log-strengths: with it a model that never lost has a finite one, and a hundred
comparisons hardly feel it."""


class Strength(NamedTuple):
    """One model's place.

    Attributes:
        name: of the model.
        log_strength: ``P(i beats j) = sigmoid(log_strength_i - log_strength_j)``; the mean over the models is 0.
        win: the probability of beating another one of the models, drawn at random.
        comparisons: that the model took part in.
    """

    name: str
    log_strength: Estimate
    win: Estimate
    comparisons: int


class Strengths(NamedTuple):
    """A table of models.

    Attributes:
        models: the strongest first.
        separated: whether some models never lost to the rest, ties included: then how far apart the two groups are is a
            matter of the prior, not of the data.
    """

    models: list[Strength]
    separated: bool


def win_matrix(first: ArrayLike, second: ArrayLike, score: ArrayLike, models: int) -> np.ndarray:
    """How often each model beat each other one.

    A tie is half a win for either, as in Chatbot Arena's table (Chiang et al., 2024, arXiv:2403.04132).

    Args:
        first, second: (n,) the two models of each comparison: whole numbers from 0.
        score: (n,) of the first: 1 it won, 0 it lost, 0.5 a tie.
        models: their number.

    Returns:
        (models, models) wins of the row over the column.

    Raises:
        ValueError: if the three differ in length, a score is not of [0, 1], a model is out of range, or one is compared
            with itself.
    """
    a, b, won = _comparisons(first, second, score, models)
    wins = np.bincount(np.concatenate([a * models + b, b * models + a]), np.concatenate([won, 1 - won]), models**2)
    return wins.reshape(models, models)


def bradley_terry(wins: ArrayLike, ridge: float = RIDGE) -> np.ndarray:
    """The log-strengths that make the wins likeliest, under a Gaussian prior; their mean is 0.

    The model of Bradley and Terry (1952), fitted by Newton's method.

    Args:
        wins: (..., models, models) wins of the row over the column; not necessarily whole numbers.
        ridge: precision of the prior, above 0.

    Returns:
        (..., models) log-strengths. Models that are not connected by comparisons get strengths too, of which the prior
        says that both groups are alike on the whole; `groups` tells.
    """
    table = np.asarray(wins, dtype=float)
    if ridge <= 0:
        raise ValueError(f"ridge={ridge}: it has to be above 0")
    models = table.shape[-1]
    played = table + np.swapaxes(table, -1, -2)
    played[..., np.arange(models), np.arange(models)] = 0
    won = np.where(np.eye(models, dtype=bool), 0, table).sum(-1)
    at = np.zeros(table.shape[:-1])
    for _ in range(200):
        p = _sigmoid(at[..., :, None] - at[..., None, :])
        gradient = won - (played * p).sum(-1) - ridge * at
        curvature = played * p * (1 - p)
        hessian = np.eye(models) * (curvature.sum(-1) + ridge)[..., None] - curvature
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        # A step of at most 1 never overshoots far: the likelihood's curvature changes by a bounded factor over it.
        largest = np.abs(step).max(-1, keepdims=True, initial=0)
        at = at + step / np.maximum(largest, 1)
        if (largest < 1e-7).all():  # the error is its square by now
            return at - at.mean(-1, keepdims=True)
    raise RuntimeError("the strengths did not settle in 200 steps of Newton's method")


def strengths(
    first: ArrayLike,
    second: ArrayLike,
    score: ArrayLike,
    items: ArrayLike,
    names: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Strengths:
    """The table of models from all comparisons.

    Intervals are the percentiles of a bootstrap over items (prompts): all comparisons of a drawn item come along, as
    judgements of the same answers say much the same.

    Args:
        first, second: (n,) the two models of each comparison: places in ``names``.
        score: (n,) of the first: 1 it won, 0 it lost, 0.5 a tie, which is half a win.
        items: (n,) what was judged.
        names: of the models.
        draws: resamples.
        seed: of the resamples.
        confidence: of the intervals.

    Raises:
        UserError: if some models were never compared with the others, not even through third ones.
        ValueError: as by `win_matrix`.
    """
    models = len(names)
    a, b, won = _comparisons(first, second, score, models)
    wins = win_matrix(a, b, won, models)
    apart = groups(wins + wins.T)
    if len(apart) > 1:
        listed = "; ".join(", ".join(names[i] for i in group) for group in apart)
        raise UserError(
            f"the models fall into {len(apart)} groups that were never compared with each other: {listed}. "
            "Compare some models across the groups, or make a table of each"
        )
    _, item = np.unique(np.asarray(items), return_inverse=True)
    if item.shape != a.shape:
        raise ValueError(f"{len(a)} comparisons need as many items; got the shape {item.shape}")
    rng, count = np.random.default_rng(seed), int(item.max(initial=-1)) + 1
    pairs = np.concatenate([a * models + b, b * models + a])
    drawn = np.empty((draws, models, models))
    for draw in range(draws):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[item]
        each = np.concatenate([times * won, times * (1 - won)])
        drawn[draw] = np.bincount(pairs, each, models**2).reshape(models, models)
    at, at_drawn = bradley_terry(wins), bradley_terry(drawn)
    win, win_drawn = _win_probability(at), _win_probability(at_drawn)
    played = np.bincount(np.concatenate([a, b]), minlength=models)
    table = [
        Strength(
            names[i],
            percentile_interval(float(at[i]), at_drawn[:, i], confidence),
            percentile_interval(float(win[i]), win_drawn[:, i], confidence),
            int(played[i]),
        )
        for i in np.argsort(-at, kind="stable")
    ]
    return Strengths(table, len(groups(wins, both_ways=True)) > 1)


def groups(links: ArrayLike, both_ways: bool = False) -> list[list[int]]:
    """The parts of a graph that are not connected.

    Args:
        links: (n, n) a positive number where the row leads to the column.
        both_ways: whether two members of a group have to reach each other along the links' direction. By Ford (1957)
            the likelihood of wins has a maximum only where all models are one such group.

    Returns:
        The members of each group, in ascending order; the group of the lowest one first.
    """
    reach = np.asarray(links) > 0
    if not both_ways:
        reach = reach | reach.T
    reach = reach | np.eye(len(reach), dtype=bool)
    while True:
        further = reach.astype(float) @ reach > 0
        if (further == reach).all():
            break
        reach = further
    alike = reach & reach.T
    return [np.nonzero(row)[0].tolist() for i, row in enumerate(alike) if row.argmax() == i]


def _win_probability(at: np.ndarray) -> np.ndarray:
    """(..., models) the mean probability of beating the others."""
    models = at.shape[-1]
    p = _sigmoid(at[..., :, None] - at[..., None, :])
    return (p.sum(-1) - 0.5) / (models - 1) if models > 1 else np.full(at.shape, np.nan)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


def _comparisons(
    first: ArrayLike, second: ArrayLike, score: ArrayLike, models: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a, b, won = np.asarray(first, dtype=int), np.asarray(second, dtype=int), np.asarray(score, dtype=float)
    if not (a.ndim == 1 and a.shape == b.shape == won.shape):
        raise ValueError(
            f"the two models and the score of each are needed; got shapes {a.shape}, {b.shape}, {won.shape}"
        )
    if len(a) and (min(a.min(), b.min()) < 0 or max(a.max(), b.max()) >= models):
        raise ValueError(f"a model is out of range: they are numbered from 0 to {models - 1}")
    if (a == b).any():
        raise ValueError(f"model {a[a == b][0]} is compared with itself")
    if not ((won >= 0) & (won <= 1)).all():
        raise ValueError("a score is from 0 (the first model lost) to 1 (it won), 0.5 for a tie")
    return a, b, won
