"""Runs that are stopped, and gone on with by the console script."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from console import BIN, SMALL, environment, metrics, ok, run

LONGER = [*SMALL, "task=qa", "sft.trainer.max_epochs=4", "ppo.updates=12", "checkpoint.minutes=0"]
OWN_NAME = [o for o in LONGER if not o.startswith("hydra.run.dir")]


def content(folder: Path) -> dict:
    """All that must not depend on interruptions."""
    found: dict = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}
    text = (folder / "metrics.json").read_text(encoding="utf-8").replace(str(folder), "FOLDER")
    found["metrics"] = {k: v for k, v in json.loads(text).items() if k not in ("seconds", "time")}
    found["samples"] = (folder / "samples.jsonl").read_text(encoding="utf-8")
    return found


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [str(BIN / "rlhf-train"), *overrides]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(found: Path, pattern: str) -> None:
    for _ in range(3000):
        if any(found.glob(pattern)):
            return
        time.sleep(0.02)
    raise AssertionError(f"{pattern} never came")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What comes out of a run that is never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    ok(run(folder, *LONGER))
    assert not [*folder.glob("run/*/checkpoints"), *folder.glob("run/*/best")], "what is needed no more is removed"
    return content(folder / "run")


def test_a_killed_run_ends_as_if_nothing_had_happened(whole: dict, tmp_path: Path) -> None:
    """Killed in PPO and found again by its command; then the same command has nothing to do."""
    process = start(tmp_path, *OWN_NAME)
    wait_for(tmp_path, "outputs/qa/*/ppo/checkpoints/0*")
    process.kill()
    process.wait()
    (folder,) = (tmp_path / "outputs" / "qa").iterdir()
    config = (folder / ".hydra" / "config.yaml").read_text()
    made = (folder / "sft" / "model" / "model.safetensors").stat().st_mtime_ns
    said = ok(run(tmp_path, *OWN_NAME, "resume=true")).stdout
    assert "sft (done before)" in said
    assert "ppo goes on from" in said
    assert [folder] == list((tmp_path / "outputs" / "qa").iterdir())
    assert content(folder) == whole
    assert (folder / "sft" / "model" / "model.safetensors").stat().st_mtime_ns == made, "no stage is done twice"
    assert (folder / ".hydra" / "config.yaml").read_text() == config
    again = ok(run(tmp_path, *OWN_NAME, "resume=true"))
    assert "is finished: there is nothing to resume" in again.stdout


@pytest.mark.slow
def test_sigterm_saves_and_asks_to_be_started_again(whole: dict, tmp_path: Path) -> None:
    """Stopped in SFT; resumed by naming the folder alone."""
    process = start(tmp_path, *LONGER, "checkpoint.minutes=60")
    wait_for(tmp_path, "run/sft")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert "stopped (SIGTERM); the same command with resume=true goes on" in error
    assert "Traceback" not in error
    assert metrics(tmp_path / "run")["status"] == "interrupted"
    ok(run(tmp_path, "resume=run"))
    assert content(tmp_path / "run") == whole


@pytest.mark.slow
def test_a_time_budget_is_kept(whole: dict, tmp_path: Path) -> None:
    """As often as it takes; each time some more is done."""
    budgets = ["00:00", *["00:05"] * 40]
    for budget in budgets:
        result = run(tmp_path, *LONGER, f"max_time={budget}", "resume=true")
        if result.returncode == 0:
            break
        assert result.returncode == 75, result.stderr
        assert "max_time is used up" in result.stderr
    assert budget != "00:00"
    assert content(tmp_path / "run") == whole


@pytest.mark.slow
def test_a_changed_run_is_refused_by_name(tmp_path: Path) -> None:
    process = start(tmp_path, *LONGER)
    wait_for(tmp_path, "run/sft/checkpoints/0*")
    process.kill()
    process.wait()
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*") if ".hydra" not in str(p))
    result = run(tmp_path, *LONGER, "resume=true", "ppo.kl_coef=0.07", "data.limit=40")
    assert result.returncode == 2
    assert "ppo.kl_coef was 0.05 and is 0.07" in result.stderr
    assert "the rows of data.train are others" in result.stderr
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*") if ".hydra" not in str(p)) == before
    said = ok(run(tmp_path, "resume=run", "resume=force", "ppo.kl_coef=0.07")).stdout
    assert "resumed with changes: ppo.kl_coef was 0.05 and is 0.07" in said
    assert "sft goes on from" in said


@pytest.mark.slow
def test_nothing_to_resume(tmp_path: Path) -> None:
    result = run(tmp_path, "resume=nowhere")
    assert (result.returncode, "nowhere: there is no run to resume" in result.stderr) == (2, True)
    result = run(tmp_path, *SMALL, "stages=[sft]", "resume=true")
    assert "there is no run to resume in" in ok(result).stdout
    result = run(tmp_path, *SMALL, "max_time=soon")
    assert (result.returncode, "max_time=01:30:00" in result.stderr) == (2, True)
