"""``rlhf-feedback import``: judgements of a file into the store, all of them or none."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.data.files import check_exists, count_of, home
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.commands.scrubbing import add_scrubbing, placeholders, scrubber_of, tell_replaced
from rlhf_lightning.feedback.events import Event, digest
from rlhf_lightning.feedback.formats import FORMATS, NAMES, check_format, log, recognised
from rlhf_lightning.feedback.formats.common import Import, refuse

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rlhf_lightning.feedback.items import Item
    from rlhf_lightning.feedback.store import Store

BATCH = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSONL, JSON, CSV, TSV or Parquet; .gz of these")
    parser.add_argument(
        "--format", metavar="NAME", help=f"{', '.join(NAMES)}; without it, by the fields of the file's first row"
    )
    parser.add_argument("--project", help="of the events; default: default")
    parser.add_argument("--task", help="of the events, such as summarization, where the file says none")
    parser.add_argument(
        "--on-bad-row",
        choices=("stop", "skip"),
        default="stop",
        help="stop before anything is stored, or leave the row out and report it; default: %(default)s",
    )
    parser.add_argument("--prompt", metavar="FIELD", help="the field with the prompt (label_studio, argilla)")
    parser.add_argument(
        "--candidate",
        action="append",
        default=[],
        metavar="FIELD",
        help="a field with a candidate, once for each (label_studio, argilla)",
    )
    add_scrubbing(parser)


def run(args: argparse.Namespace) -> int:
    """Import the files, and print what came of it."""
    from rlhf_lightning.feedback.salt import salt_of
    from rlhf_lightning.feedback.store import Store

    sources = [(path, _format(path, args.format)) for path in map(home, args.files)]
    if args.project is not None and any(name == "log" for _, name in sources):
        raise UserError(
            "--project can't be said of a log: its events and items have their projects. Leave it out; "
            "`rlhf-feedback export --format log --project NAME` writes a log of one project alone"
        )
    for option, value in (("--prompt", args.prompt), ("--candidate", args.candidate)):
        if value and not any(name in ("label_studio", "argilla") for _, name in sources):
            raise UserError(f"{option} is for label_studio and argilla; the other formats have fields of their own")
    scrubber, skip = scrubber_of(args), args.on_bad_row == "skip"
    intos = [
        Import(name, b"", args.project or "default", args.task, args.prompt, tuple(args.candidate))
        for _, name in sources
    ]
    files = [(path, into) for (path, _), into in zip(sources, intos, strict=True)]
    bad = look_at(files, skip)  # before the store is made, or locked: a server may be writing to it
    with Store(args.store, scrubber=scrubber) as store:
        store.note_texts()
        salt = salt_of(store)
        before = placeholders(store)
        counts = _store_files(store, [(path, replace(into, salt=salt)) for path, into in files], skip)
        new = placeholders(store) - before
    _tell(counts, intos, bad)
    tell_replaced(new)
    return 0


def _format(path: Path, name: str | None) -> str:
    check_exists(path)
    if name is not None:
        check_format(name)
        return name
    found = recognised(path)
    if found is None:
        if _asks(path):
            raise UserError(
                f"{path}: its first row is a question, and no judgement: `rlhf-feedback serve --items {path}` has "
                "people answer it"
            )
        raise UserError(f"{path}: its first row is of no known format: say --format, one of {', '.join(NAMES)}")
    return found


def _asks(path: Path) -> bool:
    """Whether a file's first row is a question."""
    from rlhf_lightning.feedback.items import read_items

    try:
        return next(read_items(path), None) is not None
    except UserError:
        return False


def import_files(
    store: Store, sources: Sequence[tuple[Path, Import]], skip: bool = False
) -> tuple[Counter[str], list[UserError]]:
    """Store what files hold, all of it or nothing.

    Args:
        store: where to.
        sources: files, and how each is imported.
        skip: leave out bad rows; else the first one stops it.

    Returns:
        How many events were ``new``, ``known`` (stored before, and equal), ``revised`` (stored before, and said
        otherwise: the new event supersedes the old), ``gone`` (erased since: not stored again) and ``erased`` (new,
        but nothing was left of them in the log), and how many ``items`` were new; and the bad rows.

    Raises:
        UserError: naming file, row and field; nothing is stored then.
    """
    bad = look_at(sources, skip)
    return _store_files(store, sources, skip), bad


def look_at(sources: Sequence[tuple[Path, Import]], skip: bool = False) -> list[UserError]:
    """Read files to the end, and store nothing; see `import_files`.

    Returns:
        The bad rows.

    Raises:
        UserError: naming file, row and field; or if a file holds nothing, or a log two events of one id.
    """
    bad: list[UserError] = []
    seen: dict[str, str] = {}  # of logs; elsewhere the second one of an id revises the first
    for path, into in sources:
        before = len(bad), into.passed.total()
        found = 0
        for entry in _entries(path, replace(into, bad=bad.append if skip else refuse)):
            found += 1
            if into.format == "log" and isinstance(entry, Event):
                told = digest(entry.to_json())
                if seen.setdefault(entry.id, told) != told:
                    raise UserError(f"{path}: two events with the id {entry.id} differ")
        if not found and before == (len(bad), into.passed.total()):
            raise UserError(f"{path} holds no judgement")
    return bad


