"""A sweep's folder: names of jobs, what is found again, how jobs ended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support.instantiate import new_folder
from rlhf_lightning.hydra_support.leftovers import note
from rlhf_lightning.report import RunResults
from rlhf_lightning.state import State, flat, row_files
from rlhf_lightning.sweep import folders


def make_sweep(folder: Path, *overrides: str) -> Path:
    folder.mkdir(parents=True)
    (folder / folders.FILE).write_text(json.dumps({"schema": 1, "overrides": overrides, "hydra": []}))
    return folder


@given(st.lists(st.text(), max_size=4))
def test_a_jobs_name_needs_no_quotes_and_fits(swept: list[str]) -> None:
    name = folders.job_name(swept)
    assert re.fullmatch(r"[\w.-]*", name, flags=re.ASCII)
    assert len(name) <= folders.LONGEST_NAME


def test_long_names_that_differ_at_their_ends_differ() -> None:
    names = {folders.job_name([f"data.train={'x' * 300}{end}"]) for end in "ab"}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("w=-1", "w=1"),
        ("p='a b'", "p='a-b'"),
        ("d=/home/anna/x.jsonl", "d=/home/bert/x.jsonl"),
        ("s=[a,b]", "s=[a,'b,c']"),
    ],
)
def test_options_that_differ_have_names_that_do(one: str, other: str) -> None:
    assert folders.job_name([one]) != folders.job_name([other])


def test_a_name_tells_no_path() -> None:
    assert "anna" not in folders.job_name(["data.train=/home/anna/x.jsonl"])
    assert "x.jsonl" in folders.job_name(["data.train=/home/anna/x.jsonl"])


def test_a_job_is_named_by_what_differs_between_jobs(tmp_path: Path) -> None:
    command = ("task=qa", "trainer.enable_progress_bar=false", "ppo.kl_coef=0.1,0.2", "stages=[sft],[sft,ppo]")
    sweep = make_sweep(tmp_path / "s", *command, "resume=true")
    job = ["task=qa", "trainer.enable_progress_bar=False", "ppo.kl_coef=0.1", "stages=[sft,ppo]", "resume=True"]
    assert folders.job_folder(sweep, 3, job, resume=False) == "3_ppo.kl_coef-0.1_stages-sft-ppo"
    assert folders.job_folder(sweep, 0, ["task=qa"], resume=False) == "0"
    twice = make_sweep(tmp_path / "twice", "seed=7", "seed=1,2")
    assert folders.job_folder(twice, 1, ["seed=2"], resume=False) == "1_seed-2", "the later one counts"


def test_drawn_numbers_are_shown_short_and_stay_apart() -> None:
    names = [
        folders.job_name([f"a={value!r}"])
        for value in (0.12345678901234567, 0.12345678901239999, 1.5e-05, 0.25, 12345.678901234567)
    ]
    assert [name.partition("_")[0] for name in names] == ["a-0.1235", "a-0.1235", "a-1.5e-05", "a-0.25", "a-12346"]
    assert len(set(names)) == 5
    assert folders.job_name(["model.name=v1.123456789012"]) == "model.name-v1.123456789012", "no number"


def test_a_resumed_job_has_its_folder_also_under_another_number(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", "seed=1,2,3")
    for name in ("0_seed-1", "10_seed-3", "2_seed-3"):
        (sweep / name).mkdir()
    assert folders.job_folder(sweep, 1, ["seed=1"], resume=True) == "0_seed-1"
    assert folders.job_folder(sweep, 1, ["seed=1"], resume=False) == "1_seed-1"
    assert folders.job_folder(sweep, 7, ["seed=3"], resume=True) == "2_seed-3"
    assert folders.job_folder(sweep, 10, ["seed=3"], resume=True) == "10_seed-3"
    assert folders.job_folder(sweep, 4, ["seed=2"], resume=True) == "4_seed-2"


def test_the_newest_sweep_of_the_same_command_is_found(tmp_path: Path) -> None:
    for name in ("2026-01-01", "2026-01-02"):
        make_sweep(tmp_path / name, "seed=1,2", "task=qa")
    make_sweep(tmp_path / "2026-01-03", "seed=1,2,3", "task=qa")
    (tmp_path / "2026-01-04").mkdir()
    (tmp_path / "2026-01-04" / folders.FILE).write_text('{"schema": 0}')
    assert folders.find_sweep(tmp_path, ["task=qa", "seed=1,2", "resume=true"]) == tmp_path / "2026-01-02"
    assert folders.find_sweep(tmp_path, ["task=qa"]) is None
    same = ["task=qa", "seed=1,2"]
    assert folders.find_sweep(tmp_path, same, ["hydra.sweeper.n_trials=9"]) == tmp_path / "2026-01-02"
    assert folders.find_sweep(tmp_path, same, ["hydra.sweeper.params.seed=9"]) is None
    with pytest.raises(UserError, match="another version"):
        folders.read_sweep(tmp_path / "2026-01-04")


def test_the_start_is_written_down_once(tmp_path: Path) -> None:
    def config(*overrides: str) -> object:
        hydra = {
            "sweep": {"dir": str(tmp_path / "s")},
            "overrides": {"task": overrides, "hydra": ["hydra.mode=M", "a"]},
        }
        return OmegaConf.create({"hydra": hydra})

    folders.started.clear()
    for overrides in (["seed=1,2"], ["seed=1,2", "resume=true"]):
        folders.SweepFolder().on_multirun_start(config(*overrides))  # type: ignore[arg-type]
    assert folders.read_sweep(tmp_path / "s") == {"overrides": ["seed=1,2"], "hydra": ["a"]}
    assert folders.started == [tmp_path / "s"] * 2
    folders.started.clear()


def test_how_jobs_ended(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", "seed=1,2")
    for number in (10, 9, 8):
        (sweep / f"{number}_x").mkdir()
        folders.begin(sweep / f"{number}_x", "qa", number)
    folders.write_failure(sweep / "9_x", "qa", 9, "no room")
    folders.write_failure(sweep / "9_x", "qa", 9, "no room")
    RunResults(task="qa", status="finished", notes=["fine"]).write(sweep / "8_x" / "metrics.json")
    folders.begin(sweep / "8_x", "qa", 8)
    ends = [(name, results.status, results.notes) for name, results in folders.jobs(sweep)]
    assert ends == [
        ("8_x", "finished", ["fine"]),
        ("9_x", "failed", ["the run failed: no room"]),
        ("10_x", "running", []),
    ]


def test_only_a_finished_job_with_the_same_options_and_files_is_done(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    values = {"seed": 1, "ppo": {"lr": 0.1}, "data": {"train": str(rows)}}
    config = OmegaConf.create({**values, "resume": True})
    results = RunResults(task="qa", status="interrupted")

    def written(status: str) -> RunResults | None:
        results.status = status
        State(config=flat(values), results=results.to_dict(), files=row_files(values)).write(tmp_path)
        return folders.done_before(tmp_path, config)

    assert folders.done_before(tmp_path, config) is None
    assert not folders.is_done(tmp_path)
    assert written("interrupted") is None
    done = written("finished")
    assert done is not None
    assert (done.task, done.status) == ("qa", "finished")
    config.ppo.lr = 0.2
    assert folders.done_before(tmp_path, config) is None
    config.ppo.lr = 0.1
    rows.write_text('{"a": 1}')
    assert folders.done_before(tmp_path, config) is None


def test_what_a_finished_job_came_to_stands_though_it_is_refused_later(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", "seed=1")
    (sweep / "0_x").mkdir()
    RunResults(task="qa", status="finished").write(sweep / "0_x" / "metrics.json")
    folders.write_failure(sweep / "0_x", "qa", 0, "other options")
    assert [results.status for _, results in folders.jobs(sweep)] == ["finished"]
    assert folders.refused(sweep) == ["0_x"]


def test_a_sweep_without_a_job_leaves_nothing(tmp_path: Path) -> None:
    other, begun = make_sweep(tmp_path / "other"), make_sweep(tmp_path / "begun")
    note(tmp_path / "empty")
    empty = make_sweep(tmp_path / "empty")
    for name in ("multirun.yaml", "study.journal", "study.journal.lock"):
        (empty / name).touch()
    (other / "mine.txt").touch()
    (begun / "0_x").mkdir()
    for sweep in (empty, other, begun):
        folders.remove_empty(sweep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "other"]
    assert (begun / folders.FILE).exists()
    assert (other / "mine.txt").exists()


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    made = [new_folder(tmp_path / "runs") for _ in range(20)]
    assert len(set(made)) == 20
    assert all(path.is_dir() for path in made)
    assert sorted(made) == made, "the newest is found by its name"


def test_folders_that_were_made_for_a_sweep_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for parent in ("made", "mine"):
        folder = new_folder(tmp_path / parent / "multiruns")
        (folder / folders.FILE).touch()
        folders.remove_empty(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not list((tmp_path / "mine").iterdir())


def test_no_folder_is_made_where_the_config_is_only_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rlhf-train", "--cfg", "hydra"])
    new_folder(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
