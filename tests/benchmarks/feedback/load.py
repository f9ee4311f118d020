"""Many people at once at the page's server, which is killed again and again: is everything stored, and how fast is it?

    python tests/benchmarks/feedback/load.py --judgements 10000 --kills 20
    python tests/benchmarks/feedback/load.py --judgements 1000 --kills 0 --think 5

Starts `rlhf-feedback serve` in a process of its own, on SQLite and then on a PostgreSQL that it starts too. So many
simulated annotators, each with a session of its own, take questions and answer them as the page does: a fifth saves a
draft first, a few skip, the rest say which of two is better. At points of the way drawn at random the server gets
SIGKILL, nothing is cleaned up, and it is started again. Who gets no answer sends the same judgement again, under the
same id, until it is acknowledged. Then what was acknowledged has to be what is stored. Fails otherwise.

Times are of requests that were answered at the first attempt. Without ``--think`` everybody answers at once, so that
the times are those of a full queue; with it people wait so many seconds on average (exponential) before they answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit"))
from helpers import postgres

from rlhf_lightning.feedback.events import Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.feedback.store import Store

RATERS = 2
DRAFT, SKIP = 0.2, 0.02
TIMES = ("next", "judgements")
"""Requests that are timed."""

IDLE = 4.0
"""Seconds after which a connection is opened anew: the server closes one that was idle for 5."""


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass
class Served:
    """The server's process, which may be killed and started again at the same port."""

    store: str
    folder: Path
    annotators: int
    port: int
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0
    down: list[float] = field(default_factory=list)
    starts: int = 0

    def start(self) -> list[str]:
        """Start it, and wait until it listens. Returns the annotators' tokens."""
        self.starts += 1
        log = self.folder / f"server{self.starts}.log"
        options = ["--store", self.store, "--port", str(self.port), "--annotators", str(self.annotators)]
        options += ["--raters", str(RATERS)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rlhf_lightning.feedback.cli", "serve", *options],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        while "Ctrl-C" not in log.read_text():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        told = log.read_text()
        return re.findall(r"^annotator +\S+#token=(\S+)$", told, re.MULTILINE)

    def kill(self) -> None:
        """Kill it, and start it again."""
        assert self.process is not None
        began = time.perf_counter()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.kills += 1
        self.start()
        self.down.append(time.perf_counter() - began)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def said(self) -> Counter[str]:
        """The errors in its logs, by their first line."""
        lines = [line for log in self.folder.glob("server*.log") for line in log.read_text().splitlines()]
        return Counter(line for line in lines if re.match(r"\w*(Error|Exception|Refused)\b|Traceback", line))


# --- people ----------------------------------------------------------------------------------------------------------


class Gone(Exception):
    """There was no answer: the server was killed, or is not there yet."""


@dataclass
class Shared:
    """What all annotators have in common."""

    port: int
    want: int
    think: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)  # event: person and status
    sent: set[str] = field(default_factory=set)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    waited: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    failed: list[BaseException] = field(default_factory=list)

    @property
    def done(self) -> int:
        with self.lock:
            return sum(status == "submitted" for _, status in self.acknowledged.values())


