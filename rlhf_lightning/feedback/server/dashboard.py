"""What the owner sees while people judge: counts, speed, agreement. Each time it reads what is new in the log."""

from __future__ import annotations

import statistics
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from pydantic import AwareDatetime, BaseModel, ConfigDict

from rlhf_lightning.feedback.database import events, stamp
from rlhf_lightning.feedback.events import Annotator, Timing
from rlhf_lightning.feedback.holding import superseded
from rlhf_lightning.feedback.payloads import Payload
from rlhf_lightning.feedback.server.comparing import Judgement, likeness
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.tables import assignments, people, queue

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class Logged(BaseModel):
    """What of a stored event is counted; the rest of it, which is long, is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    time: AwareDatetime
    item: str
    kind: str
    annotator: Annotator
    timing: Timing = Timing()
    status: str = "submitted"
    supersedes: str | None = None
    expected: Payload | None = None
    repeats: str | None = None
    adjudicates: tuple[str, ...] = ()
    payload: Payload | None = None


@dataclass(frozen=True)
class Entry:
    """What is kept of an event."""

    item: str
    person: str
    kind: str
    status: str
    day: str
    supersedes: str | None
    seconds: float | None
    payload: Judgement | None
    right: float | None
    """Likeness to the known answer."""
    repeats: str | None
    adjudicates: bool


class Dashboard:
    """The counts of a project, kept up to date."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._lock = threading.Lock()
        self._log: dict[str, Entry] = {}
        self._newest = -1

    def read(self, connection: Connection, names: bool) -> dict[str, Any]:
        """The counts as they are now.

        Args:
            connection: to the store.
            names: whether people's names are shown, where they are kept.
        """
        with self._lock:
            self._update(connection)
            holding = _holding(self._log)
            judged = [entry for entry in holding if entry.status == "submitted"]
            drafts = connection.scalar(
                sa.select(sa.func.count()).where(
                    assignments.c.project == self.project.name, assignments.c.draft.is_not(None)
                )
            )
            compared = _alike(judged)
            pairs = [like for _, _, like in compared]
            return {
                "items": self._items(connection),
                "judgements": {
                    "submitted": len(judged),
                    "skipped": len(holding) - len(judged),
                    "draft": drafts or 0,
                },
                "by_kind": dict(Counter(entry.kind for entry in judged)),
                "by_day": [{"day": d, "count": n} for d, n in sorted(Counter(e.day for e in judged).items())],
                "people": self._people(connection, holding, compared, names),
                "agreement": {"value": _mean(pairs), "pairs": len(pairs)},
            }

    def _update(self, connection: Connection) -> None:
        count = sa.select(sa.func.count()).where(self._mine())
        stored = connection.scalar(count) or 0
        self._read_on(connection)
        if len(self._log) > stored:  # events were erased since
            self._log, self._newest = {}, -1
            self._read_on(connection)

    def _read_on(self, connection: Connection) -> None:
        newer = sa.and_(self._mine(), events.c.seq > self._newest)
        new = sa.select(events.c.seq, events.c.id, events.c.body).where(newer).order_by(events.c.seq)
        for seq, name, body in connection.execute(new).tuples():
            self._log[name] = _entry(Logged.model_validate_json(body))
            self._newest = seq

    def _mine(self) -> sa.ColumnElement[bool]:
        """The project's events, but for drafts, which are many and long, and what is left of erased ones."""
        return sa.and_(events.c.project == self.project.name, events.c.status.not_in(("draft", "erased")))

    def _items(self, connection: Connection) -> dict[str, int]:
        rows = connection.execute(
            sa.select(queue.c.pool, queue.c.open, sa.func.count())
            .where(queue.c.project == self.project.name)
            .group_by(queue.c.pool, queue.c.open)
        ).tuples()
        count = {(pool, bool(wanted)): n for pool, wanted, n in rows}
        open_, disputed = count.get(("judge", True), 0), count.get(("adjudicate", True), 0)
        settled, agreed = count.get(("adjudicate", False), 0), count.get(("judge", False), 0)
        return {
            "total": open_ + disputed + settled + agreed,
            "open": open_,
            "done": agreed + settled,
            "disputed": disputed,
            "settled": settled,
            "gold": count.get(("gold", True), 0),
        }

    def _people(
        self, connection: Connection, holding: list[Entry], compared: list[tuple[str, str, float]], names: bool
    ) -> list[dict[str, Any]]:
        judged = [entry for entry in holding if entry.status == "submitted"]
        skipped = Counter(entry.person for entry in holding if entry.status == "skipped")
        own: dict[str, list[Entry]] = defaultdict(list)
        for entry in judged:
            own[entry.person].append(entry)
        with_others: dict[str, list[float]] = defaultdict(list)
        for a, b, like in compared:
            with_others[a].append(like)
            with_others[b].append(like)
        rows = connection.execute(
            sa.select(people).where(people.c.project == self.project.name).order_by(people.c.created, people.c.id)
        ).all()
        told = []
        for row in rows:
            done = own[row.id]
            seconds = [entry.seconds for entry in done if entry.seconds is not None]
            known = {entry.item: entry for entry in done}
            right = [entry.right for entry in done if entry.right is not None]
            again = [
                alike
                for entry in done
                if entry.repeats in known and (alike := _like(entry, known[str(entry.repeats)])) is not None
            ]
            told.append(
                {
                    "id": row.id,
                    **({"name": row.name} if names else {}),
                    "role": row.role,
                    "active": bool(row.active),
                    "done": len(done),
                    "skipped": skipped[row.id],
                    "median_seconds": statistics.median(seconds) if seconds else None,
                    "agreement": _mean(with_others[row.id]),
                    "compared": len(with_others[row.id]),
                    "gold": {"accuracy": _mean(right), "count": len(right)},
                    "repeats": {"agreement": _mean(again), "count": len(again)},
                }
            )
        return told


def _entry(event: Logged) -> Entry:
    timing = event.timing
    if timing.active_ms is not None:
        seconds: float | None = timing.active_ms / 1000
    elif timing.shown is not None and timing.submitted is not None:
        seconds = (timing.submitted - timing.shown).total_seconds()
    else:
        seconds = None
    right = None
    if event.status == "submitted" and event.payload is not None and event.expected is not None:
        right = likeness(event.payload, event.expected)
    return Entry(
        event.item,
        event.annotator.id,
        event.kind,
        event.status,
        stamp(event.time)[:10],
        event.supersedes,
        seconds,
        event.payload if event.status == "submitted" else None,
        right,
        event.repeats,
        bool(event.adjudicates),
    )


def _holding(log: dict[str, Entry]) -> list[Entry]:
    """As `holding.current`, skips included, implicit feedback left out."""
    gone = superseded((name, entry.person, entry.status, entry.supersedes) for name, entry in log.items())
    return [
        entry
        for name, entry in log.items()
        if name not in gone and entry.kind != "implicit" and entry.status in ("submitted", "skipped")
    ]


def _alike(judged: Iterable[Entry]) -> list[tuple[str, str, float]]:
    """Each two people's judgements of one item, where they can be compared: who, who, `likeness`."""
    of_item: dict[str, list[Entry]] = defaultdict(list)
    for entry in judged:
        if not entry.adjudicates and entry.right is None:
            of_item[entry.item].append(entry)
    return [
        (a.person, b.person, like)
        for entries in of_item.values()
        for a, b in combinations(entries, 2)
        if a.person != b.person and (like := _like(a, b)) is not None
    ]


def _like(a: Entry, b: Entry) -> float | None:
    return None if a.payload is None or b.payload is None else likeness(a.payload, b.payload)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
