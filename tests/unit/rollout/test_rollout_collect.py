"""One round of experience."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of, length_reward, with_noise_in_padding

from rlhf_lightning.algorithms import token_logprobs
from rlhf_lightning.models import Policy, Reference, Sampling
from rlhf_lightning.models.generation import Completions
from rlhf_lightning.rewards import ConstantReward, RewardMix
from rlhf_lightning.rollout import GenerateEngine, NativeEngine, collect

SAMPLING = Sampling(temperature=0.7, seed=2)  # some responses end, and some don't


class Noisy(GenerateEngine):
    """Random ids in the padding of what it draws."""

    def __call__(self, policy, batch, sampling, turn=0) -> Completions:
        answers = super().__call__(policy, batch, sampling, turn)
        return answers._replace(ids=with_noise_in_padding(answers.ids, answers.mask, 250))


def gathered(policy: Policy, reference: Reference | None = None, tokens: int | None = None, critic=None, engine=None):
    """A round with the same random numbers each time."""
    batch = batch_of(policy)
    if isinstance(engine, Noisy):
        batch = replace(batch, prompt_ids=with_noise_in_padding(batch.prompt_ids, batch.prompt_mask, 250))
    mix = RewardMix({"length": length_reward, "one": ConstantReward(1.0)}, {"one": 0.5})
    return collect(batch, policy, engine or NativeEngine(), mix, SAMPLING, reference, critic, tokens)


@pytest.mark.parametrize("engine", [NativeEngine(2), GenerateEngine()], ids=["native", "generate"])
@pytest.mark.parametrize("kind", KINDS)
def test_rollout_is_what_a_forward_says(kind: str, engine, make_policy) -> None:
    """Checklist 14, 18: log-probabilities at the sampling temperature, of policy and reference; scores weighted."""
    policy = make_policy(kind, wild_head=True)
    reference = Reference(make_policy(kind))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.05)
    rollout = gathered(policy, reference, engine=engine)
    inputs = (rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, rollout.response_mask)
    mask = rollout.response_mask
    with torch.no_grad():
        output = policy(*inputs, with_values=True)
        expected = token_logprobs(output.logits, rollout.response_ids, 0.7)
        of_reference = token_logprobs(reference.logits(*inputs), rollout.response_ids, 0.7)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(rollout.logprobs[mask], expected[mask], **close)
    torch.testing.assert_close(rollout.ref_logprobs[mask], of_reference[mask], **close)
    torch.testing.assert_close(rollout.values[mask], output.values[mask], **close)
    assert (rollout.importance == 1).all()
    assert (rollout.logprobs - rollout.ref_logprobs)[mask].abs().max() > 1e-3
    for tensor in (rollout.logprobs, rollout.ref_logprobs, rollout.values):
        assert (tensor[~mask] == 0).all()
        assert not tensor.requires_grad
    torch.testing.assert_close(rollout.scores, rollout.rewards["length"] + 0.5)
    ends = torch.isin(rollout.response_ids, torch.tensor(policy.eos_ids, device=policy.device)) & mask
    assert torch.equal(ends.any(1), rollout.ended)
    assert (ends.sum(1) <= 1).all(), "one end at most, in the last position"
    assert len(rollout) == len(rollout.texts) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_noise_in_padding_changes_no_rollout(kind: str, make_policy) -> None:
    """Checklist 19: random ids in the padding of prompts and responses change nothing that is collected."""
    policy = make_policy(kind, wild_head=True)
    clean, noisy = (gathered(policy, Reference(policy), engine=engine) for engine in (GenerateEngine(), Noisy()))
    assert not clean.response_mask.all(), "the test needs padding"
    assert torch.equal(clean.response_mask, noisy.response_mask)
    assert clean.texts == noisy.texts
    for name in ("logprobs", "ref_logprobs", "values", "scores", "ended"):
        torch.testing.assert_close(getattr(clean, name), getattr(noisy, name), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_a_forward_change_nothing(kind: str, make_policy) -> None:
    """Checklist 24: one row, some or all rows a forward."""
    policy = make_policy(kind, wild_head=True)
    reference = Reference(policy)
    whole = gathered(policy, reference, engine=GenerateEngine())
    for tokens in (1, 40):
        part = gathered(policy, reference, tokens, engine=GenerateEngine())
        for name in ("logprobs", "ref_logprobs", "values"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


def test_without_reference_the_kl_is_zero(make_policy) -> None:
    """Checklist 18: where there is no reference its log-probabilities are the policy's own."""
    rollout = gathered(make_policy())
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)


def test_values_come_from_a_critic_apart(make_policy) -> None:
    """Checklist 17: a critic of its own gives the values; the policy needs no head then."""
    critic = make_policy("llama", wild_head=True)
    rollout = gathered(make_policy(value_head=False), critic=lambda *inputs: critic(*inputs, with_values=True).values)
    inputs = (rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, rollout.response_mask)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.values[mask], critic(*inputs, with_values=True).values.detach()[mask])


class Apart:
    """An engine with weights of its own, which are not quite the policy's: it is off by so much in every token."""

    is_policy = False

    def __init__(self, off: float) -> None:
        self.off = off

    def __call__(self, policy, batch, sampling, turn=0) -> Completions:
        answers = policy.complete(batch, sampling, turn)
        inputs = (batch.prompt_ids, batch.prompt_mask, answers.ids, answers.mask)
        return answers._replace(logprobs=policy.token_outputs(*inputs, sampling.temperature).logprobs - self.off)


@pytest.mark.parametrize(("off", "weight"), [(0.0, 1.0), (0.1, math.exp(0.1)), (-0.5, math.exp(-0.5)), (3.0, 2.0)])
def test_what_another_engine_says_is_corrected(off: float, weight: float, make_policy) -> None:
    """Log-probabilities are the policy's own; importance weights are the ratio of the two, truncated at 2."""
    policy = make_policy(wild_head=True)
    rollout, own = gathered(policy, engine=Apart(off)), gathered(policy)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.logprobs, own.logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rollout.values, own.values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rollout.importance[mask], torch.full_like(own.logprobs[mask], weight), atol=1e-4, rtol=0)
    assert (rollout.importance[~mask] == 1).all()
