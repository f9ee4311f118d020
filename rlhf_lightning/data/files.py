"""A file in, records out: every record knows its place, so that an error can name file and line."""

from __future__ import annotations

import csv
import difflib
import gzip
import importlib.util
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rlhf_lightning.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class Record:
    """One row as the file has it, and where it came from (``train.tsv, line 12``).

    Attributes:
        renamed: ``{our column: the file's}`` of the values that were renamed.
    """

    place: str
    values: dict[str, Any]
    renamed: Mapping[str, str] = field(default_factory=dict)


OnBad = Callable[[UserError], None]
"""Is told of a line that can't be read; when it returns, the line is left out."""


def did_you_mean(name: str, known: Iterable[Any]) -> str:
    """The known name most like this one, as the end of a message; empty where none is."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_exists(path: Path) -> None:
    """Raise a `UserError` that names what is there instead where a path is missing."""
    if path.exists():
        return
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    where = "" if path.parent.is_dir() else f" (nor a folder {path.parent})"
    raise UserError(f"there is no file {path}{where}{did_you_mean(path.name, beside)}")


def needs(package: str, extra: str) -> None:
    """Raise a `UserError` that says what to install where a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this needs the package {package}: pip install 'rlhf-lightning[{extra}]'")


def check_unnamed(source: str, names: Sequence[str] | None) -> None:
    """Refuse names for the columns of what has names of its own."""
    if names is not None:
        raise UserError(
            f"{source}: data.columns=[{','.join(names)}] is a list, which names the columns of a CSV, TSV or text file "
            "without a header. These columns have names: rename them with data.columns={ours: theirs}, or leave "
            "data.columns out."
        )


