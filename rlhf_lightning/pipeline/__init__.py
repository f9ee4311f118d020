"""The stages in order, from a composed config to a run folder with models, figures and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L

from rlhf_lightning.callbacks import Pruned, StopRequest
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.early import check_stages
from rlhf_lightning.feedback.lineage import note_models
from rlhf_lightning.hydra_support import instantiate, plain
from rlhf_lightning.pipeline.checks import check_models, check_parts, settle_sample
from rlhf_lightning.pipeline.dry_run import dry_run
from rlhf_lightning.pipeline.measure import finish, measure_shared, recall
from rlhf_lightning.pipeline.objectives import objective_of
from rlhf_lightning.pipeline.options import check_options
from rlhf_lightning.pipeline.reuse import code_hash
from rlhf_lightning.pipeline.run import (
    PACKAGES,
    Interrupted,
    Run,
    is_rank_zero,
    noting_its_end,
    once,
    say,
    settle,
    tell,
)
from rlhf_lightning.pipeline.stages import base_model, predict_rows, run_ppo, run_predict, run_reward, run_sft
from rlhf_lightning.pipeline.tracking import check_loggers
from rlhf_lightning.processes import wait_for_all
from rlhf_lightning.report import RunResults
from rlhf_lightning.report.results import DONE
from rlhf_lightning.state import State, clear, fingerprint, flat, named_files, open_state, row_files

__all__ = ["PACKAGES", "Interrupted", "Run", "check_options", "objective_of", "read_data", "run_pipeline"]


STAGES: dict[str, Callable[[Run], None]] = {
    "sft": run_sft,
    "reward": run_reward,
    "ppo": run_ppo,
    "evaluate": lambda run: None,  # every policy is measured anyway
    "predict": run_predict,
}


def run_pipeline(
    config: Any,
    directory: Path,
    sweep: Path | None = None,
    overrides: Sequence[str] = (),
    data: TaskData | None = None,
) -> float | None:
    """Run the stages of a composed config and write everything under ``directory``.

    Args:
        config: the composed config.
        directory: the run folder.
        sweep: folder of the sweep this run belongs to.
        overrides: the options that the run was started with, by which it is found to be resumed.
        data: the rows, where they have been read already.

    Returns:
        The objective of the last policy, or None where nothing was measured, or a sweep ended the run early.

    Raises:
        UserError: for a mistake in config, data or model; before any training where it can be known by then.
        Interrupted: after Ctrl-C; the run folder is complete up to then.
        Preempted: after SIGTERM, or when ``max_time`` is used up; ``resume=true`` goes on.
    """
    cfg = plain(config)
    check_options(cfg)
    with StopRequest(cfg["max_time"]) as stop:
        if cfg["dry_run"]:
            dry_run(lambda place: prepare({**cfg, "resume": False}, place, sweep, [], stop), directory)
            return None
        run = prepare(cfg, directory, sweep, list(overrides), stop, data)
        if run.results.status in DONE:
            say(f"the run in {directory} is {run.results.status}: there is nothing to resume")
            return run.results.outcome
        if is_rank_zero():
            for text in note_models(directory, named_files(cfg)):
                say(f"Note: {text}")
        try:
            with noting_its_end(run.results, "run"):
                try:
                    carry_out(run)
                    run.results.status = "finished"
                except Pruned as early:
                    run.results.status = "pruned"
                    run.results.notes.append(str(early))
                    if is_rank_zero():
                        clear(directory)
        finally:
            finish(run)
        settle(run)
        return run.results.outcome


def read_data(cfg: dict[str, Any]) -> TaskData:
    """Every row of a run; what the user's files replaced is among the notes."""
    notes = settle_sample(cfg)
    data_config = {k: v for k, v in cfg["data"].items() if k != "gold"}
    form, metrics = instantiate(cfg["task"]["format"]), bool(cfg["task"]["metrics"])
    data: TaskData = instantiate(data_config, format=form, need_references=metrics)
    data.notes[:0] = notes
    return data


def prepare(
    cfg: dict[str, Any],
    directory: Path,
    sweep: Path | None,
    overrides: list[str],
    stop: StopRequest,
    data: TaskData | None = None,
) -> Run:
    """Read the data and load the models, refuse what doesn't fit, and take up what was done before."""
    options, files = flat(cfg), row_files(cfg)
    check_stages(cfg)
    check_loggers(cfg)
    engine = instantiate(cfg["rollout"])
    L.seed_everything(cfg["seed"], workers=True, verbose=False)
    data = data or read_data(cfg)
    check_parts(cfg, data)
    asked = predict_rows(cfg, data.notes) if "predict" in cfg["stages"] else []
    new = State(overrides, options, fingerprint(data, asked), code=code_hash(), files=files)
    state, told = open_state(directory, new, cfg["resume"], sweep is not None)
    for text in told:
        say(f"Note: {text}")
    resumed = bool(state.results)
    if resumed:
        results = RunResults.from_dict(state.results, directory / "state.json")
    else:
        results = RunResults(
            task=cfg["task"]["name"],
            seed=cfg["seed"],
            status="running",
            stages=list(cfg["stages"]),
            objective=objective_of(cfg),
            versions={name: version(name) for name in PACKAGES},
        )
        tell(results, data.notes)
    spec = base_model(cfg, data, directory, keep=resumed)
    wait_for_all()
    run = Run(cfg, directory, sweep, data, results, state, stop, spec, engine=engine, asked=asked)
    if resumed and (told or state.code != code_hash()):  # what was done before is not what its options would give now
        run.lineage = None
    if results.status in DONE:
        return run
    check_models(run)
    recall(run)
    if is_rank_zero() and not resumed:
        clear(directory)
    settle(run)
    return run


def carry_out(run: Run) -> None:
    """Measure what the run starts from, then one stage after the other."""
    cfg = run.cfg
    if set(cfg["stages"]) != {"predict"} and set(cfg["stages"]) != {"reward"}:
        name = "base" if cfg["policy"] is None else "policy"
        once(run, "start measured", lambda: measure_shared(run, "start measured", name, run.spec.name))
    for stage in cfg["stages"]:
        before = stage in run.results.seconds
        started = time.perf_counter()
        say(f"{stage}{' (done before)' if before else ''}", rule=True)
        STAGES[stage](run)
        if not before:
            run.results.seconds[stage] = round(time.perf_counter() - started, 1)
            settle(run)
