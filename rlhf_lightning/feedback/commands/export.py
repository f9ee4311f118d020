"""``rlhf-feedback export``: the log, or judgements in another tool's format, into a file: whole or not at all."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_lightning.data.files import count_of, home
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.commands.logged import logged, nothing_in
from rlhf_lightning.feedback.formats import FORMATS, NAMES, check_format, log

if TYPE_CHECKING:
    from rlhf_lightning.feedback.events import Event
    from rlhf_lightning.feedback.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--format", required=True, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", required=True, metavar="FILE", help="where to; .gz is compressed")
    parser.add_argument("--project", help="only this one's events; default: all")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def run(args: argparse.Namespace) -> int:
    """Write the file, and print what is in it and what is not."""
    from rlhf_lightning.feedback.store import Store

    check_format(args.format)
    check_ending(args.format, args.out)
    with Store(args.store, create=False) as store:
        done = export(store, args.format, home(args.out), args.project, args.force)
    erased = f" (and what is left of {done.erased} erased)" if done.erased else ""
    print(f"wrote {count_of(done.events, 'events')} to {args.out}{erased}")
    for reason, count in done.left.most_common():
        print(f"left out {count}: {reason}")
    return 0


ENDINGS = {"csv": ".csv", "argilla": ".json", "label_studio": ".json", "oasst": ".jsonl"}
"""Of the files of each format, by which `import` knows how to read them; the others are ``.jsonl``."""


def check_ending(name: str, out: str) -> None:
    """Refuse a name by which the file could not be read again.

    Raises:
        UserError: saying how it has to end.
    """
    ending = ENDINGS.get(name, ".jsonl")
    if not out.lower().removesuffix(".gz").endswith(ending):
        raise UserError(f"--out {out}: the format {name} is written as {ending} (or {ending}.gz): end the name so")


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        events: how many, those that were erased not counted.
        erased: tombstones, which a log has too.
        left: how many events were not written, by the reason.
    """

    events: int
    erased: int
    left: Counter[str]


def export(store: Store, name: str, path: Path, project: str | None = None, force: bool = False) -> Exported:
    """Write events into a file and note it in the store.

    Args:
        store: of the events. The log is exported with all that is in it, the other formats with what holds (`current`).
        name: of the format.
        path: of the file; a name that ends with ``.gz`` is compressed.
        project: whose events; None is all.
        force: replace what is there.

    Raises:
        UserError: if the file is there, its folder isn't, or there is nothing to be written.
    """
    from rlhf_lightning.feedback.holding import current

    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    if path.exists() and not force:
        raise UserError(f"{path} is there already: choose another name, or say --force")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}")
    used: list[str] = []
    erased = 0
    left: Counter[str] = Counter()

    def lines() -> Iterator[str]:
        nonlocal erased
        if name == "log":
            written = 0
            for line in log.write(store, project):
                written += 1
                erased += line.status == "erased"
                if line.event is not None:
                    used.append(line.event)
                yield line.text
            if not written:  # questions alone are a log as well: that of a store that moves
                raise nothing_in(store, project)
            return
        events = current(logged(store, project))
        out: set[str] = set()

        def leave(event: Event, reason: str) -> None:
            left[reason] += 1
            out.add(event.id)

        yield from FORMATS[name][1](events, leave)
        used.extend(event.id for event in events if event.id not in out)

    beside = _written(path, lines())
    try:
        if not used and name != "log":
            reasons = "".join(f"; {count}: {reason}" for reason, count in left.most_common(3))
            raise UserError(f"there is no event that the format {name} can hold{reasons}")
        # The note comes first: what is noted and isn't there does no harm, while a file that `erase` doesn't know may.
        what = "log" if name == "log" else "rows"
        store.note_export(uuid.uuid4().hex, what, str(path.absolute()), used, format=name, project=project)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return Exported(len(used) - erased, erased, left)


def _written(path: Path, lines: Iterable[str]) -> Path:
    """A file beside the one that is meant, with its content on disk."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            zipped = path.suffix.lower() == ".gz"
            # Neither a name nor a time within: the same events give the same bytes.
            raw: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if zipped else file
            text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
            text.writelines(lines)
            text.detach()
            if zipped:
                raw.close()
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside
