"""The losses, by numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.algorithms import pairwise_loss, plackett_luce_loss, policy_loss, unpaired_loss, value_loss

ON = torch.ones(1, 4, dtype=torch.bool)


def test_policy_loss_by_hand() -> None:
    """Checklist 25: ratios 1.5 and 0.5 with either sign of the advantage, clip 0.2."""
    old = torch.zeros(1, 4)
    new = torch.tensor([[1.5, 0.5, 1.5, 0.5]]).log()
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    # max(-A r, -A clip(r)): -1.2 (clipped), -0.5, 1.5, 0.8 (clipped)
    loss, stats = policy_loss(new, old, advantages, ON, 0.2)
    assert loss.item() == pytest.approx((-1.2 - 0.5 + 1.5 + 0.8) / 4)
    assert stats["clip_fraction"].item() == 0.5
    assert stats["ratio"].item() == pytest.approx(1.0)
    assert stats["ratio_var"].item() == pytest.approx(0.25)
    expected = (0.5 - math.log(1.5) + -0.5 - math.log(0.5)) / 2
    assert stats["approx_kl"].item() == pytest.approx(expected, rel=1e-5)


def test_policy_gradient_stops_outside_the_clip_range() -> None:
    """Checklist 25: no gradient flows where the ratio has moved far enough the way the advantage pushes."""
    new = torch.tensor([[1.5, 0.5, 1.5, 0.5]]).log().requires_grad_()
    loss, _ = policy_loss(new, torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, -1.0]]), ON, 0.2)
    loss.backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([[0.0, -0.5, 1.5, 0.0]]) / 4)


def test_value_loss_by_hand() -> None:
    """Checklist 25: half the larger of the squared errors, of the value and of the value held within 0.2 of the old."""
    old, new = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.1]])
    returns = torch.tensor([[1.0, 1.0]])
    loss, stats = value_loss(new, old, returns, torch.ones(1, 2, dtype=torch.bool), 0.2)
    # first: plain 0, clipped (0.2 - 1)^2; second: both (0.1 - 1)^2
    assert loss.item() == pytest.approx(0.5 * (0.64 + 0.81) / 2)
    assert stats["clip_fraction"].item() == 0.5


@pytest.mark.parametrize("loss", ["policy", "value"])
def test_losses_do_not_read_padding(loss: str) -> None:
    """Checklist 19: what lies in the padding changes neither loss nor statistics nor gradient."""
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    clean = [torch.randn(2, 4) * 0.3 for _ in range(3)]

    def run(fill: float):
        a, b, c = (t.masked_fill(~mask, fill) for t in clean)
        a.requires_grad_()
        function = policy_loss if loss == "policy" else value_loss
        value, stats = function(a, b, c, mask, 0.2)
        value.backward()
        assert a.grad is not None
        return [value, *stats.values(), a.grad[mask]], a.grad[~mask]

    (base, outside), (noisy, noisy_outside) = run(0.0), run(1e4)
    for x, y in zip(base, noisy, strict=True):
        torch.testing.assert_close(x, y)
    assert (outside == 0).all()
    assert (noisy_outside == 0).all()


def test_pairwise_loss_is_log_two_at_equality() -> None:
    """Checklist 8: equal scores give log 2, and a tie counts one half."""
    loss, stats = pairwise_loss(torch.tensor([1.0, -3.0]), torch.tensor([1.0, -3.0]))
    assert loss.item() == pytest.approx(math.log(2))
    assert stats["accuracy"].item() == 0.5


def test_pairwise_loss_margin_and_weight() -> None:
    """Checklist 8: -log sigmoid(gap - margin), weighted mean; the accuracy is of the gap without its margin."""
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    loss, stats = pairwise_loss(chosen, rejected, margin=torch.tensor([0.5, 0.0]), weight=torch.tensor([3.0, 1.0]))
    by_hand = (3 * math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(1.0))) / 4
    assert loss.item() == pytest.approx(by_hand)
    assert stats["accuracy"].item() == 0.5
    assert stats["gap"].item() == pytest.approx(0.5)


def test_pairwise_loss_of_weight_zero_is_ignored() -> None:
    """Checklist 8: a pair of weight 0 says nothing, also where its scores are far off."""
    scores = torch.tensor([1.0, -50.0]), torch.tensor([0.0, 50.0])
    loss, _ = pairwise_loss(*scores, weight=torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_rounding_is_not_counted_as_clipping() -> None:
    generator = torch.Generator().manual_seed(0)
    old, move, returns = (torch.randn(50, 40, generator=generator) for _ in range(3))
    mask = torch.ones(50, 40, dtype=torch.bool)
    _, stats = value_loss(old + move.clamp(-1, 1) * 0.19, old, returns, mask, 0.2)
    assert stats["clip_fraction"].item() == 0


def test_pairwise_loss_of_raters_who_disagree() -> None:
    """The cross-entropy with their share, smallest at its log-odds; the accuracy is agreement with one of them."""
    chosen, rejected = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0])
    p = torch.tensor([0.75, 1.0, 0.5])
    loss, stats = pairwise_loss(chosen, rejected, probability=p)
    first = 0.75 * math.log(1 + math.exp(-2.0)) + 0.25 * math.log(1 + math.exp(2.0))
    assert loss.item() == pytest.approx((first + math.log(1 + math.exp(1.0)) + math.log(2)) / 3)
    assert stats["accuracy"].item() == pytest.approx((0.75 + 0.0 + 0.5) / 3)
    assert pairwise_loss(chosen, rejected, probability=torch.ones(3))[0] == pairwise_loss(chosen, rejected)[0]
    gap = torch.tensor([math.log(3.0) + 0.5, 0.0], requires_grad=True)
    margin, p = torch.tensor([0.5, 0.0]), torch.tensor([0.75, 0.5])
    pairwise_loss(gap, torch.zeros(2), margin=margin, probability=p)[0].backward()
    assert gap.grad is not None
    torch.testing.assert_close(gap.grad, torch.zeros(2), atol=1e-6, rtol=0)


def loss_of(scores: list[float], rank: list[int]) -> float:
    whole = torch.zeros(len(rank), dtype=torch.long)
    return plackett_luce_loss(torch.tensor(scores, dtype=torch.double), torch.tensor(rank), whole).item()


@pytest.mark.parametrize("scores", [[0.3, -1.2], [0.3, -1.2, 2.0], [0.5, 0.5, -40.0, 3.0]])
def test_plackett_luce_probabilities_of_all_orders_sum_to_one(scores: list[float]) -> None:
    orders = itertools.permutations(range(len(scores)))
    assert sum(math.exp(-loss_of(scores, list(order))) for order in orders) == pytest.approx(1, abs=1e-12)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    scores = torch.tensor([[0.3, -1.0], [2.0, 2.5], [1.0, 1.0]], dtype=torch.double, requires_grad=True)
    weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.double)
    pairs, _ = pairwise_loss(scores[:, 0], scores[:, 1], weight=weight)
    (expected,) = torch.autograd.grad(pairs, scores)
    which = torch.arange(3).repeat_interleave(2)
    loss = plackett_luce_loss(scores.flatten(), torch.tensor([0, 1] * 3), which, weight)
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.testing.assert_close(loss, pairs)
    torch.testing.assert_close(gradient, expected)


@given(
    st.lists(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=5), min_size=1, max_size=4),
    st.randoms(),
)
def test_plackett_luce_against_a_loop(rankings: list[list[tuple[float, int]]], random) -> None:
    """Item by item in Efron's way, for several rankings whose items come in any order."""
    losses = []
    for items in rankings:
        total = 0.0
        for place in {place for _, place in items}:
            tied = [math.exp(score) for score, other in items if other == place]
            below = sum(math.exp(score) for score, other in items if other > place)
            for taken in range(len(tied)):
                total += math.log(below + sum(tied) * (1 - taken / len(tied)))
            total -= sum(map(math.log, tied))
        losses.append(total)
    weights = [1.0 + i for i in range(len(rankings))]
    expected = sum(map(math.prod, zip(weights, losses, strict=True))) / sum(weights)
    mixed = [(score, place, i) for i, items in enumerate(rankings) for score, place in items]
    random.shuffle(mixed)
    scores, rank, ranking = (torch.tensor(column) for column in zip(*mixed, strict=True))
    scores = scores.double().requires_grad_()
    loss = plackett_luce_loss(scores, rank, ranking, torch.tensor(weights).double())
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    for i in range(len(rankings)):
        assert scores.grad[ranking == i].sum().item() == pytest.approx(0, abs=1e-9), "only differences matter"


