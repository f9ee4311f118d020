"""Low-rank adapters without their own passes over a layer's output. Needs peft."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn


class AdaptedLinear(lora.Linear):
    """peft's layer, computed in one piece: ``y = x W' + b + scale (x A') B'``.

    peft computes the adapter's output apart, scales it, and adds it: three passes over a tensor of the layer's width,
    and as many in the gradient, which cost more than the adapter's products themselves.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., d) to (..., o). What is no plain adapter on frozen weights is left to peft."""
        name = self.plain_adapter
        if name is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base: Any = self.base_layer
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        inputs: Any = x, base.weight, base.bias, a, b, self.scaling[name]
        if not torch.is_grad_enabled():
            return _products(*inputs)[0]
        return _Adapted.apply(*inputs)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """(o, d) the weight that alone gives the same output; for a plain adapter only."""
        name = self.plain_adapter
        assert name is not None
        return self.base_layer.weight + self.get_delta_weight(name)  # type: ignore[operator]

    @property
    def plain_adapter(self) -> str | None:
        """The name of the one adapter that is at work, on frozen weights and without more to it; None otherwise."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        fits = (
            name in self.lora_A
            and name not in self.lora_variant
            and type(self.base_layer) is nn.Linear
            and not self.base_layer.weight.requires_grad
            and (self.base_layer.bias is None or not self.base_layer.bias.requires_grad)
            and type(self.lora_dropout[name]) is nn.Identity
            and self.lora_A[name].bias is None
            and self.lora_B[name].bias is None
        )
        return name if fits else None


def in_one_piece(model: nn.Module) -> None:
    """Let the adapters of a model that peft wrapped be computed as `AdaptedLinear` does."""
    for module in model.modules():
        if type(module) is lora.Linear:
            module.__class__ = AdaptedLinear


def _products(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output (..., o), the input (n, d) and what is between the adapter's two parts (n, r)."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    with torch.autocast(kind, enabled=False):
        flat = x.to(dtype).reshape(-1, x.shape[-1])
        y = nn.functional.linear(flat, weight.to(dtype), None if bias is None else bias.to(dtype))
        inner = flat @ a.to(dtype).t()
        y.addmm_(inner, b.to(dtype).t(), alpha=scale)
    return y.view(*x.shape[:-1], -1), flat, inner


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        y, flat, inner = _products(x, weight, bias, a, b, scale)
        ctx.save_for_backward(flat, inner, weight, a, b)
        ctx.scale, ctx.dtype, ctx.given = scale, y.dtype, x.dtype
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        flat, inner, weight, a, b = ctx.saved_tensors
        dtype = ctx.dtype
        with torch.autocast(grad.device.type, enabled=False):
            slope = grad.to(dtype).reshape(-1, grad.shape[-1])
            through = (slope @ b.to(dtype)).mul_(ctx.scale)
            to_x = None
            if ctx.needs_input_grad[0]:
                to_x = (slope @ weight.to(dtype)).addmm_(through, a.to(dtype))
                to_x = to_x.to(ctx.given).view(*grad.shape[:-1], -1)
            to_a = (through.t() @ flat).to(a.dtype) if ctx.needs_input_grad[3] else None
            # The transpose of what is wanted: MKL is faster at flat products than at upright ones.
            to_b = (inner.t() @ slope).mul_(ctx.scale).t().to(b.dtype) if ctx.needs_input_grad[4] else None
        return to_x, None, None, to_a, to_b, None
