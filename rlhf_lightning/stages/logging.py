"""What a training step logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from rlhf_lightning.data.order import Portion
from rlhf_lightning.stages.guard import GuardedModule


def log_step(
    module: GuardedModule, stage: str, means: Mapping[str, Tensor], portion: Portion, shown: Collection[str]
) -> None:
    """Log a batch's means as ``<stage>/<name>``, over all ranks, and the learning rate.

    Args:
        module: what logs.
        stage: first part of the names.
        means: weighted means over this rank's rows.
        portion: their share of the batch.
        shown: names that the progress bar shows.
    """
    spread = module.trainer.world_size > 1
    for name, value in means.items():
        module.log(
            f"{stage}/{name}",
            value * portion.share if spread else value,
            prog_bar=name in shown,
            batch_size=len(portion.rows),
            sync_dist=spread,
        )
    module.log(f"{stage}/bad_steps", float(module.bad_steps), batch_size=len(portion.rows))
    module.log(f"{stage}/lr", module.trainer.optimizers[0].param_groups[0]["lr"], batch_size=len(portion.rows))
