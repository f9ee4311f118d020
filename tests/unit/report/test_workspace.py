"""The saved view of a W&B project, as it would be sent."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.runs import find_runs
from rlhf_lightning.report.workspace import build_workspace, save_workspace


@pytest.fixture
def two_runs(run_dir: Path) -> list[Any]:
    """Runs that differ in a setting and the seed."""
    other = run_dir.parent / "other"
    shutil.copytree(run_dir, other)
    (other / ".hydra" / "config.yaml").write_text("ppo:\n  kl_coef: 0.1\nhf_token: xyz789\nmax_tokens: 5\nseed: 4\n")
    return find_runs([run_dir, other])


def sent(path: str, runs: list[Any]) -> dict[str, Any]:
    view = build_workspace(path, runs)
    assert (view.entity, view.project) == ("team", "project")
    return json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))["section"]


def test_panels(two_runs: list[Any]) -> None:
    pytest.importorskip("wandb_workspaces")
    section = sent("team/project", two_runs)
    sections = {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}
    scatter, parallel, compared = sections["Held-out results"]
    assert (scatter["config"]["xAxis"], scatter["config"]["yAxis"]) == ("summary:test/kl", "summary:test/gold")
    accessors = [column["accessor"] for column in parallel["config"]["columns"]]
    assert accessors == ["config:ppo.value.kl_coef", "summary:test/kl", "summary:test/length", "summary:test/gold"]
    assert compared["viewType"] == "Run Comparer"
    curve = sections["Learning curves: ppo"][0]["config"]
    assert (curve["xAxis"], curve["metrics"]) == ("ppo/episodes", ["ppo/val/gold"])
    assert "kl_coef" in curve["groupBy"]
    assert "ppo/val/samples" in json.dumps(sections["Samples"])
    assert "summary:test/gold" in json.dumps(section["runSets"])


def test_runs_that_differ_in_nothing_are_drawn_by_group(run_dir: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    section = sent("team/project", find_runs([run_dir]))
    curves = next(p for p in section["panelBankConfig"]["sections"] if p["name"] == "Learning curves: sft")["panels"]
    assert {curve["config"]["groupBy"] for curve in curves} == {"group"}


@pytest.mark.parametrize("path", ["project", "team/", "/project", "a/b/c"])
def test_another_path_is_refused(path: str, run_dir: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(UserError, match="ENTITY/PROJECT"):
        build_workspace(path, find_runs([run_dir]))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    for name in ("wandb_workspaces", "wandb_workspaces.reports.v2", "wandb_workspaces.workspaces"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"rlhf-lightning\[wandb-workspaces\]"):
        build_workspace("team/project", find_runs([run_dir]))


def test_saving(monkeypatch: pytest.MonkeyPatch, run_dir: Path, tmp_path: Path) -> None:
    """It needs a key; what W&B refuses is told in a line."""
    ws = pytest.importorskip("wandb_workspaces.workspaces")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    runs = find_runs([run_dir])
    with pytest.raises(UserError, match="WANDB_API_KEY"):
        save_workspace("team/project", runs)
    from rlhf_lightning.report import wandb_source

    monkeypatch.setattr(wandb_source, "connect", lambda: None)
    monkeypatch.setattr(ws.Workspace, "url", "https://wandb.ai/team/project?nw=1")
    monkeypatch.setattr(ws.Workspace, "save", lambda self: self)
    assert save_workspace("team/project", runs) == "https://wandb.ai/team/project?nw=1"

    def refused(self: object) -> None:
        raise RuntimeError("403\nforbidden")

    monkeypatch.setattr(ws.Workspace, "save", refused)
    with pytest.raises(UserError, match="403 forbidden"):
        save_workspace("team/project", runs)
