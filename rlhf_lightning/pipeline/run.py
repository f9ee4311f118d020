"""A run as it goes on, and what all stages need of it: a Trainer, loggers, one way to fit and save."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlhf_lightning.callbacks import (
    BestModel,
    Checkpoints,
    LogSamples,
    Profile,
    Progress,
    StopRequest,
    newest_checkpoint,
)
from rlhf_lightning.callbacks.checkpoints import CURVES, STATE
from rlhf_lightning.callbacks.loggers import restore_curves
from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.rows import PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import Preempted, UserError
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.models import Classifier, LoraSpec, ModelSpec, Policy, RewardModel, load_answerer
from rlhf_lightning.models.saving import write_folder
from rlhf_lightning.pipeline.options import strategy_name
from rlhf_lightning.pipeline.tracking import AXES, finish_wandb, log_model, loggers
from rlhf_lightning.report import RunResults, write_samples
from rlhf_lightning.report import Sample as ReportSample
from rlhf_lightning.report.card import write_cards
from rlhf_lightning.report.screen import show, standard_output
from rlhf_lightning.rewards import ClassifierReward, Reward
from rlhf_lightning.rollout import Engine, NativeEngine
from rlhf_lightning.stages import Sample
from rlhf_lightning.state import State

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


def limits_of(cfg: dict[str, Any]) -> dict[str, Any]:
    """The task's limits, as the models' loaders take them."""
    task = cfg["task"]
    return {
        "max_prompt": task["max_prompt_tokens"],
        "max_completion": task["max_completion_tokens"],
        "system": task["system"],
    }


@contextmanager
def noting_its_end(results: RunResults, what: str) -> Iterator[None]:
    """What is carried out within: if it ends early, the results say how, and what failed; the error goes on.

    Args:
        results: of it.
        what: it is called in the note, such as ``run``.
    """
    try:
        yield
    except (KeyboardInterrupt, Preempted):
        results.status = "interrupted"
        raise
    except Exception as failure:
        results.status = "failed"
        reason = str(failure) if isinstance(failure, UserError) else f"{type(failure).__name__}: {failure}"
        if not any(reason in note for note in results.notes):
            results.notes.append(f"the {what} failed: {reason}")
        raise


class Interrupted(KeyboardInterrupt):
    """The user stopped a stage; what was learnt so far has been saved."""


@dataclass
class Run:
    """A run as it goes on.

    Attributes:
        cfg: the composed config as plain values.
        dir: the run folder.
        sweep: folder of the sweep it belongs to.
        data: every row.
        results: what is reported.
        state: what it remembers of itself, to be gone on with.
        stop: whether it has been told to stop.
        spec: the policy as the next stage finds it.
        policy: the same, loaded, where it already is.
        reward_model: the learned reward, where there is one.
        rewards: PPO's rewards by name, as far as they have been made.
        engine: what draws responses.
        asked: the prompts of the stage predict.
        answers: what each policy answered to the test prompts.
        scores: for each policy, each reward of each answer.
        lineage: the key (see `reuse`) of the stage that made the policy; None where that is none that others could
            have done.
    """

    cfg: dict[str, Any]
    dir: Path
    sweep: Path | None
    data: TaskData
    results: RunResults
    state: State
    stop: StopRequest
    spec: ModelSpec
    policy: Policy | Classifier | None = None
    reward_model: RewardModel | None = None
    rewards: dict[str, Reward] = field(default_factory=dict)
    engine: Engine = field(default_factory=NativeEngine)
    asked: list[PromptRow] = field(default_factory=list)
    answers: dict[str, list[Sample]] = field(default_factory=dict)
    scores: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    lineage: str | None = ""

    def remember(self) -> None:
        """Write down how far the run is; from rank zero alone."""
        if is_rank_zero():
            self.state.write(self.dir)

    @property
    def limits(self) -> dict[str, Any]:
        """As `limits_of` has them."""
        return limits_of(self.cfg)

    @property
    def scoring_device(self) -> torch.device:
        """Where answers are scored: beside the reward model or classifier, where there is one."""
        models = [self.reward_model, *(r for r in self.rewards.values() if isinstance(r, ClassifierReward))]
        return next((model.device for model in models if model is not None), torch.device("cpu"))

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's label set; empty where it has none."""
        return tuple(self.cfg["task"]["format"].get("labels") or ())


