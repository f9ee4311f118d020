"""Where a policy started: what its KL penalty is taken to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf_lightning.models.loading import adapter_is_new, has_adapter
from rlhf_lightning.models.policy import Policy

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Reference:
    """The policy as it was at the start: its own weights with the adapter off under a new LoRA, else a frozen copy.

    It is no `nn.Module`, so that its weights never land in a checkpoint or an optimizer.
    """

    @classmethod
    def of(cls, policy: Policy) -> Reference:
        """A model that nobody trains, itself: no copy is made."""
        made = cls.__new__(cls)
        made._policy, made._copy = policy, policy.requires_grad_(False).eval()
        return made

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        own = has_adapter(policy.model) and adapter_is_new(policy.model)
        self._copy = None if own else copy.deepcopy(policy).requires_grad_(False).eval()

    def shard(self, mesh: DeviceMesh) -> None:
        """Deal the copy's weights out as the policy's are."""
        if self._copy is not None:
            self._copy.shard(mesh)

    @torch.no_grad()
    def logprobs(
        self, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor, temperature: float
    ) -> Tensor:
        """(b, r) log-probabilities of the response tokens, 0 on padding."""
        inputs = prompt_ids, prompt_mask, response_ids, response_mask
        return self._ask(prompt_ids.device, lambda policy: policy.token_outputs(*inputs, temperature)).logprobs

    @torch.no_grad()
    def logits(self, prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor) -> Tensor:
        """(b, r, v) logits over the response, as `Policy.forward` gives them."""
        inputs = prompt_ids, prompt_mask, response_ids, response_mask
        return self._ask(prompt_ids.device, lambda policy: policy(*inputs)).logits

    def _ask(self, device: torch.device, question: Callable[[Policy], Any]) -> Any:
        if self._copy is None:
            with self._policy.model.disable_adapter():  # type: ignore[operator]
                return question(self._policy)
        if self._copy.device != device:
            self._copy.to(device)
        return question(self._copy)
