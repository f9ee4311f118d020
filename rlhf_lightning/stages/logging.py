"""What a training step logs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from rlhf_lightning.data.order import Portion
from rlhf_lightning.stages.guard import GuardedModule


def log_step(
    module: GuardedModule,
    stage: str,
    means: Mapping[str, Tensor | float],
    portion: Portion,
    shown: Collection[str],
    same: bool = False,
) -> None:
    """Log a batch's means as ``<stage>/<name>``, over all ranks, and the learning rate.

    Args:
        module: what logs.
        stage: first part of the names.
        means: weighted means over this rank's rows.
        portion: their share of the batch.
        shown: names that the progress bar shows.
        same: they are means over the rows of all ranks, and the same on each (`ratios`).
    """
    spread = module.trainer.world_size > 1 and not same
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


def ratios(module: GuardedModule, sums: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Weighted means over unlike parts of a batch, some of which a rank may lack, over all ranks by one exchange.

    Args:
        module: whose ranks.
        sums: for each mean the weighted sum over this rank's rows, and the sum of their weights; the same names on
            every rank.

    Returns:
        The means, without those that have no weight on any rank.
    """
    both = torch.stack([torch.stack(pair) for pair in sums.values()])
    if module.trainer.world_size > 1:
        both = module.trainer.strategy.reduce(both, reduce_op="sum")  # type: ignore[assignment]
    return {name: total / weight for name, (total, weight) in zip(sums, both.tolist(), strict=True) if weight}
