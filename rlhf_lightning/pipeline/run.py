"""A run as it goes on, and what all stages need of it: a Trainer, loggers, one way to fit and save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlhf_lightning.callbacks import Alarms, LogSamples, Progress
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.models import Classifier, ModelSpec, Policy, RewardModel
from rlhf_lightning.report import RunResults
from rlhf_lightning.report.secrets import hide_secrets
from rlhf_lightning.rewards import Reward
from rlhf_lightning.stages import Sample

PACKAGES = (
    "rlhf-lightning",
    "torch",
    "lightning",
    "transformers",
    "hydra-core",
    "torchmetrics",
    "sacrebleu",
    "rouge-score",
)


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Interrupted(KeyboardInterrupt):
    """The user stopped a stage; what was learnt so far has been saved."""


@dataclass
class Run:
    """A run as it goes on.

    Attributes:
        cfg: the composed config as plain values.
        dir: the run folder.
        group: name of the sweep it belongs to.
        data: every row.
        results: what is reported.
        spec: the policy as the next stage finds it.
        policy: the same, loaded, where it already is.
        reward_model: the learned reward, where there is one.
        rewards: PPO's rewards by name, as far as they have been made.
        asked: the prompts of the stage predict.
        answers: what each policy answered to the test prompts.
        scores: for each policy, each reward of each answer.
    """

    cfg: dict[str, Any]
    dir: Path
    group: str | None
    data: TaskData
    results: RunResults
    spec: ModelSpec
    policy: Policy | Classifier | None = None
    reward_model: RewardModel | None = None
    rewards: dict[str, Reward] = field(default_factory=dict)
    asked: list[PromptRow] = field(default_factory=list)
    answers: dict[str, list[Sample]] = field(default_factory=dict)
    scores: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, Any]:
        """The task's limits, as the models' loaders take them."""
        task = self.cfg["task"]
        return {
            "max_prompt": task["max_prompt_tokens"],
            "max_completion": task["max_completion_tokens"],
            "system": task["system"],
        }

    @property
    def scoring_device(self) -> torch.device:
        """Where answers are scored: beside the reward model, where there is one."""
        return self.reward_model.device if self.reward_model is not None else torch.device("cpu")

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's label set; empty where it has none."""
        return tuple(self.cfg["task"]["format"].get("labels") or ())


def make_trainer(
    run: Run, stage: str, options: dict[str, Any], callbacks: list[L.Callback], logger: Any = None
) -> L.Trainer:
    """The Trainer of a stage: the group `trainer`, what the stage asks of it, and the loggers."""
    folder = run.dir / stage
    if run.cfg["trainer"]["enable_progress_bar"]:
        callbacks = [*callbacks, Progress()]
    return instantiate(
        {**run.cfg["trainer"], **options, "default_root_dir": str(folder)},
        callbacks=callbacks,
        logger=loggers(run, stage) if logger is None else logger,
    )


def loggers(run: Run, stage: str) -> list[Any]:
    """The CSV logger, always, and those of the group `logger`."""
    made: list[Any] = [CSVLogger(run.dir, name=stage, version="")]
    for name, logger in run.cfg["logger"].items():
        extra: dict[str, Any] = {"save_dir": str(run.dir)}
        if name == "wandb":
            model = run.cfg["model"]["name"] or run.cfg["model"]["tiny"]["kind"]
            extra |= {
                "name": f"{run.dir.name}-{stage}",
                "group": run.group or run.dir.name,
                "job_type": stage,
                "tags": [run.cfg["task"]["name"], stage, Path(str(model)).name[:60]],
                "config": hide_secrets({k: v for k, v in run.cfg.items() if k not in ("paths", "logger")})
                | {"versions": run.results.versions},
            }
        # What the user gave goes first.
        made.append(instantiate(logger, **{k: v for k, v in extra.items() if k not in logger}))
    return made


def fit(
    run: Run,
    stage: str,
    module: L.LightningModule,
    data: L.LightningDataModule,
    options: dict[str, Any],
    save: Callable[[Path], Any],
    callbacks: Sequence[L.Callback] = (),
) -> dict[str, Any]:
    """Train, and save the model: also after Ctrl-C or a reward that fails, which then ends the run.

    Args:
        run: the run.
        stage: its name, and that of its folder.
        module, data: what is trained, and on what.
        options: of the Trainer, for this stage.
        save: saves the model into a folder; called on every rank.
        callbacks: further ones.

    Returns:
        The last value of everything logged.

    Raises:
        UserError: if not one optimizer step was taken, or what stopped the training.
    """
    alarms = Alarms()
    trainer = make_trainer(run, stage, options, [alarms, LogSamples(stage), *callbacks])
    interrupted, failure = False, None
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        interrupted = True
    except UserError as error:
        if not trainer.global_step:
            raise
        failure = error
    interrupted = interrupted or trainer.interrupted
    if not trainer.global_step and not interrupted:
        raise UserError(
            f"{stage} took no optimizer step: there are fewer rows than one batch over all devices, or a limit of the "
            "trainer (max_time, limit_train_batches) is too low"
        )
    measured = dict(trainer.callback_metrics)
    run.results.notes += [f"{stage}: alarm: {text}" for text in alarms.raised.values()]
    save(run.dir / stage / "model")
    trainer.strategy.barrier()
    finish_wandb(run)
    if failure is not None:
        run.results.notes.append(f"{stage} failed after {trainer.global_step} optimizer steps: {failure}")
        raise failure
    if interrupted:
        run.results.notes.append(f"{stage} was interrupted after {trainer.global_step} optimizer steps")
        raise Interrupted
    return measured


def finish_wandb(run: Run) -> None:
    """End the live W&B run: a second logger in this process would otherwise write into it."""
    if "wandb" in run.cfg["logger"]:
        import wandb

        wandb.finish()


def tell(results: RunResults, notes: Sequence[str]) -> None:
    """Say something now, and again in the report."""
    for note in notes:
        say(f"Note: {note}")
    results.notes += notes


@rank_zero_only
def say(text: str, rule: bool = False) -> None:
    """One line on the screen."""
    from rich.console import Console

    console = Console(highlight=False)
    console.rule(text, align="left") if rule else console.print(text, markup=False)
