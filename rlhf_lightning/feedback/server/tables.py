"""What the server keeps beside the log: people, how they come in, and who is at which question.

``queue`` and ``assignments`` say again, in a form that is quick to ask, what the log says; `standing.catch_up` makes
them of it. Times are as the store writes them (`database.stamp`), so that they order as text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from rlhf_lightning.feedback.database import tables
from rlhf_lightning.feedback.store import Store

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Task = Literal["judge", "adjudicate"]
POOLS: dict[Task, tuple[str, ...]] = {"judge": ("judge", "gold", "repeat"), "adjudicate": ("adjudicate",)}

people = sa.Table(
    "people",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("name", sa.Text),  # only where names are kept
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("consent", sa.Text),  # version
    sa.Column("consented", sa.Text),
)

tokens = sa.Table(
    "tokens",
    tables,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False, index=True),
    sa.Column("expires", sa.Text, nullable=False),
    sa.Column("used", sa.Text),
)

sessions = sa.Table(
    "sessions",
    tables,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False, index=True),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("used", sa.Text, nullable=False),
)

queue = sa.Table(
    "queue",
    tables,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("item", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),  # "judge", "gold", "repeat" or "adjudicate"
    sa.Column("open", sa.Boolean, nullable=False),  # whether people are still wanted
    sa.Column("raters", sa.Integer),  # None: the project's number
    sa.Column("rank", sa.Float, nullable=False),  # minus the priority: an index gives the next one without sorting
    sa.Column("asks", sa.Text),  # the item whose question it asks again
    sa.Index("queue_next", "project", "pool", "open", "rank", "seq"),
    sa.Index("queue_asks", "project", "asks"),
    sa.Index("queue_seq", "project", "seq"),
)

assignments = sa.Table(
    "assignments",
    tables,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("item", sa.Text, primary_key=True),
    sa.Column("person", sa.Text, primary_key=True, index=True),
    sa.Column("task", sa.Text, nullable=False),  # "judge" or "adjudicate"
    sa.Column("given", sa.Text, nullable=False),  # when it was last leased
    sa.Column("tab", sa.Text),
    sa.Column("lease", sa.Text, unique=True),
    sa.Column("expires", sa.Text),
    sa.Column("event", sa.Text),  # the judgement or skip that holds
    sa.Column("status", sa.Text),  # its status
    sa.Column("finished", sa.Text),
    sa.Column("draft", sa.Text),  # the newest draft, where it is newer than the event
    sa.Column("pool", sa.Text, nullable=False),  # its question's, as in the queue, and
    sa.Column("open", sa.Boolean, nullable=False),  # whether that is open: a person's own are counted by an index
    sa.Index("assignments_by_pool", "project", "person", "pool", "open"),
    sa.Index("assignments_by_status", "project", "person", "task", "status"),
    sa.Index("assignments_at", "project", "person", "expires"),
    sa.Index("assignments_finished", "project", "person", "finished"),
)

_turns: WeakKeyDictionary[Store, threading.Lock] = WeakKeyDictionary()


@contextmanager
def turn(store: Store) -> Iterator[Connection]:
    """A transaction that no other one of a server runs beside, in this process or another, on either database.

    What people do takes milliseconds to store, and it hangs together (who is at a question decides who may have it):
    one after the other is quick enough, and nothing has to be locked in parts. Threads wait for a lock of the
    process, because SQLite lets waiting writers poll, and no connection is held by one that waits.
    """
    with _turns.setdefault(store, threading.Lock()), store.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("select pg_advisory_xact_lock(7246113)"))
        yield connection
