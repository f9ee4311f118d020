"""Any source in, records out: a file, parallel files, a folder or the hub's data set, or several of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lightning.data.files import (
    OnBad,
    Record,
    check_exists,
    check_unnamed,
    did_you_mean,
    flaw,
    home,
    listed,
    needs,
    read_file,
    read_parallel,
)
from rlhf_lightning.errors import UserError

Source = str | Path | Mapping[str, str] | Sequence[Any]
"""A path, a hub id ``hub:owner/name[:config][@revision][#split]``, ``{column: path}`` of line-parallel texts, or a list
of these."""

Columns = Mapping[str, str] | Sequence[str] | None
"""``{our column: the file's}`` renames (``translation.en``: the field ``en`` of a column of objects); a list names the
columns of a CSV, TSV or text file without a header (``_`` skips one)."""


def _refuse(error: UserError) -> None:
    raise error


def read_records(
    source: Source, *, encoding: str = "utf-8", columns: Columns = None, on_bad: OnBad = _refuse
) -> Iterator[Record]:
    """Read rows of JSONL, JSON (also SQuAD's), CSV, TSV, Parquet (any of them gzipped), line-parallel texts, a folder
    saved by ``datasets``, or a hub data set.

    TSV is read without quoting (a lone quotation mark in a sentence is just that), CSV with it. A ``.txt`` is TSV, or,
    where its first line has no tab, one column ``text`` without a header.

    Args:
        source: see `Source`.
        encoding: of text files.
        columns: see `Columns`.
        on_bad: called for each line that can't be read; as it stands, it raises the error.

    Raises:
        UserError: naming the file and line that can't be read, and the remedy.
    """
    if isinstance(columns, Mapping):
        renames = Renames(columns)
        for record in read_records(source, encoding=encoding, on_bad=on_bad):
            yield renames(record)
        renames.check()
        return
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns or ()):
        raise UserError(f"data.columns={columns!r}: expected {{our column: the file's}}, or a list of names as texts")
    found = False

    def bad(error: UserError) -> None:
        nonlocal found
        found = True  # a file of bad lines is not an empty one
        on_bad(error)

    if isinstance(source, Mapping):
        for column, file in source.items():
            if not isinstance(file, (str, Path)):
                raise UserError(f"{{column: file}}: the file of the column {column!r} is {file!r}; expected one path")
        check_unnamed("{column: file}", columns)
        records = read_parallel({str(k): home(v) for k, v in source.items()}, encoding)
    elif not isinstance(source, (str, Path)):
        if not isinstance(source, Sequence):
            raise UserError(f"{source!r} is no source of rows: give a file, a folder, a hub id, or a list of these")
        for part in source:
            yield from read_records(part, encoding=encoding, columns=columns, on_bad=on_bad)
        return
    elif str(source).startswith("hub:"):
        records = _hub(str(source), columns)
    else:
        path = home(source)
        check_exists(path)
        records = _folder(path, columns) if path.is_dir() else read_file(path, encoding, columns, bad)
    for record in records:
        found = True
        if wrong := flaw(record):
            on_bad(UserError(f"{record.place}: {wrong}"))
        else:
            yield record
    if not found:
        raise UserError(f"{source}: there are no rows in it")


class Renames:
    """Gives a file's columns our names, and remembers which columns no record had.

    Args:
        columns: ``{our column: the file's}``; one column of the file may serve as several of ours.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        for ours, theirs in columns.items():
            if not isinstance(ours, str) or not isinstance(theirs, str):
                raise UserError(
                    f"data.columns={{{ours}: {'null' if theirs is None else theirs}}}: both must be column names as "
                    "texts. Write a number in quotes; leave out what has no column."
                )
        self.columns = dict(columns)
        self.unseen, self.known = set(self.columns.values()), dict[str, None]()

    def __call__(self, record: Record) -> Record:
        """The record under our names. Columns it lacks are passed over: preferences have no references, for one."""
        given = record.values | self._fields(record.values)
        self.unseen -= given.keys()
        self.known |= dict.fromkeys(record.values)
        ours = {ours: given[theirs] for ours, theirs in self.columns.items() if theirs in given}
        taken = {self.columns[name] for name in ours}
        values = {k: v for k, v in record.values.items() if k not in taken} | ours
        return Record(record.place, values, {name: self.columns[name] for name in ours})

    def _fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What dotted names mean, as the hub's translations need them: a field of a column that holds an object."""
        found = {}
        for name in self.columns.values():
            column, _, field = name.partition(".")
            if name not in values and isinstance(values.get(column), Mapping) and field in values[column]:
                found[name] = values[column][field]
        return found

    def check(self) -> None:
        """Raise a `UserError` for a column that was in none of the records."""
        for theirs in sorted(self.unseen):
            raise UserError(
                f"data.columns names {theirs!r}, which no row has; the columns are "
                f"{listed(self.known)}{did_you_mean(theirs, self.known)}"
            )


def _rows(name: str, dataset: Any) -> Iterator[Record]:
    if hasattr(dataset, "keys"):
        raise UserError(
            f"{name} holds several splits ({', '.join(dataset)}): name one, as hub:owner/name#split or DIR/split"
        )
    # A class label is stored as a number; its name is what a model can read and write.
    labels = {k: v.int2str for k, v in dataset.features.items() if type(v).__name__ == "ClassLabel"}
    for number, row in enumerate(_whole_rows(name, dataset), start=1):
        told = {k: name_of(row[k]) for k, name_of in labels.items() if row[k] is not None and row[k] >= 0}
        yield Record(f"{name}, row {number}", {**row, **told})


def _whole_rows(name: str, dataset: Any) -> Iterator[dict[str, Any]]:
    rows = iter(dataset)
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # decoding raises all kinds of things: damaged bytes, a missing image library
            raise UserError(f"{name}, row {number}: it can't be read: {_first_line(error)}") from error
        yield row


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _folder(path: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    check_unnamed(path.name, columns)
    needs("datasets", "hub")
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception as error:  # of a damaged one, whatever comes of reading it
        raise UserError(
            f"{path} is a folder, but not one that datasets.save_to_disk wrote whole: {_first_line(error)}"
        ) from error
    yield from _rows(path.name, dataset)


def _hub(name: str, columns: Sequence[str] | None) -> Iterator[Record]:
    check_unnamed(name, columns)
    needs("datasets", "hub")
    import datasets

    rest, _, split = name.removeprefix("hub:").partition("#")
    rest, _, revision = rest.partition("@")
    repository, _, config = rest.partition(":")
    try:
        dataset = datasets.load_dataset(repository, config or None, revision=revision or None, split=split or None)
    except Exception as error:  # the hub's client raises all kinds of things for one cause: it can't be had
        raise UserError(
            f"cannot load the data set {name}: {_first_line(error)}. Check its name, or the connection to the hub."
        ) from error
    yield from _rows(name, dataset)
