"""Log-probabilities straight from hidden states."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.algorithms import entropy, head, head_logprobs, token_logprobs


@pytest.mark.parametrize("chunk", [1, 23, 60, 10**6])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_the_plain_way(chunk: int, with_bias: bool, monkeypatch) -> None:
    """Values and all gradients, however the rows are cut, are those of logits that are held at once."""
    monkeypatch.setitem(head.CHUNK, "cpu", chunk)
    monkeypatch.setattr(head, "LEAST_ROWS", 1)
    torch.manual_seed(0)
    hidden, weight, bias, slope = (torch.randn(n) for n in ((9, 5), (23, 5), (23,), (9,)))
    ids = torch.randint(23, (9,))
    inputs = [x.requires_grad_() for x in (hidden, weight, *([bias] if with_bias else []))]

    said = head_logprobs(hidden, weight, bias if with_bias else None, ids, 0.7)
    got = torch.autograd.grad((said.logprobs * slope).sum(), inputs)

    logits = torch.nn.functional.linear(hidden, weight, bias if with_bias else None)
    plain = token_logprobs(logits, ids, 0.7)
    torch.testing.assert_close(said.logprobs, plain)
    torch.testing.assert_close(said.entropy, entropy(logits, 0.7))
    assert not said.entropy.requires_grad
    assert torch.equal(said.best, logits.argmax(1) == ids)
    for mine, reference in zip(got, torch.autograd.grad((plain * slope).sum(), inputs), strict=True):
        torch.testing.assert_close(mine, reference)


def test_frozen_head_gets_no_gradient() -> None:
    """With a frozen output layer gradients still reach what is below it."""
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(6, 4)
    head_logprobs(hidden, weight, None, torch.tensor([0, 1, 5])).logprobs.sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_impossible_tokens_have_no_entropy() -> None:
    """Logits of -inf, as a bias may give, add nothing; what is certain has entropy 0."""
    bias = torch.tensor([0.0, -torch.inf, -torch.inf])
    said = head_logprobs(torch.zeros(2, 4), torch.zeros(3, 4), bias, torch.tensor([0, 0]))
    assert said.logprobs.tolist() == said.entropy.tolist() == [0.0, 0.0]


def test_half_precision_under_autocast() -> None:
    """Logits are then bfloat16 products, log-probabilities float32; gradients have the weights' type."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 8), torch.randn(11, 8, requires_grad=True)
    ids = torch.randint(11, (7,))
    with torch.autocast("cpu", torch.bfloat16):
        said = head_logprobs(hidden.bfloat16(), weight, None, ids)
    said.logprobs.sum().backward()
    assert said.logprobs.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(said.logprobs, token_logprobs(hidden @ weight.detach().t(), ids), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_entropy_under_autocast_is_that_of_the_same_logits(dtype: torch.dtype) -> None:
    """Only the product is in half precision; impossible tokens still add nothing."""
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(7, 8), torch.randn(11, 8), torch.zeros(11)
    bias[3] = -torch.inf
    with torch.autocast("cpu", dtype):
        said = head_logprobs(hidden, weight, bias, torch.zeros(7).long())
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
    assert said.entropy.dtype == torch.float32
    torch.testing.assert_close(said.entropy, torch.distributions.Categorical(logits=logits[:, bias == 0]).entropy())


@pytest.mark.parametrize("autocast", [True, False])
def test_many_chunks_round_no_more_than_one(autocast: bool, monkeypatch) -> None:
    """In half precision the chunks' parts of the weight's gradient are added up in float32."""
    monkeypatch.setitem(head.CHUNK, "cpu", 1)
    torch.manual_seed(0)
    n = 2000
    hidden, ids = torch.randn(n, 8), torch.randint(11, (n,))
    weight = torch.randn(11, 8)
    if not autocast:
        hidden, weight = hidden.bfloat16(), weight.bfloat16()
    weight.requires_grad_()

    def gradient(rows: int) -> torch.Tensor:
        monkeypatch.setattr(head, "LEAST_ROWS", rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            said = head_logprobs(hidden, weight, None, ids)
        return torch.autograd.grad(said.logprobs.sum(), weight)[0].float()

    whole, parts = gradient(n), gradient(2)
    assert (whole - parts).norm() < 4e-3 * whole.norm()
