"""What the console script makes of what a job ends in."""

import errno
import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from rlhf_lightning import train
from rlhf_lightning.callbacks import alarms
from rlhf_lightning.errors import UserError
from rlhf_lightning.pipeline import Interrupted
from rlhf_lightning.report import RunResults
from rlhf_lightning.state import State
from rlhf_lightning.sweep import folders


@pytest.fixture
def ends_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], int]:
    """Runs `main` with a job that ends in an exception or returns."""
    monkeypatch.setattr("sys.argv", ["rlhf-train"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")

    def run(end: BaseException | None) -> int:
        def job() -> None:
            if end is not None:
                raise end

        monkeypatch.setattr(train, "run", job)
        return train.main(["task=qa"])

    return run


def test_success(ends_in, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_in(None) == 0
    assert capsys.readouterr().err == ""


def test_an_interrupt(ends_in, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_in(Interrupted()) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_place_that_cannot_be_used(ends_in, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_in(NotADirectoryError(20, "Not a directory", "out/run")) == 2
    assert capsys.readouterr().err.startswith("rlhf-train: cannot use out/run: Not a directory")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(ends_in, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_in(OSError(number, "No space left on device")) == 2
    told = capsys.readouterr().err
    assert told.startswith("rlhf-train: cannot write: No space left on device. Make room")
    assert "resume=true" in told


@pytest.mark.parametrize("fault", [OSError("no name"), ValueError("a fault"), RuntimeError("a fault")])
def test_a_fault_of_ours_is_not_hidden(ends_in, fault: Exception) -> None:
    with pytest.raises(type(fault)):
        ends_in(fault)


def test_every_mistake_of_a_sweep_is_told(monkeypatch: pytest.MonkeyPatch, capsys, ends_in) -> None:
    def jobs() -> None:
        train._failures += ["job 0 (a=1): wrong", "job 1 (a=2): wrong too"]

    monkeypatch.setattr(train, "run", jobs)
    monkeypatch.setattr("sys.argv", ["rlhf-train"])
    assert train.main() == 2
    assert capsys.readouterr().err == "rlhf-train: job 0 (a=1): wrong\nrlhf-train: job 1 (a=2): wrong too\n"
    assert ends_in(None) == 0  # nothing is left over


def test_warnings_of_ours_are_shown_without_their_place() -> None:
    assert train._in_words("the policy games the reward", UserWarning, alarms.__file__, 130) == (
        "warning: the policy games the reward\n"
    )
    assert train._in_words("odd", UserWarning, "/elsewhere/their.py", 7) == "/elsewhere/their.py:7: UserWarning: odd\n"


@pytest.mark.parametrize(
    ("given", "how"),
    [(["resume=DIR"], "true"), (["resume=DIR", "resume=force"], "force"), (["resume=force", "resume=DIR"], "force")],
)
def test_a_folder_may_be_forced(given: list[str], how: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    State(["task=qa", "seed=1", "resume=true", "max_time=00:10:00"]).write(tmp_path)
    arguments = [argument.replace("DIR", str(tmp_path)) for argument in given]
    monkeypatch.setattr("sys.argv", ["rlhf-train", *arguments, "trainer.devices=1"])
    train._expand_resume()
    assert sys.argv[1:] == ["task=qa", "seed=1", f"hydra.run.dir={tmp_path}", "trainer.devices=1", f"resume={how}"]


class Settings:
    """A config as a job of a sweep is given it."""

    class task:
        name = "qa"

    seed, resume, dry_run = 3, False, False


@pytest.mark.parametrize("fault", [UserError("no such file"), RuntimeError("no memory left")])
def test_a_job_that_fails_says_so_in_its_folder_and_lets_the_next_begin(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise fault

    monkeypatch.setattr(train, "_pipeline", fail)
    monkeypatch.setattr(train, "as_a_run_of_its_own", lambda folder, overrides: nullcontext())
    (tmp_path / "0_x").mkdir()
    assert math.isnan(train._job(Settings, tmp_path / "0_x", tmp_path, []))  # type: ignore[arg-type]
    ((name, results),) = folders.jobs(tmp_path)
    assert (name, results.status, results.seed) == ("0_x", "failed", 3)
    assert str(fault) in results.notes[0]
    told = capsys.readouterr().err
    assert "rlhf-train: 0_x failed: " in told
    assert ("Traceback" in told) == isinstance(fault, RuntimeError), "where a fault is ours it is wanted"


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["finished", "finished"], 0),
        (["finished", "failed", "interrupted"], 1),
        (["finished", "running"], 1),
        (["finished", "interrupted"], 75),
        (["finished", "interrupted", "failed"], 1),
    ],
)
def test_a_sweeps_status_says_whether_jobs_failed(statuses: list[str], code: int, tmp_path: Path) -> None:
    for number, status in enumerate(statuses):
        (tmp_path / f"{number}_x").mkdir()
        RunResults(task="qa", status=status).write(tmp_path / f"{number}_x" / "metrics.json")
    assert train._end_sweep(tmp_path) == code
