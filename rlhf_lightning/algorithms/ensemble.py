"""Several linear reward heads on one frozen trunk, which differ where the judgements leave it open what is better."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus


def bootstrap_heads(differences: Tensor, weight: Tensor, m: int, seed: int, l2: float) -> Tensor:
    """Heads that are each fitted to a bootstrap sample of the pairs (Osband et al. 2016, arXiv:1602.04621).

    Each is drawn to a point of its own instead of to 0, ``N(0, 1 / l2)``, the prior that the penalty stands for (a
    randomised prior, Osband et al. 2018, arXiv:1806.03335). Without it all would give 0 to whatever no pair has shown,
    and agree there. Ensembles of this kind chose the comparisons for a language model's reward in Dwaracherla et al.
    2024 (arXiv:2402.00396); Gleave and Irving 2022 (arXiv:2203.07472) found that the disagreement of an ensemble on one
    pre-trained trunk says little of its errors, and chooses pairs no better than chance.

    Args:
        differences: (n, d) features of the preferred text minus those of the other, n >= 1.
        weight: (n,) of each pair, at least 0.
        m: how many heads.
        seed: of what is drawn.
        l2: precision of the prior; see `fit_heads`.

    Returns:
        (m, d) float64.
    """
    n, d = differences.shape
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (m, n), generator=draw)
    counts = torch.zeros(m, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(m, n, dtype=torch.float64))
    centres = torch.randn(m, d, generator=draw, dtype=torch.float64) / math.sqrt(l2)
    return fit_heads(differences, counts * weight.double().cpu(), centres, l2)


def fit_heads(differences: Tensor, weights: Tensor, centres: Tensor, l2: float) -> Tensor:
    """Linear heads ``w`` of the Bradley-Terry model ``P(first better) = sigmoid(difference . w)``, by Newton's method.

    Each minimises ``sum_i weights_i softplus(-differences_i . w) + l2 / 2 |w - centre|^2``, which has one minimum.

    Args:
        differences: (n, d) features of the preferred text minus those of the other.
        weights: (m, n) of each pair for each head.
        centres: (m, d) what each head is drawn to.
        l2: how strongly, above 0.

    Returns:
        (m, d) float64 on the CPU.

    Raises:
        ValueError: for an l2 that is not above 0, or differences that are no numbers.
    """
    x, weights, centres = (part.detach().double().cpu() for part in (differences, weights, centres))
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, not {l2}: pairs that a head can separate would have no minimum")
    if not torch.isfinite(x).all():
        raise ValueError("differences hold values that are not finite")
    # A head leaves its centre only within the span of the differences: with few of them that has few dimensions.
    basis = torch.linalg.qr(x.T).Q if len(x) < x.shape[1] else torch.eye(x.shape[1], dtype=x.dtype)
    inside = x @ basis
    moved = [_newton(inside, x @ centre, weight, l2) for weight, centre in zip(weights, centres, strict=True)]
    return centres + torch.stack(moved) @ basis.T


def _newton(x: Tensor, offset: Tensor, weight: Tensor, l2: float) -> Tensor:
    """(d,) the v that minimises ``sum_i weight_i softplus(-(offset_i + x_i . v)) + l2 / 2 |v|^2``."""

    def loss(v: Tensor) -> Tensor:
        return (weight * softplus(-(offset + x @ v))).sum() + l2 / 2 * v.square().sum()

    v = torch.zeros(x.shape[1], dtype=x.dtype)
    value = loss(v)
    for _ in range(MOST_STEPS):
        wrong = torch.sigmoid(-(offset + x @ v))
        gradient = l2 * v - (weight * wrong) @ x
        curvature = (x.T * (weight * wrong * (1 - wrong))) @ x
        curvature.diagonal().add_(l2)
        step = torch.linalg.solve(curvature, gradient)
        gain = gradient @ step
        if gain <= 1e-12 * (1 + value):  # twice what the step would still gain, and next to the minimum it gains it
            return v - step
        size = 1.0
        while (new := loss(v - size * step)) > value - 1e-4 * size * gain and size > 1e-6:
            size /= 2
        v, value = v - size * step, new
    raise ArithmeticError(f"Newton's method has not converged in {MOST_STEPS} steps")


MOST_STEPS = 200
"""Of Newton's method, which takes about ten."""
