"""Runs from W&B: the same as from the run folders that were logged there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
import yaml

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.curves import read_curves
from rlhf_lightning.report.runs import read_run
from rlhf_lightning.report.wandb_source import runs_of_project


class Api:
    """What is used of `wandb.Api`, over runs in memory."""

    def __init__(self, runs: list[Any]) -> None:
        self.known = {run.id: run for run in runs}

    def runs(self, path: str, filters: dict[str, str], order: str) -> list[Any]:
        if path != "team/project":
            raise ValueError(f"Could not find project {path}")
        return [run for run in self.known.values() if run.job_type == filters["jobType"]]

    def run(self, path: str) -> Any:
        return self.known[path.removeprefix("team/project/")]


def online(id: str, job_type: str, group: str = "sweep", config: dict | None = None, rows: list[dict] = ()) -> Any:
    return SimpleNamespace(
        id=id,
        name=f"0-{job_type}",
        group=group,
        job_type=job_type,
        config=config or {},
        scan_history=lambda: iter(rows),
    )


def as_logged(folder: Path, id: str = "e1") -> list[Any]:
    """The W&B runs of a run folder."""
    run = read_run(folder)
    report = {
        "results": json.loads((folder / "metrics.json").read_text()),
        "choices": run.choices,
        "overridden": run.overridden,
        "stages": {stage: f"{id}-{stage}" for stage in run.results.stages} | {"evaluate": id},
    }
    settings = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    config = {**settings, "made_with": {"code": {"version": "1"}}, "_wandb": {}, "report": report}
    made = [online(id, "evaluate", config=config)]
    for stage, curves in read_curves(folder, run.results.stages).items():
        steps = sorted({step for curve in curves.values() for step in curve.steps})
        rows = [
            {"_step": i, "_runtime": 1.0, "trainer/global_step": step, f"{stage}/val/samples": {"nrows": 8}}
            | {name: dict(zip(*curve, strict=True)).get(step) for name, curve in curves.items()}
            for i, step in enumerate(steps)
        ]
        made.append(online(f"{id}-{stage}", stage, rows=rows))
    return made


def test_a_run_is_as_in_its_folder(run_dir: Path) -> None:
    """Results, settings, groups chosen, options given and learning curves."""
    (run,) = runs_of_project("team/project", Api(as_logged(run_dir)))
    there = read_run(run_dir)
    assert run.results == there.results
    assert (run.settings, run.choices, run.overridden) == (there.settings, there.choices, there.overridden)
    assert read_curves(run.path, run.results.stages) == read_curves(run_dir, there.results.stages)
    assert run.path.parts[-2:] == ("sweep", "0")


def test_runs_of_one_name_are_told_apart(run_dir: Path) -> None:
    runs = runs_of_project("team/project", Api([*as_logged(run_dir, "e1"), *as_logged(run_dir, "e2")]))
    assert len({run.path for run in runs}) == 2


def test_numbers_that_w_and_b_writes_as_words(run_dir: Path) -> None:
    known = as_logged(run_dir)
    rows = [{"_step": 0, "ppo/kl": "NaN", "ppo/score": 1.5, "text": "NaN?"}]
    known[-1].scan_history = lambda: iter(rows)
    (run,) = runs_of_project("team/project", Api(known))
    assert read_curves(run.path, ["ppo"])["ppo"]["ppo/score"].values == [1.5]
    assert set(read_curves(run.path, ["ppo"])["ppo"]) == {"ppo/kl", "ppo/score"}


@pytest.mark.parametrize(
    ("path", "runs", "said"),
    [
        ("team/other", [], "Could not find project"),
        ("team/project", [], "no run of rlhf-train"),
        ("team/project", [online("x", "evaluate"), online("y", "train")], "no run of rlhf-train"),
    ],
)
def test_projects_that_can_not_be_read(path: str, runs: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        runs_of_project(path, Api(runs))


def test_w_and_bs_own_errors_are_told_in_a_line(run_dir: Path) -> None:
    api = Api([])

    def down(*args: Any, **kwargs: Any) -> None:
        raise wandb.errors.CommError("no\nroute")

    api.runs = down
    with pytest.raises(UserError, match="wandb:team/project can't be read: no route"):
        runs_of_project("team/project", api)


def test_without_a_key_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(UserError, match="WANDB_API_KEY"):
        runs_of_project("team/project")
