"""``rlhf-feedback import``: judgements of a file into the store, all of them or none."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.data.files import check_exists, home
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.formats import FORMATS, NAMES, check_format, log, recognised
from rlhf_lightning.feedback.formats.common import Import, refuse

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from rlhf_lightning.feedback.events import Event
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


def run(args: argparse.Namespace) -> int:
    """Import the files, and print what came of it."""
    from rlhf_lightning.feedback.salt import salt_of
    from rlhf_lightning.feedback.store import Store

    sources = [(path, _format(path, args.format)) for path in map(home, args.files)]
    if args.project is not None and any(name == "log" for _, name in sources):
        raise UserError("--project can't be said of a log: its events and items have their projects")
    for option, value in (("--prompt", args.prompt), ("--candidate", args.candidate)):
        if value and not any(name in ("label_studio", "argilla") for _, name in sources):
            raise UserError(f"{option} is for label_studio and argilla; the other formats have fields of their own")
    bad: list[UserError] = []
    with Store(args.store) as store:
        intos = [
            Import(
                format=name,
                salt=salt_of(store),
                project=args.project or "default",
                task=args.task,
                prompt=args.prompt,
                candidates=tuple(args.candidate),
                bad=refuse if args.on_bad_row == "stop" else bad.append,
            )
            for _, name in sources
        ]
        try:
            counts = import_files(store, [(path, into) for (path, _), into in zip(sources, intos, strict=True)], bad)
        except ValueError as error:  # an id or a name that the model of an event refuses before it is one
            raise UserError(f"{', '.join(args.files)}: {error}") from error
    _tell(counts, intos, bad)
    return 0


def _format(path: Path, name: str | None) -> str:
    check_exists(path)
    if name is not None:
        check_format(name)
        return name
    found = recognised(path)
    if found is None:
        raise UserError(f"{path}: its first row is of no known format: say --format, one of {', '.join(NAMES)}")
    return found


def import_files(
    store: Store, sources: Sequence[tuple[Path, Import]], bad: list[UserError] | None = None
) -> Counter[str]:
    """Store what files hold, all of it or nothing.

    Args:
        store: where to.
        sources: files, and how each is imported.
        bad: where ``Import.bad`` keeps the rows that it leaves out, so that they are told of once.

    Returns:
        How many were ``new``, ``known`` (stored before, and equal), ``revised`` (stored before, and said otherwise: the
        new event supersedes the old) and ``gone`` (erased since: not stored again), and how many ``items`` were new.

    Raises:
        UserError: naming file, row and field; nothing is stored then.
    """
    for path, into in sources:
        # Everything is looked at before the store is locked: a server may be writing to it.
        if not any(True for _ in _consume(_entries(path, into))) and not bad and not into.passed:
            raise UserError(f"{path} holds no judgement")
    first = (len(bad or ()), [Counter(into.passed) for _, into in sources])
    counts: Counter[str] = Counter()
    with store.writing() as connection:
        for path, into in sources:
            entries = _entries(path, into)
            while batch := list(islice(entries, BATCH)):
                counts.update(_store(store, connection, batch, into.format == "log"))
    if bad is not None:
        del bad[first[0] :]
    for (_, into), passed in zip(sources, first[1], strict=True):
        into.passed.clear()
        into.passed.update(passed)
    return counts


def _consume(entries: Iterable[Any]) -> Iterator[Any]:
    """The first of the entries, after all of them were read."""
    count = 0
    for _ in entries:
        count += 1
    if count:
        yield count


def _entries(path: Path, into: Import) -> Iterator[Event | tuple[Item, str, bool]]:
    return log.read(path, into) if into.format == "log" else FORMATS[into.format][0](path, into)


def _store(
    store: Store, connection: Connection, batch: Sequence[Event | tuple[Item, str, bool]], exact: bool
) -> Counter[str]:
    counts: Counter[str] = Counter()
    questions = [entry for entry in batch if isinstance(entry, tuple)]
    events = [entry for entry in batch if not isinstance(entry, tuple)]
    if questions:
        counts["items"] += log.add_items(store, connection, questions)
    if exact:
        added = store.add(events, connection)
        counts.update(new=added, known=len(events) - added)
        return counts
    for event in events:
        what, entry = _new(store, connection, event)
        counts[what] += 1
        if entry is not None:
            store.add([entry], connection)
    return counts


def _new(store: Store, connection: Connection, event: Event) -> tuple[str, Event | None]:
    """What is to be stored of an event that may have been imported before.

    A source keeps its id when a person thinks better of it. What is then read under the id is a new event, which
    supersedes the last one. What was erased, or is no longer of that person, stays so.
    """
    known = {e.id: e for e in store.events(item=event.item, connection=connection)}
    if event.id not in known:
        return "new", event
    last = known[event.id]
    after = {e.supersedes: e for e in known.values() if e.supersedes is not None}
    while True:
        if last.status == "erased" or last.annotator.id != event.annotator.id:
            return "gone", None
        if _told(last) == _told(event):
            return "known", None
        if last.id not in after:
            break
        last = after[last.id]
    name = f"{event.id}-{len(known)}"
    return "revised", event.model_copy(update={"id": name, "supersedes": last.id})


def _told(event: Event) -> dict[str, Any]:
    """What an event says, whenever it was read."""
    return event.model_dump(exclude={"id", "time", "supersedes"})


def _tell(counts: Counter[str], intos: Sequence[Import], bad: Sequence[UserError]) -> None:
    told = f"imported {counts['new']} events"
    more: list[tuple[str, Callable[[int], str]]] = [
        ("items", lambda n: f"{n} items"),
        ("revised", lambda n: f"{n} that replace what was imported before"),
        ("known", lambda n: f"{n} were stored before"),
        ("gone", lambda n: f"{n} were erased since and stay so"),
    ]
    print("; ".join([told, *(say(counts[name]) for name, say in more if counts[name])]))
    for reason, count in sum((into.passed for into in intos), Counter[str]()).most_common():
        print(f"passed over {count}: {reason}")
    if bad:
        print(f"left out {len(bad)} bad rows:")
        for error in bad[:10]:
            print(f"  {error}")
        if len(bad) > 10:
            print(f"  and {len(bad) - 10} more")
    named = sorted({into.format for into in intos} - {"log"})
    if named and counts["new"]:
        print(f"people are known by salted ids of {', '.join(f'{name}:NAME' for name in named)}")
