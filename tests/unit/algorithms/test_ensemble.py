import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rlhf_lightning.algorithms.ensemble import bootstrap_heads, fit_heads


def differences(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "d", "l2"), [(80, 5, 0.1), (80, 5, 3.0), (10, 40, 1.0)])
def test_a_head_is_that_of_logistic_regression(n, d, l2):
    """scikit-learn, on each pair both ways round, so that there are two classes; half the weight each."""
    x = differences(n, d)
    weight = torch.rand(2, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    heads = fit_heads(x, weight, torch.zeros(2, d), l2)
    both = np.concatenate([x, -x])
    label = np.repeat([1, 0], n)
    for head, w in zip(heads, weight, strict=True):
        reference = LogisticRegression(C=1 / l2, fit_intercept=False, tol=1e-10, max_iter=10_000)
        reference.fit(both, label, np.tile(w, 2) / 2)
        np.testing.assert_allclose(head, reference.coef_[0], atol=1e-5)


def test_a_head_is_drawn_to_its_centre():
    """At the minimum the gradient is 0; without weight nothing draws a head away."""
    x, centres, l2 = differences(30, 4), differences(3, 4, seed=2), 0.7
    weights = torch.rand(3, 30, dtype=torch.float64)
    heads = fit_heads(x, weights, centres, l2)
    gradient = -(weights * torch.sigmoid(-(heads @ x.T))) @ x + l2 * (heads - centres)
    assert gradient.abs().max() < 1e-6
    torch.testing.assert_close(fit_heads(x, torch.zeros(3, 30), centres, l2), centres)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("d", [4, 100])
def test_a_far_centre_and_steep_differences_still_come_to_the_minimum(scale, d):
    """Where plain Newton steps overshoot."""
    x, centres, l2 = scale * differences(30, d), 50 * differences(2, d, seed=5), 0.01
    heads = fit_heads(x, torch.ones(2, 30), centres, l2)
    gradient = -torch.sigmoid(-(heads @ x.T)) @ x + l2 * (heads - centres)
    assert gradient.abs().max() < 1e-5 * max(1.0, scale)


def test_heads_are_the_same_again_and_differ_from_each_other():
    x, weight = differences(50, 6), torch.ones(50)
    heads = bootstrap_heads(x, weight, 8, 3, 1.0)
    assert heads.shape == (8, 6)
    assert torch.equal(heads, bootstrap_heads(x, weight, 8, 3, 1.0))
    assert not torch.allclose(heads, bootstrap_heads(x, weight, 8, 4, 1.0))
    assert (torch.cdist(heads, heads) + torch.eye(8)).min() > 1e-2


def test_pairs_without_weight_are_not_learnt_from():
    x = differences(40, 3)
    turned = torch.where(torch.arange(40)[:, None] < 20, x, -x)
    weight = (torch.arange(40) < 20).double()
    torch.testing.assert_close(bootstrap_heads(x, weight, 4, 0, 1.0), bootstrap_heads(turned, weight, 4, 0, 1.0))


def test_heads_agree_where_there_are_many_pairs_and_not_where_there_are_none():
    """400 pairs tell of the first direction and none of the second, where each head keeps what its prior drew."""
    x = torch.zeros(400, 2)
    x[:, 0] = torch.where(torch.arange(400) % 4 == 0, -1.0, 1.0)  # three of four times the larger one wins
    heads = bootstrap_heads(x, torch.ones(400), 400, 0, 1.0)
    assert heads[:, 0].mean() == pytest.approx(math.log(3), abs=0.05)
    # In the limit the spread of a bootstrapped logit is 1 / sqrt(n p (1 - p)).
    assert heads[:, 0].std() == pytest.approx(1 / math.sqrt(400 * 0.25 * 0.75), rel=0.15)
    assert heads[:, 1].mean() == pytest.approx(0, abs=0.15)
    assert heads[:, 1].std() == pytest.approx(1, rel=0.1)


def test_what_has_no_minimum_is_refused():
    with pytest.raises(ValueError, match="l2"):
        fit_heads(differences(3, 2), torch.ones(1, 3), torch.zeros(1, 2), 0.0)
    with pytest.raises(ValueError, match="not finite"):
        fit_heads(torch.full((3, 2), math.nan), torch.ones(1, 3), torch.zeros(1, 2), 1.0)
