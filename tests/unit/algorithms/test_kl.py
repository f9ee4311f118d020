"""KL estimates and the controllers of the coefficient."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.algorithms import AdaptiveKL, FixedKL, entropy, full_kl, kl_estimate, token_logprobs


def test_kl_estimates_by_hand() -> None:
    """Checklist 18: k1 = log p - log q, k2 = its half square, k3 = q/p - 1 - log q/p."""
    logp, logq = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    torch.testing.assert_close(kl_estimate(logp, logq, "k1"), torch.tensor([[0.5, -1.0]]))
    torch.testing.assert_close(kl_estimate(logp, logq, "k2"), torch.tensor([[0.125, 0.5]]))
    ratio = torch.tensor([[-0.5, 1.0]]).exp()
    torch.testing.assert_close(kl_estimate(logp, logq, "k3"), ratio - 1 - ratio.log())


def test_kl_estimates_average_to_the_divergence() -> None:
    """Checklist 18: k1 and k3 have the KL as their mean under the policy; k3 is never negative."""
    torch.manual_seed(0)
    logits, ref = torch.randn(6), torch.randn(6)
    p = logits.softmax(0)
    logp, logq = logits.log_softmax(0), ref.log_softmax(0)
    exact = full_kl(logits, ref)
    torch.testing.assert_close((p * kl_estimate(logp, logq, "k1")).sum(), exact)
    k3 = kl_estimate(logp, logq, "k3")
    torch.testing.assert_close((p * k3).sum(), exact)
    assert (k3 >= 0).all()


def test_unknown_kl_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="k1"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.0, 1.0), (60.0, 1 + 0.2 * 64 / 10_000), (0.0, 1 - 0.2 * 64 / 10_000), (6.6, 1 + 0.1 * 64 / 10_000)],
)
def test_adaptive_controller_closed_form(kl: float, factor: float) -> None:
    """Checklist 18: coef *= 1 + clip((kl - 6) / 6, +-0.2) * episodes / 10000."""
    controller = AdaptiveKL(0.05)
    controller.update(kl, episodes=64)
    assert controller.coef == pytest.approx(0.05 * factor, rel=1e-12)
    controller.update(kl, episodes=64)
    assert controller.coef == pytest.approx(0.05 * factor**2, rel=1e-12)


def test_adaptive_coefficient_never_turns_negative() -> None:
    """More episodes at once than the horizon would allow: below 0 it would reward the distance."""
    controller = AdaptiveKL(0.1, target=6.0, horizon=100)
    controller.update(kl=0.0, episodes=1000)
    assert controller.coef == 0.0


def test_controller_state_comes_back() -> None:
    """Checklist 18: the coefficient is part of the run's state; a fixed one never moves."""
    controller = AdaptiveKL(0.05)
    controller.update(60.0, 1000)
    other = AdaptiveKL(0.05)
    other.load_state_dict(controller.state_dict())
    assert other.coef == controller.coef != 0.05
    fixed = FixedKL(0.1)
    fixed.update(1000.0, 1000)
    assert fixed.coef == 0.1


def test_token_logprobs_and_entropy_at_a_temperature() -> None:
    """Checklist 14: logits are divided by the temperature first, in float32 also for bfloat16 logits."""
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    expected = (logits / 0.7).log_softmax(-1)
    torch.testing.assert_close(token_logprobs(logits, ids, 0.7), expected.gather(-1, ids[..., None])[..., 0])
    torch.testing.assert_close(entropy(logits, 0.7), torch.distributions.Categorical(logits=logits / 0.7).entropy())
    half = token_logprobs(logits.bfloat16(), ids, 0.7)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, token_logprobs(logits.bfloat16().float(), ids, 0.7))
