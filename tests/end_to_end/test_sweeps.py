"""Sweeps: what their jobs share, how they end, how they are gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from console import BIN, SMALL, environment, metrics, ok, run

SWEEP = ["-m", "task=qa", *(o for o in SMALL if not o.startswith("hydra.")), "ppo.kl_coef=0.02,0.3"]
JOBS = ["0_ppo.kl_coef-0.02", "1_ppo.kl_coef-0.3"]


def outcome(folder: Path) -> tuple:
    """All that a run came to, but for times and where its parts came from."""
    results = metrics(folder)
    weights = [(folder / stage / "model" / "model.safetensors").read_bytes() for stage in ("sft", "reward", "ppo")]
    figures = [policy["metrics"] for policy in results["policies"]]
    return figures, results["reward_model"], (folder / "samples.jsonl").read_text(encoding="utf-8"), weights


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two jobs in `outputs`, and what it said in `screen.txt`."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "screen.txt").write_text(ok(run(folder, *SWEEP)).stdout, encoding="utf-8")
    return folder


def sweep_of(folder: Path) -> Path:
    (sweep,) = (folder / "outputs" / "multiruns").iterdir()
    return sweep


@pytest.mark.slow
def test_shared_stages_are_trained_once_and_nothing_comes_out_otherwise(swept: Path, tmp_path: Path) -> None:
    ok(run(tmp_path, *SWEEP, "reuse=false"))
    together, apart = sweep_of(swept), sweep_of(tmp_path)
    for job in JOBS:
        assert outcome(together / job) == outcome(apart / job), job
    assert outcome(together / JOBS[0])[3][2] != outcome(together / JOBS[1])[3][2], "PPO was not shared"
    steps = ("start measured", "sft", "sft measured", "reward")
    assert metrics(together / JOBS[1])["reused"] == dict.fromkeys(steps, JOBS[0])
    assert f"{', '.join(steps)}: taken from {JOBS[0]}" in (together / JOBS[1] / "report.html").read_text()
    assert not (apart / "shared").exists()


def test_a_table_ends_it(swept: Path) -> None:
    table = (swept / "screen.txt").read_text(encoding="utf-8").split("Report:")[-1]
    assert "ppo.kl_coef" in table
    assert "0.02" in table
    assert "gold" in table


@pytest.mark.slow
def test_only_what_is_missing_is_run_again(swept: Path) -> None:
    sweep = sweep_of(swept)
    before = [outcome(sweep / job) for job in JOBS]
    (sweep / JOBS[1] / "state.json").unlink()
    times = (sweep / JOBS[0] / "metrics.json").stat().st_mtime_ns
    said = ok(run(swept, *SWEEP, "resume=true")).stdout
    assert f"{JOBS[0]}: finished before" in said
    assert sweep_of(swept) == sweep, "no second sweep"
    assert (sweep / JOBS[0] / "metrics.json").stat().st_mtime_ns == times
    assert [outcome(sweep / job) for job in JOBS] == before
    refused = run(swept, f"resume={sweep}", "data.limit=40")
    assert refused.returncode == 1
    assert "can't be resumed: data.limit was 48 and is 40" in refused.stderr
    assert f"2 of 2 jobs were finished before, with other options or rows, and left as they are: {JOBS[0]}" in (
        refused.stderr
    )
    said = ok(run(swept, f"resume={sweep}")).stdout
    assert [f"{job}: finished before" in said for job in JOBS] == [True, True]


@pytest.mark.slow
def test_a_job_alone_takes_what_it_can_from_the_others(swept: Path) -> None:
    folder = sweep_of(swept) / JOBS[1]
    before, state = outcome(folder), json.loads((folder / "state.json").read_text(encoding="utf-8"))
    (folder / "state.json").write_text(json.dumps({**state, "done": [], "results": {}}))
    said = ok(run(swept, f"resume={folder}")).stdout
    assert f"sft: taken from {JOBS[0]}" in said
    assert outcome(folder) == before


def test_a_sweep_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "-m", "task=qa,trivia", *SWEEP[2:])
    assert result.returncode == 2
    assert "there is no task 'trivia'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_value_that_can_not_be_ends_a_sweep_before_its_first_job(tmp_path: Path) -> None:
    result = run(tmp_path, *SWEEP[:-1], "ppo.kl_coef=0.1,-1", "seed=0,1")
    assert result.returncode == 2
    assert "2 of 4 jobs of the sweep can't be run:\n  ppo.kl_coef=-1 seed=0 and 1 more: ppo.kl_coef" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_values_that_do_not_go_together_let_the_others_run(tmp_path: Path) -> None:
    """All jobs are looked at before the first, also where they come in batches."""
    values = [
        "hydra.sweeper.max_batch_size=1",
        "model.tiny.hidden=24,32",
        "model.tiny.heads=3,4",
        "stages=[sft]",
        "sft.trainer.max_steps=1",
    ]
    result = run(tmp_path, *SWEEP[:-1], *values)
    before, _, after = result.stderr.partition("They will fail when they begin; the others are run.")
    assert "1 of 4 jobs of the sweep can't be run:\n  model.tiny.hidden=32 model.tiny.heads=3: " in before
    assert "1 of 4 jobs failed: 2_model.tiny.hidden-32_model.tiny.heads-3" in after
    assert result.returncode == 1
    statuses = [metrics(path.parent)["status"] for path in sorted(sweep_of(tmp_path).glob("*/metrics.json"))]
    assert statuses == ["finished", "finished", "failed", "finished"]


@pytest.mark.slow
def test_a_sweep_that_is_told_to_stop_goes_on_later(swept: Path, tmp_path: Path) -> None:
    """SIGTERM ends the whole sweep, not one job of it."""
    command = [str(BIN / "rlhf-train"), *SWEEP]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), text=True, **pipes)
    started = time.monotonic()
    while not list(tmp_path.glob("outputs/multiruns/*/0_*/sft/metrics.csv")):
        assert time.monotonic() - started < 300, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 75, said
    assert "the sweep was stopped (SIGTERM)" in said
    assert not (sweep_of(tmp_path) / JOBS[1]).exists()
    ok(run(tmp_path, *SWEEP, "resume=true"))
    assert [outcome(sweep_of(tmp_path) / job) for job in JOBS] == [outcome(sweep_of(swept) / job) for job in JOBS]


@pytest.mark.slow
def test_two_runs_that_begin_together_have_a_folder_each(tmp_path: Path) -> None:
    command = [str(BIN / "rlhf-train"), "task=qa", "stages=[sft]", *(o for o in SMALL if not o.startswith("hydra."))]
    started = [subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    curves = [path.read_text() for path in tmp_path.glob("outputs/qa/*/sft/metrics.csv")]
    assert len(curves) == 2
    assert json.dumps(curves[0]).count("sft/loss") == 1
