"""Tables and histograms, to the loggers that can show them: W&B, TensorBoard, MLflow (tables alone)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlhf_lightning.callbacks.loggers import WandbRun


def shows_more_than_numbers(loggers: Sequence[Logger]) -> bool:
    """Whether any of the loggers shows tables."""
    return any(isinstance(logger, (WandbRun, TensorBoardLogger, MLFlowLogger)) for logger in loggers)


@rank_zero_only
def log_table(
    loggers: Sequence[Logger], name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
) -> None:
    """Show a table as it stands at a step."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.log_object(name, partial(_wandb_table, columns, rows), step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, markdown(columns, rows), step)
        elif isinstance(logger, MLFlowLogger):
            content = {"columns": list(columns), "data": [list(row) for row in rows]}  # what mlflow.log_table writes
            logger.experiment.log_dict(logger.run_id, content, f"{name}.json")


@rank_zero_only
def log_histogram(loggers: Sequence[Logger], name: str, values: Sequence[float], step: int) -> None:
    """Show how numbers, at least one, are spread at a step."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.log_object(name, partial(_wandb_histogram, values), step)
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np

            logger.experiment.add_histogram(name, np.asarray(values, dtype=np.float64), step)


def _wandb_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)


def _wandb_histogram(values: Sequence[float]) -> Any:
    import wandb

    return wandb.Histogram(list(values))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as Markdown.

    >>> print(markdown(["prompt", "gold"], [["a | b", 0.5]]))
    | prompt | gold |
    | --- | --- |
    | a \\\\| b | 0.5 |
    """
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", "<br>")