def make_trainer(
    run: Run, stage: str, options: dict[str, Any], callbacks: list[L.Callback], logger: Any = None
) -> L.Trainer:
    """The Trainer of a stage: the group `trainer`, what the stage asks of it, and the loggers."""
    folder = run.dir / stage
    if stage in ("evaluate", "predict") and strategy_name(run.cfg["trainer"]).startswith("deepspeed"):
        options = {**options, "strategy": "ddp"}  # its engine is for training; the weights are whole on each device
    if run.cfg["trainer"]["enable_progress_bar"]:
        callbacks = [*callbacks, Progress()]
    return instantiate(
        {**run.cfg["trainer"], **options, "default_root_dir": str(folder)},
        callbacks=callbacks,
        logger=loggers(run, stage) if logger is None else logger,
    )


def fit(
    run: Run,
    stage: str,
    module: L.LightningModule,
    data: L.LightningDataModule,
    options: dict[str, Any],
    save: Callable[[Path], Any],
    callbacks: Sequence[L.Callback] = (),
    best_by: tuple[str, str] | None = None,
    origin: ModelSpec | None = None,
) -> dict[str, float]:
    """Train, and export the model: also after Ctrl-C or a reward that fails, which then ends the run.

    It begins with the newest checkpoint of the stage, if there is one.

    Args:
        run: the run.
        stage: its name, and that of its folder.
        module, data: what is trained, and on what.
        options: of the Trainer, for this stage.
        save: saves the model into a folder; called on every rank.
        callbacks: further ones.
        best_by: the held-out metric by which the exported model is chosen, and ``max`` or ``min``; None is the last.
        origin: the model that was started from; None is the run's policy.

    Returns:
        The last value of everything logged.

    Raises:
        UserError: if not one optimizer step was taken, or what stopped the training.
        Preempted: if the run was told to stop; the stage goes on from there when it is resumed.
    """
    folder, settings = run.dir / stage, run.cfg["checkpoint"]
    best = BestModel(folder / "best", *best_by, save) if best_by else None
    keeper = Checkpoints(
        folder / "checkpoints", folder / CURVES, 60 * settings["minutes"], settings["keep"], run.stop, best
    )
    start = newest_checkpoint(keeper.folder)
    profiles = [Profile(folder, active=1 if stage == "ppo" else 2)] if run.cfg["profile"] else []  # a round is long
    watching = [LogSamples(stage, AXES[stage]), *callbacks, *([best] if best else []), keeper, *profiles]
    options = {**options, "enable_checkpointing": True}
    if not data.validation:  # type: ignore[attr-defined]
        options["limit_val_batches"] = 0  # a validation of nothing would be a place where no checkpoint is saved
    since = None if start is None else int(start.name)
    trainer = make_trainer(run, stage, options, watching, loggers(run, stage, since))
    if start is not None:
        say(f"{stage} goes on from {start}")
        if is_rank_zero() and (start / CURVES).exists():
            restore_curves(trainer.loggers[0], start / CURVES)  # type: ignore[arg-type]
    interrupted, failure = False, None
    try:
        trainer.fit(module, datamodule=data, ckpt_path=None if start is None else str(start / STATE))
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        interrupted = True
    except Preempted:
        finish_wandb(run)
        raise
    except UserError as error:
        if not trainer.global_step:
            raise
        failure = error
    finally:
        for text in (text for profile in profiles for text in profile.told):
            say(f"{stage}: {text}")
    interrupted = interrupted or trainer.interrupted
    if not trainer.global_step and not interrupted:
        raise UserError(
            f"{stage} took no optimizer step: there are fewer rows than one batch over all devices, or a limit of the "
            "trainer (limit_train_batches) is too low"
        )
    measured = {**keeper.metrics, **{name: float(value) for name, value in trainer.callback_metrics.items()}}
    steps = trainer.global_step
    if best is not None and best.seen not in (None, steps) and not interrupted and failure is None:
        trainer.validate(module, datamodule=data, verbose=False)  # the last steps had no look at the held-out rows
    export(run, stage, best, save, steps)
    trainer.strategy.barrier()
    log_model(run, stage, trainer.loggers, measured, origin or run.spec)
    finish_wandb(run)
    if failure is not None:
        run.results.notes.append(f"{stage} failed after {steps} optimizer steps: {failure}")
        raise failure
    if interrupted:
        run.results.notes.append(f"{stage} was interrupted after {steps} optimizer steps")
        raise Interrupted
    return measured


