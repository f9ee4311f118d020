"""`rlhf-feedback rows`: the command that it prints trains on what it wrote."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.commands.rows import train_line


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, task: str | None) -> list[str]:
    """The options of the printed command, of rows of one kind that were imported."""
    row = {
        "preference": {"prompt": "Who?", "chosen": "Ann", "rejected": "Ben"},
        "sft": {"prompt": "Who?", "completion": "Ann"},
    }[kind]
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    store = ["--store", str(tmp_path / "x.db")]
    of_task = [] if task is None else ["--task", task]
    assert main(["import", *store, "--format", kind, *of_task, str(tmp_path / "in.jsonl")]) == 0
    assert main(["rows", *store, "--out", str(tmp_path / "rows"), "--test-share", "0"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[0] == "rlhf-train"
    return command[1:]


@pytest.mark.parametrize(("kind", "stages"), [("preference", ["reward"]), ("sft", ["sft"])])
def test_the_stages_are_those_that_there_are_rows_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, stages: list[str]
) -> None:
    options = told(tmp_path, capsys, kind, "qa")
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        cfg = compose("train", options)
    assert (list(cfg.stages), cfg.task.name) == (stages, "qa")


@pytest.mark.parametrize("task", [None, "poems", "../task/qa"])
def test_without_a_task_of_ours_it_is_a_dialogue_without_right_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str | None
) -> None:
    assert [o for o in told(tmp_path, capsys, "preference", task) if "task=" in o] == ["task=dialogue"]


@pytest.mark.parametrize(("prompts", "stages"), [(3, ["sft", "reward"]), (64, ["sft", "reward", "ppo"])])
def test_ppo_is_run_where_there_are_prompts_for_a_round(tmp_path: Path, prompts: int, stages: list[str]) -> None:
    files = {name: tmp_path / f"{name}.jsonl" for name in ("preferences", "sft")}
    options = shlex.split(train_line(files, [], "dialogue", prompts))[1:]
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        assert list(compose("train", options).stages) == stages
