"""Warnings about runs that go wrong while their numbers look fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from rlhf_lightning.metrics import negative_kl

LIMITS: dict[str, float | None] = {
    "kl_limit": 20.0,
    "entropy_collapse": 0.1,
    "eos_rate": 0.5,
    "length": 3.0,
    "distinct": 0.3,
    "negative_kl": 0.5,
    "logprob_gap": 0.01,
    "reward_up_metric_down": 0.1,
}
"""The alarms, and the limits at which they go off; see `Alarms`."""

ROUNDS = 4
"""Rounds over which a quantity is averaged, at the start and now: one round alone is noisy."""


def fell(first: Sequence[float], now: Sequence[float], share: float) -> bool:
    """Whether the mean has fallen below a share of what it was at first; never before there are `ROUNDS` of both.

    >>> fell([4.0] * 4, [1.0] * 4, 0.5), fell([4.0] * 4, [3.0] * 4, 0.5)
    (True, False)
    """
    return len(now) >= ROUNDS and fmean(now) < share * fmean(first)


def drifted(first: Sequence[float], now: Sequence[float], factor: float) -> bool:
    """Whether the mean is more than so many times what it was at first, or less than that part of it.

    >>> drifted([10.0] * 4, [31.0] * 4, 3), drifted([10.0] * 4, [3.0] * 4, 3), drifted([10.0] * 4, [20.0] * 4, 3)
    (True, True, False)
    """
    if len(now) < ROUNDS:
        return False
    before, after = fmean(first), fmean(now)
    return after > factor * before or after < before / factor


def turned(looks: Sequence[tuple[float, float]], share: float) -> bool:
    """Whether the reward has gone on rising since the held-out metric was best, while that lost a share of its best.

    Args:
        looks: of each validation the mean reward of the rounds before it, and the metric (higher is better).
        share: which the metric has to lose.

    >>> turned([(0.1, 0.5), (0.3, 0.6), (0.5, 0.4)], 0.1)
    True
    >>> turned([(0.1, 0.5), (0.3, 0.6), (0.2, 0.4)], 0.1)
    False
    """
    if len(looks) < 2:
        return False
    reward, metric = looks[-1]
    at_best, best = max(looks, key=lambda look: look[1])
    return reward > at_best and best - metric > share * abs(best)


class Alarms(L.Callback):
    """Looks at what PPO logs after each round; tells once of each thing that goes wrong, and may end the training.

    ``ppo/alarm/<name>`` is 1 in the rounds where an alarm is on. The limits, by name (None turns one off):

    - ``kl_limit``: nats of KL to the reference a response, over the last rounds.
    - ``entropy_collapse``: share of its first value that the entropy falls below.
    - ``eos_rate``: likewise for the share of responses that end.
    - ``length``: factor by which the mean length of the responses grows or shrinks.
    - ``distinct``: share of its first value that the share of different token pairs falls below.
    - ``negative_kl``: nats below 0 of the KL: samples don't come from the policy's own distribution.
    - ``logprob_gap``: difference of the log-probabilities at sampling and at the first update.
    - ``reward_up_metric_down``: share of its best that the held-out metric loses while the reward rises.

    Args:
        limits: by name; those not named are as in `LIMITS`.
        stop_on: names of the alarms that end the training.
        held_out: the metric on the validation prompts as it is logged, and ``max`` or ``min``.

    Attributes:
        raised: what was told of, in words for the report.
        stopped_by: the alarm that ended the training, if one did.
    """

    def __init__(
        self,
        limits: Mapping[str, float | None] | None = None,
        stop_on: Sequence[str] = (),
        held_out: tuple[str, str] | None = None,
    ) -> None:
        self.limits = {**LIMITS, **(limits or {})}
        self.stop_on, self.held_out = list(stop_on), held_out
        self.raised: dict[str, str] = {}
        self.stopped_by: str | None = None
        self._first: dict[str, list[float]] = {}
        self._now: dict[str, list[float]] = {}
        self._rewards: list[float] = []
        self._looks: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Look at what the round logged, which is the same on every rank."""
        logged = {name.removeprefix("ppo/"): float(value) for name, value in trainer.callback_metrics.items()}
        if "eos_rate" not in logged:
            return  # every round was passed over so far
        for name in ("kl", "entropy", "eos_rate", "length", "distinct_2"):
            if name in logged:
                first, now = self._first.setdefault(name, []), self._now.setdefault(name, [])
                now.append(logged[name])
                del now[:-ROUNDS]
                if len(first) < ROUNDS:
                    first.append(logged[name])
        if "score" in logged:
            self._rewards.append(logged["score"])
        told = self._alarms(logged)
        for name, limit in self.limits.items():
            if limit is not None:
                pl_module.log(f"ppo/alarm/{name}", float(name in told))
        for name, text in told.items():
            if name not in self.raised:
                self.raised[name] = f"alarm {name} after {trainer.global_step} optimizer steps: {text}"
                rank_zero_warn(self.raised[name])
            if name in self.stop_on and self.stopped_by is None:
                self.stopped_by = name
                trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the held-out metric beside the reward of the rounds before."""
        value = trainer.callback_metrics.get(self.held_out[0]) if self.held_out else None
        if value is not None and self._rewards and not trainer.sanity_checking and trainer.state.fn == "fit":
            assert self.held_out is not None
            self._looks.append((fmean(self._rewards), float(value) * (1 if self.held_out[1] == "max" else -1)))
            self._rewards = []

    def _alarms(self, logged: Mapping[str, float]) -> dict[str, str]:
        """What is wrong now: by name, in words."""
        limits = {name: limit for name, limit in self.limits.items() if limit is not None}
        first, now = self._first, self._now
        told: dict[str, str] = {}

        def change(name: str) -> str:
            return f"from {fmean(first[name]):.3g} to {fmean(now[name]):.3g}"

        if "kl_limit" in limits and "kl" in now and fmean(now["kl"]) > limits["kl_limit"]:
            told["kl_limit"] = (
                f"the policy is {fmean(now['kl']):.3g} nats from where it started (limit {limits['kl_limit']:g})"
            )
        falls = {"entropy_collapse": "entropy", "eos_rate": "eos_rate", "distinct": "distinct_2"}
        words = {
            "entropy_collapse": "the entropy of the next token fell {}: the policy hardly tries anything else any more",
            "eos_rate": "the share of responses that end fell {}",
            "distinct": "the share of different token pairs in the responses fell {}: they become alike",
        }
        for name, quantity in falls.items():
            if name in limits and quantity in now and fell(first[quantity], now[quantity], limits[name]):
                told[name] = words[name].format(change(quantity))
        if "length" in limits and "length" in now and drifted(first["length"], now["length"], limits["length"]):
            told["length"] = f"the responses went {change('length')} tokens"
        if "negative_kl" in limits and "kl" in logged and negative_kl(logged["kl"], limits["negative_kl"]):
            told["negative_kl"] = (
                f"the KL to the reference is negative ({logged['kl']:.2f} nats): samples are not drawn from the "
                "policy's own distribution (truncated sampling does that)"
            )
        if "logprob_gap" in limits and logged.get("logprob_gap", 0.0) > limits["logprob_gap"]:
            told["logprob_gap"] = (
                f"log-probabilities at sampling and at the first update differ by up to {logged['logprob_gap']:.3f}: "
                "PPO's ratio does not start at 1"
            )
        if "reward_up_metric_down" in limits and turned(self._looks, limits["reward_up_metric_down"]):
            assert self.held_out is not None
            reward, metric = self._looks[-1]
            at_best, best = max(self._looks, key=lambda look: look[1])
            told["reward_up_metric_down"] = (
                f"since {self.held_out[0]} was best it went from {abs(best):.3g} to {abs(metric):.3g}, while the "
                f"reward rose from {at_best:.3g} to {reward:.3g}: the policy games the reward"
            )
        return told

    def state_dict(self) -> dict[str, Any]:
        """What it compares with, and what it has told."""
        state = {"raised": self.raised, "stopped_by": self.stopped_by, "first": self._first, "now": self._now}
        return {**state, "rewards": self._rewards, "looks": [list(look) for look in self._looks]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.raised, self.stopped_by = state_dict["raised"], state_dict["stopped_by"]
        self._first, self._now = state_dict["first"], state_dict["now"]
        self._rewards, self._looks = state_dict["rewards"], [(a, b) for a, b in state_dict["looks"]]
