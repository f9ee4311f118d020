"""FSDP2 for the stages: who deals out what, and checkpoints that any strategy can go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from rlhf_lightning.models import Classifier, Policy, Reference, RewardModel
from rlhf_lightning.models.sharding import part_of, whole_state, whole_tensor


def shard_parts(module: L.LightningModule, *parts: Policy | Classifier | RewardModel | Reference | None) -> None:
    """Deal models out to all devices of the run; nothing unless its strategy is FSDP2.

    A reward's model is not among them: each rank scores by a copy of its own, for as many texts as it has.
    """
    if module.device_mesh is None:
        return
    trainer = module.trainer
    mesh = init_device_mesh(trainer.strategy.root_device.type, (trainer.world_size,))
    for part in parts:
        if part is not None:
            part.shard(mesh)


class FSDP2Strategy(ModelParallelStrategy):
    """FSDP2: weights, gradients and optimizer state dealt out to all devices.

    Checkpoints hold whole tensors in the form of a run on one device, so that a run can go on with any other number of
    devices, or another strategy.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup(self, trainer: L.Trainer) -> None:
        """Prepare the modules, and have validation and test run without gradients, but not in torch's inference mode.

        FSDP2 can't gather weights in it. Lightning leaves it out by itself for gloo, and so on CPUs, but not for NCCL.
        """
        for loop in (trainer.validate_loop, trainer.test_loop, trainer.predict_loop):
            loop.inference_mode = False
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state of the model, on rank zero; without what is not trained, which no checkpoint holds."""
        assert self.lightning_module is not None
        every = self.lightning_module.named_parameters(remove_duplicate=False)  # tied ones have several names
        return whole_state(self.lightning_module, {name for name, weight in every if not weight.requires_grad})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of an optimizer, on rank zero."""
        full = getattr(optimizer, "optimizer", optimizer).state_dict()
        state = {}
        for position, values in full["state"].items():
            whole = {name: whole_tensor(value) for name, value in values.items()}
            if self.is_global_zero:
                state[position] = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in whole.items()}
        return {**full, "state": state} if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a whole checkpoint on every rank, and keep this rank's part of it."""
        path = Path(self.broadcast(str(checkpoint_path)))
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: part_of(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=self.lightning_module.strict_loading)
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            dealt = {
                position: {
                    name: part_of(value, weights[position]) if getattr(value, "dim", int)() else value
                    for name, value in values.items()
                }
                for position, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": dealt})
        return checkpoint
