"""The loggers of a run: what each of them is told about it, and the runs that it is kept under."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlhf_lightning.callbacks.loggers import WandbRun, wandb_key, wandb_mode
from rlhf_lightning.callbacks.loggers import finish_wandb as end_live_run
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.report.code import code_version
from rlhf_lightning.report.secrets import hide_paths, hide_secrets
from rlhf_lightning.state import flat

if TYPE_CHECKING:
    from rlhf_lightning.models import ModelSpec
    from rlhf_lightning.pipeline.run import Run

AXES = {"sft": "sft/examples", "reward": "reward/pairs", "ppo": "ppo/episodes"}
"""What the curves of a stage are drawn over."""

GOALS = {
    "sft": {"loss": "min", "token_accuracy": "max"},
    "reward": {"loss": "min", "accuracy": "max", "val/loss": "min", "val/accuracy": "max"}
    | {"val/calibration_error": "min"},
    "ppo": {"score": "max", "total_reward": "max", "eos_rate": "max"},
}
"""Which way is better, of what a stage logs beside the measures of answers."""

PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboard", "mlflow": "mlflow"}
"""What a logger needs."""

TAG = 60
"""Characters of a tag: W&B takes 64."""


def check_loggers(cfg: dict[str, Any]) -> None:
    """Refuse loggers that can't be had, before anything is trained.

    Raises:
        UserError: for a package that is not there, naming the extra; for W&B asked to be online where no key is set, or
            in a mode that there is not.
    """
    for name in cfg["logger"]:
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise UserError(
                f"logger={name} needs the package {package}: pip install 'rlhf-lightning[{name}]', or leave it out"
            )
    if "wandb" not in cfg["logger"]:
        return
    mode = wandb_mode(cfg["logger"]["wandb"].get("offline"))
    if mode not in ("online", "offline", "disabled"):
        raise UserError(f"WANDB_MODE={mode}: it must be online, offline or disabled")
    if mode == "online" and wandb_key() is None:
        raise UserError(
            "W&B is asked to be online, but has no key: set WANDB_API_KEY or call `wandb login`; or leave out "
            "logger.wandb.offline and WANDB_MODE, to be online exactly where there is a key"
        )


def loggers(run: Run, stage: str, since: int | None = None) -> list[Any]:
    """The CSV logger, always, and those of the group `logger`.

    Args:
        run: the run.
        stage: whose they are.
        since: batches that the stage goes on from, where it is resumed.
    """
    made: list[Any] = [CSVLogger(run.dir, name=stage, version="")]
    for name, options in run.cfg["logger"].items():
        told = {"wandb": wandb_options, "tensorboard": tensorboard_options, "mlflow": mlflow_options}.get(name)
        extra = {"save_dir": str(run.dir)} if told is None else told(run, stage, since)
        # What the user gave goes first.
        made.append(instantiate(options, **{k: v for k, v in extra.items() if k not in options}))
    if stage in AXES:
        _introduce(run, stage, made)
    return made


def wandb_options(run: Run, stage: str, since: int | None) -> dict[str, Any]:
    """What W&B is told of a stage's run."""
    return {
        "save_dir": str(run.dir),
        "name": f"{run.dir.name}-{stage}",
        "group": run_group(run),
        "job_type": stage,
        "id": wandb_id(run, stage),
        "resume": "allow",
        "tags": tags(run, stage),
        "config": logged_config(run),
        "axis": AXES.get(stage),
        "goals": goals(run, stage),
        "in_sweep": stage == "evaluate",
    }


def tensorboard_options(run: Run, stage: str, since: int | None) -> dict[str, Any]:
    """Where TensorBoard's files go; a resumed stage drops what was logged after it was saved."""
    folder = {"save_dir": str(run.dir), "name": "tensorboard", "version": stage, "default_hp_metric": False}
    return folder if since is None else {**folder, "purge_step": since}


def mlflow_options(run: Run, stage: str, since: int | None) -> dict[str, Any]:
    """What MLflow is told of a stage's run."""
    task, model, method = tags(run, stage)
    return {
        "save_dir": str(run.dir),
        "run_name": f"{run.dir.name}-{stage}",
        "run_id": run.state.mlflow.get(stage),
        "tags": {"group": run_group(run), "stage": stage, "task": task, "model": model, "method": method},
    }


