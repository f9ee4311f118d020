"""Rewards that need no model: metrics, a user's own function, a constant."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf_lightning import metrics
from rlhf_lightning.errors import UserError


class Reward(Protocol):
    """What every reward is: a callable over a batch of texts."""

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """One finite number a sample: (b,)."""
        ...


class RewardFailure(Exception):
    """A reward has no number for some of the samples, through no mistake in how it was called.

    They may be another process's samples, where it is raised on all processes.

    Attributes:
        values: (b,) the numbers there are, NaN for the other samples.
    """

    def __init__(self, reason: str, values: Tensor) -> None:
        super().__init__(reason)
        self.values = values


class ConstantReward:
    """The same number for every sample: the control with which no metric may improve."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) filled with the constant."""
        return torch.full((len(completions),), float(self.value))


SENTENCE_METRICS: dict[str, Callable[..., float]] = {
    "bleu": metrics.sentence_bleu,
    "chrf": metrics.sentence_chrf,
    "ter": metrics.sentence_ter,
    "rouge1": partial(metrics.sentence_rouge, kind="rouge1"),
    "rouge2": partial(metrics.sentence_rouge, kind="rouge2"),
    "rougeL": partial(metrics.sentence_rouge, kind="rougeL"),
    "exact_match": metrics.exact_match,
    "token_f1": metrics.token_f1,
    "label_accuracy": metrics.label_match,
}
"""Metrics of one completion against its references."""


class MetricReward:
    """A task metric of each completion, as a reward.

    Args:
        metric: one of `SENTENCE_METRICS`.
        scale: what the metric is multiplied by (0.01 brings sacrebleu's 0-100 to 0-1; negative for `ter`).
        options: passed to the metric function, such as ``tokenize: zh``.

    Raises:
        UserError: for another metric.
    """

    def __init__(self, metric: str, scale: float = 1.0, options: dict[str, Any] | None = None) -> None:
        if metric not in SENTENCE_METRICS:
            raise UserError(f"there is no metric reward {metric!r}; there are {', '.join(SENTENCE_METRICS)}")
        self.function, self.scale, self.options = SENTENCE_METRICS[metric], scale, dict(options or {})

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) the scaled metric of each completion against its own references.

        Raises:
            ValueError: if a row has no reference: there is nothing to compare with, which is not the same as 0.
        """
        if not all(references):
            raise ValueError("a row has no reference to compare with")
        return torch.tensor(
            [self.scale * self.function(c, r, **self.options) for c, r in zip(completions, references, strict=True)]
        )


class FunctionReward:
    """A Python function, found by its dotted path, as a reward.

    Args:
        path: such as ``my_package.rewards.politeness``; the function has the signature of `Reward` and may return
            any sequence of numbers.

    Raises:
        UserError: if there is no such function.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        module, _, name = path.rpartition(".")
        if not module:
            raise UserError(f"{path!r} names no function: expected MODULE.FUNCTION, such as my_module.my_reward")
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"cannot find the reward function {path!r}: {error}. Its module must be importable: keep it in the "
                "current folder, install its package, or put its folder on PYTHONPATH."
            ) from error
        function = getattr(found, name, None)
        if function is None:
            place = getattr(found, "__file__", None) or module
            raise UserError(f"cannot find the reward function {path!r}: {place} has no {name!r}")
        if not callable(function):
            raise UserError(f"{path!r} is not a function")
        self.function = function

    def __call__(
        self, prompts: list[str], completions: list[str], references: list[list[str]], meta: list[dict[str, Any]]
    ) -> Tensor:
        """(b,) what the function returns; NaN, which counts as a failure for that sample, where it says None.

        Raises:
            UserError: if that is no sequence of numbers.
        """
        returned = self.function(prompts, completions, references, meta)
        if isinstance(returned, (list, tuple)):
            returned = [math.nan if value is None else value for value in returned]
        try:
            return torch.as_tensor(returned, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the reward function {self.path!r} returned a {type(returned).__name__}, which is no sequence of "
                f"numbers ({error}); it must return one number each"
            ) from error
