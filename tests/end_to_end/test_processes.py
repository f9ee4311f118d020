"""Two processes that are one run, however they are started: all come to what one process with twice the batch does."""

from __future__ import annotations

import csv
import json
import subprocess
from itertools import product
from pathlib import Path

import pytest
from console import BIN, SMALL, environment, ok, run

LIKE = [
    *(o for o in SMALL if not o.startswith(("trainer=", "data.limit", "hydra.run.dir", "ppo.loader"))),
    "task=qa",
    "data.limit=33",
    "trainer.accelerator=cpu",
    "model.tiny.hidden=16",
]
ONE = [*LIKE, "sft.loader.batch_size=8", "reward.loader.batch_size=8", "ppo.loader.batch_size=8"]
TWO = [*LIKE, "sft.loader.batch_size=4", "reward.loader.batch_size=4", "ppo.loader.batch_size=4"]


def curves(folder: Path) -> dict[str, list[float]]:
    """What each stage logged, step by step: but for times, and for the padding, of which smaller batches have less."""
    found: dict[str, list[float]] = {}
    for stage in ("sft", "reward", "ppo"):
        with (folder / stage / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name != "epoch" and "second" not in name and not name.endswith("/padding"):
                        found.setdefault(name, []).append(float(value))
    return found


def check(folder: Path, expected: dict[str, list[float]]) -> None:
    """One whole run folder, in which all that was logged is as expected."""
    assert json.loads((folder / "metrics.json").read_text())["status"] == "finished"
    found = curves(folder)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-3, abs=1e-4, nan_ok=True), name
    ids = [json.loads(line)["id"] for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert ids == list(range(33))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("one")
    ok(run(folder, *ONE, "hydra.run.dir=run"))
    return curves(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp2"])
def test_by_the_strategy(trainer: str, expected, tmp_path: Path) -> None:
    ok(run(tmp_path, *TWO, f"trainer={trainer}", "hydra.run.dir=run"))
    check(tmp_path / "run", expected)


@pytest.mark.slow
def test_by_torchrun(expected, tmp_path: Path) -> None:
    command = [str(BIN / "torchrun"), "--nproc_per_node=2", "--no-python", str(BIN / "rlhf-train"), *TWO, "trainer=ddp"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    ok(done)
    (folder,) = (tmp_path / "outputs" / "qa").iterdir()
    check(folder, expected)


@pytest.mark.slow
def test_by_srun(expected, tmp_path: Path) -> None:
    """Two processes with the variables that srun sets; there is no SLURM here."""
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "rlhf", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    slurm |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0"}
    started = []
    for rank in range(2):
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        command = [str(BIN / "rlhf-train"), *TWO, "trainer=ddp"]
        started.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment(**slurm, **own),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    said = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    (folder,) = (tmp_path / "outputs" / "qa").iterdir()
    check(folder, expected)


@pytest.mark.slow
def test_in_a_sweep(expected, tmp_path: Path) -> None:
    """Each job has two processes of its own, which write no folder of theirs, and know what is taken from others."""
    ok(run(tmp_path, "-m", *TWO, "trainer=ddp,fsdp2", "evaluate.batch_size=64,32", "hydra.sweep.dir=sweep"))
    jobs = [f"{i}_trainer-{s}_evaluate.batch_size-{n}" for i, (s, n) in enumerate(product(("ddp", "fsdp2"), (64, 32)))]
    for job in jobs:
        check(tmp_path / "sweep" / job, expected)
    taken = [json.loads((tmp_path / "sweep" / job / "metrics.json").read_text())["reused"] for job in jobs]
    assert taken == [{}, {"sft": jobs[0], "reward": jobs[0]}, {}, {"sft": jobs[2], "reward": jobs[2]}]
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == [*jobs, "multirun.yaml", "shared", "sweep.json"]
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep"]


@pytest.mark.slow
def test_a_sweep_is_not_started_many_times(tmp_path: Path) -> None:
    command = [str(BIN / "torchrun"), "--nproc_per_node=2", "--no-python", str(BIN / "rlhf-train"), "-m", "seed=1,2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode
    assert "a sweep (-m) can't be started by torchrun or srun" in done.stderr
    assert not list(tmp_path.iterdir())
