"""Several named rewards, weighted and checked."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.errors import UserError
from rlhf_lightning.rewards.functions import Reward
from rlhf_lightning.rewards.learned import LearnedReward


class RewardMix:
    """A weighted sum of named rewards.

    Args:
        rewards: at least one.
        weights: by name; 1 where a name is missing.

    Raises:
        UserError: without rewards, or for a weight that belongs to none.
    """

    def __init__(self, rewards: Mapping[str, Reward], weights: Mapping[str, float] | None = None) -> None:
        if not rewards:
            raise UserError("there is no reward to optimise: give at least one, such as rewards=learned")
        self.rewards, self.weights = dict(rewards), dict.fromkeys(rewards, 1.0) | dict(weights or {})
        if unknown := set(self.weights) - set(self.rewards):
            raise UserError(f"weights for rewards that don't exist: {', '.join(sorted(unknown))}")

    def each(self, rows: Sequence[PromptRow], completions: list[str], device: torch.device) -> dict[str, Tensor]:
        """Every reward of every sample, unweighted.

        Args:
            rows: the b prompts that were answered.
            completions: the b answers.
            device: where the numbers go.

        Returns:
            For each name a float32 tensor (b,).

        Raises:
            UserError: if a reward fails, or returns another number of values or one that is not finite. Such a sample
                is never scored 0 in silence.
        """
        prompts = [transcript(row.prompt.text) for row in rows]
        references, meta = [row.references for row in rows], [row.meta for row in rows]
        scores = {}
        for name, reward in self.rewards.items():
            if isinstance(reward, LearnedReward):
                reward.to(device)
                values = reward.score([row.prompt for row in rows], completions)
            else:
                try:
                    values = reward(prompts, completions, references, meta)
                except UserError:
                    raise
                except Exception as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    raise UserError(
                        f"the reward {name!r} failed in {where.filename}, line {where.lineno}: "
                        f"{type(error).__name__}: {error}. It is called with (prompts, completions, references, meta), "
                        f"lists of equal length; meta holds the columns {', '.join(map(str, meta[0])) or 'of the row'}."
                    ) from error
            scores[name] = _checked(name, values, prompts, completions).to(device)
        return scores

    def total(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of what `each` gave: (b,)."""
        return torch.stack([self.weights[name] * values for name, values in scores.items()]).sum(0)


def _checked(name: str, values: Tensor, prompts: list[str], completions: list[str]) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (len(completions),):
        got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise UserError(
            f"the reward {name!r} returned {got} for {len(completions)} completions; it must return one number each, "
            f"as a tensor of shape ({len(completions)},)"
        )
    values = values.detach().float()
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).nonzero()[0])
        raise UserError(
            f"the reward {name!r} is {values[bad].item()} for the completion {completions[bad][:200]!r} "
            f"of the prompt {prompts[bad][-200:]!r}"
        )
    return values
