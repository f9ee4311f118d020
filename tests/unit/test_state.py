"""What a run remembers, and when it may be gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.state import (
    State,
    clear,
    command_of,
    find_run,
    fingerprint,
    flat,
    open_state,
)

ROWS = TaskData(prompts=[PromptRow(Prompt("a"), ["b"]), PromptRow(Prompt("c"), ["d"])])


def state(data: TaskData = ROWS, **options: object) -> State:
    config = {"seed": 0, "ppo": {"kl_coef": 0.05, "loader": {"batch_size": 8}}, "paths": {"output_dir": "x"}}
    return State(["task=qa"], flat({**config, **options}), fingerprint(data, []))


def test_what_makes_no_difference_is_not_compared() -> None:
    config = {"resume": True, "trainer": {"devices": 1, "enable_progress_bar": True}, "data": {"train": "f", "seed": 1}}
    assert flat(config) == {"trainer.devices": 1, "data.seed": 1}


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = state()
    made.done, made.results, made.wandb = ["sft"], {"task": "qa"}, {"sft": "abc"}
    made.write(tmp_path)
    assert State.read(tmp_path) == made
    assert State.read(tmp_path / "nothing") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 0}', "\xff"])
def test_a_state_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"state.json .*Start the run anew"):
        State.read(tmp_path)


def test_the_same_run_is_gone_on_with(tmp_path: Path) -> None:
    old = state()
    old.done = ["sft"]
    old.write(tmp_path)
    assert open_state(tmp_path, state(), True) == (old, [])
    new, told = open_state(tmp_path, state(), False)
    assert (new.done, told) == ([], [])
    new, (told,) = open_state(tmp_path / "other", state(), True)
    assert (new.done, "no run to resume" in told) == ([], True)


def test_changes_are_refused_by_name_or_forced(tmp_path: Path) -> None:
    old = state()
    old.done = ["sft"]
    old.write(tmp_path)
    others = TaskData(prompts=[PromptRow(Prompt("a"), ["b"]), PromptRow(Prompt("c"), ["e"])])
    new = state(others, seed=1, ppo={"kl_coef": 0.05, "loader": {"batch_size": 8}, "lam": 1.0})
    with pytest.raises(UserError) as refused:
        open_state(tmp_path, new, True)
    for part in (
        "seed was 0 and is 1",
        "ppo.lam was 'nothing' and is 1.0",
        "rows of data.prompts are others (2 then, 2",
    ):
        assert part in str(refused.value)
    assert "resume=force" in str(refused.value)
    forced, told = open_state(tmp_path, new, "force")
    assert forced.done == ["sft"]
    assert len(told) == 3
    assert forced.config == new.config, "what is gone on with next time is compared to what is new"


def test_fingerprints_tell_rows_apart() -> None:
    one = fingerprint(ROWS, [])
    assert one == fingerprint(TaskData(prompts=list(ROWS.prompts)), [])
    assert one["prompts"][0] == 2
    turned = fingerprint(TaskData(prompts=ROWS.prompts[::-1]), [])
    assert turned["prompts"] != one["prompts"]
    assert fingerprint(ROWS, [PromptRow(Prompt("\ud800"))])["predict.input"][0] == 1, "lone surrogates can be hashed"


def test_the_newest_run_of_a_command_is_found(tmp_path: Path) -> None:
    for name, overrides in [
        ("2026-01-01", ["task=qa", "seed=1"]),
        ("2026-01-02", ["seed=1", "resume=true", "task=qa", "max_time=01:00"]),
        ("2026-01-03", ["task=qa", "seed=2"]),
    ]:
        (tmp_path / name).mkdir()
        State(overrides).write(tmp_path / name)
    (tmp_path / "2026-01-04").mkdir()
    (tmp_path / "2026-01-04" / "state.json").write_text("{")
    assert find_run(tmp_path, ["task=qa", "seed=1", "resume=true"]) == tmp_path / "2026-01-02"
    assert find_run(tmp_path, ["task=qa"]) is None


def test_a_folder_stands_for_its_command(tmp_path: Path) -> None:
    State(["task=qa", "hydra.run.dir=elsewhere", "resume=true"]).write(tmp_path)
    assert command_of(tmp_path) == ["task=qa", f"hydra.run.dir={tmp_path}"]
    State(overrides=["sweep=grid", "seed=1"]).write(tmp_path)
    assert command_of(tmp_path) == ["sweep=grid", "seed=1", "hydra.mode=RUN", f"hydra.run.dir={tmp_path}"]
    with pytest.raises(UserError, match="no run to resume"):
        command_of(tmp_path / "nothing")


def test_a_new_run_clears_what_an_old_one_left(tmp_path: Path) -> None:
    for name in ("sft/checkpoints/00000001", "ppo/best/00000004", "sft/model"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "state.json").write_text(json.dumps({}))
    clear(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["ppo", "sft", "sft/model"]


def test_a_run_that_may_have_been_meant_is_named(tmp_path: Path) -> None:
    """Another command begins a new run; whoever resumes is told of the unfinished one, and how it was started."""
    old, new = state(), state()
    old.overrides, new.overrides = ["task=qa", "seed=1"], ["task=qa", "ppo.lr=1e-4", "resume=true"]
    (tmp_path / "old").mkdir()
    old.write(tmp_path / "old")
    meant = f"The newest run, {tmp_path / 'old'}, is not finished, but was started without ppo.lr=1e-4 and with seed=1"
    assert meant in open_state(tmp_path / "new", new, True)[1][0]
    assert open_state(tmp_path / "new", new, False)[1] == []
    with pytest.raises(UserError, match=f"{meant}.*resume={tmp_path / 'old'} resume=force"):
        open_state(tmp_path / "new", new, "force")
    old.results = {"status": "finished"}
    old.write(tmp_path / "old")
    for resume in (True, "force"):
        said = " ".join(open_state(tmp_path / "new", new, resume)[1])
        assert f"The newest run, {tmp_path / 'old'}, is finished, and was started without ppo.lr=1e-4 and with" in said
    old.overrides = ["task=qa", "seed=1", "ppo.kl_coef=0"]  # too many differ for it to have been meant
    old.write(tmp_path / "old")
    assert "newest run" not in " ".join(open_state(tmp_path / "new", new, True)[1])
