"""How long the page's server takes to start, and to give and take a question, on a log of many judgements.

    python tests/benchmarks/feedback/large_log.py --events 1000 10000 100000
    python tests/benchmarks/feedback/large_log.py --events 100000 --database postgresql

Makes a store of so many events (a tenth of them drafts) of 50 people, with a third more questions than were
answered, and starts on it as `rlhf-feedback serve` does. Two people then take and answer questions, in transactions as
the server has them, without HTTP: one whose questions all have their two judgements, and one who is ahead of all
others, with a tenth of all judgements, of questions that still want a second one.

Columns: the median, the longest, and the median of what this process computed: in SQLite nearly all of it, and it does
not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "unit"))
from helpers import postgres

from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.feedback.server import judging, leases, progress, queue, standing
from rlhf_lightning.feedback.server.dashboard import Dashboard
from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.tables import turn
from rlhf_lightning.feedback.store import Store

PEOPLE, RATERS, AHEAD = 50, 2, 0.1
BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
TEXT = "A sentence of some length stands for a prompt or an answer. " * 5


def question(number: int) -> Item:
    """A pair; one of twenty has a known answer."""
    return Item(
        id=f"q{number}",
        asked=Asked(text=f"{number}: {TEXT}"),
        candidates=(Candidate(text=f"one {TEXT}", model="a"), Candidate(text=f"other {TEXT}", model="b")),
        expected=Pairwise(outcome="win", winner=0) if number % 20 == 19 else None,
    )


def judgements(number: int, item: Item, person: int) -> list[Event]:
    """What somebody says, and one time in nine a draft of it before."""
    said: dict[str, Any] = {
        "time": BEGAN + timedelta(seconds=number),
        "item": item.id,
        "kind": "pairwise",
        "asked": item.asked,
        "candidates": item.candidates,
        "annotator": Annotator(id=f"p{person}"),
        "payload": Pairwise(outcome="win", winner=number % 2),
    }
    if number % 9:
        return [Event(id=f"e{number}", **said)]
    draft = Event(id=f"d{number}", status="draft", **said)
    return [draft, Event(id=f"e{number}", supersedes=draft.id, **said)]


def fill(store: Store, count: int) -> None:
    """Store questions, and so many events about them."""
    said = round(count * 9 / 10)
    ahead = round(AHEAD * said)
    shared = (said - ahead) // RATERS
    store.add_items(map(question, range(round((shared + ahead) * 4 / 3))))

    def log() -> Iterator[Event]:
        for i in range(shared * RATERS):
            yield from judgements(i, question(i // RATERS), 1 + i % (PEOPLE - 1))
        for i in range(ahead):
            yield from judgements(shared * RATERS + i, question(shared + i), 0)

    store.add(log())


class Seconds(NamedTuple):
    """How long something took, and how long this process computed for it."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Seconds:
    """How long it takes."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - began, time.process_time() - cpu)


def measure(place: str, count: int, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds, by what was done."""
    found: dict[str, list[Seconds]] = {}
    with Store(place) as store:
        fill(store, count)
    with Store(place) as store:
        project = Project(store, raters=RATERS)

        def start() -> None:
            with turn(store) as connection:
                standing.catch_up(project, connection)

        found["first start"], found["start"] = [timed(start)], [timed(start)]
        for name, number in (("", 1), (", who is ahead", 0)):
            person = Person(f"p{number}", "annotator", None, None, "")
            times: dict[str, list[Seconds]] = {"next": [], "judgement": [], "progress": []}
            for _ in range(rounds):
                one_round(project, person, times)
            found |= {f"{what}{name}": seconds for what, seconds in times.items()}
        board = Dashboard(project)
        with store.engine.connect() as connection:
            found["first dashboard"] = [timed(lambda: board.read(connection, names=True))]
            found["dashboard"] = [timed(lambda: board.read(connection, names=True))]
    return found


def one_round(project: Project, person: Person, times: dict[str, list[Seconds]]) -> None:
    """A question is taken and answered."""
    given: list[leases.Given] = []

    def take() -> None:
        with turn(project.store) as connection:
            got = queue.next_question(project, connection, person, "tab", "judge")
            assert got is not None
            judging.question(project, connection, person, got)
        given.append(got)

    def answer() -> None:
        sent = judging.Sent(
            id=uuid.uuid4().hex,
            item=judging.handle(project, given[0].item.id, person.id),
            lease=given[0].lease,
            status="submitted",
            payload=Pairwise(outcome="win", winner=0),
        )
        with turn(project.store) as connection:
            judging.judge(project, connection, person, sent)

    def look() -> None:
        with project.store.engine.connect() as connection:
            progress.progress(project, connection, person)

    for name, work in (("next", take), ("judgement", answer), ("progress", look)):
        times[name].append(timed(work))


@contextmanager
def places(database: str) -> Iterator[Callable[[int], str]]:
    """Where stores are made."""
    if database == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield lambda count: str(Path(folder) / f"{count}.db")
        return
    found = postgres.binaries()
    assert found is not None, "there is no PostgreSQL"
    with postgres.cluster(found, durable=True) as socket:

        def made(count: int) -> str:
            postgres.run(socket, f"create database store{count}")
            return postgres.url(socket, f"store{count}")

        yield made


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--rounds", type=int, default=40, help="questions that each of the two answers")
    args = parser.parse_args()
    with places(args.database) as place:
        for count in args.events:
            for name, seconds in measure(place(count), count, args.rounds).items():
                wall, cpu = [s.wall * 1000 for s in seconds], [s.cpu * 1000 for s in seconds]
                told = f"{statistics.median(wall):>9.1f} ms {max(wall):>9.1f} ms {statistics.median(cpu):>9.1f} ms"
                print(f"{args.database:10} {count:>7} {name:24} {told}", flush=True)


if __name__ == "__main__":
    main()