def _store_files(store: Store, sources: Sequence[tuple[Path, Import]], skip: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    with store.writing() as connection:
        for path, into in sources:
            again = replace(into, bad=_ignore if skip else refuse, passed=Counter())  # counted and told of above
            entries = _entries(path, again)
            while batch := list(itertools.islice(entries, BATCH)):
                counts.update(_store(store, connection, batch, into.format == "log"))
    return counts


def _ignore(error: UserError) -> None:
    pass


def _entries(path: Path, into: Import) -> Iterator[Event | tuple[Item, str, bool]]:
    return log.read(path, into) if into.format == "log" else FORMATS[into.format][0](path, into)


def _store(
    store: Store, connection: Connection, batch: Sequence[Event | tuple[Item, str, bool]], exact: bool
) -> Counter[str]:
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import events as table

    counts: Counter[str] = Counter()
    questions = [entry for entry in batch if isinstance(entry, tuple)]
    events = [entry for entry in batch if not isinstance(entry, tuple)]
    if questions:
        counts["items"] += log.add_items(store, connection, questions)
    if exact:
        stones = [event.id for event in events if event.status == "erased"]
        there = sa.select(sa.func.count()).where(table.c.id.in_(stones))
        before = connection.scalar(there) or 0
        added = store.add(events, connection)
        counts["erased"] += (connection.scalar(there) or 0) - before
        ids = [event.id for event in events if event.status != "erased"]
        gone = sa.select(sa.func.count()).where(table.c.id.in_(ids), table.c.status == "erased")
        counts.update(new=added - counts["erased"], gone=connection.scalar(gone) or 0)
        counts["known"] += len(events) - added - counts["gone"]
        return counts
    ids = [event.id for event in events]
    stored = set(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(ids))))
    fresh: dict[str, Event] = {}
    others: list[Event] = []
    for event in events:
        if event.id in stored or event.id in fresh:
            others.append(event)
        else:
            fresh[event.id] = event
    counts["new"] += store.add(fresh.values(), connection)
    known = _revisions(connection, [event.id for event in others])
    for event in others:
        what, entry = _again(store, known, event)
        counts[what] += 1
        if entry is not None:
            store.add([entry], connection)
            known[entry.id] = store.as_stored(entry)
    return counts


def _revisions(connection: Connection, ids: Sequence[str]) -> dict[str, Event]:
    """The events of these ids and those that supersede them, be it through others, by their ids."""
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import events as table

    found: dict[str, Event] = {}
    column, wanted = table.c.id, list(ids)
    while wanted:
        bodies = connection.scalars(sa.select(table.c.body).where(column.in_(wanted))).all()
        new = {event.id: event for event in map(Event.from_json, bodies) if event.id not in found}
        found |= new
        column, wanted = table.c.supersedes, list(new)
    return found


def _again(store: Store, known: dict[str, Event], event: Event) -> tuple[str, Event | None]:
    """What became of an event that is stored under its id, and what is to be stored now.

    A source keeps its id when a person thinks better of it. What is then read under the id is a new event, which
    supersedes the last one, also where the question was mended there. What was erased, or is no longer of that person,
    stays so.
    """
    told = store.as_stored(event)
    after = {e.supersedes: e for e in known.values() if e.supersedes is not None}
    last: Event | None = known.get(event.id)
    while last is not None:
        if last.status == "erased" or last.annotator.id != event.annotator.id:
            break
        if _told(last) == _told(told):
            return "known", None
        if last.id not in after:
            name = next(name for i in itertools.count(1) if (name := f"{event.id}-{i}") not in known)
            revised = {"id": name, "supersedes": last.id}
            return "revised", event.model_copy(update=revised)
        last = after[last.id]
    return "gone", None


def _told(event: Event) -> dict[str, Any]:
    """What an event says, whenever it was read."""
    return event.model_dump(exclude={"id", "time", "supersedes"})


def _tell(counts: Counter[str], intos: Sequence[Import], bad: Sequence[UserError]) -> None:
    told = f"imported {count_of(counts['new'], 'events')}"
    more: list[tuple[str, Callable[[int], str]]] = [
        ("items", lambda n: count_of(n, "items")),
        ("revised", lambda n: f"{n} in place of what was imported before"),
        ("known", lambda n: f"{n} stored before"),
        ("erased", lambda n: f"{n} erased before the log was written"),
        ("gone", lambda n: f"{n} erased since, not stored again"),
    ]
    print("; ".join([told, *(say(counts[name]) for name, say in more if counts[name])]))
    for reason, count in sum((into.passed for into in intos), Counter[str]()).most_common():
        print(f"passed over {count}: {reason}")
    if bad:
        print(f"left out {count_of(len(bad), 'bad rows')}:")
        for error in bad[:10]:
            print(f"  {error}")
        if len(bad) > 10:
            print(f"  and {len(bad) - 10} more")
    named = sorted({into.format for into in intos} - {"log", "hh"})
    if named and counts["new"]:
        print(f"people are known by salted ids of {', '.join(f'{name}:NAME' for name in named)}")
