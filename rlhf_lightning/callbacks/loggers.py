"""Loggers that need more than their class's own arguments."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

SWEEP = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
"""What W&B's sweep agent sets: the run that is to join the sweep, and its parameters."""

FINISH_SECONDS = 300.0
"""How long the end of a stage waits for what W&B has still to upload; the rest is kept for ``wandb sync``."""


def restore_curves(logger: CSVLogger, path: Path) -> None:
    """Let a new logger begin with the rows of a metrics.csv, which it will write as they were."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: value for name, value in row.items() if value != ""} for row in csv.DictReader(file)]
    logger.experiment.metrics += rows


# --- Weights & Biases ------------------------------------------------------------------------------------------------


def wandb_key() -> str | None:
    """The W&B key of this machine's user, if there is one; it is only looked for, never shown."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    import netrc
    from urllib.parse import urlparse

    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        login = netrc.netrc(os.environ.get("NETRC", str(Path.home() / ".netrc"))).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return login[2] if login else None


def wandb_mode(offline: bool | None = None) -> str:
    """``online``, ``offline`` or ``disabled``: what WANDB_MODE says, else ``offline``, else whether there is a key."""
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return {"dryrun": "offline", "run": "online"}.get(mode, mode)
    return "offline" if (wandb_key() is None if offline is None else offline) else "online"


def wandb_logger(
    project: str, entity: str | None = None, offline: bool | None = None, artifacts: bool = False, **kwargs: Any
) -> WandbRun:
    """A `WandbRun` that is offline where no key is set, doesn't speak on the screen, and tells nothing of the machine:
    no host, user, program, command line, git remote or list of packages.

    Args:
        project: W&B project; in a run of W&B's sweep agent that of the sweep.
        entity: user or team; likewise.
        offline: None decides by whether there is a key; WANDB_MODE in the environment goes first.
        artifacts: whether the models of the stages, and what they were made of, become artifacts.
        kwargs: those of `WandbRun`, and group, job_type, tags, config and so on, as `wandb.init` takes them.
    """
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        finish_timeout=FINISH_SECONDS,
        x_transaction_log_flush_interval=1.0,  # seconds: what is lost where the process is killed
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        host="",
        username="",
        email="",
        program="rlhf-train",
    )
    if os.environ.get("WANDB_SWEEP_ID"):
        project, entity = os.environ.get("WANDB_PROJECT", project), os.environ.get("WANDB_ENTITY", entity)
    mode = wandb_mode(offline)
    if os.environ.get("WANDB_MODE") == "":
        del os.environ["WANDB_MODE"]  # W&B refuses to read it
    logger = WandbRun(project=project, entity=entity, mode=mode, artifacts=artifacts, settings=settings, **kwargs)
    logger._wandb_init.pop("anonymous", None)  # Lightning always passes it, and W&B warns that it has no effect
    return logger


