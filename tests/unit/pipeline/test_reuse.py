"""Steps that jobs of a sweep have in common: when they are the same, and what is taken of them."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.data.rows import Prompt, PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import Preempted
from rlhf_lightning.pipeline import reuse
from rlhf_lightning.pipeline.reuse import key_of, taken_or_done
from rlhf_lightning.pipeline.run import Run
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.stages import Sample
from rlhf_lightning.state import State, flat

OPTIONS: dict[str, Any] = {
    "seed": 0,
    "stages": ["sft", "reward", "ppo"],
    "policy": None,
    "task": {"name": "qa", "format": {"_target_": "rlhf_lightning.data.format.RowFormat", "prompt": "{a}"}},
    "data": {"validation_size": 0.1, "gold": "math.sqrt"},
    "model": {"name": "m", "recommended": {"sft": {"lr": 1.0}}},
    "sft": {"lr": 1.0},
    "reward": {"lr": 1.0},
    "ppo": {"lr": 1.0, "rewards": {"chrf": {"weight": 1.0}}},
    "evaluate": {"batch_size": 8},
    "predict": {"input": None},
    "trainer": {"precision": "32-true", "enable_progress_bar": True},
    "logger": {},
    "reuse": True,
}
ROWS = [PromptRow(Prompt(text), [text]) for text in ("a", "b", "c")]


def make_run(sweep: Path | None, name: str = "0_x", **changes: Any) -> Run:
    cfg = json.loads(json.dumps(OPTIONS))
    for path, value in changes.items():
        *groups, last = path.split("__")
        inner = cfg
        for group in groups:
            inner = inner[group]
        inner[last] = value
    folder = (sweep or Path("nowhere")) / name
    state = State(config=flat(cfg), data={"train": [3, "abc"], "predict.input": [0, "x"]})
    results = RunResults(task="qa", versions={"torch": "2"})
    return Run(cfg, folder, sweep, TaskData(test=ROWS), results, state, StopRequest(), spec=None)  # type: ignore[arg-type]


def changed(step: str, **changes: Any) -> bool:
    return key_of(make_run(None), step) != key_of(make_run(None, **changes), step)


@pytest.mark.parametrize(
    ("option", "value", "steps"),
    [
        ("ppo__lr", 2.0, []),
        ("ppo__rewards", {"bleu": {"weight": 2.0}}, []),
        ("stages", ["sft"], []),
        ("predict__input", "f", []),
        ("reuse", False, []),
        ("trainer__enable_progress_bar", False, []),
        ("sft__lr", 2.0, ["sft"]),
        ("model__recommended", {"sft": {"lr": 2.0}}, []),
        ("reward__lr", 2.0, ["reward"]),
        ("evaluate__batch_size", 4, ["start measured", "sft measured"]),
        ("seed", 1, list(reuse.INDIFFERENT)),
        ("policy", "p", list(reuse.INDIFFERENT)),
        ("trainer__precision", "bf16-mixed", list(reuse.INDIFFERENT)),
        ("task__format__prompt", "{b}", list(reuse.INDIFFERENT)),
        ("data__validation_size", 0.2, list(reuse.INDIFFERENT)),
    ],
)
def test_what_a_step_depends_on(option: str, value: Any, steps: list[str]) -> None:
    assert [step for step in reuse.INDIFFERENT if changed(step, **{option: value})] == steps


def test_rows_versions_code_and_the_policy_count(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key_of(make_run(None), "reward")]
    run = make_run(None)
    run.state.data["train"] = [3, "abd"]
    keys.append(key_of(run, "reward"))
    run = make_run(None)
    run.results.versions["torch"] = "3"
    keys.append(key_of(run, "reward"))
    run = make_run(None)
    run.lineage = key_of(run, "sft")
    keys.append(key_of(run, "reward"))
    monkeypatch.setattr(reuse, "code_hash", lambda: "other")
    keys.append(key_of(make_run(None), "reward"))
    assert len(set(keys)) == len(keys)


def test_what_a_path_names_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own_gold.py").write_text("def score(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    changes = {"data__gold": "users_own_gold.score", "policy": str(model)}
    keys = [key_of(make_run(None, **changes), "sft")]
    (tmp_path / "users_own_gold.py").write_text("def score(): return 1")
    keys.append(key_of(make_run(None, **changes), "sft"))
    (model / "config.json").write_text('{"a": 1}')
    keys.append(key_of(make_run(None, **changes), "sft"))
    assert len(set(keys)) == 3


def test_a_text_that_is_no_path_is_none() -> None:
    """One longer than a file's name may be, and one that would name the current folder."""
    assert len({key_of(make_run(None, policy=text), "sft") for text in ("", "be brief " * 100)}) == 2
    assert not list(reuse._files_of({"policy": ""}))


