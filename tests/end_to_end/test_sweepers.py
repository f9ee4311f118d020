"""Sweeps by Optuna through the console script: pruning, failures, several processes, going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from console import BIN, SMALL, environment, metrics, ok, run

optuna = pytest.importorskip("optuna", minversion="4", reason="needs the extra optuna")

SWEEP = [*(o for o in SMALL if not o.startswith("hydra.run.dir")), "task=qa", "hydra.sweep.dir=sweep", "samples=0"]
SHORT = [*SWEEP, "stages=[sft,ppo]", "rewards=token_f1"]
FIXED = ["ppo.kl_coef=0.05", "ppo.lr=1e-3"]
JUDGES = """
import os
from pathlib import Path


def seen(name):
    Path("seen").mkdir(exist_ok=True)
    Path("seen", f"{name}-{os.environ.get('LOCAL_RANK', '0')}").touch()


def good(prompts, completions, references, meta):
    seen("good")
    return [1.0] * len(prompts)


def bad(prompts, completions, references, meta):
    seen("bad")
    return [0.0] * len(prompts)


def broken(prompts, completions, references, meta):
    raise ValueError("out of order")
"""


def trials(folder: Path) -> list:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "sweep" / "study.journal"))
    return optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(journal)).trials


@pytest.mark.slow
def test_jobs_that_fall_behind_are_ended_and_failed_ones_are_no_zeros(tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    choices = "data.gold=judges.good,judges.broken,judges.bad"
    grid = ["hydra.sweeper.sampler=grid", "hydra.sweeper.prune.startup_trials=1"]
    done = run(tmp_path, "sweep=optuna", *SHORT, *FIXED, *grid, "ppo.updates=4", choices)
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE", "FAIL", "PRUNED"]
    assert [len(trial.intermediate_values) for trial in trials(tmp_path)] == [4, 0, 1]
    assert "Trials: 1 finished, 1 pruned, 1 failed" in done.stdout
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert (found["best_value"], found["best_params"]) == (1.0, {"data.gold": "judges.good"})
    early = json.loads((next((tmp_path / "sweep").glob("2*")) / "metrics.json").read_text())
    assert early["status"] == "pruned"
    assert [policy["name"] for policy in early["policies"]] == ["base", "sft"]
    assert "pruned after 1 batches: ppo/val/gold was 0, worse than the median" in early["notes"][-1]
    assert "The run was pruned by its sweep" in done.stdout


@pytest.mark.slow
def test_all_processes_of_a_job_have_its_values_and_end_together(tmp_path: Path) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    options = [*(o for o in SHORT if o != "trainer=cpu"), "trainer=ddp", "trainer.accelerator=cpu", *FIXED]
    grid = ["hydra.sweeper.sampler=grid", "hydra.sweeper.prune.startup_trials=1"]
    ok(run(tmp_path, "sweep=optuna", *options, *grid, "data.gold=judges.good,judges.bad"))
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE", "PRUNED"]
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["bad-0", "bad-1", "good-0", "good-1"]
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir() if "cache" not in path.name) == [
        "judges.py",
        "seen",
        "sweep",
    ]


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """The trial that was running goes on from its checkpoint with the same values; none is done twice."""
    options = [*SHORT, "ppo.updates=15", "checkpoint.minutes=0", "hydra.sweeper.n_trials=2", "hydra.sweeper.prune=null"]
    command = [str(BIN / "rlhf-train"), "sweep=optuna", *options]
    sweep = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not list((tmp_path / "sweep").glob("*/ppo/checkpoints/0000000[2-9]")):
        assert time.monotonic() < end
        time.sleep(0.2)
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    (before,) = trials(tmp_path)
    assert before.state.name == "RUNNING"
    said = ok(run(tmp_path, "sweep=optuna", *options, "resume=true")).stdout
    assert "ppo goes on from" in said
    after = trials(tmp_path)
    assert [trial.state.name for trial in after] == ["COMPLETE", "COMPLETE"]
    assert after[0].params == before.params
    assert after[1].params != before.params
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2


@pytest.mark.slow
def test_the_price_of_the_objective_in_kl(tmp_path: Path) -> None:
    done = ok(run(tmp_path, "sweep=optuna_pareto", *SHORT, "hydra.sweeper.n_trials=2", "ppo.lr=1e-3"))
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert found["objectives"] == {"gold": "max", "kl": "min"}
    for solution in found["solutions"]:
        last = metrics(tmp_path / "sweep" / solution["folder"])["policies"][-1]["metrics"]
        assert solution["values"] == {"gold": last["gold"], "kl": last["kl"]}
    assert (tmp_path / "sweep" / "pareto.html").exists()
    assert "Pareto front" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["sweep=optuna_pareto", "hydra.sweeper.prune={startup_trials: 1, warmup_rounds: 0}"], "can't be pruned"),
        (["sweep=optuna", "hydra.sweeper.objectives=[length]"], "length may be good high or low; say which way"),
        (["sweep=optuna", "hydra.sweeper.objectives=[nonsense]"], "nonsense is unknown; say which way is better"),
        (["sweep=optuna", "hydra.sweeper.sampler=annealing"], "there are tpe, random, grid, nsga2"),
        (["sweep=optuna", "hydra.sweeper.sampler=grid"], "a grid needs single values"),
        (["sweep=optuna", "ppo.kl_coef=1", "ppo.lr=1"], "the sweep has nothing to search"),
        (["sweep=optuna", "ppo.kl_coef=tag(log,interval(0,1))"], "ppo.kl_coef can't be drawn from that"),
        (
            ["sweep=optuna", "hydra.sweeper.prune=foo"],
            "hydra.sweeper.prune=foo must be null or have startup_trials and",
        ),
        (["sweep=optuna", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1, not 0"),
        (["sweep=optuna", "hydra.sweeper.n_trial=3"], "Did you mean 'hydra.sweeper.n_trials'?"),
        (["sweep=optuna", "+hydra.sweeper.n_trial=3"], "Did you mean 'hydra.sweeper.n_trials'?"),
        (["sweep=optuna", "ppo.epochs=x"], "ppo.epochs must be a whole number"),
        (["sweep=optuna", "ppo.gamma=interval(0.9,1.5)"], "ppo.gamma must be at most 1"),
    ],
)
def test_a_sweep_that_can_not_be_is_refused(
    options: list[str], said: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    assert said in refused("hydra.sweep.dir=sweep", *options)
    assert not list(tmp_path.iterdir())
