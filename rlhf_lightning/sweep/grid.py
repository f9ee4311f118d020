"""Hydra's own sweeper, every combination of the values given; with a look at all jobs before one is started."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from rlhf_lightning.errors import UserError
from rlhf_lightning.sweep.checks import hopeless, mistakes, told
from rlhf_lightning.sweep.folders import is_done, job_folder


class GridSweeper(BasicSweeper):
    """In place of `BasicSweeper`."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose and check all jobs before the first batch of them; Hydra only composes, each batch when it comes.

        Two values that don't go together are a corner of the grid that nobody can leave out: its jobs fail when they
        begin, and the others are run. Of a sweep that is gone on with only the jobs are looked at that aren't done.

        Raises:
            UserError: for a value with which no job can be run.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.overrides is not None
        if self.batch_index > 1:
            return
        jobs = [job for jobs in self.overrides for job in jobs]
        if self.config.resume:
            sweep = Path(self.config.hydra.sweep.dir)
            jobs = [job for i, job in enumerate(jobs) if not is_done(sweep / job_folder(sweep, i, job, resume=True))]
        found = mistakes(self.hydra_context.config_loader, self.config, jobs)
        if not found:
            return
        said = told(jobs, found)
        if hopeless(jobs, found):
            raise UserError(f"{said}\nNone was started.")
        print(f"rlhf-train: {said}\nThey will fail when they begin; the others are run.", file=sys.stderr, flush=True)
