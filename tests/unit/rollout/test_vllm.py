"""The adapter of vLLM, with a stand-in of the same interface over transformers."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_models import batch_of, length_reward, rows

from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import LoraSpec, Sampling
from rlhf_lightning.rollout import VLLMEngine
from rlhf_lightning.rollout.vllm import merged_weights, seeds
from rlhf_lightning.stages import PPOModule


class SamplingParams:
    def __init__(self, temperature, top_k, top_p, max_tokens, stop_token_ids, logprobs, seed) -> None:
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed
        self.max_tokens, self.stop_token_ids, self.logprobs = max_tokens, stop_token_ids, logprobs


class LLM:
    """What the adapter uses of vLLM's class; draws one prompt after the other, with weights of its own."""

    made: list[LLM] = []  # noqa: RUF012

    def __init__(self, model: str, max_model_len: int, logprobs_mode: str, **options) -> None:
        from transformers import AutoModelForCausalLM

        assert logprobs_mode == "processed_logprobs"
        assert {p.name for p in Path(model).iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
        self.model = AutoModelForCausalLM.from_pretrained(model)
        self.resets = 0
        if not torch.distributed.is_initialized():  # as vLLM does in its process
            torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self.load))
        self.llm_engine = SimpleNamespace(
            model_executor=SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        )
        LLM.made.append(self)

    def load(self, weights) -> None:
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights:
                own.pop(name).copy_(value)
        assert not own, "each weight is given"

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    @torch.no_grad()
    def generate(self, prompts, how, use_tqdm):
        return [
            SimpleNamespace(outputs=[self.one(p["prompt_token_ids"], h)]) for p, h in zip(prompts, how, strict=True)
        ]

    def one(self, ids: list[int], how: SamplingParams) -> SimpleNamespace:
        generator = torch.Generator().manual_seed(how.seed)
        drawn: list[int] = []
        said = []
        while len(drawn) < how.max_tokens and not (drawn and drawn[-1] in how.stop_token_ids):
            logits = self.model(input_ids=torch.tensor([ids + drawn])).logits[0, -1]
            logprobs = (logits / (how.temperature or 1.0)).log_softmax(0)
            token = int(
                logits.argmax() if not how.temperature else torch.multinomial(logprobs.exp(), 1, generator=generator)
            )
            drawn.append(token)
            said.append({token: SimpleNamespace(logprob=float(logprobs[token]))})
        return SimpleNamespace(token_ids=drawn, logprobs=said)


@pytest.fixture
def vllm(monkeypatch):
    """The stand-in, where vLLM would be."""
    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "")
    LLM.made.clear()
    yield module
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("rank", [0, 2])
def test_it_answers_with_the_policys_weights(rank: int, vllm, make_policy) -> None:
    """Greedy answers are those of generate, also after every weight (and adapter) has moved; it is started once."""
    policy, engine, how = make_policy(lora=LoraSpec(r=rank, merge=False)), VLLMEngine(), Sampling(greedy=True)
    batch, texts = batch_of(policy), []
    for _ in range(3):
        answers, expected = engine(policy, batch, how), policy.complete(batch, how)
        assert torch.equal(answers.ids, expected.ids)
        assert torch.equal(answers.mask, expected.mask)
        assert answers.logprobs is None
        texts.append(tuple(answers.texts))
        with torch.no_grad():
            for parameter in policy.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn(parameter.shape).to(parameter))
    assert len(set(texts)) == 3
    assert len(LLM.made) == 1
    assert LLM.made[0].resets == 2, "what it had cached was computed with other weights"


def test_it_tells_its_own_log_probabilities(vllm, make_policy) -> None:
    """At the sampling temperature; the same turn gives the same answers, another turn others."""
    policy, engine, how = make_policy(), VLLMEngine(), Sampling(temperature=0.7, seed=3)
    batch = batch_of(policy)
    answers = engine(policy, batch, how, 1)
    inputs = (batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask)
    torch.testing.assert_close(
        answers.logprobs, policy.token_outputs(*inputs, 0.7).logprobs.detach(), atol=1e-4, rtol=1e-4
    )
    assert engine(policy, batch, how, 1).texts == answers.texts
    assert engine(policy, batch, how, 2).texts != answers.texts
    twice = engine(policy, batch.repeated(2), how, 1).texts
    assert twice[::2] == answers.texts
    assert twice[1::2] != answers.texts


def test_ppo_corrects_for_weights_that_lag(vllm, make_policy, make_trainer) -> None:
    """An engine that misses an update draws from another policy: the importance weights say so, and PPO goes on."""
    logged = {}
    for lags in (False, True):
        engine = VLLMEngine()
        if lags:
            take = engine._take_weights
            engine._take_weights = lambda policy, take=take, engine=engine: None if engine._llm else take(policy)
        policy = make_policy()
        module = PPOModule(policy, {"length": length_reward}, engine=engine, lr=1e-2, epochs=2, temperature=1.0)
        trainer = make_trainer(max_epochs=3)
        trainer.fit(module, datamodule=PromptDataModule(rows() * 2, [], policy.codec, 8))
        logged[lags] = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert logged[False]["ppo/importance"] == pytest.approx(1, abs=1e-4)
    assert abs(logged[True]["ppo/importance"] - 1) > 1e-2
    assert logged[True]["ppo/logprob_gap"] < 1e-4, "log-probabilities are the policy's own all the same"


def test_names_are_those_without_adapters(make_policy) -> None:
    policy, plain = make_policy(lora=LoraSpec(r=2)), make_policy()
    assert [name for name, _ in merged_weights(policy)] == [name for name, _ in plain.inner.named_parameters()]


def test_what_it_is_not_for(vllm, make_policy, monkeypatch) -> None:
    with pytest.raises(UserError, match="encoder-decoder"):
        VLLMEngine()(policy := make_policy("t5"), batch_of(policy), Sampling())
    with pytest.raises(UserError, match="gpu_memory_utilization"):
        VLLMEngine(gpu_memory_utilization=30)
    with monkeypatch.context() as several:
        several.setattr(torch.distributed, "is_initialized", lambda: True)
        several.setattr(torch.distributed, "get_world_size", lambda: 2)
        with pytest.raises(UserError, match="one device"):
            VLLMEngine()(policy := make_policy(), batch_of(policy), Sampling())


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm() -> None:
    with pytest.raises(UserError, match=r"rlhf-lightning\[vllm\]"):
        VLLMEngine()


def test_seeds_follow_from_row_and_turn() -> None:
    first = seeds([4, 5, 4], 1, 0)
    assert len(set(first)) == 3
    assert seeds([4], 1, 0) == first[:1]
    assert seeds([4], 1, 1) != first[:1]
    assert seeds([-1], 1, 0)