def test_plackett_luce_of_a_tie_pulls_together_as_two_undecided_pairs() -> None:
    """Tied at the top or the bottom: the tied items' gradients are those of equal shares of their places."""
    scores = torch.tensor([1.0, -0.5], dtype=torch.double, requires_grad=True)
    tie = plackett_luce_loss(scores, torch.tensor([0, 0]), torch.zeros(2, dtype=torch.long))
    undecided, _ = pairwise_loss(scores[:1], scores[1:], probability=torch.tensor([0.5]))
    assert tie.item() == pytest.approx(2 * undecided.item() - math.log(2))
    (one,), (other,) = torch.autograd.grad(tie, scores), torch.autograd.grad(undecided, scores)
    torch.testing.assert_close(one, 2 * other)


def test_unpaired_loss_by_hand() -> None:
    scores = torch.tensor([2.0, -1.0, 0.5, 0.0], requires_grad=True)
    label, weight = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 1.0, 0.0])
    loss, stats = unpaired_loss(scores, label, weight)
    by_hand = (math.log(1 + math.exp(-2.0)) + 2 * math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(0.5))) / 4
    assert loss.item() == pytest.approx(by_hand)
    assert stats["accuracy"].item() == (1 + 1 + 0 + 0.5) / 4
    reference = torch.nn.functional.binary_cross_entropy_with_logits(scores, label, weight, reduction="sum") / 4
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(*(torch.autograd.grad(x, scores)[0] for x in (loss, reference)))
    assert unpaired_loss(torch.tensor([900.0, -900.0]), torch.tensor([0.0, 1.0]))[0].item() == 900
