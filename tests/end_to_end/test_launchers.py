"""Jobs of a sweep by each launcher: side by side, as processes of their own, with several devices, put in again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from console import BIN, SMALL, environment, metrics, ok, run
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

SWEEP = [*(o for o in SMALL if not o.startswith("hydra.run.dir")), "task=qa", "hydra.sweep.dir=sweep", "samples=0"]
SHORT = [*SWEEP, "stages=[sft,ppo]", "rewards=token_f1"]


def jobs(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("sweep/*/metrics.json"))}


@pytest.mark.slow
def test_joblib(tmp_path: Path) -> None:
    """Each job has its share of the cores, and finds modules of the user's own."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    (tmp_path / "mine.py").write_text(
        "import os\n\n\ndef judge(prompts, completions, references, meta):\n"
        "    return [float(os.environ['OMP_NUM_THREADS'])] * len(prompts)\n"
    )
    options = [*SHORT, "stages=[sft]", "data.gold=mine.judge", "seed=1,2", "hydra.launcher.n_jobs=2"]
    said = ok(run(tmp_path, "-m", "launcher=joblib", *options)).stdout
    assert [f"\n[{job}] Run folder: " in said for job in (0, 1)] == [True, True]
    made = jobs(tmp_path)
    assert [job["seed"] for job in made.values()] == [1, 2]
    assert [job["status"] for job in made.values()] == ["finished", "finished"]
    share = max(1, (os.cpu_count() or 1) // 2)
    assert [job["policies"][-1]["metrics"]["gold"] for job in made.values()] == [share, share]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "debug"])
def test_submitit(executor: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    command = ["import sys", "from rlhf_lightning import train"]
    if executor == "debug":  # in the process of the sweep
        command.append("from rlhf_lightning.sweep import with_submitit")
        command.append("with_submitit.LocalLauncher._EXECUTOR = 'debug'")
    code = "; ".join([*command, "sys.argv[0] = 'rlhf-train'", "sys.exit(train.main())"])
    arguments = ["-m", "launcher=submitit", *SHORT, "stages=[sft]", "seed=1,2"]
    done = [str(BIN / "python"), "-c", code, *arguments]
    ok(subprocess.run(done, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600))
    assert [(job["seed"], job["status"]) for job in jobs(tmp_path).values()] == [(1, "finished"), (2, "finished")]


@pytest.mark.slow
def test_submitit_with_two_processes_a_job(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    options = [*(o for o in SHORT if o != "trainer=cpu"), "trainer=ddp", "trainer.accelerator=cpu", "stages=[sft]"]
    ok(run(tmp_path, "-m", "launcher=submitit", *options, "seed=1"))
    assert [job["status"] for job in jobs(tmp_path).values()] == ["finished"]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]
    ids = [json.loads(line)["id"] for line in (tmp_path / "sweep" / "0" / "samples.jsonl").read_text().splitlines()]
    assert ids == list(range(48))


def wait_for(what: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_a_job_that_is_warned_saves_and_is_put_in_again(tmp_path: Path) -> None:
    """The signal by which SLURM says that the time is up: the same job goes on from its checkpoint and finishes."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    options = [*SHORT, "ppo.updates=60", "seed=1"]
    command = [str(BIN / "rlhf-train"), "-m", "launcher=submitit", *options]
    sweep = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    curves, logs = tmp_path / "sweep" / "0" / "ppo" / "metrics.csv", tmp_path / "sweep" / ".submitit"
    wait_for(lambda: curves.exists() and curves.read_text().count("\n") > 4)
    (job,) = (int(path.name) for path in logs.iterdir() if path.name.isdigit())
    children = Path(f"/proc/{job}/task/{job}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)
    assert sweep.wait(timeout=300) == 0
    said = (logs / str(job) / f"{job}_0_log.out").read_text()
    assert "ppo goes on from" in said
    assert metrics(tmp_path / "sweep" / "0")["status"] == "finished"
    steps = [line.split(",")[0] for line in curves.read_text().splitlines()[1:]]
    assert len(steps) >= 60


@pytest.mark.slow
def test_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    ok(run(tmp_path, "-m", "launcher=ray", *SHORT, "stages=[sft]", "seed=1,2"))
    assert [(job["seed"], job["status"]) for job in jobs(tmp_path).values()] == [(1, "finished"), (2, "finished")]


def test_several_devices_side_by_side_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra joblib")
    said = refused("hydra.mode=MULTIRUN", "launcher=joblib", "trainer=cpu,ddp", "hydra.sweep.dir=sweep")
    assert "launcher=joblib gives each job of a sweep one device, and trainer.devices asks for 2" in said
    assert not list(tmp_path.glob("sweep/*/metrics.json"))


@pytest.mark.parametrize(
    ("launcher", "config", "extra"),
    [("joblib", "joblib", "joblib"), ("submitit", "submitit_local", "slurm"), ("slurm", "submitit_slurm", "slurm")],
)
def test_a_launcher_that_is_not_installed_is_refused(
    launcher: str, config: str, extra: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Plugins.instance()  # it looks for plugins once
    known = ConfigStore.instance().repo["hydra"]["launcher"]
    if f"{config}.yaml" in known:
        monkeypatch.delitem(known, f"{config}.yaml")
    said = refused("sweep=grid", f"launcher={launcher}", "hydra.sweep.dir=sweep")
    assert f"pip install 'rlhf-lightning[{extra}]'" in said
    assert not list(tmp_path.iterdir())
