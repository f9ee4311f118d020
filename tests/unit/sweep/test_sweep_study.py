"""Studies: what is asked next, what became of jobs, and going on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

optuna = pytest.importorskip("optuna", minversion="4", reason="needs the extra optuna")

from rlhf_lightning.errors import UserError  # noqa: E402
from rlhf_lightning.report import PolicyResult, RunResults  # noqa: E402
from rlhf_lightning.sweep import results  # noqa: E402
from rlhf_lightning.sweep.space import Space, read_space  # noqa: E402
from rlhf_lightning.sweep.study import (  # noqa: E402
    Outcome,
    all_failed,
    best,
    importances,
    next_numbers,
    open_study,
    tell,
    unfinished,
)

SPACE = ["x=interval(0.0,1.0)", "y=a,b"]
UP = {"gold": "max"}
BOTH = {"gold": "max", "kl": "min"}


def opened(folder: Path, resume: bool = False, space: Space | None = None, sampler: str = "random", directions=UP):
    space = space or read_space(SPACE)
    return open_study(str(folder / "study.journal"), resume, sampler, 0, directions, space, 1)


def finished(folder: Path, name: str, *values: float, status: str = "finished") -> Path:
    """A job's folder with these figures: gold and kl."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    policies = [PolicyResult("ppo", None, dict(zip(("gold", "kl"), values, strict=False)))]
    RunResults(task="qa", status=status, policies=policies, notes=["the reason"]).write(folder / name / "metrics.json")
    return folder / name


def test_what_became_of_a_job(tmp_path: Path) -> None:
    assert Outcome.of(finished(tmp_path, "a", 0.5, 2.0), ["gold", "kl"]) == Outcome("finished", (0.5, 2.0))
    assert Outcome.of(finished(tmp_path, "b", status="failed"), ["gold"]) == Outcome("failed", reason="the reason")
    assert Outcome.of(finished(tmp_path, "c", 0.5, status="pruned"), ["gold"]).status == "pruned"
    assert Outcome.of(finished(tmp_path, "d", 0.5, status="interrupted"), ["gold"]).status == "interrupted"
    assert Outcome.of(tmp_path / "nowhere", ["gold"]).status == "failed"
    missing = Outcome.of(finished(tmp_path, "e", 0.5), ["gold", "kl"])
    assert (missing.status, missing.values) == ("failed", ())
    assert "kl was not measured" in missing.reason
    assert Outcome.of(finished(tmp_path, "f", float("nan")), ["gold"]).status == "failed"


def test_trials_are_asked_for_up_to_their_number(tmp_path: Path) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    assert next_numbers(study, space, 3, 2) == [0, 1]
    for number in (0, 1):
        tell(study, number, Outcome("finished", (0.5,)), tmp_path / str(number))
    assert next_numbers(study, space, 3, 2) == [2]
    tell(study, 2, Outcome("failed"), tmp_path / "2")
    assert next_numbers(study, space, 3, 2) == []
    assert next_numbers(study, space, 4, 2) == [3]


def test_failed_and_pruned_jobs_count_as_such_and_not_as_0(tmp_path: Path) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    assert next_numbers(study, space, 4, 4) == [0, 1, 2, 3]
    for number, outcome in enumerate([Outcome("failed"), Outcome("pruned"), Outcome("finished", (-5.0,))]):
        tell(study, number, outcome, tmp_path / str(number))
    tell(study, 3, Outcome("interrupted"), tmp_path / "3")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "PRUNED", "COMPLETE", "RUNNING"]
    assert [trial.value for trial in study.trials] == [None, None, -5.0, None]
    assert [trial.number for trial in best(study)] == [2]


def test_a_killed_sweep_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    next_numbers(study, space, 5, 2)
    tell(study, 0, Outcome("finished", (0.5,)), tmp_path / "0")
    values = study.trials[1].params
    study.ask()  # killed before it had any values
    again = opened(tmp_path, resume=True)
    assert unfinished(again, space) == [1]
    assert again.trials[1].params == values
    assert again.trials[2].state.name == "FAIL"
    tell(again, 1, Outcome("finished", (0.7,)), tmp_path / "1")
    assert next_numbers(again, space, 5, 9) == [3, 4]
    drawn = [trial.params["x"] for trial in again.trials if trial.params]
    assert len(set(drawn)) == len(drawn)


