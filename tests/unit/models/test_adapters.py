"""Adapters in one piece, held against peft's own layers."""

from __future__ import annotations

import pytest
import torch
from peft.tuners import lora
from torch import nn

from rlhf_lightning.models import LoraSpec
from rlhf_lightning.models.adapters import AdaptedLinear


def layer(bias: bool = True, **options) -> lora.Linear:
    """A layer with an adapter whose both parts are away from 0."""
    torch.manual_seed(0)
    made = lora.Linear(
        nn.Linear(6, 5, bias=bias), "default", lora.LoraConfig(r=2, **options), r=2, lora_alpha=3, **options
    )
    made.base_layer.requires_grad_(False)
    nn.init.normal_(made.lora_B["default"].weight)
    return made


def outcome(module: nn.Module, x: torch.Tensor, cls: type) -> tuple[torch.Tensor, ...]:
    """Output and gradients, computed as a class does."""
    module.__class__ = cls
    module.zero_grad()
    x = x.clone().requires_grad_()
    y = module(x)
    (y.float().square().sum() + y.float().sum()).backward()
    return y.detach(), x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6)])
def test_equals_peft(shape: tuple[int, ...], bias: bool) -> None:
    """Outputs and all gradients, of the input too."""
    module, x = layer(bias), torch.randn(shape)
    ours, theirs = outcome(module, x, AdaptedLinear), outcome(module, x, lora.Linear)
    assert len(ours) == len(theirs) == 4
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)
    module.__class__ = AdaptedLinear
    with torch.no_grad():
        torch.testing.assert_close(module(x), theirs[0], atol=1e-5, rtol=1e-5)


def test_under_autocast() -> None:
    """Products in bfloat16, gradients of the weights in their own type."""
    module, x = layer(), torch.randn(8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = outcome(module, x, AdaptedLinear), outcome(module, x, lora.Linear)
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.dtype == reference.dtype
        torch.testing.assert_close(mine.float(), reference.float(), atol=0.3, rtol=0.1)


def test_switched_off_and_merged() -> None:
    """Without its adapter the layer is the base; with it merged the adapted one."""
    module, x = layer(), torch.randn(3, 6)
    module.__class__ = AdaptedLinear
    adapted, base = module(x), module.base_layer(x)
    assert (adapted - base).abs().max() > 0.1
    module.enable_adapters(False)
    assert torch.equal(module(x), base)
    module.enable_adapters(True)
    module.merge()
    torch.testing.assert_close(module(x), adapted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.base_layer.requires_grad_(True), "weights that are trained"),
        (lambda m: m.lora_dropout.update({"default": nn.Dropout(0.5)}), "dropout"),
        (lambda m: m.enable_adapters(False), "switched off"),
    ],
)
def test_other_adapters_are_left_to_peft(change, reason: str) -> None:
    """What the short form doesn't say is not computed by it."""
    module = layer()
    module.__class__ = AdaptedLinear
    assert module.plain_adapter == "default"
    change(module)
    assert module.plain_adapter is None, reason


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_policys_adapters_are_such(kind: str, make_policy) -> None:
    """`model.lora.r` gives layers of this kind, in which an adapter that is new changes nothing."""
    policy = make_policy(kind, lora=LoraSpec(r=2))
    assert any(isinstance(module, AdaptedLinear) for module in policy.modules())
    assert not any(type(module) is lora.Linear for module in policy.modules())
