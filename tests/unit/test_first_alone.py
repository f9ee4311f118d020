"""Rank zero at work alone, in two real processes."""

import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.multiprocessing as mp

from rlhf_lightning.errors import Preempted, UserError
from rlhf_lightning.processes import first_alone

PATIENCE = timedelta(seconds=5)
"""How long an exchange may last here; by default it is 10 to 30 minutes."""


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=PATIENCE
    )

    def long(goes_on) -> None:
        until = time.monotonic() + 1.6 * PATIENCE.total_seconds()
        while time.monotonic() < until:
            goes_on()
            time.sleep(0.2)
        Path(folder, "done").touch()

    def fails(_) -> None:
        raise UserError("half of it: is missing")

    def stops(_) -> None:
        raise Preempted("SIGTERM")

    first_alone(long, rank == 0)
    assert Path(folder, "done").exists()
    for work, kind in ((fails, UserError), (stops, Preempted)):
        try:
            first_alone(work, rank == 0)
        except (UserError, Preempted) as error:
            Path(folder, f"{kind.__name__}_{rank}").write_text(f"{type(error).__name__} {error}")
    torch.distributed.destroy_process_group()


def test_the_others_wait_for_rank_zero_longer_than_an_exchange_may_last_and_fail_as_it_does(tmp_path: Path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    for name, told in {"UserError": "UserError half of it: is missing", "Preempted": "Preempted SIGTERM"}.items():
        assert (tmp_path / f"{name}_0").read_text() == (tmp_path / f"{name}_1").read_text() == told
