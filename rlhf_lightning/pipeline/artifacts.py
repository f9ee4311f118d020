"""Models and what they were made of as W&B artifacts: equal content under one name is one version, and links runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.pipeline.tracking import logged_config, tags

if TYPE_CHECKING:
    from wandb import Artifact

    from rlhf_lightning.models import ModelSpec
    from rlhf_lightning.pipeline.run import Run


def artifact_name(*parts: str) -> str:
    """A name as W&B takes it: letters, digits, ``.``, ``_`` and ``-``; at most 128 of them.

    >>> artifact_name("qa", "google-t5/t5-small", "sft")
    'qa-google-t5-t5-small-sft'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))[:128]


def data_artifact(run: Run) -> Artifact:
    """The run's data: for each kind of rows how many there are and their hash; none of the rows."""
    rows = logged_config(run)["made_with"]["rows"]
    return _of_values(artifact_name(run.cfg["task"]["name"], "data"), "dataset", "rows.json", rows)


def model_artifact(run: Run, stage: str, measured: Mapping[str, float]) -> Artifact:
    """The model folder of a stage, with what the stage measured."""
    return _of_folder(_stage_name(run, stage), run.dir / stage / "model", {"stage": stage, "metrics": dict(measured)})


def source_artifacts(run: Run, stage: str, start: ModelSpec) -> list[Artifact]:
    """What a stage used: the data, the model that it started from, and for PPO the run's reward model."""
    used = [data_artifact(run), _of_model(run, start.name, start.revision)]
    reward = run.dir / "reward" / "model"
    if stage == "ppo" and reward.is_dir():
        used.append(_of_folder(_stage_name(run, "reward"), reward))
    return used


def _stage_name(run: Run, stage: str) -> str:
    return artifact_name(*tags(run, stage)[:2], stage)


def _of_model(run: Run, name: str, revision: str | None) -> Artifact:
    folder = Path(name)
    if not folder.is_dir():
        return _of_values(artifact_name(name), "model", "hub.json", {"name": name, "revision": revision})
    own = folder.resolve().is_relative_to(run.dir.resolve())
    return _of_folder(_stage_name(run, folder.parent.name) if own else artifact_name(folder.name), folder)


def _of_folder(name: str, folder: Path, metadata: dict[str, Any] | None = None) -> Artifact:
    import wandb

    made = wandb.Artifact(name, type="model", metadata=metadata)
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / "README.md")  # that one grows
    for file in sorted(files):  # add_dir speaks on the screen
        made.add_file(str(file), file.relative_to(folder).as_posix(), skip_cache=True, policy="immutable")  # no copy
    return made


def _of_values(name: str, kind: str, file: str, values: dict[str, Any]) -> Artifact:
    import wandb

    made = wandb.Artifact(name, type=kind, metadata=values)
    with made.new_file(file) as written:
        written.write(json.dumps(values, sort_keys=True))
    return made
