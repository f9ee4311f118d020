"""What a run has come to, given to its loggers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger

from rlhf_lightning.callbacks.loggers import WandbRun
from rlhf_lightning.callbacks.sinks import log_table
from rlhf_lightning.pipeline.run import say
from rlhf_lightning.pipeline.tracking import finish_wandb, logged_config, loggers, plain_settings
from rlhf_lightning.report.runs import read_run
from rlhf_lightning.report.secrets import hide_paths

if TYPE_CHECKING:
    from rlhf_lightning.pipeline.run import Run
    from rlhf_lightning.report import RunResults, Sample


def held_out_figures(results: RunResults) -> dict[str, float]:
    """The measures of every policy as ``test/<policy>/<measure>``, and of the last one also as ``test/<measure>``."""
    figures = {f"test/{name}": value for name, value in results.policies[-1].metrics.items()}
    for policy in results.policies:
        figures |= {f"test/{policy.name}/{name}": value for name, value in policy.metrics.items()}
    return figures


def policy_table(results: RunResults) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: a policy a row."""
    names = list(dict.fromkeys(name for policy in results.policies for name in policy.metrics))
    return ["policy", *names], [[p.name, *(p.metrics.get(name) for name in names)] for p in results.policies]


def sample_table(results: RunResults, samples: list[Sample]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: a held-out prompt a row, with each policy's answer and its rewards."""
    policies = [policy.name for policy in results.policies]
    scores = [(policy, reward) for policy in policies for reward in results.columns.get("reward", [])]
    columns = ["prompt", "references", *policies, *(f"{policy}: {reward}" for policy, reward in scores)]
    rows = [
        [
            sample.prompt,
            " | ".join(sample.references),
            *(sample.completions.get(policy, "") for policy in policies),
            *(sample.scores.get(policy, {}).get(reward) for policy, reward in scores),
        ]
        for sample in samples
    ]
    return columns, rows


def log_results(run: Run, samples: list[Sample], n: int = 50) -> None:
    """The held-out figures to every logger, under runs of their own (``evaluate``), with the answers to the first ``n``
    prompts and the report, where they can be shown. From rank zero alone.

    W&B's run also holds, in its config under ``report``, what `rlhf_lightning.report.wandb_source` reads it back from.
    """
    results = run.results
    made = loggers(run, "evaluate")[1:] if results.policies and run.cfg["logger"] else []
    figures = held_out_figures(results) if made else {}
    for logger in made:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(plain_settings(logged_config(run)), figures)
        logger.log_metrics(figures)
    if made:
        log_table(made, "test/policies", *policy_table(results), 0)
        log_table(made, "test/samples", *sample_table(results, samples[:n]), 0)
    page = hide_paths((run.dir / "report.html").read_text(encoding="utf-8")) if made else ""
    for logger in made:
        if isinstance(logger, WandbRun):
            logger.log_object("report", partial(_wandb_page, page), 0)
            logger.log_hyperparams({"report": to_be_read_back(run)})
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, page, "report.html")
        logger.finalize("success")
    finish_wandb(run)
    tell_of_sync(run)


def _wandb_page(page: str) -> Any:
    import wandb

    return wandb.Html(page, inject=False)


def to_be_read_back(run: Run) -> dict[str, Any]:
    """The results, the config groups chosen, the options given, and the W&B ids of the stages."""
    folder = read_run(run.dir)
    return {
        "results": hide_paths(run.results.to_dict()),
        "choices": folder.choices,
        "overridden": folder.overridden,
        "stages": dict(run.state.wandb),
    }


def tell_of_sync(run: Run) -> None:
    """Say how the run's offline W&B runs are uploaded; nothing where there are none."""
    folder = run.dir / "wandb"
    if any(folder.glob("offline-run-*")):
        say(f"W&B was offline; to upload: wandb sync {folder}/offline-run-*")
