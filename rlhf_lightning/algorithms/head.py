"""Log-probabilities and entropies straight from hidden states, without ever holding all the logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits computed at once. On a CPU, 16 MB: larger ones leave the cache, and their fresh pages cost more than they."""

LEAST_ROWS = 256
"""Rows computed at once even so: with a large vocabulary each chunk's pass over the weight's gradient costs more."""


class HeadOutput(NamedTuple):
    """What the output layer says of n tokens, all (n,).

    Attributes:
        logprobs: float32, of the tokens; gradients flow through them.
        entropy: float32, in nats, of the distributions; without a gradient.
        best: bool, whether the token is the most likely one.
    """

    logprobs: Tensor
    entropy: Tensor
    best: Tensor


def head_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float = 1.0
) -> HeadOutput:
    """What ``token_logprobs`` and ``entropy`` say of ``hidden @ weight.T + bias``, a chunk of rows at a time.

    The logits of a chunk are computed anew in the backward pass, so no (n, v) tensor is kept between the two.

    Args:
        hidden: (n, d) states in which the tokens were chosen.
        weight: (v, d) of the output layer.
        bias: (v,) or None.
        ids: (n,) the tokens.
        temperature: what the logits are divided by.
    """
    return HeadOutput(*_Head.apply(hidden, weight, bias, ids, temperature))  # type: ignore[no-untyped-call]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    return torch.nn.functional.linear(hidden, weight, bias).float().div_(temperature)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float) -> Any:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        ctx.save_for_backward(hidden, weight, bias, ids)
        ctx.temperature, ctx.dtype = temperature, dtype
        ctx.rows = max(LEAST_ROWS, CHUNK.get(kind, CHUNK["cuda"]) // len(weight))
        h, w, b = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        n = len(ids)
        logprobs, entropy = (torch.empty(n, device=hidden.device) for _ in range(2))
        best = torch.empty(n, dtype=torch.bool, device=hidden.device)
        with torch.autocast(kind, enabled=False):
            for start in range(0, n, ctx.rows):
                rows = slice(start, start + ctx.rows)
                logits = _logits(h[rows], w, b, temperature)
                chosen = logits.gather(1, ids[rows, None])[:, 0]
                top = logits.amax(1)
                logits -= top[:, None]
                weights = logits.exp()
                total = weights.sum(1)
                log_total = total.log()
                logprobs[rows] = chosen - top - log_total
                # A logit of -inf has probability 0, and adds 0.
                entropy[rows] = log_total - torch.linalg.vecdot(weights, logits.clamp_(min=-1e30)) / total
                best[rows] = chosen >= top
        ctx.mark_non_differentiable(entropy, best)
        return logprobs, entropy, best

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        hidden, weight, bias, ids = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        h, w, b = hidden.to(ctx.dtype), weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
        to_hidden = torch.empty_like(hidden) if need_hidden else None
        to_weight = None
        to_bias = torch.zeros_like(bias) if need_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(ids), ctx.rows):
                rows = slice(start, start + ctx.rows)
                # d logprob / d logits = (one-hot - probabilities) / temperature
                part = (grad[rows] / ctx.temperature)[:, None]
                slope = _logits(h[rows], w, b, ctx.temperature).softmax(1).mul_(-part)
                slope.scatter_add_(1, ids[rows, None], part)
                if to_bias is not None:
                    to_bias += slope.sum(0)
                slope = slope.to(ctx.dtype)
                if to_hidden is not None:
                    to_hidden[rows] = slope @ w
                if not need_weight:
                    continue
                if to_weight is None:  # no zeros are filled in before the first chunk
                    to_weight = (slope.t() @ h[rows]).float()  # in half precision each chunk would round the sum anew
                elif ctx.dtype == torch.float32:
                    to_weight.addmm_(slope.t(), h[rows])
                else:
                    to_weight += slope.t() @ h[rows]
        if need_weight and to_weight is None:
            to_weight = torch.zeros_like(weight)
        return to_hidden, None if to_weight is None else to_weight.to(weight.dtype), to_bias, None, None
