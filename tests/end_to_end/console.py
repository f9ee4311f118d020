"""The installed console scripts, as processes of their own, from another directory and offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
SMALL = [
    "data.limit=48",
    "model.tiny.hidden=32",
    "model.tiny.layers=1",
    "sft.trainer.max_epochs=1",
    "reward.trainer.max_epochs=1",
    "ppo.updates=2",
    "ppo.loader.batch_size=8",
    "ppo.epochs=2",
    "ppo.trainer.val_check_interval=1",
    "logger=csv",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "hydra.run.dir=run",
]
"""A run of a few seconds, in the folder `run`."""
QUICK = [o for o in SMALL if o.startswith(("model.tiny", "logger", "trainer"))]


def environment(**more: str) -> dict[str, str]:
    """Of a console script: offline, one thread, a wide screen."""
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "140"}
    return {**os.environ, **settings, **more}


def run(folder: Path, *overrides: str, program: str = "rlhf-train", **more: str) -> subprocess.CompletedProcess[str]:
    """A console script in a folder; its output as text."""
    command = [str(BIN / program), *overrides]
    return subprocess.run(command, cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=600)


def ok(result: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert result.returncode == 0, result.stderr[-3000:] + result.stdout[-2000:]
    return result


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
