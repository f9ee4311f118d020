"""Pruning: the median rule over a storage that other processes see, and the callback that obeys it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

optuna = pytest.importorskip("optuna", minversion="4", reason="needs the extra optuna")

from rlhf_lightning.callbacks import Prune, Pruned  # noqa: E402
from rlhf_lightning.errors import UserError  # noqa: E402
from rlhf_lightning.sweep.space import read_space  # noqa: E402
from rlhf_lightning.sweep.study import NAME, Outcome, next_numbers, open_study, tell  # noqa: E402
from rlhf_lightning.sweep.trial import VARIABLE, Judge, TrialAddress  # noqa: E402


def address(folder: Path, number: int, startup: int = 2, warmup: int = 0) -> TrialAddress:
    return TrialAddress(str(folder / "study.journal"), NAME, number, "gold", startup, warmup)


def study_of(folder: Path, curves: list[list[float]], direction: str = "max"):
    """A study whose first trials have these values after each step, told by a judge each, as jobs do it."""
    space = read_space(["x=interval(0.0,1.0)"])
    study = open_study(str(folder / "study.journal"), False, "random", 0, {"gold": direction}, space, 1)
    for curve in curves:
        (number,) = next_numbers(study, space, 99, 1)
        judge = Judge(address(folder, number, startup=99))
        assert not sum(judge(step, value) for step, value in enumerate(curve, start=1))
        tell(study, number, Outcome("finished", (curve[-1],)), folder)
    return study, next_numbers(study, space, 99, 1)[0]


@pytest.mark.parametrize(
    ("direction", "values", "pruned"),
    [
        ("max", [0.1, 0.3, 0.4], [True, True, True]),  # the medians are 0.2, 0.4 and 0.6
        ("max", [0.3, 0.5, 0.5], [False, False, True]),
        ("min", [0.3, 0.5], [True, False]),  # its best so far, 0.3, is below 0.4
        ("min", [0.1, 0.3], [False, False]),
    ],
)
def test_the_median_of_the_finished_trials_decides(direction, values, pruned, tmp_path: Path) -> None:
    curves = [[0.1, 0.2, 0.3], [0.2, 0.4, 0.6], [0.3, 0.6, 0.9]]
    study, number = study_of(tmp_path, curves, direction)
    judge = Judge(address(tmp_path, number))
    assert [judge(step, value) for step, value in enumerate(values, start=1)] == pruned
    tell(study, number, Outcome("pruned"), tmp_path)
    assert study.trials[number].state.name == "PRUNED"


def test_the_first_trials_and_the_first_rounds_are_left_alone(tmp_path: Path) -> None:
    _, number = study_of(tmp_path, [[1.0, 1.0, 1.0]] * 2)
    assert Judge(address(tmp_path, number))(1, 0.0)
    assert not Judge(address(tmp_path, number, startup=3))(2, 0.0)
    assert not Judge(address(tmp_path, number, warmup=3))(2, 0.0)
    assert Judge(address(tmp_path, number, warmup=3))(3, 0.0)


def test_a_resumed_job_may_report_a_step_again(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    _, number = study_of(tmp_path, [[1.0, 1.0]] * 2)
    assert Judge(address(tmp_path, number))(1, 0.0)
    assert Judge(address(tmp_path, number))(1, 0.0)
    assert not recwarn.list


def test_a_job_finds_its_trial_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert TrialAddress.of_this_job() is None
    monkeypatch.setenv(VARIABLE, "")
    assert TrialAddress.of_this_job() is None
    given = address(tmp_path / 'it\'s a "folder"', 3)
    monkeypatch.setenv(VARIABLE, given.to_text())
    assert TrialAddress.of_this_job() == given


def trainer(metrics: dict[str, float], rank: int = 0, told: bool | None = None) -> SimpleNamespace:
    """As much of a Trainer as the callback looks at; ``told`` is what rank zero sent."""
    progress = SimpleNamespace(total=SimpleNamespace(completed=7))
    return SimpleNamespace(
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        is_global_zero=rank == 0,
        strategy=SimpleNamespace(broadcast=lambda value: value if told is None else told),
    )


def test_the_callback_ends_the_run_when_told_to() -> None:
    asked = []
    prune = Prune("ppo/val/gold", lambda step, value: asked.append((step, value)) or value < 0.5)
    prune.on_validation_end(trainer({"ppo/val/gold": 0.75}), None)
    with pytest.raises(Pruned, match=r"pruned after 7 batches: ppo/val/gold was 0\.25"):
        prune.on_validation_end(trainer({"ppo/val/gold": 0.25}), None)
    assert asked == [(7, 0.75), (7, 0.25)]


def test_other_ranks_do_what_rank_zero_was_told() -> None:
    def never(step: int, value: float) -> bool:
        raise AssertionError("only rank zero asks")

    prune = Prune("ppo/val/gold", never)
    prune.on_validation_end(trainer({"ppo/val/gold": 0.0}, rank=1, told=False), None)
    with pytest.raises(Pruned):
        prune.on_validation_end(trainer({"ppo/val/gold": 0.0}, rank=1, told=True), None)


def test_a_figure_that_is_not_measured_is_told() -> None:
    with pytest.raises(UserError, match=r"ppo/val/kl, which is not measured .* hydra.sweeper.prune=null"):
        Prune("ppo/val/kl", lambda step, value: False).on_validation_end(trainer({"ppo/val/gold": 1.0}), None)
