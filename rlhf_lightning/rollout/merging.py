"""Adapters added to their weights for as long as responses are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

MOST_BYTES = 1 << 31
"""Of the sums together; more of them would take memory that a laptop may not have."""


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Let layers with an adapter work with the sum of both, computed once: a matrix product in place of three.

    A step of decoding has few rows, so that the adapters' own products, small and many, take a fifth of its time on a
    CPU. The weights stay what they are. Where memory is dearer than time (on other devices, and for larger models)
    nothing is done.

    Args:
        model: with adapters of `rlhf_lightning.models.adapters` or without; nobody may change it meanwhile.
    """
    layers: list[Any] = [layer for layer in model.modules() if _on_cpu(layer)]
    size = sum(layer.base_layer.weight.numel() * layer.base_layer.weight.element_size() for layer in layers)
    try:
        for layer in layers if size <= MOST_BYTES else ():
            weight = layer.merged_weight()
            layer.forward = partial(nn.functional.linear, weight=weight, bias=layer.base_layer.bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _on_cpu(layer: Any) -> bool:
    plain = getattr(layer, "plain_adapter", None) is not None  # only `AdaptedLinear` has it, which needs peft
    return plain and layer.base_layer.weight.device == torch.device("cpu")