class WandbRun(WandbLogger):
    """Lightning's logger, with a run that is no danger to the training, and whose curves have the right axes.

    W&B's own step is the logger's step (batches; PPO's rounds): what is logged at one step makes one row, and W&B
    passes over the steps that it has already, so that a resumed run doubles nothing.

    A W&B that can't be reached when a run begins gets an offline run; one that fails later is left, with a warning.

    Args:
        axis: metric that the curves are drawn over, such as ``ppo/episodes``; all metrics beside it (``ppo/*``) are.
        goals: metrics by name, ``max`` or ``min``: their best value comes into the summary, beside the last.
        in_sweep: whether this is the run that W&B's sweep agent waits for; all others stay out of its sweep.
        artifacts: whether models and data are logged as artifacts.
        kwargs: of `wandb.init`.
    """

    def __init__(
        self,
        axis: str | None = None,
        goals: Mapping[str, str] | None = None,
        in_sweep: bool = False,
        artifacts: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis, self.goals, self.in_sweep, self.artifacts = axis, dict(goals or {}), in_sweep, artifacts
        self.failed = False

    @property
    def mode(self) -> str:
        """``online``, ``offline`` or ``disabled``."""
        return self._wandb_init["mode"]

    @property
    def experiment(self) -> Any:
        """The W&B run, which begins when it is first asked for; on rank zero alone."""
        if self._experiment is not None or getattr(rank_zero_only, "rank", None):
            return super().experiment
        import wandb

        for instead in ("offline", "disabled"):
            try:
                with sweep_environment(self.in_sweep):
                    begun = super().experiment
                break
            except (wandb.Error, OSError) as error:
                reason = " ".join(str(error).split())[:200]
                rank_zero_warn(f"W&B can't be used ({reason}); {self._wandb_init['id']} goes on {instead}")
                self._wandb_init["mode"] = instead
        else:
            begun = super().experiment
        # Lightning has W&B fill in missing steps, which makes a row of zeros where a run is resumed; we leave none out.
        begun.define_metric("*", step_metric="trainer/global_step", step_sync=False)
        if self.axis is not None:
            begun.define_metric(self.axis)
            begun.define_metric(f"{self.axis.partition('/')[0]}/*", step_metric=self.axis)
        for name, goal in self.goals.items():
            begun.define_metric(name, step_metric=self.axis, summary=f"{goal},last")
        return begun

    @rank_zero_only
    def send(self, work: Callable[[Any], Any]) -> None:
        """Do something with the W&B run; if W&B fails in whatever way, warn once and leave it."""
        if self.failed:
            return
        try:
            work(self.experiment)
        except Exception as error:
            self.failed = True
            rank_zero_warn(f"W&B failed, and no more is logged to it: {error}. The training goes on")

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Add to the run's config."""
        self.send(lambda run: run.config.update(dict(params), allow_val_change=True))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers at a step; without one, at the step that W&B is at."""
        if step is None:
            self.send(lambda run: run.log(dict(metrics), commit=False))
        else:
            self.send(lambda run: run.log({**metrics, "trainer/global_step": step}, step=step))

    @rank_zero_only
    def log_object(self, name: str, make: Callable[[], Any], step: int) -> None:
        """Log an object of W&B's, such as a table, at a step; at the one that W&B is at, if that is a later one."""
        self.send(lambda run: run.log({name: make()}, step=max(step, run.step)))


@contextmanager
def sweep_environment(joins: bool) -> Iterator[None]:
    """Let a W&B run that begins within it join the sweep of W&B's agent, or not, where such an agent has started us."""
    if not os.environ.get("WANDB_SWEEP_ID"):
        yield
        return
    import wandb

    wandb.teardown()  # it reads the environment once
    hidden = {} if joins else {name: os.environ.pop(name) for name in SWEEP if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def finish_wandb() -> None:
    """End the live W&B run, if there is one: a second logger in this process would otherwise write into it."""
    import wandb

    try:
        wandb.finish()
    except (wandb.Error, OSError) as error:
        rank_zero_warn(f"W&B could not end its run: {error}")


# --- MLflow ----------------------------------------------------------------------------------------------------------


def mlflow_logger(
    experiment_name: str,
    save_dir: str,
    run_name: str,
    tracking_uri: str | None = None,
    run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> MLFlowLogger:
    """Lightning's `MLFlowLogger`, to a data base in the run folder unless there is a server, without user and program.

    Args:
        experiment_name: MLflow experiment.
        save_dir: where ``mlflow.db`` and ``mlruns/`` go.
        run_name: of the MLflow run.
        tracking_uri: None is MLFLOW_TRACKING_URI of the environment, else the data base.
        run_id: a run to go on with.
        tags: of the MLflow run.
    """
    for name, level in {
        "mlflow": logging.WARNING,
        "alembic": logging.WARNING,
        MLFlowLogger.__module__: logging.ERROR,
    }.items():
        logging.getLogger(name).setLevel(level)  # that a data base or an experiment is new needs no word
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    unnamed = {"mlflow.user": "", "mlflow.source.name": "rlhf-train", "mlflow.source.git.commit": ""}
    return MLFlowLogger(
        experiment_name=experiment_name,
        run_name=run_name,
        tracking_uri=uri or f"sqlite:///{Path(save_dir).resolve() / 'mlflow.db'}",
        artifact_location=None if uri else (Path(save_dir).resolve() / "mlruns").as_uri(),
        run_id=run_id,
        tags={**unnamed, **(tags or {})},
    )