def run_group(run: Run) -> str:
    """What a run's stages belong together by: its sweep, else the run itself."""
    return run.sweep.name if run.sweep else os.environ.get("WANDB_SWEEP_ID") or run.dir.name


def tags(run: Run, stage: str) -> list[str]:
    """Task, model and method; the method of the held-out figures is the last that trained the policy."""
    model = run.cfg["policy"] or run.cfg["model"]["name"] or f"tiny-{run.cfg['model']['tiny']['kind']}"
    trained = [name for name in run.cfg["stages"] if name in AXES]
    method = stage if stage in AXES else (trained or [stage])[-1]
    return [run.cfg["task"]["name"][:TAG], Path(str(model)).name[:TAG], method]


def logged_config(run: Run) -> dict[str, Any]:
    """The composed config, without secrets and places of this machine, and under ``made_with`` the versions of code and
    libraries, and for each kind of rows how many there are and their hash."""
    kept = {name: value for name, value in run.cfg.items() if name not in ("paths", "logger")}
    rows = {part: {"rows": count, "hash": digest} for part, (count, digest) in run.state.data.items() if count}
    made_with = {"code": _code_version(), "versions": run.results.versions, "rows": rows}
    return {**hide_paths(hide_secrets(kept)), "made_with": made_with}


@cache
def _code_version() -> dict[str, Any]:
    return code_version()


def goals(run: Run, stage: str) -> dict[str, str]:
    """Metrics of a stage by the names they are logged under, ``max`` or ``min``.

    None of the held-out figures: of those there is one value each, which the summary holds as it is.
    """
    if stage not in AXES:
        return {}
    known = {f"{stage}/{name}": goal for name, goal in GOALS[stage].items()}
    if stage != "reward":
        known |= {f"{stage}/val/{name}": goal for name, goal in run.results.directions.items() if goal is not None}
    if stage == "ppo":
        for name, reward in run.cfg["ppo"]["rewards"].items():
            goal = "min" if reward["weight"] < 0 else "max"
            known |= {f"ppo/reward/{name}": goal, f"ppo/val/{name}": goal}
    return known


def wandb_id(run: Run, stage: str) -> str:
    """The id of a stage's W&B run, the same when the run is resumed; W&B's sweep agent gives that of the figures."""
    given = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") and stage == "evaluate" else None
    known = given or run.state.wandb.get(stage) or uuid.uuid4().hex[:8]
    if run.state.wandb.get(stage) != known:
        run.state.wandb[stage] = known
        run.remember()
    return known


@rank_zero_only
def _introduce(run: Run, stage: str, made: Sequence[Logger]) -> None:
    """Give the settings to the loggers that take them apart from their arguments; once for each of their runs."""
    settings = plain_settings(logged_config(run))
    for logger in made:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings)
        elif isinstance(logger, MLFlowLogger) and stage not in run.state.mlflow:
            logger.log_hyperparams(settings)
            run.state.mlflow[stage] = str(logger.run_id)
            run.remember()


def plain_settings(config: dict[str, Any]) -> dict[str, Any]:
    """A config one level deep, its names as MLflow takes them."""
    return {re.sub(r"[^\w./ -]", "_", name): value for name, value in flat(config).items()}


# --- artifacts -------------------------------------------------------------------------------------------------------


@rank_zero_only
def log_model(run: Run, stage: str, made: Sequence[Logger], measured: Mapping[str, float], start: ModelSpec) -> None:
    """Where `logger.wandb.artifacts` asks for it: a stage's model as a W&B artifact, linked to what it was made of.

    Offline W&B can't link a run to what it used; the model alone is logged then.
    """
    for logger in made:
        if isinstance(logger, WandbRun) and logger.artifacts and logger.mode != "disabled":
            from rlhf_lightning.pipeline.artifacts import artifact_name, model_artifact, source_artifacts

            for source in source_artifacts(run, stage, start) if logger.mode == "online" else []:
                logger.send(methodcaller("use_artifact", source))
            model, alias = model_artifact(run, stage, measured), artifact_name(run.dir.name)
            logger.send(methodcaller("log_artifact", model, aliases=[alias]))


# --- the end ---------------------------------------------------------------------------------------------------------


def finish_wandb(run: Run) -> None:
    """End the live W&B run: a second logger in this process would otherwise write into it."""
    if "wandb" in run.cfg["logger"]:
        end_live_run()
