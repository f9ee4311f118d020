"""A saved view of a W&B project: what came of which settings, at which KL, and how it was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.runs import Run, differing_settings

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

NAME = "rlhf-lightning"
CURVES = {
    "ppo": ("ppo/episodes", ("score", "kl", "length", "entropy", "eos_rate")),
    "reward": ("reward/pairs", ("loss", "accuracy", "val/accuracy")),
    "sft": ("sft/examples", ("loss", "token_accuracy")),
}
"""For each stage what its curves are drawn over, and which are shown."""

SETTINGS = 6
"""Settings that differ among the runs, at most, as axes of the parallel coordinates."""


def save_workspace(path: str, runs: Sequence[Run]) -> str:
    """Save a view of the project, and return its address.

    Args:
        path: ``ENTITY/PROJECT``.
        runs: those of the project, or of run folders that were logged to it; they say which metrics and settings count.

    Raises:
        UserError: without the package wandb-workspaces or a key, for another path, or if W&B refuses.
    """
    from rlhf_lightning.report.wandb_source import connect

    view = build_workspace(path, runs)
    connect()
    try:
        view.save()
    except Exception as error:  # the package raises what its HTTP client does
        raise UserError(f"W&B did not save the workspace of {path}: {' '.join(str(error).split())[:300]}") from error
    return view.url


def build_workspace(path: str, runs: Sequence[Run]) -> Workspace:
    """The view, not yet saved.

    Raises:
        UserError: without the package wandb-workspaces, or for a path that is not ``ENTITY/PROJECT``.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError(
            "a W&B workspace needs the package wandb-workspaces: pip install 'rlhf-lightning[wandb-workspaces]'"
        ) from error
    entity, _, project = path.partition("/")
    if not (entity and project) or "/" in project:
        raise UserError(f"--wandb {path}: give ENTITY/PROJECT")
    metrics = list(dict.fromkeys(run.results.objective for run in runs if run.results.objective))
    tasks = list(dict.fromkeys(name for run in runs for name in run.results.columns.get("task", [])))
    differing = [name for name in differing_settings(runs) if name not in ("task", "seed")][:SETTINGS]
    outcome: list[Any] = [
        *(wr.ScatterPlot(title=f"{name} over KL", x=_summary("kl"), y=_summary(name)) for name in metrics),
        wr.ParallelCoordinatesPlot(
            title="Settings and what came of them",
            columns=[
                *(wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name)) for name in differing),
                *(wr.ParallelCoordinatesPlotColumn(metric=_summary(name)) for name in ("kl", "length", *metrics)),
            ],
            layout=wr.Layout(w=24, h=9),
        ),
        wr.RunComparer(diff_only="split", layout=wr.Layout(w=24, h=9)),
    ]
    tables = ("test/policies", "test/samples", "ppo/val/samples", "sft/val/samples")
    samples: list[Any] = [wr.WeavePanelSummaryTable(table_name=name) for name in tables]
    shown = list(dict.fromkeys([*metrics, "kl", "length", *tasks]))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name="Held-out results", panels=outcome, is_open=True),
            *(_curves(stage, metrics, wr.Config(differing[0]) if differing else "Group") for stage in CURVES),
            ws.Section(name="Samples", panels=samples, is_open=True),
        ],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(pinned_columns=[f"summary:test/{name}" for name in shown]),
    )


def _summary(name: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.SummaryMetric(f"test/{name}")


def _curves(stage: str, metrics: Sequence[str], groupby: Any) -> Section:
    """A stage's curves: means and spread of runs with the same setting, or of a sweep whose settings are the same."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    axis, names = CURVES[stage]
    held_out = [f"val/{name}" for name in metrics] if stage != "reward" else []
    panels: list[Any] = [
        wr.LinePlot(title=name, x=axis, y=[f"{stage}/{name}"], groupby=groupby, groupby_rangefunc="stddev")
        for name in [*held_out, *names]
    ]
    return ws.Section(name=f"Learning curves: {stage}", panels=panels, is_open=stage == "ppo")