def train(run: Run) -> None:
    """What a training leaves."""
    (run.dir / "sft" / "model").mkdir(parents=True)
    (run.dir / "sft" / "model" / "model.safetensors").write_bytes(b"weights")
    (run.dir / "sft" / "metrics.csv").write_text("step\n1\n")
    (run.dir / "sft" / "checkpoints").mkdir()
    run.results.notes.append("two rows were cut")
    run.results.exported["sft"] = 3


def measured(run: Run) -> None:
    """What measuring leaves."""
    run.results.policies.append(PolicyResult("base", "there", {"f1": 1 / 3, "distinct_1": math.nan}))
    run.results.columns |= {"task": ["f1"], "reward": [], "guardrails": ["distinct_1"]}
    run.results.directions |= {"f1": "max", "distinct_1": None}
    run.results.held_out = 3
    run.answers["base"] = [Sample(i, row, f"answer {i}", {"length": i / 3}) for i, row in enumerate(ROWS)]


def never() -> None:
    raise AssertionError("it was there already")


def test_a_training_is_taken_with_its_model_curves_and_notes(tmp_path: Path) -> None:
    first, second = make_run(tmp_path), make_run(tmp_path, "1_x", ppo__lr=2.0)
    first.results.notes.append("before")
    for run in (first, second):
        run.dir.mkdir()
    taken_or_done(first, "sft", lambda: train(first))
    taken_or_done(second, "sft", never)
    assert sorted(path.name for path in (second.dir / "sft").iterdir()) == ["metrics.csv", "model"]
    weights = [run.dir / "sft" / "model" / "model.safetensors" for run in (first, second)]
    assert weights[1].read_bytes() == b"weights"
    assert weights[0].samefile(weights[1]), "weights take their room once"
    curves = [run.dir / "sft" / "metrics.csv" for run in (first, second)]
    assert not curves[0].samefile(curves[1]), "those may be written to"
    assert (second.results.notes, second.results.exported) == (["two rows were cut"], {"sft": 3})
    assert (first.results.reused, second.results.reused) == ({}, {"sft": "0_x"})


def test_answers_and_figures_are_taken_to_the_last_digit(tmp_path: Path) -> None:
    first, second = make_run(tmp_path), make_run(tmp_path, "1_x", sft__lr=2.0)
    second.results.columns["reward"] = ["chrf"]
    taken_or_done(first, "start measured", lambda: measured(first))
    taken_or_done(second, "start measured", never)
    (policy,) = second.results.policies
    assert policy.metrics["f1"] == 1 / 3
    assert math.isnan(policy.metrics["distinct_1"])
    assert second.results.columns == {"task": ["f1"], "reward": ["chrf"], "guardrails": ["distinct_1"]}
    assert second.results.directions == {"f1": "max", "distinct_1": None}
    assert second.results.held_out == 3
    told = [(sample.id, sample.row, sample.completion, sample.measures) for sample in second.answers["base"]]
    assert told == [(i, row, f"answer {i}", {"length": i / 3}) for i, row in enumerate(ROWS)]


def test_what_a_job_did_before_it_was_resumed_is_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = make_run(tmp_path), make_run(tmp_path)
    taken_or_done(first, "start measured", lambda: measured(first))
    capsys.readouterr()
    taken_or_done(again, "start measured", never)
    assert again.results.reused == {}
    assert capsys.readouterr().out == "start measured: done before\n"


@pytest.mark.parametrize("why", ["single run", "turned off", "after ppo"])
def test_nothing_is_shared(why: str, tmp_path: Path) -> None:
    run = make_run(None if why == "single run" else tmp_path, reuse=why != "turned off")
    run.lineage = None if why == "after ppo" else ""
    done: list[int] = []
    taken_or_done(run, "start measured", lambda: done.append(1))
    assert done
    assert not list(tmp_path.iterdir())


def test_a_step_that_fails_is_done_by_the_next(tmp_path: Path) -> None:
    first, second = make_run(tmp_path), make_run(tmp_path, "1_x")
    with pytest.raises(ZeroDivisionError):
        taken_or_done(first, "start measured", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    taken_or_done(second, "start measured", lambda: measured(second))
    assert second.results.reused == {}


def test_a_job_waits_for_the_one_that_is_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "LOOK_EVERY", 0.05)
    first, second = make_run(tmp_path), make_run(tmp_path, "1_x")
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(20)
        measured(first)

    def other() -> None:
        taken_or_done(second, "start measured", never)

    threads = [threading.Thread(target=taken_or_done, args=(first, "start measured", slow))]
    threads[0].start()
    assert begun.wait(20)
    threads.append(threading.Thread(target=other))
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert second.results.reused == {"start measured": "0_x"}


def test_a_job_that_waits_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(reuse, "LOOK_EVERY", 0.05)
    run = make_run(tmp_path)
    (tmp_path / "shared").mkdir()
    with FileLock(tmp_path / "shared" / f"start-measured-{key_of(run, 'start measured')[:16]}.lock"):
        run.stop.deadline = 0.0
        with pytest.raises(Preempted):
            taken_or_done(run, "start measured", never)
