"""The decoding loop of our own, held against transformers' generate and a plain forward."""

from __future__ import annotations

import gc
import warnings
import weakref

import pytest
import torch
from helpers.tiny_models import batch_of, rows

from rlhf_lightning.data.batches import prompt_batch
from rlhf_lightning.errors import UserError
from rlhf_lightning.models import LoraSpec, Policy, Sampling
from rlhf_lightning.rollout import GenerateEngine, NativeEngine
from rlhf_lightning.rollout import native as module
from rlhf_lightning.rollout.graphs import StepGraph

HOW = [
    Sampling(temperature=0.7, seed=2),
    Sampling(greedy=True),
    Sampling(temperature=1.3, top_k=5, seed=1),
    Sampling(temperature=1.0, top_p=0.8, seed=4),
]


@pytest.mark.parametrize("how", HOW, ids=["sampled", "greedy", "top_k", "top_p"])
@pytest.mark.parametrize("slots", [1, 2, 3, 64])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_draws_what_generate_draws(kind: str, slots: int, how: Sampling, make_policy) -> None:
    """Twenty prompts of unlike lengths, more than there are slots: the same tokens, masks and texts, in every way."""
    policy = make_policy(kind)
    batch = batch_of(policy, [row.prompt.text for row in rows()] * 5)
    ours, theirs = NativeEngine(slots)(policy, batch, how, 3), GenerateEngine()(policy, batch, how, 3)
    assert len({int(n) for n in theirs.lengths}) > 2, "the test needs responses of unlike lengths"
    assert torch.equal(ours.ids, theirs.ids)
    assert torch.equal(ours.mask, theirs.mask)
    assert (ours.texts, ours.ended.tolist()) == (theirs.texts, theirs.ended.tolist())


