"""Responses drawn by vLLM, which keeps weights of its own on the same device. Needs the extra `vllm`."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_lightning.data.batches import PromptBatch, pad
from rlhf_lightning.errors import UserError
from rlhf_lightning.models.generation import Completions, Sampling, row_entropy
from rlhf_lightning.models.policy import Policy


def _processes() -> int:
    """How many train together; vLLM makes a group of one, where there is none."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


class VLLMEngine:
    """Draws responses with vLLM in this process.

    Before each call the policy's weights are written over those of vLLM, in place (adapters merged on the way). Its
    kernels and precision are its own, and so are its log-probabilities: PPO computes them anew, and corrects for the
    difference with truncated importance weights.

    Args:
        gpu_memory_utilization: share of the device's memory that vLLM may take, for its weights and cache.
        dtype: of its weights.
        enforce_eager: no CUDA graphs; starts sooner, and is slower.

    Raises:
        UserError: without vLLM.
    """

    is_policy = False

    def __init__(
        self, gpu_memory_utilization: float = 0.3, dtype: str = "bfloat16", enforce_eager: bool = False
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError("rollout=vllm needs vLLM: pip install 'rlhf-lightning[vllm]'")
        if not 0 < gpu_memory_utilization < 1:
            raise UserError(f"rollout.gpu_memory_utilization must be between 0 and 1, not {gpu_memory_utilization}")
        self.options = {
            "gpu_memory_utilization": gpu_memory_utilization,
            "dtype": dtype,
            "enforce_eager": enforce_eager,
        }
        self._llm: Any = None

    def __call__(self, policy: Policy, batch: PromptBatch, sampling: Sampling, turn: int = 0) -> Completions:
        """See `Engine`.

        Raises:
            UserError: for encoder-decoder models, and with several processes.
        """
        if policy.kind != "causal":
            raise UserError("rollout=vllm is for causal models: use rollout=generate for an encoder-decoder model")
        if _processes() > 1:
            raise UserError("rollout=vllm works on one device in one process: use rollout=native with several")
        self._take_weights(policy)
        from vllm import SamplingParams

        width = policy.codec.max_completion
        how = [
            SamplingParams(
                temperature=0.0 if sampling.greedy else sampling.temperature,
                top_k=sampling.top_k or -1,
                top_p=sampling.top_p,
                max_tokens=width,
                stop_token_ids=policy.eos_ids,
                logprobs=0,  # those of the drawn token alone
                seed=seed,
            )
            for seed in seeds(batch.ids.tolist(), sampling.seed, turn)
        ]
        prompts = [
            {"prompt_token_ids": ids[mask].tolist()}
            for ids, mask in zip(batch.prompt_ids, batch.prompt_mask, strict=True)
        ]
        drawn = [output.outputs[0] for output in self._llm.generate(prompts, how, use_tqdm=False)]
        ids, mask = pad([list(one.token_ids) for one in drawn], policy.codec.pad_id)
        made = policy.completions(ids.to(policy.device))
        if sampling.greedy or sampling.top_k or sampling.top_p < 1:
            return made  # these aren't the policy's probabilities
        said = [told[token].logprob for one in drawn for told, token in zip(one.logprobs, one.token_ids, strict=True)]
        logprobs = torch.zeros(ids.shape)
        logprobs[mask] = torch.tensor(said)
        return made._replace(logprobs=logprobs.to(policy.device).masked_fill(~made.mask, 0.0))

    def _take_weights(self, policy: Policy) -> None:
        if self._llm is None:
            self._llm = self._started(policy)  # with the weights of now
            return
        engine = self._llm.llm_engine.model_executor.driver_worker.model_runner.model
        engine.load_weights(merged_weights(policy))
        self._llm.reset_prefix_cache()  # what it holds was computed with the weights before

    def _started(self, policy: Policy) -> Any:
        # In a process of its own the engine's weights would be out of reach.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        with tempfile.TemporaryDirectory() as folder:
            return LLM(
                model=str(policy.save(Path(folder, "model"), merge=True)),
                max_model_len=policy.codec.max_prompt + policy.codec.max_completion,
                logprobs_mode="processed_logprobs",  # at the temperature that is sampled with
                **self.options,
            )


def seeds(ids: list[int], seed: int, turn: int) -> list[int]:
    """A seed for each row, which follows from seed, turn and row; a row that occurs again has another one."""
    return [int(np.random.SeedSequence(row).generate_state(1)[0]) for row in row_entropy(ids, seed, turn)]


def merged_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """The policy's weights under the names that its model has without adapters, with these added to them."""
    layers = dict(policy.inner.named_modules())
    for name, weight in policy.inner.named_parameters():
        if ".lora_" in name:
            continue
        owner = layers.get(name.rpartition(".base_layer.")[0])
        value = weight.detach()
        if owner is not None and name.endswith(".base_layer.weight"):
            value = value + owner.get_delta_weight(owner.active_adapters[0]).detach()  # type: ignore[operator]
        yield name.replace(".base_layer.", "."), value