def test_a_grid_is_every_combination_once(tmp_path: Path) -> None:
    space = read_space(["x=1,2", "y=a,b"])
    study = opened(tmp_path, space=space, sampler="grid")
    for number in next_numbers(study, space, None, 3):
        tell(study, number, Outcome("finished", (0.0,)), tmp_path)
    study = opened(tmp_path, resume=True, space=space, sampler="grid")
    assert next_numbers(study, space, None, 3) == [3]
    assert [trial.params for trial in study.trials] == [{"x": x, "y": y} for x in "12" for y in "ab"]
    assert next_numbers(study, space, None, 3) == []


def test_a_sweep_is_not_begun_over_another(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(UserError, match="holds this sweep already"):
        opened(tmp_path)
    with pytest.raises(UserError, match="sweep of other options or objectives"):
        opened(tmp_path, resume=True, space=read_space(["x=interval(0.0,2.0)", "y=a,b"]))
    with pytest.raises(UserError, match="sweep of other options or objectives"):
        opened(tmp_path, resume=True, directions={"gold": "min"})


def test_nothing_is_written_for_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a grid needs single values"):
        opened(tmp_path, sampler="grid")
    with pytest.raises(UserError, match="there are tpe, random, grid, nsga2"):
        opened(tmp_path, sampler="annealing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_learn(sampler: str, tmp_path: Path) -> None:
    """With gold = 2 - |x - 0.8| - |y - 0.2| the later trials are better than the first, which are random."""
    space = read_space(["x=interval(0.0,1.0)", "y=interval(0.0,1.0)"])
    study = opened(tmp_path, space=space, sampler=sampler)
    while numbers := next_numbers(study, space, 60, 1):
        (number,) = numbers
        at = study.trials[number].params
        tell(study, number, Outcome("finished", (2 - abs(at["x"] - 0.8) - abs(at["y"] - 0.2),)), tmp_path)
    values = [trial.value for trial in study.trials]
    assert sum(values[-10:]) > sum(values[:10]) + 1
    assert best(study)[0].value == max(values)


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_a_search_that_is_gone_on_with_draws_what_it_would_have_drawn(sampler: str, tmp_path: Path) -> None:
    space = read_space(["x=interval(0.0,1.0)", "y=a,b"])

    def drawn(folder: Path, stops: list[int]) -> list[dict]:
        folder.mkdir()
        for i, stop in enumerate(stops):
            study = opened(folder, resume=i > 0, space=space, sampler=sampler)
            while numbers := next_numbers(study, space, stop, 1):
                tell(study, numbers[0], Outcome("finished", (study.trials[numbers[0]].params["x"],)), folder)
        return [trial.params for trial in study.trials]

    assert drawn(tmp_path / "whole", [25]) == drawn(tmp_path / "stopped", [4, 14, 25])


def test_all_failed(tmp_path: Path) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    for number in next_numbers(study, space, 3, 3):
        assert not all_failed(study)
        tell(study, number, Outcome("failed"), tmp_path)
    assert all_failed(study)


def test_what_failed_is_tried_again_when_a_sweep_is_gone_on_with(tmp_path: Path) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    for number in next_numbers(study, space, 3, 3):
        tell(study, number, Outcome("failed" if number else "finished", (0.5,)[: not number]), tmp_path)
    assert next_numbers(study, space, 3, 3) == []
    again = opened(tmp_path, resume=True)
    assert next_numbers(again, space, 3, 3) == [3, 4]
    assert [again.trials[n].params for n in (3, 4)] == [again.trials[n].params for n in (1, 2)]
    tell(again, 3, Outcome("finished", (0.7,)), tmp_path)
    tell(again, 4, Outcome("failed"), tmp_path)
    assert not all_failed(again)
    once_more = opened(tmp_path, resume=True)
    assert next_numbers(once_more, space, 3, 3) == [5]
    assert once_more.trials[5].params == again.trials[2].params


def test_a_sweep_that_began_with_failures_can_be_gone_on_with(tmp_path: Path) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    for number in next_numbers(study, space, 3, 3):
        tell(study, number, Outcome("failed"), tmp_path)
    again = opened(tmp_path, resume=True)
    (number,) = next_numbers(again, space, 3, 1)
    tell(again, number, Outcome("finished", (0.5,)), tmp_path)
    assert not all_failed(again)


def test_a_grid_that_was_cut_off_while_it_was_written_is_made_whole(tmp_path: Path) -> None:
    space = read_space(["y=a,b,c"])
    study = opened(tmp_path, space=space, sampler="grid")
    storage = study._storage
    cut = optuna.create_study(storage=storage, study_name="cut", directions=["maximize"])
    cut.enqueue_trial({"y": "a"})
    whole = open_study(str(tmp_path / "study.journal"), True, "grid", 0, UP, space, 1, "cut")
    assert sorted(whole.trials[n].params["y"] for n in next_numbers(whole, space, None, 9)) == ["a", "b", "c"]


def pareto(folder: Path, points: list[tuple[float, float]]):
    space = read_space(["x=interval(0.0,1.0)"])
    study = opened(folder, space=space, directions=BOTH)
    for number, point in zip(next_numbers(study, space, len(points), len(points)), points, strict=True):
        tell(study, number, Outcome("finished", point), folder / f"job{number}")
    return study


def test_the_pareto_front(tmp_path: Path) -> None:
    """By hand: (0.5, 3) is beaten by (0.6, 2), (0.9, 9) by (0.9, 5); one of two equal trials stands for both."""
    study = pareto(tmp_path, [(0.5, 3.0), (0.6, 2.0), (0.9, 9.0), (0.9, 5.0), (0.1, 0.0), (0.6, 2.0)])
    assert [trial.values for trial in best(study)] == [[0.1, 0.0], [0.6, 2.0], [0.9, 5.0]]
    results.write(study, BOTH, tmp_path)
    written = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert [solution["values"] for solution in written["solutions"]] == [
        {"gold": 0.1, "kl": 0.0},
        {"gold": 0.6, "kl": 2.0},
        {"gold": 0.9, "kl": 5.0},
    ]
    assert [solution["folder"] for solution in written["solutions"]] == ["job4", "job1", "job3"]
    page = (tmp_path / "pareto.html").read_text(encoding="utf-8")
    assert "6 finished trials" in page
    assert page.count("<tr>") == 4
    assert "<svg" in page


def test_the_best_trial_is_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    for number in next_numbers(study, space, 3, 3):
        tell(study, number, Outcome("finished", (float(number),)), tmp_path / f"job{number}")
    results.write(study, UP, tmp_path)
    results.show(study, UP, tmp_path)
    written = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert written["best_value"] == 2.0
    assert written["best_params"] == study.trials[2].params
    assert (written["best_trial"], written["folder"]) == (2, "job2")
    assert "Best gold: 2, trial 2: x=" in capsys.readouterr().out


def test_a_study_without_a_finished_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, space = opened(tmp_path), read_space(SPACE)
    for number in next_numbers(study, space, 1, 1):
        tell(study, number, Outcome("failed"), tmp_path)
    results.write(study, UP, tmp_path)
    results.show(study, UP, tmp_path)
    assert "best_value" not in yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert "Trials: 1 failed" in capsys.readouterr().out


def test_importances(tmp_path: Path) -> None:
    """x decides, y does nothing."""
    space = read_space(["x=interval(0.0,1.0)", "y=interval(0.0,1.0)"])
    study = opened(tmp_path, space=space)
    for number in next_numbers(study, space, 60, 60):
        tell(study, number, Outcome("finished", (study.trials[number].params["x"],)), tmp_path)
    shares = importances(study)
    assert shares["x"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)
