"""The tables of a feedback store, and its database: SQLite (a file) or PostgreSQL (a URL)."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import UserError

try:
    import sqlalchemy as sa
except ImportError as missing:  # pragma: no cover
    raise UserError("feedback needs the package sqlalchemy: pip install 'rlhf-lightning[feedback]'") from missing

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

BUSY_MS = 30_000
"""How long a writer waits for another one's transaction in SQLite."""

WRITES = "rlhf_writes"
"""Mark of a connection whose transactions write."""

tables = sa.MetaData()

facts = sa.Table(
    "facts",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""What the store knows of itself: its schema's number, the salt of its people's ids, a project's settings."""

events = sa.Table(
    "events",
    tables,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("time", sa.Text, nullable=False),  # ISO 8601 in UTC: orders as text
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("item", sa.Text, nullable=False),
    sa.Column("annotator", sa.Text, nullable=False, index=True),
    sa.Column("person", sa.Text, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("supersedes", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("events_of_item", "item", "project"),
    sqlite_autoincrement=True,
)

items = sa.Table(
    "items",
    tables,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("priority", sa.Float, nullable=False),
    sa.Column("person", sa.Text, index=True),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("items_newer", "project", "seq"),
)
"""Questions: one id may stand in several projects, for the same question or for another one."""

exports = sa.Table(
    "exports",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # "rows", "log", "model"
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
"""What was made of events and lies outside: files of rows, models trained on them."""

export_events = sa.Table(
    "export_events",
    tables,
    sa.Column("export", sa.Text, sa.ForeignKey("exports.id"), primary_key=True),
    sa.Column("event", sa.Text, primary_key=True, index=True),
)

replaced = sa.Table(
    "replaced",
    tables,
    sa.Column("of", sa.Text, primary_key=True),  # "event" or "item"
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("field", sa.Text, primary_key=True),
    sa.Column("start", sa.Integer, primary_key=True),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("certain", sa.Boolean, nullable=False),
)
"""Placeholders that stand for personal data: where, of what kind, and whether a person should look; not the data."""

reviewed = sa.Table(
    "reviewed",
    tables,
    sa.Column("finding", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("right", sa.Boolean, nullable=False),
)
"""Placeholders that a person looked at, by salted names, which tell nothing once the text is erased."""

erased_items = sa.Table(
    "erased_items",
    tables,
    sa.Column("mark", sa.Text, primary_key=True),
)
"""Salted ids of questions that were erased (`item_mark`): they, and what is said of them, are not stored again."""

Named = tuple[str, str]
"""A project and the id of an item in it."""

EVERYWHERE = ""
"""Stands for all projects in the mark of an item whose id follows from its texts, so that it is the same in each."""


def stamp(time: datetime) -> str:
    """A moment as the store writes it: ISO 8601 in UTC, of one length."""
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


def open_engine(place: str, create: bool) -> sa.Engine:
    """The database at a file or URL.

    Args:
        place: see `Store`.
        create: make the file where it isn't there.

    Raises:
        UserError: if it can't be.
    """
    if "://" not in place:
        path = Path(place).expanduser()
        if not path.exists():
            if not create:
                raise UserError(f"there is no feedback store {path}")
            if not path.parent.is_dir():
                raise UserError(f"there is no folder {path.parent} for the feedback store {path.name}")
        place = f"sqlite:///{path.absolute()}"
    try:
        url = sa.make_url(place)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise UserError(f"a feedback store is SQLite (a file) or postgresql://..., not {url.get_backend_name()}")
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            return sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
        settings = {"timeout": BUSY_MS / 1000, "check_same_thread": False}
        engine = sa.create_engine(url, connect_args=settings, hide_parameters=True)  # errors are logged, texts are not
    except ImportError as missing:
        raise UserError("PostgreSQL needs the package psycopg: pip install 'rlhf-lightning[postgres]'") from missing
    except sa.exc.ArgumentError as error:
        raise UserError(
            "the feedback store's address is no file and no URL such as postgresql://user@host/db"
        ) from error

    @sa.event.listens_for(engine, "connect")
    def _settle(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        cursor = connection.cursor()
        cursor.execute("pragma journal_mode=wal")
        cursor.execute("pragma synchronous=full")  # what is acknowledged outlives a power cut
        cursor.execute(f"pragma busy_timeout={BUSY_MS}")
        cursor.execute("pragma foreign_keys=on")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A transaction that reads first and then writes would fail at once where another one wrote in between.
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("begin immediate" if writes else "begin")

    return engine


def lock_schema(connection: Connection) -> None:
    """Two processes that open a new PostgreSQL store at once would both make its tables."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("select pg_advisory_xact_lock(7246112)"))


def lock_order(connection: Connection) -> None:
    """From here to its end a transaction adds events and questions alone, so that their numbers follow each other as
    they are committed: who reads on from the newest number they know misses nothing.

    PostgreSQL numbers a row when it is inserted, and what was inserted first can be committed last. It is the lock of
    a server's turns, too: with two there could be a deadlock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("select pg_advisory_xact_lock(7246113)"))
