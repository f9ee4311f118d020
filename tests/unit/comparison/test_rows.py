"""Which runs are one row, and which take no part."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.run_folders import write_run

from rlhf_lightning.comparison.rows import Rows, make_rows, why_left_out
from rlhf_lightning.comparison.table import csv_text, table_fields, table_notes
from rlhf_lightning.errors import UserError
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.report.curves import Curve
from rlhf_lightning.report.runs import Run, find_runs


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for i, (kl_coef, seed) in enumerate([("0.1", 1), ("0.02", 2), ("0.1", 0), ("0.02", 0), ("2e-05", 0)]):
        write_run(tmp_path / str(i + 8), kl_coef, seed)
    return tmp_path


def told(rows: Rows) -> dict[str, list[str]]:
    return {row.name: [rows.label(run) for run in row.runs] for row in rows.rows}


def test_runs_that_differ_by_seed_are_one_row_and_rows_are_in_the_order_of_numbers(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep]))
    assert rows.keys == ["ppo.kl_coef"]
    assert told(rows) == {
        "ppo.kl_coef=2e-05": ["12"],
        "ppo.kl_coef=0.02": ["11", "9"],
        "ppo.kl_coef=0.1": ["10", "8"],
    }
    assert [row.seeds for row in rows.rows] == [[0], [0, 2], [0, 1]]


def test_each_run_by_itself(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep]), each=True)
    assert told(rows) == {name: [name] for name in ("12", "11", "9", "10", "8")}
    assert rows.keys == ["ppo.kl_coef", "seed"]


def test_groups_by_several_settings(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep]), group_by="kl_coef, seed")
    assert len(rows.rows) == 5
    assert rows.rows[0].name == "ppo.kl_coef=2e-05, seed=0"
    assert len(make_rows(find_runs([sweep]), group_by="seed").rows) == 3


def test_what_else_differs_within_a_row_is_told(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep]))
    assert rows.mixed == []
    assert table_notes(rows, table_fields(rows)) == []
    by_seed = make_rows(find_runs([sweep]), group_by="seed")
    assert by_seed.mixed == ["ppo.kl_coef"]
    assert table_notes(by_seed, table_fields(by_seed)) == ["Within a row these differ too: ppo.kl_coef."]


def test_a_name_that_is_not_all_that_differs_is_told(tmp_path: Path) -> None:
    for name, kl_coef in (("a", "0.1"), ("b", "0.2")):
        write_run(tmp_path / name, kl_coef)
        config = tmp_path / name / ".hydra" / "config.yaml"
        config.write_text(config.read_text().replace("lr: 1e-5", f"lr: {kl_coef}"))
    rows = make_rows(find_runs([tmp_path]))
    assert [row.name for row in rows.rows] == ["ppo.kl_coef=0.1", "ppo.kl_coef=0.2"]
    assert table_notes(rows, table_fields(rows)) == ["Rows that differ in ppo.kl_coef also differ in ppo.lr."]


def test_drawn_numbers_are_shown_short(tmp_path: Path) -> None:
    for i, kl_coef in enumerate(["0.0123456789012345", "0.0987654321098765"]):
        write_run(tmp_path / str(i), kl_coef)
    rows = make_rows(find_runs([tmp_path]))
    assert [row.name for row in rows.rows] == ["ppo.kl_coef=0.01235", "ppo.kl_coef=0.09877"]
    assert next(f for f in table_fields(rows) if f.title == "ppo.kl_coef").texts == ["0.01235", "0.09877"]
    assert rows.find("kl_coef=0.09877") == rows.find("kl_coef=0.0987654321098765") == 1
    assert "0.0987654321098765" in csv_text(rows), "unrounded"
    write_run(tmp_path / "2", "0.0123456789012999")
    rows = make_rows(find_runs([tmp_path]))
    texts = next(f for f in table_fields(rows) if f.title == "ppo.kl_coef").texts
    assert texts[:2] == ["0.0123456789012345", "0.0123456789012999"], "four digits would not tell them apart"
    assert [row.name for row in rows.rows] == [f"ppo.kl_coef={text}" for text in texts]


def test_other_tasks_and_other_stages_are_never_in_one_row(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1, task="translation")
    write_run(tmp_path / "c", seed=2, stages=["sft"], policies=("base", "sft"))
    rows = make_rows(find_runs([tmp_path]), group_by="kl_coef")
    assert [(row.settings["task"], row.settings["stages"]) for row in rows.rows] == [
        ("qa", "sft"),
        ("qa", "sft, ppo"),
        ("translation", "sft, ppo"),
    ]


@pytest.mark.parametrize("group_by", [None, "kl_coef"])
def test_what_is_not_finished_takes_no_part(sweep: Path, group_by: str | None) -> None:
    notes = ["ppo failed after 3 optimizer steps: the reward is nan", "something else"]
    write_run(sweep / "x", "0.1", 5, status="failed", policies=("base", "sft"), notes=notes)
    write_run(sweep / "y", "0.7", 5, status="interrupted", policies=())
    write_run(sweep / "z", "0.1", 6, policies=())
    again = [
        "the run failed: no room",
        "the chart of failed runs is at /x",
        "the run failed: a bad\nreward",
        "it's failed",
    ]
    write_run(sweep / "w", "0.1", 7, status="failed", policies=(), notes=again)
    write_run(sweep / "v", "0.1", 8, status="running", policies=(), notes=["train: 3 running texts dropped"])
    notes = ["interrupted rows: 2", "ppo was interrupted after 7 optimizer steps"]
    write_run(sweep / "u", "0.1", 9, status="interrupted", policies=(), notes=notes)
    notes = ["pruned after 4 batches: gold was 0.1, worse than the median", "a layer was pruned"]
    write_run(sweep / "t", "0.1", 10, status="pruned", policies=(), notes=notes)
    rows = make_rows(find_runs([sweep]), group_by)
    assert sorted(label for row in rows.rows for label in told(rows)[row.name]) == ["10", "11", "12", "8", "9"]
    assert {label: why_left_out(run) for label, run in rows.left_out.items()} == {
        "x": "failed: ppo failed after 3 optimizer steps: the reward is nan",
        "y": "interrupted",
        "z": "measured no policy",
        "w": "failed: a bad reward",
        "v": "ended without a word, or is still running",
        "u": "interrupted: ppo was interrupted after 7 optimizer steps",
        "t": "pruned: after 4 batches: gold was 0.1, worse than the median",
    }


def test_the_same_seed_twice_makes_two_rows(tmp_path: Path) -> None:
    for place in ("before/0", "before/1", "after/0", "after/1"):
        write_run(tmp_path / place, seed=int(place[-1]))
    rows = make_rows(find_runs([tmp_path]))
    assert told(rows) == {"after": ["after/0", "after/1"], "before": ["before/0", "before/1"]}
    write_run(tmp_path / "after" / "2", seed=1)
    assert len(make_rows(find_runs([tmp_path])).rows) == 5


def test_names_are_of_as_few_settings_as_tell_rows_apart(tmp_path: Path) -> None:
    for i, (kl_coef, lr) in enumerate([("0.1", "1e-3"), ("0.1", "1e-3"), ("0.2", "2e-3"), ("0.3", "2e-3")]):
        folder = write_run(tmp_path / str(i), kl_coef, seed=i)
        config = folder / ".hydra" / "config.yaml"
        config.write_text(config.read_text() + f"a_rate: {lr}\n")
    rows = make_rows(find_runs([tmp_path]))
    assert [row.name for row in rows.rows] == ["ppo.kl_coef=0.1", "ppo.kl_coef=0.2", "ppo.kl_coef=0.3"]
    assert rows.keys == ["ppo.kl_coef", "a_rate"]
    assert rows.telling == 1


def test_a_row_is_found_by_what_a_user_calls_it(sweep: Path) -> None:
    rows = make_rows(find_runs([sweep]))
    assert [rows.find(name) for name in (None, "kl_coef=0.1", "ppo.kl_coef=0.02", "9")] == [0, 2, 1, 1]
    with pytest.raises(UserError, match=r"--baseline kl_coef=7 is no row; there are: ppo.kl_coef=2e-05; "):
        rows.find("kl_coef=7")
    with pytest.raises(UserError, match="several rows"):
        make_rows(find_runs([sweep]), each=True).find("kl_coef=0.1")


def test_a_run_from_elsewhere_brings_its_curves_and_samples(tmp_path: Path) -> None:
    results = RunResults("qa", 3, policies=[PolicyResult("ppo", None, {"gold": 1.0})])
    elsewhere = Run(Path("team/project/abc"), results, logged={"ppo": {"ppo/score": Curve([0], [1])}}, answered=[])
    rows = make_rows([elsewhere, *find_runs([write_run(tmp_path / "run")])])
    assert len(rows.rows) == 2
    assert elsewhere.curves()["ppo"]["ppo/score"].values == [1]
    assert elsewhere.samples() == []


def test_nothing_finished_is_no_error(tmp_path: Path) -> None:
    rows = make_rows(find_runs([write_run(tmp_path / "run", status="running", policies=())]))
    assert (rows.rows, list(rows.left_out)) == ([], ["run"])
