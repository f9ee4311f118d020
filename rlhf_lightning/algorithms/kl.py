"""KL estimates from samples, and the controllers of the KL coefficient."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

KLKind = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, kind: KLKind = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    k1 = log p - log q is unbiased and may be negative; k2 = (log p - log q)^2 / 2 is biased, with low variance;
    k3 = q/p - 1 - log(q/p) is unbiased and never negative (J. Schulman, "Approximating KL divergence", 2020).

    Args:
        logprobs: (b, r) log-probabilities under the policy.
        ref_logprobs: (b, r) under the reference.
        kind: k1, k2 or k3.

    Returns:
        (b, r)

    Raises:
        ValueError: for another kind.
    """
    log_ratio = logprobs - ref_logprobs
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return 0.5 * log_ratio.square()
    if kind == "k3":
        return (-log_ratio).exp() - 1 + log_ratio
    raise ValueError(f"kind must be 'k1', 'k2' or 'k3', got {kind!r}")


class FixedKL:
    """A constant KL coefficient."""

    def __init__(self, coef: float) -> None:
        self.coef = coef

    def update(self, kl: float, episodes: int) -> None:
        """Does nothing: the coefficient is fixed."""

    def state_dict(self) -> dict[str, float]:
        """The coefficient, as plain numbers."""
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up a saved coefficient."""
        self.coef = float(state["coef"])


class AdaptiveKL(FixedKL):
    """A proportional controller that keeps the KL near a target (Ziegler et al., 2019, arXiv:1909.08593, 2.2).

    ``coef *= 1 + clip((kl - target) / target, -0.2, 0.2) * episodes / horizon``

    Args:
        coef: the first coefficient.
        target: KL in nats, summed over a response; above 0.
        horizon: episodes over which the coefficient moves by at most ``clip``.
        clip: bound of the proportional error.
    """

    def __init__(self, coef: float, target: float = 6.0, horizon: int = 10_000, clip: float = 0.2) -> None:
        super().__init__(coef)
        self.target, self.horizon, self.clip = target, horizon, clip

    def update(self, kl: float, episodes: int) -> None:
        """Move the coefficient after ``episodes`` responses whose mean sequence KL was ``kl``."""
        error = min(max((kl - self.target) / self.target, -self.clip), self.clip)
        self.coef *= max(1 + error * episodes / self.horizon, 0.0)  # below 0 it would reward the distance
