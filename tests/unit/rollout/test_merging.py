"""Adapters that are added to their weights while responses are drawn."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of

from rlhf_lightning.models import LoraSpec, Policy, Sampling
from rlhf_lightning.models.adapters import AdaptedLinear
from rlhf_lightning.rollout import NativeEngine, merging
from rlhf_lightning.rollout.merging import merged


def adapted(make_policy, kind: str = "llama") -> Policy:
    """A policy whose adapter does something."""
    policy = make_policy(kind, lora=LoraSpec(r=2)).cpu()  # elsewhere they are left apart
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
    return policy


def adapters(policy: Policy) -> list[AdaptedLinear]:
    return [layer for layer in policy.modules() if isinstance(layer, AdaptedLinear)]


def test_each_layer_gives_what_it_gave(make_policy) -> None:
    """In one product; then it is as before, with gradients for its adapter."""
    layers = adapters(adapted(make_policy))
    assert layers
    for layer in layers:
        x = torch.randn(3, 1, layer.in_features)
        with torch.no_grad():
            plain = layer(x)
            with merged(layer):
                assert "forward" in vars(layer)
                torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)
        assert "forward" not in vars(layer)
        layer(x).sum().backward()
        assert layer.lora_B["default"].weight.grad is not None


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "t5"])
def test_responses_are_those_of_generate(kind: str, make_policy, monkeypatch) -> None:
    """With log-probabilities that a forward pass gives too, and weights that stay; anew with new weights."""
    policy, how = adapted(make_policy, kind), Sampling(temperature=0.7, seed=1)
    used: list[int] = []
    of_now = AdaptedLinear.merged_weight
    monkeypatch.setattr(AdaptedLinear, "merged_weight", lambda layer: used.append(1) or of_now(layer))
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    batch = batch_of(policy)
    assert policy.has_plain_head
    answers, expected = NativeEngine(2)(policy, batch, how), policy.complete(batch, how)
    assert bool(used) == (kind == "llama"), "GPT-2's layers are no nn.Linear, and left to peft"
    assert torch.equal(answers.ids, expected.ids)
    said = policy.token_outputs(batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask, 0.7)
    torch.testing.assert_close(answers.logprobs, said.logprobs, atol=1e-5, rtol=1e-5)
    for name, value in policy.state_dict().items():
        assert torch.equal(value, weights[name])
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.neg_()
    assert NativeEngine(2)(policy, batch, how).texts == policy.complete(batch, how).texts != expected.texts


def test_an_adapter_that_is_off_stays_off(make_policy) -> None:
    policy, how = adapted(make_policy), Sampling(greedy=True)
    batch = batch_of(policy)
    with policy.model.disable_adapter():
        texts = NativeEngine()(policy, batch, how).texts
    assert texts == make_policy().cpu().complete(batch, how).texts


def test_a_large_model_is_left_as_it_is(make_policy, monkeypatch) -> None:
    policy = adapted(make_policy)
    monkeypatch.setattr(merging, "MOST_BYTES", 1000)
    with merged(policy.model):
        assert all("forward" not in vars(layer) for layer in adapters(policy))


def test_layers_are_as_before_after_an_error(make_policy) -> None:
    policy = adapted(make_policy)
    with pytest.raises(KeyError), merged(policy.model):
        raise KeyError
    assert all("forward" not in vars(layer) for layer in adapters(policy))
