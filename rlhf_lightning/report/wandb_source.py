"""Runs from a W&B project: each is written as the run folder that it came from, and read like any other."""

from __future__ import annotations

import atexit
import csv
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import write_atomic
from rlhf_lightning.report.runs import Run, find_runs

OWN = ("made_with", "report", "_wandb")
"""What a run's config holds beside the settings."""


def runs_of_project(path: str, api: Any = None) -> list[Run]:
    """The runs of a W&B project that have held-out figures, with settings, results and learning curves.

    A run is told by its W&B run ``evaluate``; the curves are those of its stages' W&B runs.

    Args:
        path: ``ENTITY/PROJECT``, or ``PROJECT`` of one's own.
        api: a `wandb.Api`; by default a new one.

    Raises:
        UserError: without a key, for a project that can't be read, or one that has no such run.
    """
    folder = Path(tempfile.mkdtemp(prefix="rlhf-wandb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fetch(path, folder, api)
    return find_runs([folder])


def fetch(path: str, folder: Path, api: Any = None) -> None:
    """Write the runs of a W&B project as run folders: ``<group>/<name>/metrics.json``, ``.hydra/``, the curves.

    Raises:
        UserError: as `runs_of_project`.
    """
    import wandb

    api = api or connect()
    found = 0
    try:
        for run in api.runs(path, filters={"jobType": "evaluate"}, order="+created_at"):
            config = dict(run.config)
            if "report" in config:
                place = _place(folder, run)
                write_run(place, config)
                write_curves(place, api, path, config["report"]["stages"])
                found += 1
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(f"wandb:{path} can't be read: {' '.join(str(error).split())}") from error
    if not found:
        raise UserError(f"wandb:{path}: there is no run of rlhf-train with held-out figures")


def connect() -> Any:
    """A `wandb.Api`.

    Raises:
        UserError: where no key is set.
    """
    import wandb

    from rlhf_lightning.callbacks.loggers import wandb_key

    if wandb_key() is None:
        raise UserError("W&B has no key on this machine: set WANDB_API_KEY, or call `wandb login`")
    return wandb.Api()


def _place(folder: Path, run: Any) -> Path:
    """Where a run goes. Runs of one name are told apart by their ids."""
    name = str(run.name or run.id).removesuffix("-evaluate").replace("/", "-")
    group = str(run.group or name).replace("/", "-")
    place = folder / group / name if group != name else folder / name
    return place.with_name(f"{name}-{run.id}") if place.exists() else place


def write_run(place: Path, config: Mapping[str, Any]) -> None:
    """Write results and settings as `read_run` finds them."""
    report = config["report"]
    (place / ".hydra").mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in config.items() if name not in OWN}
    chosen = {"hydra": {"runtime": {"choices": report["choices"]}}}
    files = {"config": settings, "hydra": chosen, "overrides": report["overridden"]}
    write_atomic(place / "metrics.json", json.dumps(report["results"]))
    for name, content in files.items():
        write_atomic(place / ".hydra" / f"{name}.yaml", json.dumps(content))  # JSON is YAML


def write_curves(place: Path, api: Any, path: str, stages: Mapping[str, str]) -> None:
    """Write what the stages logged, by their W&B ids, as ``<stage>/metrics.csv``."""
    for stage, id in stages.items():
        if stage == "evaluate":
            continue
        rows = [numbers(row) for row in api.run(f"{path}/{id}").scan_history()]
        names = list(dict.fromkeys(name for row in rows for name in row))
        (place / stage).mkdir(exist_ok=True)
        with (place / stage / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of W&B's history, ``step`` that of the logger.

    >>> numbers({"_step": 3, "trainer/global_step": 3, "_runtime": 9, "sft/loss": 0.5, "sft/val/samples": {"nrows": 8}})
    {'step': 3, 'sft/loss': 0.5}
    """
    step = row.get("trainer/global_step")
    own = {
        name: value
        for name, value in _numeric(row.items())
        if not name.startswith(("_", "system/")) and name != "trainer/global_step"
    }
    return {"step": row["_step"] if step is None else step, **own}


def _numeric(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, float]]:
    for name, value in items:
        if isinstance(value, bool):
            continue
        if isinstance(value, (int, float)):
            yield name, value
        elif value == "NaN":  # as W&B's interface has it
            yield name, math.nan
