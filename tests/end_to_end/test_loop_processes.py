"""A loop on two processes: each round's work is done once, and comes to what one process with twice the batch does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from console import BIN, SMALL, environment, metrics, ok, run

pytest.importorskip("sqlalchemy", reason="the loop keeps judgements in a store: install the extra feedback")

LOOP = [
    *(o for o in SMALL if not o.startswith(("trainer=", "ppo.loader"))),
    *("task=qa", "loop=feedback", "loop.rounds=2", "loop.prompts=12", "loop.verdict=8", "trainer.accelerator=cpu"),
]
ONE = [*LOOP, "trainer=cpu", *(f"{stage}.loader.batch_size=8" for stage in ("sft", "reward", "ppo"))]
TWO = [
    *LOOP,
    "trainer=ddp",
    "trainer.devices=2",
    *(f"{stage}.loader.batch_size=4" for stage in ("sft", "reward", "ppo")),
]


def figures(folder: Path) -> dict[str, float | str | None]:
    """What a loop came to, each figure by where it stands."""
    results = metrics(folder)
    measured = {policy["name"]: policy["metrics"] for policy in results["policies"]}
    told = {**{name: results[name] for name in ("status", "rounds", "reward_model", "notes")}, "policies": measured}

    def flat(name: str, value: Any) -> dict[str, Any]:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if parts is None:
            return {name: value}
        return {key: one for part, inner in parts for key, one in flat(f"{name}/{part}", inner).items()}

    return flat("", told)


def check(folder: Path, expected: Path) -> None:
    """Whether a loop came to the same as another one, but for rounding."""
    found, wanted = figures(folder), figures(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        near = pytest.approx(value, rel=1e-2, abs=1e-4) if isinstance(value, float) else value
        assert found[name] == near, name


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    ok(run(folder, *ONE))
    return folder / "run"


@pytest.mark.slow
def test_two_processes_ask_judge_learn_and_report_once_as_one_does(one: Path, tmp_path: Path):
    from rlhf_lightning.feedback.store import Store

    said = ok(run(tmp_path, *TWO)).stdout
    found = tmp_path / "run"
    check(found, one)
    for number in (1, 2):
        mine, theirs = (lines(folder / f"round_{number}" / "questions.jsonl") for folder in (found, one))
        asked, wanted = (
            [(item["asked"]["text"], [c["text"] for c in item["candidates"]]) for item in items]
            for items in (mine, theirs)
        )
        assert asked == wanted
        assert said.count(f"round {number} ──") == 1
    assert said.count("all rounds ──") == 1
    with Store(found / "feedback.db", create=False) as store:
        items, events = list(store.items()), list(store.events())
    written = [item for number in (1, 2) for item in lines(found / f"round_{number}" / "questions.jsonl")]
    assert Counter(item.id for item in items) == Counter(item["id"] for item in written)
    assert Counter(event.item for event in events) == Counter(item.id for item in items)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # the second process made no folder of its own


@pytest.mark.slow
@pytest.mark.parametrize("step", ["round_1 asked", "round_1 judged", "round 1 trained"])
def test_two_processes_that_are_killed_go_on_and_end_as_if_they_had_not_been(one: Path, tmp_path: Path, step: str):
    process = subprocess.Popen([str(BIN / "rlhf-train"), *TWO], cwd=tmp_path, env=environment(), start_new_session=True)
    state = tmp_path / "run" / "state.json"
    while process.poll() is None:
        if state.exists() and step in json.loads(state.read_text())["done"]:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # both at once, as a scheduler does
    assert process.wait() == -signal.SIGKILL
    ok(run(tmp_path, "resume=run"))
    check(tmp_path / "run", one)
