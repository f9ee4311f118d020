"""Steps of a loop that are taken without a training: what they are when they are done twice."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_lightning.callbacks import StopRequest
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.loop.judgements import JUDGEMENTS, QUESTIONS, read_items
from rlhf_lightning.loop.options import Loop
from rlhf_lightning.loop.rounds import FILE, Rounds, clear_rounds
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.state import State


def item(i: int) -> Item:
    return Item(asked=Asked(text=f"prompt {i}"), candidates=(Candidate(text="a"), Candidate(text="b")))


def said(about: Item) -> Event:
    return Event(
        item=about.id,
        kind="pairwise",
        asked=about.asked,
        candidates=about.candidates,
        annotator=Annotator(id="a"),
        payload=Pairwise(outcome="win", winner=0),
    )


@pytest.fixture
def rounds(tmp_path: Path) -> Rounds:
    cfg = {"seed": 0, "resume": False, "stages": ["sft", "reward", "ppo"], "data": {}, "ppo": {"rewards": {}}}
    return Rounds(cfg, tmp_path, Loop(), TaskData(), State(), RunResults("qa"), StopRequest(None))


def ask(rounds: Rounds, number: int, items: list[Item]) -> None:
    folder = rounds.dir / f"round_{number}"
    folder.mkdir()
    (folder / QUESTIONS).write_text("".join(one.to_json() + "\n" for one in items))


def inner_run(folder: Path, *names: str, notes: tuple[str, ...] = ()) -> None:
    folder.mkdir(exist_ok=True)
    policies = [PolicyResult(name, f"{name}/model", {"f1": 1.0}) for name in names]
    RunResults("qa", policies=policies, notes=list(notes)).write(folder / "metrics.json")
    (folder / "samples.jsonl").write_text("")


def test_a_round_that_is_taken_again_after_an_interruption_stands_there_once(rounds: Rounds, tmp_path: Path):
    inner_run(tmp_path / "start", "base", "sft")
    inner_run(tmp_path / "round_1", "policy", "ppo", notes=("told",))
    for _ in range(2):
        rounds._take("start", tmp_path / "start")
    for _ in range(2):
        rounds._take("round 1", tmp_path / "round_1")
    assert [policy.name for policy in rounds.results.policies] == ["base", "sft", "round 1"]
    assert rounds.results.notes == ["round 1: told"]


@pytest.mark.parametrize(
    ("resume", "begun", "wanted"), [(True, True, True), ("force", True, "force"), ("force", False, False)]
)
def test_a_round_goes_on_in_the_way_the_loop_does(rounds: Rounds, tmp_path: Path, monkeypatch, resume, begun, wanted):
    inner_run(tmp_path / "start", "base", "sft")
    if begun:
        (tmp_path / "start" / FILE).write_text("{}")
    seen = SimpleNamespace(config=None)
    monkeypatch.setattr("rlhf_lightning.loop.rounds.run_pipeline", lambda config, *_: setattr(seen, "config", config))
    rounds.cfg["resume"] = resume
    rounds._train(0, tmp_path / "start", {"stages": ["sft"]}, rounds.data)
    assert seen.config["resume"] == wanted
    assert json.loads((tmp_path / FILE).read_text())["done"] == ["start trained"]


def test_questions_that_are_written_down_are_stored_and_not_made_anew(rounds: Rounds, tmp_path: Path):
    ask(rounds, 1, [item(0)])
    rounds.loop = Loop(annotators="people")
    with rounds._store() as store:
        store.add([said(item(0))])
    rounds._judged("round_1", 0, lambda: pytest.fail("asked anew"))
    with rounds._store() as store:
        assert list(store.items()) == read_items(tmp_path / "round_1" / QUESTIONS) == [item(0)]
    assert (tmp_path / "round_1" / JUDGEMENTS).read_text() != ""


def test_a_new_loop_in_an_old_one_s_folder_begins_anew_and_keeps_what_people_said(rounds: Rounds, tmp_path: Path):
    ask(rounds, 2, [item(0)])
    left = [tmp_path / FILE, tmp_path / "round_2" / FILE, tmp_path / "round_2" / JUDGEMENTS]
    for path in (*left, tmp_path / "feedback.db"):
        path.touch()
    clear_rounds(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "feedback.db"]
