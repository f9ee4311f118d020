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
    """Linear heads ``w`` of the Bradley-Terry model, ``P(first better) = sigmoid(difference . w)``: logistic regression.

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
    heads = centres.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [heads],
        max_iter=1000,
        tolerance_grad=1e-7,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (weights * softplus(-(heads @ x.T))).sum() + l2 / 2 * (heads - centres).square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return heads.detach()
