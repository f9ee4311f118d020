"""What the policy says of response tokens, computed where they are and nowhere else."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import KINDS, batch_of, with_noise_in_padding

from rlhf_lightning.algorithms import entropy, token_logprobs
from rlhf_lightning.models import Sampling
from rlhf_lightning.models.policy import aligned


def answered(policy):
    """Prompts and responses of unlike lengths, with noise where they are padded."""
    batch = batch_of(policy)
    answers = policy.complete(batch, Sampling(temperature=0.7, seed=2))
    assert not answers.mask.all() or not batch.prompt_mask.all(), "the test needs padding"
    return (
        with_noise_in_padding(batch.prompt_ids, batch.prompt_mask, 250),
        batch.prompt_mask,
        with_noise_in_padding(answers.ids, answers.mask, 250),
        answers.mask,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_plain_forward(kind: str, make_policy) -> None:
    """Log-probabilities, entropies, values and every weight's gradient are those of `forward`."""
    policy = make_policy(kind, wild_head=True)
    inputs = answered(policy)
    ids, mask = inputs[2:]
    assert policy.has_plain_head == (kind != "t5")

    fast = policy.token_outputs(*inputs, temperature=0.7, with_values=True)
    (fast.logprobs.square().sum() + fast.values.square().sum()).backward()
    got = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.zero_grad()

    plain = policy(*inputs, with_values=True)
    logprobs = token_logprobs(plain.logits, ids, 0.7).masked_fill(~mask, 0.0)
    (logprobs.square().sum() + plain.values.masked_fill(~mask, 0.0).square().sum()).backward()

    torch.testing.assert_close(fast.logprobs, logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast.entropy, entropy(plain.logits, 0.7).masked_fill(~mask, 0.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast.values, plain.values.masked_fill(~mask, 0.0), atol=1e-5, rtol=1e-5)
    assert torch.equal(fast.best, (plain.logits.argmax(-1) == ids) & mask)
    reference = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert set(got) == set(reference)
    for name, grad in reference.items():
        torch.testing.assert_close(got[name], grad, atol=1e-4, rtol=1e-4, msg=name)


def test_a_head_that_does_more_goes_the_plain_way(make_policy) -> None:
    """A model that scales its logits after its output layer is noticed, and measured as it is."""
    policy = make_policy("llama")
    inputs, original = answered(policy), policy.inner.forward

    def scaled(**kwargs):
        output = original(**kwargs)
        output.logits = output.logits * 3
        return output

    policy.inner.forward = scaled
    assert not policy.has_plain_head
    expected = token_logprobs(policy(*inputs).logits, inputs[2]).masked_fill(~inputs[3], 0.0)
    torch.testing.assert_close(policy.token_outputs(*inputs).logprobs, expected)


def test_a_closer_look_than_half_precision_gives(make_policy) -> None:
    """A cap on the logits, as Gemma 2 has one, that bfloat16 would hide is noticed under autocast too."""
    policy = make_policy("llama")
    original = policy.inner.forward

    def capped(**kwargs):
        output = original(**kwargs)
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output

    policy.inner.forward = capped
    with torch.autocast("cpu", torch.bfloat16):
        assert not policy.has_plain_head
    told = make_policy("llama")
    told.inner.config.final_logit_softcapping = 30.0
    assert not told.has_plain_head, "one too weak to be noticed is in the config"


@pytest.mark.parametrize("way", ["no trunk apart", "own code that fails"])
def test_a_trunk_that_can_not_be_used_alone(way: str, make_policy) -> None:
    """Such models go the plain way; nothing is raised."""
    policy = make_policy("llama")
    if way == "no trunk apart":
        policy.inner.base_model_prefix = "language_model"  # as of Llama 4
        assert policy.inner.base_model is policy.inner
    else:
        trunk = policy.inner.base_model
        original = trunk.forward

        def needs_a_mask(*args, **kwargs):
            return original(*args, **{**kwargs, "attention_mask": kwargs["attention_mask"]})

        trunk.forward = needs_a_mask
    inputs = answered(policy)
    assert not policy.has_plain_head
    expected = token_logprobs(policy(*inputs).logits, inputs[2]).masked_fill(~inputs[3], 0.0)
    torch.testing.assert_close(policy.token_outputs(*inputs).logprobs, expected)


def test_rows_are_put_together_without_a_gap() -> None:
    """Left-padded prompts and right-padded responses, by hand; the last token of the longest row isn't fed."""
    prompt_mask = torch.tensor([[0, 1, 1], [0, 0, 1]]).bool()
    response_mask = torch.tensor([[1, 0], [1, 1]]).bool()
    prompts, responses = torch.tensor([[9, 1, 2], [9, 9, 3]]), torch.tensor([[4, 9], [5, 6]])
    ids, starts = aligned(prompts, prompt_mask, responses, response_mask, 0)
    assert ids.tolist() == [[1, 2], [3, 5]]
    assert starts.tolist() == [1, 0]
