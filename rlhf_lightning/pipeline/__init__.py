"""The stages in order, from a composed config to a run folder with models, figures and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L

from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support import instantiate, plain
from rlhf_lightning.pipeline.checks import check_models, check_parts, check_stages, settle_sample
from rlhf_lightning.pipeline.measure import finish, measure, save_results
from rlhf_lightning.pipeline.options import check_options, processes
from rlhf_lightning.pipeline.run import PACKAGES, Interrupted, Run, say, tell
from rlhf_lightning.pipeline.stages import base_model, predict_rows, run_ppo, run_predict, run_reward, run_sft
from rlhf_lightning.report import RunResults

__all__ = ["Interrupted", "Run", "run_pipeline"]


def run_pipeline(config: Any, directory: Path, group: str | None = None) -> float | None:
    """Run the stages of a composed config and write everything under ``directory``.

    Args:
        config: the composed config.
        directory: the run folder.
        group: name of the sweep this run belongs to.

    Returns:
        The objective of the last policy, or None where nothing was measured.

    Raises:
        UserError: for a mistake in config, data or model; before any training where it can be known by then.
        Interrupted: after Ctrl-C; the run folder is complete up to then.
    """
    cfg = plain(config)
    check_options(cfg)
    if group is not None and processes(cfg["trainer"]) > 1:
        raise UserError("a sweep (-m) runs on one device: give trainer.devices=1, or start the jobs one by one")
    L.seed_everything(cfg["seed"], workers=True, verbose=False)
    check_stages(cfg)
    notes = settle_sample(cfg)
    data_config = {k: v for k, v in cfg["data"].items() if k != "gold"}
    form, metrics = instantiate(cfg["task"]["format"]), bool(cfg["task"]["metrics"])
    data: TaskData = instantiate(data_config, format=form, need_references=metrics)
    check_parts(cfg, data)
    asked = predict_rows(cfg, data.notes) if "predict" in cfg["stages"] else []
    results = RunResults(
        task=cfg["task"]["name"],
        seed=cfg["seed"],
        status="running",
        stages=list(cfg["stages"]),
        objective="gold" if cfg["data"]["gold"] else cfg["task"]["objective"],
        versions={name: version(name) for name in PACKAGES},
    )
    tell(results, notes + data.notes)
    run = Run(cfg, directory, group, data, results, base_model(cfg, data, directory), asked=asked)
    check_models(run)
    steps: dict[str, Callable[[Run], None]] = {
        "sft": run_sft,
        "reward": run_reward,
        "ppo": run_ppo,
        "evaluate": lambda run: None,  # every policy is measured anyway
        "predict": run_predict,
    }
    try:
        if set(cfg["stages"]) != {"predict"} and set(cfg["stages"]) != {"reward"}:
            measure(run, "base" if cfg["policy"] is None else "policy", run.spec.name)
        for stage in cfg["stages"]:
            started = time.perf_counter()
            say(f"{stage}", rule=True)
            steps[stage](run)
            run.results.seconds[stage] = round(time.perf_counter() - started, 1)
            save_results(run)
        run.results.status = "finished"
    except KeyboardInterrupt:
        run.results.status = "interrupted"
        raise
    except Exception:
        run.results.status = "failed"
        raise
    finally:
        finish(run)
    last = run.results.policies[-1].metrics if run.results.policies else {}
    return last.get(run.results.objective or "")