def export(run: Run, stage: str, best: BestModel | None, save: Callable[[Path], Any], steps: int) -> None:
    """Put the stage's model in its place: the best, or the last where none was measured."""
    folder = run.dir / stage / "model"
    if best is None or best.model is None or not best.model.exists():
        save(folder)
        return
    if is_rank_zero():
        write_folder(folder, lambda path: shutil.copytree(best.model, path, dirs_exist_ok=True))  # type: ignore[arg-type]
    name = best.metric.rpartition("/")[2]
    run.results.exported[stage] = best.batches
    run.results.notes.append(
        f"{stage}/model is the policy after {best.step} of {steps} optimizer steps, the best by {name} on the "
        f"validation prompts: {best.score:.4g}" + ("" if best.step == steps else f" (at the end {best.last:.4g})")
    )


def once(run: Run, step: str, work: Callable[[], None]) -> None:
    """Do a step of the run, unless it was done before the run was resumed; then remember that it is done.

    Each step begins with the same random numbers, whatever came before it.
    """
    if step in run.state.done:
        return
    run.stop.check()
    L.seed_everything(run.cfg["seed"], workers=True, verbose=False)
    work()
    run.state.done.append(step)
    settle(run)


def report_samples(run: Run) -> list[ReportSample]:
    """The test rows with what every policy answered, for samples.jsonl."""
    made: dict[int, ReportSample] = {}
    for policy, samples in run.answers.items():
        scores = run.scores.get(policy, {})
        for position, s in enumerate(samples):
            sample = made.setdefault(s.id, ReportSample(s.id, transcript(s.row.prompt.text), s.row.references))
            sample.completions[policy] = s.completion
            sample.scores[policy] = {k: round(float(v[position]), 6) for k, v in scores.items()}
            sample.measures[policy] = {k: round(v, 6) for k, v in s.measures.items()}
    return [sample for _, sample in sorted(made.items())]


def save_results(run: Run) -> None:
    """Write metrics.json, samples.jsonl and the models' cards as they stand."""
    if is_rank_zero():
        run.results.write(run.dir / "metrics.json")
        write_samples(run.dir / "samples.jsonl", report_samples(run))
        write_cards(run.dir, run.results, run.cfg, run.state.data)


def settle(run: Run) -> None:
    """Write down the results as they stand: those with which the run goes on when it is resumed."""
    save_results(run)
    run.state.results = run.results.to_dict()
    run.remember()


def policy_of(run: Run) -> Policy | Classifier:
    """The policy as the last stage exported it, to be asked and not to be trained."""
    if run.policy is None:
        run.policy = load_answerer(replace(run.spec, lora=LoraSpec()), **run.limits, labels=run.labels)
    return run.policy


def tell(results: RunResults, notes: Sequence[str]) -> None:
    """Say something now, and again in the report."""
    for note in notes:
        say(f"Note: {note}")
    results.notes += notes


@rank_zero_only
def say(text: str, rule: bool = False) -> None:
    """One line on the screen."""
    from rich.console import Console
    from rich.text import Text

    if rule:
        Console(highlight=False).rule(text, align="left")
    else:
        show(standard_output(), Text(text))
