"""Rounds with people's feedback, through the console scripts."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest
from console import BIN, SMALL, environment, metrics, ok, run, write_rows

pytest.importorskip("sqlalchemy", reason="the loop keeps judgements in a store: install the extra feedback")

# Models that have learnt a little: of one that answers all prompts alike nothing can be asked.
LOOP = [*SMALL, "task=qa", "loop=feedback", "loop.rounds=2", "loop.prompts=12", "loop.verdict=8"]


def figures(folder: Path) -> dict:
    """What a loop came to, without what differs from run to run: times, and the place of the first model."""
    results = metrics(folder)
    measured = {policy["name"]: policy["metrics"] for policy in results["policies"]}
    return {**{name: results[name] for name in ("status", "rounds", "reward_model")}, "policies": measured}


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished loop, with what it said in `screen.txt` beside it."""
    place = tmp_path_factory.mktemp("loop")
    (place / "screen.txt").write_text(ok(run(place, *LOOP)).stdout, encoding="utf-8")
    return place / "run"


def test_each_round_has_its_questions_judgements_models_and_figures(looped: Path):
    results = figures(looped)
    assert results["status"] == "finished"
    assert list(results["policies"]) == ["base", "sft", "round 1", "round 2"]
    assert len(results["rounds"]) == 2
    for number in (1, 2):
        folder = looped / f"round_{number}"
        asked = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
        judged = [json.loads(line) for line in (folder / "judgements.jsonl").read_text().splitlines()]
        own = [item for item in asked if item["strategy"] != "verdict"]
        assert 2 <= len(own) <= 12
        assert {item["id"] for item in asked} <= {event["item"] for event in judged}
        assert all(event["annotator"]["role"] == "simulated" for event in judged)
        assert (folder / "ppo" / "model" / "model.safetensors").exists()
        assert results["rounds"][number - 1]["questions"] == len(asked)
    first = (looped / "round_1" / "judgements.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in first} < {event["id"] for event in judged}  # a round learns from all
    assert "Rounds" in (looped.parent / "screen.txt").read_text()
    assert "Rounds" in (looped / "report.html").read_text()
    assert (looped / "feedback.db").exists()


def test_the_store_knows_what_learnt_from_which_judgements(looped: Path):
    """`rlhf-feedback erase` names these to their owner."""
    from rlhf_lightning.feedback.database import export_events, exports
    from rlhf_lightning.feedback.store import Store

    with Store(looped / "feedback.db", create=False) as store, store.engine.connect() as connection:
        noted = {row.path: (row.what, row.id) for row in connection.execute(exports.select())}
        used = {(row.export, row.event) for row in connection.execute(export_events.select())}
        events = {event.id: event for event in store.events()}
    for number in (1, 2):
        folder = looped / f"round_{number}"
        (log, told), (model, name) = noted[str(folder / "judgements.jsonl")], noted[str(folder)]
        assert (log, model) == ("log", "model")
        judged = {json.loads(line)["id"] for line in (folder / "judgements.jsonl").read_text().splitlines()}
        assert {event for export, event in used if export == told} == judged
        learnt = {event for export, event in used if export == name}
        assert learnt == {event for event in judged if events[event].shown.strategy != "verdict"}


@pytest.mark.slow
def test_a_finished_loop_has_nothing_to_resume(looped: Path):
    before = (looped / "metrics.json").read_bytes()
    assert "nothing to resume" in ok(run(looped.parent, "resume=run")).stdout
    assert (looped / "metrics.json").read_bytes() == before


def test_the_loop_is_one_run_to_the_comparison(looped: Path):
    assert "gold" in ok(run(looped.parent, "run", program="rlhf-compare")).stdout


@pytest.mark.slow
@pytest.mark.parametrize("ask", ["margin", "variance", "gap"])
def test_questions_are_chosen_by_the_last_reward_model(tmp_path: Path, ask: str):
    from rlhf_lightning.feedback.store import Store

    ok(run(tmp_path, *LOOP, f"loop.ask={ask}", "loop.verdict=0"))
    first, second = (
        [json.loads(line) for line in (tmp_path / "run" / f"round_{i}" / "questions.jsonl").read_text().splitlines()]
        for i in (1, 2)
    )
    assert {item["strategy"] for item in first} == {"random"}  # there is no reward model yet
    assert {item["strategy"] for item in second} == {"random", ask}
    by_chance = [item for item in second if item["strategy"] == "random"]
    assert len(second) == 12
    assert len(by_chance) == 3  # a fifth, rounded up
    assert all(0 < item["probability"] <= 1 for item in second)
    # The most wanted are asked for sure; one that only chance could bring is asked with 3 of 48 or little more.
    assert max(item["probability"] for item in second if item["strategy"] == ask) == 1
    assert min(item["probability"] for item in second) < 1

    with Store(tmp_path / "run" / "feedback.db", create=False) as store:
        shown = {event.item: (event.shown.strategy, event.shown.probability) for event in store.events()}
    assert shown == {item["id"]: (item["strategy"], item["probability"]) for item in first + second}
    judged = (tmp_path / "run" / "round_2" / "judgements.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in judged]
    assert {event["item"]: event["shown"]["strategy"] for event in events} == {k: s for k, (s, _) in shown.items()}

    one, two = metrics(tmp_path / "run")["rounds"]
    assert two["foretold"] is not None
    assert two["new_pairs"] <= len(by_chance)
    assert two["held_out"] <= one["held_out"] + 1  # a tenth of the new prompts, of those asked by chance


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["round_1 asked", "round_1 judged", "round 1 trained", "round_2 asked", "start trained"]
)
def test_a_loop_that_is_killed_and_resumed_ends_as_one_that_was_not(looped: Path, tmp_path: Path, step: str):
    process = subprocess.Popen([str(BIN / "rlhf-train"), *LOOP], cwd=tmp_path, env=environment())
    state = tmp_path / "run" / "state.json"
    while process.poll() is None:
        if state.exists() and step in json.loads(state.read_text())["done"]:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    ok(run(tmp_path, "resume=run"))
    assert figures(tmp_path / "run") == figures(looped)


@pytest.mark.slow
def test_the_hidden_judge_s_score_rises_over_three_rounds(tmp_path: Path):
    """From the judgements alone, as no preferences are given; with more updates a round the first one does it all."""
    options = ["ppo.updates=2", "ppo.trainer.val_check_interval=2", "loop.prompts=96", "data.preferences=null"]
    quiet = ["logger=csv", "trainer.enable_progress_bar=false", "hydra.run.dir=run"]
    ok(run(tmp_path, "task=summarization", "loop=feedback", *options, *quiet))
    gold = {policy["name"]: policy["metrics"]["gold"] for policy in metrics(tmp_path / "run")["policies"]}
    rounds = [gold[name] for name in ("sft", "round 1", "round 2", "round 3")]
    assert all(after > before for before, after in itertools.pairwise(rounds)), rounds
    assert rounds[3] > rounds[0] + 0.2, rounds


class Person(threading.Thread):
    """Enters by a one-time link, and prefers the longer of two answers until told to stop."""

    def __init__(self, link: str, think: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.link, self.think = link, think
        self.stop, self.failed = threading.Event(), ""
        self.start()

    def run(self) -> None:
        address, token = self.link.split("/#token=")
        try:
            with httpx.Client(base_url=address, timeout=60) as client:
                me = client.post("/api/session", json={"token": token, "consent": None}).json()
                client.headers["X-CSRF-Token"] = me["csrf"]
                while not self.stop.is_set():
                    try:
                        self.judge_next(client)
                    except httpx.TransportError:  # between two rounds nobody serves
                        time.sleep(0.2)
        except Exception as error:
            self.failed = repr(error)

    def judge_next(self, client: httpx.Client) -> None:
        question = client.post("/api/next", json={"tab": "t", "queue": "judge"}).raise_for_status().json()
        if question["item"] is None:
            time.sleep(0.2)
            return
        time.sleep(self.think)
        texts = [candidate["text"] for candidate in question["item"]["candidates"]]
        payload = {"kind": "pairwise", "outcome": "win", "winner": int(len(texts[1]) > len(texts[0]))}
        body = {"id": uuid.uuid4().hex, "item": question["item"]["id"], "lease": question["lease"]["id"]}
        body |= {"status": "submitted", "payload": payload, "reason": None, "timing": {}}
        client.post("/api/judgements", json=body).raise_for_status()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Waiting:
    """A loop that waits for people, who come when it shows their links, and stay while it is started again."""

    def __init__(self, folder: Path, people: int, think: float = 0.0) -> None:
        self.folder, self.count, self.think = folder, people, think
        self.people: list[Person] = []
        self.said: list[str] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [str(BIN / "rlhf-train"), *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment(), text=True, **pipes)  # type: ignore[call-overload]
        threading.Thread(target=self._listen, daemon=True).start()
        return self.process

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("annotator") and len(self.people) < self.count:
                self.people.append(Person(line.split()[1], self.think))

    def finish(self) -> None:
        """Wait until the loop has ended well; people then go home."""
        try:
            assert self.process.wait(300) == 0, "".join(self.said)
        finally:
            self.process.kill()
            for person in self.people:
                person.stop.set()
                person.join()
        assert [person.failed for person in self.people] == [""] * self.count


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_people_judge_on_the_page_while_the_loop_waits(tmp_path: Path):
    options = [
        "loop.annotators=people",
        "loop.rounds=1",
        "loop.prompts=6",
        "loop.verdict=4",
        f"loop.port={free_port()}",
    ]
    loop = Waiting(tmp_path, people=1)
    loop.start(*LOOP, *options)
    loop.finish()
    judged = lines(tmp_path / "run/round_1/judgements.jsonl")
    assert len(judged) >= 2
    assert {event["annotator"]["role"] for event in judged} == {"annotator"}
    for event in judged:
        chosen = event["candidates"][event["payload"]["winner"]]["text"]
        assert len(chosen) == max(len(candidate["text"]) for candidate in event["candidates"])
    assert metrics(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_two_people_judge_each_round_and_a_loop_that_is_killed_while_they_do_goes_on(tmp_path: Path):
    from rlhf_lightning.feedback.store import Store

    port = free_port()
    options = ["loop.annotators=people", "loop.people=2", "loop.raters=2", "loop.prompts=8", "loop.verdict=4"]
    loop = Waiting(tmp_path, people=2, think=0.3)
    process = loop.start(*LOOP, *options, f"loop.port={port}", "ppo.lr=0.02")  # else all answers stay as they are
    folder = tmp_path / "run"
    while process.poll() is None:
        if (folder / "round_1" / "questions.jsonl").exists():
            with Store(folder / "feedback.db", create=False) as store:
                if store.newest() >= 3:
                    break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "".join(loop.said)
    assert "round_1 judged" not in json.loads((folder / "state.json").read_text())["done"]
    asked = (folder / "round_1" / "questions.jsonl").read_bytes()
    until = time.monotonic() + 20
    while time.monotonic() < until:  # the page ends with the loop: its port is free for the next
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    else:
        pytest.fail("the page is served still")

    loop.start("resume=run")
    loop.finish()
    assert (folder / "round_1" / "questions.jsonl").read_bytes() == asked
    results = metrics(folder)
    assert results["status"] == "finished"
    assert [policy["name"] for policy in results["policies"]] == ["base", "sft", "round 1", "round 2"]
    for number, figures_of_round in enumerate(results["rounds"], 1):
        questions = lines(folder / f"round_{number}" / "questions.jsonl")
        events = [e for e in lines(folder / f"round_{number}" / "judgements.jsonl") if e["status"] == "submitted"]
        people = {item["id"]: [e["annotator"]["id"] for e in events if e["item"] == item["id"]] for item in questions}
        assert all(len(ids) == len(set(ids)) == 2 for ids in people.values()), people
        assert {e["annotator"]["role"] for e in events} == {"annotator"}
        assert figures_of_round["questions"] == len(questions)
        for stage in ("reward", "ppo"):
            assert (folder / f"round_{number}" / stage / "model" / "model.safetensors").exists()
    compared = [item for item in lines(folder / "round_2" / "questions.jsonl") if item["strategy"] == "verdict"]
    assert results["rounds"][0]["compared"] == len(compared) > 0
    assert results["rounds"][1]["foretold"] is not None


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["loop.rounds=0"], "loop.rounds must be at least 1"),
        (["+loop.round=3"], "loop.rounds"),
        (["stages=[sft]"], "stages=[sft,reward,ppo]"),
        (["rewards=chrf"], "rewards=learned"),
        (["loop.annotators=nowhere.jsonl"], "no such file"),
        (["data.train=train.jsonl"], "loop.annotators=people"),
    ],
)
def test_a_loop_that_can_not_be_is_refused_in_one_message(refused, tmp_path: Path, options, word):
    rows = [{"context": f"Leo lives in town {i}.", "question": "Where?", "answers": [f"town {i}"]} for i in range(40)]
    write_rows(tmp_path / "train.jsonl", rows)
    assert word in refused("task=qa", "loop=feedback", *options)
    assert not (tmp_path / "run" / "metrics.json").exists()
