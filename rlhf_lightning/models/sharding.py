"""Weights dealt out to the devices of a run (FSDP2), what that means for batches, and weights put together again."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from rlhf_lightning.data.micro_batches import micro_batches
from rlhf_lightning.models.loading import MERGED, has_adapter


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` dealt this module out."""
    return isinstance(module, FSDPModule)


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Deal a module's weights out to all devices of a mesh of one dimension; nothing where that was done before.

    Each of a transformers model's blocks is gathered when it computes; what is outside of them (embeddings, heads)
    stays gathered from a forward pass to its backward pass.
    """
    if is_sharded(module):
        return
    for block in _blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    if hasattr(module, "generate"):  # which calls parts of an encoder-decoder model on their own
        register_fsdp_forward_method(module, "generate")


def groups(module: nn.Module, lengths: Tensor) -> list[Tensor]:
    """The rows of a batch that go through a model together: those of like length (`micro_batches`).

    Where the weights are dealt out it is the batch as a whole: all ranks take part in each pass, whatever they have.

    Args:
        module: the model.
        lengths: (n,) of the rows.
    """
    return [torch.arange(len(lengths), device=lengths.device)] if is_sharded(module) else micro_batches(lengths)


def writable(module: nn.Module) -> nn.Module:
    """The module, with weights that may be written to: what is written to gathered ones is lost."""
    if isinstance(module, FSDPModule):
        module.reshard()
    return module


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that transformers names as units, or else all members of the outermost lists of modules."""
    names = {name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    named = [part for part in module.modules() if type(part).__name__ in names]
    yield from named or _listed(module)


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _listed(child)


def whole_tensor(value: Any) -> Any:
    """A tensor put together from all devices; anything else as it is. Every rank has to take part."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def part_of(value: Any, like: Any) -> Any:
    """This rank's part of a whole tensor, dealt out as ``like`` is; anything else as it is.

    Raises:
        ValueError: if the two differ in shape.
    """
    if not isinstance(like, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape != like.shape:
        raise ValueError(f"a tensor of shape {tuple(value.shape)} can't be dealt out as one of {tuple(like.shape)}")
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def whole_state(module: nn.Module, without: Container[str] = ()) -> dict[str, Tensor]:
    """The module's state with whole tensors, on the CPU of rank zero; empty elsewhere. Every rank has to take part.

    Args:
        module: with or without weights that are dealt out.
        without: names that are left out.
    """
    first, state = torch.distributed.get_rank() == 0, {}
    for name, value in module.state_dict().items():
        if name in without:
            continue
        value = whole_tensor(value)
        if first:
            state[name] = value.cpu()
    return state


def to_save(module: nn.Module) -> nn.Module | None:
    """What this process may write to disk: the model; where `shard` dealt it out, a whole copy on the CPU of rank zero.

    Args:
        module: a transformers model, with or without a peft adapter.

    Returns:
        The model itself; or, where it is dealt out, the copy on rank zero and None elsewhere. Every rank has to call.
    """
    if not is_sharded(module):
        return module
    state = whole_state(module)
    if not state:
        return None
    with torch.device("meta"):  # no memory but that of the weights
        copy = _same_shape(module)
    copy.load_state_dict(state, strict=True, assign=True)
    inner: Any = copy.get_base_model() if has_adapter(copy) else copy  # type: ignore[operator]
    inner.tie_weights()
    return copy.requires_grad_(False)


def _same_shape(module: Any) -> nn.Module:
    made: Any = next(cls for cls in type(module).__mro__ if not issubclass(cls, FSDPModule))
    if not has_adapter(module):
        fresh = made(module.config)
        fresh.generation_config = getattr(module, "generation_config", None)
        return fresh
    from peft import get_peft_model

    inner = _same_shape(module.get_base_model())
    setattr(inner, MERGED, getattr(module.get_base_model(), MERGED, False))
    return get_peft_model(inner, module.peft_config[module.active_adapter])  # type: ignore[arg-type]