class Annotator(threading.Thread):
    """A person with a session, at one tab."""

    def __init__(self, shared: Shared, number: int, seed: int, start: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self.shared, self.number, self.barrier = shared, number, start
        self.random = random.Random(f"{seed}/{number}")
        self.token, self.cookie, self.csrf, self.id = "", "", "", ""
        self.connection: http.client.HTTPConnection | None = None
        self.answered = 0.0

    def run(self) -> None:
        try:
            self._enter()
            self.barrier.wait()
            submitted = 0
            while submitted < self.shared.want:
                question = self._post("next", {"tab": f"tab{self.number}", "queue": "judge"})
                if question["item"] is None:
                    if question["why"] == "done":
                        raise RuntimeError(f"no question is left for {self.id} after {submitted}")
                    time.sleep(0.2)
                    continue
                if self.shared.think:
                    time.sleep(self.random.expovariate(1 / self.shared.think))
                if self.random.random() < DRAFT:
                    self._say(question, "draft")
                submitted += self._say(question, "skipped" if self.random.random() < SKIP else "submitted")
        except BaseException as error:
            with self.shared.lock:
                self.shared.failed.append(error)
            self.barrier.abort()

    def _enter(self) -> None:
        answer = self._post("session", {"token": self.token, "consent": None})
        self.csrf, self.id = answer["csrf"], answer["annotator"]["id"]

    def _say(self, question: dict[str, Any], status: str) -> bool:
        """Send it until it is acknowledged. Returns whether a judgement was."""
        name = uuid.uuid4().hex
        payload = None
        if status != "skipped":
            outcome = self.random.choices(["win", "tie", "both_bad"], [8, 1, 1])[0]
            winner = self.random.randrange(2) if outcome == "win" else None
            payload = {"kind": "pairwise", "outcome": outcome, "winner": winner, "rationale": "because " * 5}
        sent = {"id": name, "item": question["item"]["id"], "lease": question["lease"]["id"], "status": status}
        with self.shared.lock:
            self.shared.sent.add(name)
        answer = self._post("judgements", {**sent, "payload": payload, "reason": None, "timing": {}})
        assert answer["stored"]
        with self.shared.lock:
            self.shared.acknowledged[name] = self.id, status
        return status == "submitted"

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer, however often the server has to be asked."""
        began, attempts = time.perf_counter(), 0
        while True:
            attempts += 1
            sent = time.perf_counter()
            try:
                status, answer = self._once(path, body)
            except Gone:
                time.sleep(self.random.uniform(0.1, 0.4))
                continue
            with self.shared.lock:
                self.shared.answers[f"{path} {status} {answer.get('error', '')}".strip()] += 1
                if status == 200 and path in TIMES:
                    if attempts == 1:
                        self.shared.seconds[path].append(time.perf_counter() - sent)
                    else:
                        self.shared.waited.append(time.perf_counter() - began)
            if status == 200:
                return answer
            if status == 429:
                time.sleep(1)
                continue
            raise RuntimeError(f"{path}: {status} {answer}")

    def _once(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "X-CSRF-Token": self.csrf, "Cookie": self.cookie}
        if self.connection is not None and time.monotonic() - self.answered > IDLE:
            self.connection.close()
            self.connection = None
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.shared.port, timeout=120)
                self.connection.connect()
                assert self.connection.sock is not None
                self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection.request("POST", f"/api/{path}", json.dumps(body).encode(), headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            raise Gone from error
        self.answered = time.monotonic()
        if (cookie := answer.getheader("set-cookie")) is not None:
            self.cookie = cookie.split(";")[0]
        return answer.status, json.loads(text)


# --- one run ---------------------------------------------------------------------------------------------------------


def questions(count: int) -> Iterator[Item]:
    """Pairs of some length, and a few whose answer is known."""
    for i in range(count):
        pair = tuple(Candidate(text=f"answer {side} to {i}: " + "some words of it, " * 30, model=side) for side in "ab")
        known = Pairwise(outcome="win", winner=0) if i % 100 == 99 else None
        yield Item(asked=Asked(text=f"question {i}: " + "what is asked about, " * 20), candidates=pair, expected=known)


def measure(name: str, place: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One run on one database.

    Raises:
        AssertionError: if not all was stored that was acknowledged, or something twice.
    """
    folder.mkdir()
    with Store(place) as store:
        store.add_items(questions(int(args.judgements / RATERS * 1.3) + 20))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = Served(place, folder, args.annotators, port)
    tokens = served.start()
    assert len(tokens) == args.annotators, tokens
    shared = Shared(port, -(-args.judgements // args.annotators), args.think)
    barrier = threading.Barrier(args.annotators + 1)
    everyone = [Annotator(shared, i, args.seed, barrier) for i in range(args.annotators)]
    for person, token in zip(everyone, tokens, strict=True):
        person.token = token
        person.start()
    barrier.wait()
    began = time.perf_counter()
    drawn = random.Random(args.seed)
    total = shared.want * args.annotators
    points = sorted(drawn.sample(range(int(0.02 * total), int(0.98 * total)), args.kills))
    for point in points:
        while shared.done < point and not shared.failed and any(person.is_alive() for person in everyone):
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, 0.1))
        served.kill()
    for person in everyone:
        person.join()
    seconds = time.perf_counter() - began
    served.stop()
    if shared.failed:
        raise shared.failed[0]
    with Store(place, create=False) as store:
        check(list(store.events()), shared)
    if errors := served.said():
        print(f"errors in the server's log: {dict(errors)}")
    told = {
        "database": name,
        "judgements": shared.done,
        "acknowledged": len(shared.acknowledged),
        "kills": served.kills,
        "seconds": round(seconds, 1),
        "down": round(sum(served.down), 1),
        "per_second": round(shared.done / (seconds - sum(served.down)), 1),
        "sent_again": len(shared.waited),
        "longest_wait": round(max(shared.waited, default=0.0), 1),
        "answers": dict(shared.answers),
    }
    for path in TIMES:
        cuts = statistics.quantiles(shared.seconds[path], n=100)
        told[f"{path.rstrip('s')} ms"] = {"p50": round(1000 * cuts[49]), "p99": round(1000 * cuts[98])}
    return told


def check(log: list[Event], shared: Shared) -> None:
    """Whether what is stored is what was acknowledged."""
    said = {event.id: (event.annotator.id, event.status) for event in log if event.status != "retracted"}
    ids = Counter(event.id for event in log)
    assert max(ids.values()) == 1, "an event is stored twice"
    lost = shared.acknowledged.keys() - said.keys()
    assert not lost, f"{len(lost)} judgements were acknowledged and are not stored"
    more = said.keys() - shared.acknowledged.keys()
    assert not more, f"{len(more)} judgements are stored that nobody was told of"
    wrong = [name for name, what in said.items() if what != shared.acknowledged[name]]
    assert not wrong, f"{len(wrong)} judgements are stored under another person or status"
    judged = Counter((e.item, e.annotator.id) for e in log if e.status in ("submitted", "skipped"))
    twice = sum(count > 1 for count in judged.values())
    assert not twice, f"{twice} questions were judged twice by one person"
    by_item = Counter(e.item for e in log if e.status == "submitted" and not e.gold and e.repeats is None)
    assert max(by_item.values()) <= RATERS, "a question was judged by more people than it wants"
    taken_back = {e.supersedes for e in log if e.supersedes is not None}
    assert not [e for e in log if e.status == "draft" and e.id not in taken_back], "a draft is left over"


@contextmanager
def database(name: str, folder: Path) -> Iterator[str]:
    """The place of a new store."""
    if name == "sqlite":
        yield str(folder / "feedback.db")
        return
    found = postgres.binaries()
    if found is None:
        raise SystemExit("there is no PostgreSQL: no initdb on the PATH or in /usr/lib/postgresql")
    with postgres.cluster(found, durable=True) as where:
        postgres.run(where, "create database feedback")
        yield postgres.url(where, "feedback")


def main() -> None:
    """Measure, and print a line of JSON a database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judgements", type=int, default=1000)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--think", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.databases:
        with tempfile.TemporaryDirectory() as folder, database(name, Path(folder)) as place:
            print(json.dumps(measure(name, place, Path(folder) / "logs", args)), flush=True)


if __name__ == "__main__":
    main()