def read_file(path: Path, encoding: str, columns: Sequence[str] | None, bad: OnBad) -> Iterator[Record]:
    """Records of one file, by its suffix.

    Args:
        path: it exists.
        encoding: of a text file.
        columns: names for the columns of a file without a header.
        bad: called for each line that can't be read.

    Raises:
        UserError: naming the file, the line where there is one, and the remedy.
    """
    suffix = (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()
    if suffix in (".parquet", ".jsonl", ".json"):
        check_unnamed(path.name, columns)
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file {suffix!r}; there are {', '.join(SUFFIXES)}, and .gz of these")
    names = None if columns is None else list(columns)
    with _text(path, encoding) as text:
        if suffix == ".jsonl":
            yield from _jsonl(path.name, text, bad)
        elif suffix == ".json":
            yield from _json(path.name, text, bad)
        else:
            first, delimiter = next(text, ""), "," if suffix == ".csv" else "\t"
            if names is not None:
                _check_headerless(path.name, names, first, delimiter)
            if suffix == ".txt" and names is None and "\t" not in first:
                names = ["text"]  # plain lines: the first is no header
            lines = itertools.chain([first], text)
            yield from _table(path.name, lines, delimiter, names, bad)


_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


@contextmanager
def _text(path: Path, encoding: str) -> Iterator[TextIO]:
    """The file as text, without a byte-order mark, un-zipped; decoding errors name line and byte."""
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        raw: Any = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    with raw:
        try:
            text = io.TextIOWrapper(raw, encoding=encoding, newline="")
        except LookupError as error:
            raise UserError(f"data.encoding={encoding!r} is no encoding that Python knows") from error
        try:
            yield text
        except UnicodeDecodeError as error:
            raise _undecodable(path, encoding) from error
        except _BROKEN_GZIP as error:
            raise UserError(f"{path} is no whole gzip file: {error}") from error


def _undecodable(path: Path, encoding: str) -> UserError:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except _BROKEN_GZIP as error:
        return UserError(f"{path} is no whole gzip file: {error}")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return UserError(f"{path.name} is UTF-16 text. Say so: data.encoding=utf-16.")
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as error:
            return UserError(
                f"{path.name}, line {number}: byte {error.object[error.start]:#04x} is not "
                f"{encoding.removesuffix('-sig')}. Say the file's encoding, as in data.encoding=latin-1."
            )
    return UserError(f"{path.name} is not {encoding}. Say its encoding, such as data.encoding=latin-1.")


def _object(place: str, value: Any, bad: OnBad, hint: str = "") -> Iterator[Record]:
    if isinstance(value, dict):
        yield Record(place, value)
    else:
        bad(UserError(f"{place}: expected a JSON object with the row's columns, found a {type(value).__name__}{hint}"))


def _jsonl(name: str, text: TextIO, bad: OnBad) -> Iterator[Record]:
    for number, line in enumerate(text, start=1):
        if line.strip():
            place = f"{name}, line {number}"
            hint = ". If the whole file is one list, name it .json" if line.lstrip()[0] == "[" else ""
            try:
                value = json.loads(line, object_pairs_hook=_unique)
            except _Twice as error:
                bad(UserError(f"{place}: {error}"))
                continue
            except json.JSONDecodeError as error:
                bad(UserError(f"{place}: this is no JSON: {error.msg} at character {error.pos + 1}{hint}"))
                continue
            except (ValueError, RecursionError) as error:
                bad(UserError(f"{place}: {_unreadable(error)}"))
                continue
            yield from _object(place, value, bad, hint)


class _Twice(ValueError):
    """An object has one key twice: of its values Python would keep the last, without a word."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Twice(f"the key {key[:60]!r} occurs twice in one object (the one with {str(found)[:80]})")
    return found


def _unreadable(error: ValueError | RecursionError) -> str:
    """Why Python can't read what is JSON."""
    if isinstance(error, RecursionError):
        return "this JSON is nested too deeply to be read"
    return "this JSON has a number of too many digits to be read: write it in quotes"


def _json(name: str, text: TextIO, bad: OnBad) -> Iterator[Record]:
    whole = text.read()
    try:
        content = json.loads(whole, object_pairs_hook=_unique)
    except _Twice as error:
        raise UserError(f"{name}: {error}") from error
    except json.JSONDecodeError as error:
        hint = ". If it holds an object a line, name it .jsonl" if error.msg == "Extra data" else ""
        raise UserError(f"{name}, line {error.lineno}: this is no JSON: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: {_unreadable(error)}") from error
    if isinstance(content, dict):
        lists = [v for v in content.values() if isinstance(v, list)]
        if len(lists) != 1:
            raise UserError(
                f"{name}: expected a list of rows, or an object that holds one list; found {len(lists)} lists"
            )
        content = lists[0]
    if not isinstance(content, list):
        raise UserError(f"{name}: expected a list of rows, found a {type(content).__name__}")
    if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
        yield from _squad(name, content)
        return
    for number, row in enumerate(content, start=1):
        yield from _object(f"{name}, row {number}", row, bad)


def _squad(name: str, articles: list[Any]) -> Iterator[Record]:
    for article in articles:
        title = article.get("title", "") if isinstance(article, dict) else ""
        for paragraph in _member(f"{name}, article {title!r}", article, "paragraphs", list):
            context = _member(f"{name}, article {title!r}", paragraph, "context", str)
            for qa in _member(f"{name}, article {title!r}", paragraph, "qas", list):
                place = f"{name}, question {qa.get('id') if isinstance(qa, dict) else ''}"
                question = _member(place, qa, "question", str)
                found = [] if qa.get("is_impossible") else _member(place, qa, "answers", list)
                answers = list(dict.fromkeys(_member(place, answer, "text", str) for answer in found))
                values = {"title": title, "context": context, "question": question, "answers": answers}
                yield Record(place, {"id": qa.get("id"), **values})


def _member(place: str, value: Any, field: str, kind: type) -> Any:
    """A field of an object in SQuAD's form, of the kind it must have."""
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        state = "missing" if found is None else f"a {type(found).__name__}, not a {kind.__name__}"
        raise UserError(f"{place}: the field {field!r} of SQuAD's form is {state}")
    return found


def _table(name: str, lines: Iterable[str], delimiter: str, names: list[str] | None, bad: OnBad) -> Iterator[Record]:
    csv.field_size_limit(1 << 27)
    if delimiter == ",":
        # Strict: otherwise a quote that is never closed takes in the rest of the file without a word.
        rows = csv.reader(lines, strict=True)
    else:
        rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    start = 1  # a row's first line: a quoted field may span several
    try:
        if names is None:
            names = next(rows, [])
            if len(set(names)) < len(names):
                raise UserError(
                    f"{name}, line 1: a column name occurs twice. Without a header, name them by data.columns."
                )
        while True:
            start = rows.line_num + 1
            row = next(rows, None)
            if row is None:
                return
            if not row:
                continue
            place = f"{name}, line {start}"
            if len(row) != len(names):
                bad(UserError(f"{place}: {len(row)} fields, expected {len(names)} ({', '.join(names)})"))
                continue
            yield Record(place, {k: v for k, v in zip(names, row, strict=True) if k != "_"})
    except csv.Error as error:
        remedy = ' In CSV a field with a quote in it is written "...", the quote ""; .tsv knows no quoting.'
        raise UserError(f"{name}, line {start}: {error}.{remedy}") from error


def _check_headerless(file: str, names: Sequence[str], first: str, delimiter: str) -> None:
    """Refuse names that the file's first line has already: it would be taken for a row."""
    fields = [field.strip('"') for field in first.rstrip("\r\n").split(delimiter)]
    if len(fields) == len(names):
        told = [(name, field) for name, field in zip(names, fields, strict=True) if name != "_"]
        if told and all(name == field for name, field in told):
            raise UserError(
                f"{file}, line 1: this is a header with the very names of data.columns=[{','.join(names)}], which are "
                "for a file without one: leave data.columns out"
            )


def _parquet(path: Path) -> Iterator[Record]:
    needs("pyarrow", "parquet")
    import pyarrow
    import pyarrow.parquet

    try:
        source: Any = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else str(path)
        file = pyarrow.parquet.ParquetFile(source)
        columns = file.schema_arrow.names
        if len(set(columns)) < len(columns):
            raise UserError(f"{path.name}: a column name occurs twice: {', '.join(columns)}")
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield Record(f"{path.name}, row {number}", row)
    except (pyarrow.ArrowException, OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from error


def read_parallel(paths: Mapping[str, Path], encoding: str) -> Iterator[Record]:
    """Records of text files with a row a line: ``{column: path}``.

    Raises:
        UserError: if they have different numbers of lines.
    """
    texts = {}
    for column, path in paths.items():
        check_exists(path)
        with _text(path, encoding) as text:
            content = text.read()
            texts[column] = content.removesuffix("\n").split("\n") if content else []
    counts = {str(paths[column]): len(lines) for column, lines in texts.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{path} has {count} lines" for path, count in counts.items())
        raise UserError(f"line-parallel files must have equally many lines: {told}")
    name = " | ".join(path.name for path in paths.values())
    for number, row in enumerate(zip(*texts.values(), strict=True), start=1):
        values = {column: line.rstrip("\r") for column, line in zip(texts, row, strict=True)}
        yield Record(f"{name}, line {number}", values)
