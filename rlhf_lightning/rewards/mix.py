"""Several named rewards, weighted and checked."""

from __future__ import annotations

import math
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.errors import Preempted, UserError
from rlhf_lightning.processes import together
from rlhf_lightning.rewards.classifier import ClassifierReward
from rlhf_lightning.rewards.functions import Reward, RewardFailure
from rlhf_lightning.rewards.learned import LearnedReward

OnFailure = Literal["stop", "mask"]


class RewardMix:
    """A weighted sum of named rewards.

    A reward fails where it raises, or gives a number that is not finite. That is never a 0 in silence: it stops the
    run, or the samples concerned are NaN and counted. What a person has to mend stops the run in any case: a
    `UserError`, or a result of another type or shape than one number a sample.

    Args:
        rewards: at least one.
        weights: by name; 1 where a name is missing.
        on_failure: ``stop``, or ``mask`` to go on without the samples that have no reward.

    Attributes:
        failures: how many samples each reward has failed for since `forget_failures`.
        reasons: in words, why each last failed; kept for good.

    Raises:
        UserError: without rewards, for a weight that belongs to none, or for another ``on_failure``.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float] | None = None,
        on_failure: OnFailure = "stop",
    ) -> None:
        if not rewards:
            raise UserError("there is no reward to optimise: give at least one, such as rewards=learned")
        self.rewards, self.weights = dict(rewards), dict.fromkeys(rewards, 1.0) | dict(weights or {})
        if unknown := set(self.weights) - set(self.rewards):
            raise UserError(f"weights for rewards that don't exist: {', '.join(sorted(unknown))}")
        if on_failure not in ("stop", "mask"):
            raise UserError(f"on_reward_failure must be stop or mask, not {on_failure!r}")
        self.on_failure = on_failure
        self.reasons: dict[str, str] = {}
        self.forget_failures()

    def forget_failures(self) -> None:
        """Count from 0 again."""
        self.failures = dict.fromkeys(self.rewards, 0)

    def each(self, rows: Sequence[PromptRow], completions: list[str], device: torch.device) -> dict[str, Tensor]:
        """Every reward of every sample, unweighted.

        Of several connected processes all have to call it, each with samples of its own, if it has any: what stops one
        of them stops all, as those that went on would wait in vain for it.

        Args:
            rows: the b prompts that were answered.
            completions: the b answers.
            device: where the numbers go.

        Returns:
            For each name a float32 tensor (b,); NaN, with ``mask``, where the reward failed.

        Raises:
            UserError: if a reward returns no tensor (b,); and, with ``stop``, if it fails; here or on another process.
        """
        return {name: together(partial(self._score, name, rows, completions, device)) for name in self.rewards}

    def _score(self, name: str, rows: Sequence[PromptRow], completions: list[str], device: torch.device) -> Tensor:
        """One reward of every sample, see `each`."""
        if not rows:
            return torch.zeros(0, device=device)
        prompts = [transcript(row.prompt.text) for row in rows]
        references, meta = [row.references for row in rows], [row.meta for row in rows]
        reward, reason = self.rewards[name], None
        if isinstance(reward, (ClassifierReward, LearnedReward)):
            reward.to(device)
        if isinstance(reward, LearnedReward):
            values = reward.score([row.prompt for row in rows], completions)
        else:
            try:
                values = reward(prompts, completions, references, meta)
            except (UserError, Preempted):
                raise
            except RewardFailure as failure:
                values, reason = failure.values, f"the reward {name!r} failed: {failure}"
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                reason = (
                    f"the reward {name!r} failed in {where.filename}, line {where.lineno}: "
                    f"{type(error).__name__}: {error}. It is called with (prompts, completions, references, meta), "
                    f"lists of equal length; meta holds the columns {', '.join(map(str, meta[0])) or 'of the row'}."
                )
                if self.on_failure == "stop":
                    raise UserError(reason) from error
                values = torch.full((len(rows),), math.nan)
        values = _checked(name, values, len(completions))
        failed = ~values.isfinite()
        if reason is not None and self.on_failure == "stop":
            raise UserError(reason)  # also where all that failed are other processes' samples
        if failed.any():
            first = int(failed.nonzero()[0])
            reason = reason or (
                f"the reward {name!r} is {values[first].item()} for the completion {completions[first][:200]!r} "
                f"of the prompt {prompts[first][-200:]!r}"
            )
            self._fail(name, int(failed.sum()), reason)
        return values.masked_fill(failed, math.nan).to(device)

    def total(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of what `each` gave: (b,); NaN where any of them is."""
        return torch.stack([self.weights[name] * values for name, values in scores.items()]).sum(0)

    def _fail(self, name: str, samples: int, reason: str) -> None:
        """Stop, or count the samples, and say why once."""
        if self.on_failure == "stop":
            raise UserError(reason)
        if name not in self.reasons:
            warnings.warn(f"{reason.rstrip('.')}. Samples without a reward are left out and counted.", stacklevel=3)
        self.reasons[name] = reason
        self.failures[name] += samples


def _checked(name: str, values: Tensor, count: int) -> Tensor:
    """Float32 values, if there are as many as samples."""
    if not isinstance(values, Tensor) or values.shape != (count,):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise UserError(
            f"the reward {name!r} returned {got} for {count} completions; it must return one number each, "
            f"as a tensor of shape ({count},)"
        )
    return values.detach().float()
