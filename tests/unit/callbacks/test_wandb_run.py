"""W&B runs as they are written, offline: steps, axes, breakdowns, sweeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from helpers.wandb_file import OfflineRun, read_runs

from rlhf_lightning.callbacks.loggers import WandbRun, finish_wandb, wandb_logger


@pytest.fixture(autouse=True)
def own_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A W&B of this test's own: it reads the environment once."""
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    yield
    wandb.teardown()


def started(folder: Path, **options) -> WandbRun:
    return wandb_logger("p", offline=True, save_dir=str(folder), **{"id": "abc", "resume": "allow", **options})


def written(folder: Path) -> list[OfflineRun]:
    finish_wandb()
    wandb.teardown()  # the file is whole once W&B's own process has ended
    return read_runs(folder)


def test_what_is_logged_at_a_step_is_a_row(tmp_path: Path) -> None:
    logger = started(tmp_path)
    for step in (0, 1):
        logger.log_metrics({"ppo/score": float(step)}, step)
        logger.log_metrics({"ppo/val/gold": 0.5}, step)
        logger.log_object("ppo/extra", lambda: wandb.Histogram([1.0, 2.0]), step - 1)  # at the step that W&B is at
    (run,) = written(tmp_path)
    assert [row["_step"] for row in run.history] == [0, 1]
    for name in ("ppo/score", "ppo/val/gold", "ppo/extra._type", "trainer/global_step"):
        assert len(run.values(name)) == 2


def test_a_resumed_run_goes_on_at_its_step_and_adds_no_row(tmp_path: Path) -> None:
    for first in (0, 3):
        logger = started(tmp_path, axis="ppo/episodes")
        for step in range(first, first + 3):
            logger.log_metrics({"ppo/score": float(step), "ppo/episodes": 8.0 * (step + 1)}, step)
        finish_wandb()
    before, after = written(tmp_path)
    assert before.run.run_id == after.run.run_id == "abc"
    assert [row["_step"] for row in before.history + after.history] == [0, 1, 2, 3, 4, 5]
    assert after.values("ppo/episodes") == [32, 40, 48]


def test_a_step_that_w_and_b_has_already_is_not_logged_again(tmp_path: Path) -> None:
    logger = started(tmp_path)
    for step in (0, 1, 2, 1, 2, 3):
        logger.log_metrics({"a": float(step)}, step)
    (run,) = written(tmp_path)
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3]


def test_axes_and_goals(tmp_path: Path) -> None:
    logger = started(tmp_path, axis="ppo/episodes", goals={"ppo/val/gold": "max", "ppo/loss": "min"})
    logger.log_metrics({"ppo/val/gold": 0.5}, 0)
    (run,) = written(tmp_path)
    assert run.metrics["ppo/*"].step_metric == "ppo/episodes"
    best = run.metrics["ppo/val/gold"]
    assert (best.step_metric, best.summary.max, best.summary.last, best.summary.min) == (
        "ppo/episodes",
        True,
        True,
        False,
    )
    assert run.metrics["ppo/loss"].summary.min


def test_a_server_that_can_not_be_reached_gives_an_offline_run(tmp_path: Path, monkeypatch) -> None:
    """As where the net is down when a later stage begins."""
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    begin = wandb.init

    def unreachable(**options):
        if options["mode"] == "online":
            raise wandb.errors.CommError("no route to host")
        return begin(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    logger = wandb_logger("p", save_dir=str(tmp_path), id="abc")
    assert logger.mode == "online"
    with pytest.warns(UserWarning, match=r"no route to host.*abc goes on offline"):
        logger.log_metrics({"a": 1.0}, 0)
    (run,) = written(tmp_path)
    assert run.values("a") == [1]


def test_a_breakdown_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    logger = started(tmp_path)

    def broken(run: object) -> None:
        raise ConnectionResetError("Connection lost")

    with pytest.warns(UserWarning, match="Connection lost"):
        logger.send(broken)
    logger.send(broken)
    logger.log_metrics({"a": 1.0}, 0)
    (run,) = written(tmp_path)
    assert run.values("a") == []


@pytest.mark.parametrize("in_sweep", [False, True])
def test_the_agents_run_alone_joins_its_sweep(in_sweep: bool, tmp_path: Path, monkeypatch) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nppo.kl_coef: {value: 0.1}\n")
    agent = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "of_agent", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    for name, value in agent.items():
        monkeypatch.setenv(name, value)
    logger = started(tmp_path, id="of_agent" if in_sweep else "own", in_sweep=in_sweep)
    logger.log_metrics({"a": 1.0}, 0)
    (run,) = written(tmp_path)
    assert (run.run.run_id, run.run.sweep_id) == (("of_agent", "s1") if in_sweep else ("own", ""))
    assert agent.items() <= os.environ.items()
