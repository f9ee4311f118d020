"""Hydra's own sweeper, every combination of the values given; with a look at all jobs before one is started."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from rlhf_lightning.errors import UserError
from rlhf_lightning.sweep.checks import hopeless, mistakes, told


class GridSweeper(BasicSweeper):
    """In place of `BasicSweeper`."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose and check each job; Hydra calls it before it starts one, and only composes them.

        Two values that don't go together are a corner of the grid that nobody can leave out: its jobs fail when they
        begin, and the others are run.

        Raises:
            UserError: for a value with which no job can be run.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        found = mistakes(self.hydra_context.config_loader, self.config, batch)
        if not found:
            return
        said = told(batch, found)
        if hopeless(batch, found):
            raise UserError(f"{said}\nNone was started.")
        print(f"rlhf-train: {said}\nThey will fail when they begin; the others are run.", file=sys.stderr, flush=True)