@pytest.mark.parametrize("slots", [2, 64])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tells_what_a_forward_says(kind: str, slots: int, make_policy) -> None:
    """Log-probabilities at the sampling temperature and values of every drawn token, from the way."""
    policy = make_policy(kind, wild_head=True)
    batch = batch_of(policy, [row.prompt.text for row in rows()] * 3)
    answers = NativeEngine(slots)(policy, batch, HOW[0])
    inputs = (batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask)
    with torch.no_grad():
        said = policy.token_outputs(*inputs, 0.7, with_values=True)
    torch.testing.assert_close(answers.logprobs, said.logprobs, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(answers.values, said.values, atol=2e-5, rtol=1e-5)
    assert not answers.logprobs.requires_grad
    assert not answers.values.requires_grad


@pytest.mark.parametrize("how", HOW[1:], ids=["greedy", "top_k", "top_p"])
def test_tells_no_probabilities_that_it_did_not_draw_with(how: Sampling, make_policy) -> None:
    """Greedy and truncated sampling draw from another distribution than the policy's."""
    policy = make_policy()
    assert NativeEngine()(policy, batch_of(policy), how).logprobs is None


def test_draws_follow_the_distribution(make_policy) -> None:
    """Checklist 13: 4,000 first tokens to one prompt against the forward's probabilities, by a chi-square test."""
    policy = make_policy()
    row = rows()[1]
    batch = prompt_batch([(i, row) for i in range(4000)], policy.codec).to(policy.device)
    first = NativeEngine(64)(policy, batch, Sampling(temperature=1.0, seed=9)).ids[:, 0].cpu()
    one = batch.prompt_ids[:1], batch.prompt_mask[:1]
    with torch.no_grad():
        logits = policy(*one, one[0][:, :1], one[1][:, -1:]).logits[0, 0].cpu()
    expected = 4000 * logits.double().softmax(0)
    often = expected >= 5
    counts = torch.bincount(first, minlength=len(expected)).double()
    chi = ((counts - expected)[often].square() / expected[often]).sum()
    assert often.sum() > 10
    degrees = int(often.sum())
    assert chi < degrees + 4 * (2 * degrees) ** 0.5, "four standard deviations of a chi-square"


def test_an_equal_prompt_is_read_once(make_policy) -> None:
    """Several answers to a prompt share the pass over it, and are those of generate."""
    policy, read = make_policy(), []
    base = policy.inner.base_model
    original = base.forward
    engine = NativeEngine()
    engine(policy, batch_of(policy), HOW[0])  # what is tried at first is behind us
    base.forward = lambda **kwargs: (read.append(tuple(kwargs["input_ids"].shape)), original(**kwargs))[1]
    batch = batch_of(policy).repeated(4)
    answers = engine(policy, batch, HOW[0])
    base.forward = original
    assert read[0] == (4, batch.prompt_ids.shape[1])
    assert read[1] == (16, 1)
    assert answers.texts == policy.complete(batch, HOW[0]).texts
    assert len(set(answers.texts)) > 4


def test_takes_new_weights_at_once(make_policy) -> None:
    """Nothing of the weights is kept from one call to the next."""
    policy, engine = make_policy(), NativeEngine()
    batch, before = batch_of(policy), None
    for _ in range(2):
        answers = engine(policy, batch, HOW[1])
        assert answers.texts == policy.complete(batch, HOW[1]).texts
        assert answers.texts != before
        before = answers.texts
        with torch.no_grad():
            for parameter in policy.model.parameters():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                parameter.add_(0.3 * noise.to(parameter))


def test_with_an_adapter(make_policy) -> None:
    """Under LoRA it is the adapted model that answers."""
    policy = make_policy(lora=LoraSpec(r=2))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
                parameter.copy_(0.5 * noise)
    batch = batch_of(policy)
    assert NativeEngine(2)(policy, batch, HOW[0]).texts == policy.complete(batch, HOW[0]).texts
    assert policy.complete(batch, HOW[0]).texts != make_policy().complete(batch, HOW[0]).texts


def test_the_mode_is_as_before(make_policy) -> None:
    """A policy in training mode is in it afterwards."""
    policy = make_policy().train()
    NativeEngine()(policy, batch_of(policy), HOW[0])
    assert policy.training
    assert policy.model.training


def others(make_policy) -> dict[str, Policy]:
    """Policies that the loop is not made for, by a part of what is said of them."""
    scaled = make_policy()
    original = scaled.inner.forward

    def forward(**kwargs):
        output = original(**kwargs)
        output.logits = output.logits * 3
        return output

    scaled.inner.forward = forward
    forgetful = make_policy("gpt2")
    base = forgetful.inner.base_model
    rest = base.forward

    def counts_by_itself(*args, cache=None, position_ids=None, **kwargs):
        return rest(*args, cache=cache, position_ids=None if cache is not None else position_ids, **kwargs)

    base.forward = counts_by_itself
    short = make_policy()
    short.inner.config.sliding_window = 20
    return {
        "encoder-decoder": make_policy("t5"),
        "output layer": scaled,
        "positions": forgetful,
        "20 tokens only": short,
    }


@pytest.mark.parametrize("reason", ["encoder-decoder", "output layer", "positions", "20 tokens only"])
def test_what_it_is_not_made_for_goes_to_generate_aloud(reason: str, make_policy) -> None:
    """Answers are then those of generate; it is said once, with the reason."""
    policy, engine = others(make_policy)[reason], NativeEngine()
    batch = batch_of(policy)
    with pytest.warns(UserWarning, match=reason):
        answers = engine(policy, batch, HOW[0])
    assert torch.equal(answers.ids, policy.complete(batch, HOW[0]).ids)
    assert answers.logprobs is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(policy, batch, HOW[0])


def test_columns_are_used_again(make_policy, monkeypatch) -> None:
    """Many prompts in few slots wander to the end of the cache, and are moved back; its size doesn't grow."""
    policy, moved = make_policy(), []
    original = module.SlotCache.shift
    monkeypatch.setattr(module.SlotCache, "shift", lambda self, by, end: (moved.append(by), original(self, by, end)))
    batch = batch_of(policy, [row.prompt.text for row in rows()] * 10)
    answers = NativeEngine(2)(policy, batch, HOW[0])
    assert len(moved) > 3
    assert answers.texts == policy.complete(batch, HOW[0]).texts


def test_no_slots() -> None:
    with pytest.raises(UserError, match=r"rollout\.slots"):
        NativeEngine(0)


@pytest.mark.parametrize("how", HOW, ids=["sampled", "greedy", "top_k", "top_p"])
@pytest.mark.parametrize("slots", [1, 3, 64])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_steps_in_place_draw_the_same(kind: str, slots: int, how: Sampling, make_policy, monkeypatch) -> None:
    """What a GPU records, done here without a recording: the same answers, and what a forward says of them."""
    monkeypatch.setattr(module, "recorded", lambda device: True)
    monkeypatch.setattr(StepGraph, "possible", False)
    policy, steps = make_policy(kind, wild_head=True), []
    original = module._Decoding._step_in_place
    monkeypatch.setattr(module._Decoding, "_step_in_place", lambda self: (steps.append(1), original(self))[1])
    batch = batch_of(policy, [row.prompt.text for row in rows()] * 5)
    ours, theirs = NativeEngine(slots)(policy, batch, how, 3), GenerateEngine()(policy, batch, how, 3)
    assert len(steps) > 7
    assert torch.equal(ours.ids, theirs.ids)
    assert ours.texts == theirs.texts
    if ours.logprobs is not None:
        inputs = (batch.prompt_ids, batch.prompt_mask, ours.ids, ours.mask)
        with torch.no_grad():
            said = policy.token_outputs(*inputs, how.temperature, with_values=True)
        torch.testing.assert_close(ours.logprobs, said.logprobs, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(ours.values, said.values, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_cache_is_freed_at_once(in_place: bool, make_policy, monkeypatch) -> None:
    """Nothing refers to itself in a circle: gigabytes on a GPU would wait for the garbage collector."""
    monkeypatch.setattr(module, "recorded", lambda device: in_place)
    monkeypatch.setattr(StepGraph, "possible", False)
    made, original = [], module.SlotCache.__init__

    def noted(self, *args) -> None:
        original(self, *args)
        made.append(weakref.ref(self))

    monkeypatch.setattr(module.SlotCache, "__init__", noted)
    policy = make_policy()
    gc.collect()
    gc.disable()
    try:
        NativeEngine(2)(policy, batch_of(policy), HOW[0])
        assert made
        assert not any(cache() for cache in made)
    finally:
        gc.enable()


@pytest.mark.parametrize("in_place", [False, True])
def test_mixed_precision_caches_halves_and_draws_the_same(in_place: bool, make_policy, monkeypatch) -> None:
    """Attention casts keys and values anyway: a cache of them cast beforehand gives the same bits."""
    monkeypatch.setattr(module, "recorded", lambda device: in_place)
    monkeypatch.setattr(StepGraph, "possible", False)
    policy, kinds = make_policy(wild_head=True), []
    original = module.SlotCache.update

    def noted(self, keys, *args, **kwargs):
        out = original(self, keys, *args, **kwargs)
        kinds.append((keys.dtype, self.keys[0].dtype))
        return out

    monkeypatch.setattr(module.SlotCache, "update", noted)
    batch = batch_of(policy, [row.prompt.text for row in rows()] * 5)
    assert policy.has_plain_head
    NativeEngine(3)(policy, batch, HOW[0])  # what is tried at first is behind us
    kinds.clear()

    def answers() -> tuple:
        with torch.autocast(policy.device.type, torch.bfloat16, cache_enabled=False):
            return NativeEngine(3)(policy, batch, HOW[0])

    halves = answers()
    assert {held for _, held in kinds} == {torch.bfloat16}
    monkeypatch.setattr(module.torch, "is_autocast_enabled", lambda *args: False)
    kinds.clear()
    plain = answers()
    assert {held for _, held in kinds} == {given for given, _ in kinds}
    assert torch.equal(halves.ids, plain.ids)
    assert torch.equal(halves.logprobs, plain.logprobs)
