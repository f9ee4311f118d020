"""A file in, records out: every record knows its place, so that an error can name file and line."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import importlib.util
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rlhf_lightning.data.strict_json import DEPTH, Fault, parse
from rlhf_lightning.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class Record:
    """One row as the file has it, and where it came from (``train.tsv, line 12``).

    Attributes:
        place: the file and the line, or the row where there are no lines.
        values: by column.
        renamed: ``{our column: the file's}`` of the values that were renamed.
    """

    place: str
    values: dict[str, Any]
    renamed: Mapping[str, str] = field(default_factory=dict)


OnBad = Callable[[UserError], None]
"""Is told of a line that can't be read; when it returns, the line is left out."""


def did_you_mean(name: str, known: Iterable[Any], likeness: float = 0.6) -> str:
    """The known name most like this one, as the end of a message; empty where none is (`difflib`'s ratio)."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=likeness)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shown(value: Any) -> str:
    """A value as a message shows it: cut, as a field may hold a whole book."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def listed(names: Iterable[Any]) -> str:
    """Column names as a message lists them; what was taken for a header may be a long text."""
    known = [str(name) for name in names]
    told = ", ".join(name if len(name) <= 60 else f"{name[:56]} ..." for name in known[:30])
    return told if len(known) <= 30 else f"{told} and {len(known) - 30} more"


def count_of(n: int, things: str) -> str:
    """A number of things, which are named in the plural.

    >>> count_of(2, "gold questions"), count_of(1, "judgements of known time"), count_of(1, "people")
    ('2 gold questions', '1 judgement of known time', '1 person')
    """
    if n == 1:
        things = re.sub(r"\bpeople\b|\b(\w+)s\b", lambda found: found[1] or "person", things, count=1)
    return f"{n} {things}"


def flaw(record: Record) -> str | None:
    """Why a row can't be used whatever its columns mean; None where it can.

    Half a surrogate pair (JSON can spell one, as ``\\ud800``) is no character: no tokenizer takes it, and no file that
    a run writes could hold it.
    """
    level: list[tuple[str, Any]] = list(record.values.items())
    for _ in range(DEPTH):
        below: list[tuple[str, Any]] = []
        for name, value in level:
            if isinstance(value, str):
                if not _whole(value):
                    return (
                        f"the field {shown(name)} holds half a surrogate pair, which is no character: mend the text, "
                        "or write it again from its source"
                    )
            elif isinstance(value, Mapping):
                below += [(name, part) for item in value.items() for part in item]
            elif isinstance(value, (list, tuple)):
                below += [(name, part) for part in value]
        if not below:
            break
        level = below
    else:
        return f"the field {shown(level[0][0])} is nested more than {DEPTH} levels deep"
    if not all(_whole(str(name)) for name in record.values):
        return "a column's name holds half a surrogate pair, which is no character: mend it"
    return None


def _whole(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def check_exists(path: Path) -> None:
    """Raise a `UserError` that names what is there instead where a path is missing."""
    try:
        if path.exists():
            return
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        where = "" if path.parent.is_dir() else f" (nor a folder {path.parent})"
    except (OSError, ValueError) as error:  # a folder that may not be entered; a name that no file can have
        raise UserError(f"cannot read {shown(str(path))}: {_reason(error)}") from error
    raise UserError(f"there is no file {path}{where}{did_you_mean(path.name, beside)}")


def home(path: str | Path) -> Path:
    """The path with ``~`` replaced.

    Raises:
        UserError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


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


def read_file(path: Path, encoding: str | None, columns: Sequence[str] | None, bad: OnBad) -> Iterator[Record]:
    """Records of one file, by its suffix.

    Args:
        path: it exists.
        encoding: of a text file; None for UTF-8 where the user can choose no other one, nor name columns.
        columns: names for the columns of a file without a header.
        bad: called for each line that can't be read.

    Raises:
        UserError: naming the file, the line where there is one, and the remedy.
    """
    suffix = (Path(path.stem).suffix if _zipped(path) else path.suffix).lower()
    if suffix in (".parquet", ".jsonl", ".json"):
        check_unnamed(path.name, columns)
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file {suffix!r}; there are {', '.join(SUFFIXES)}, and .gz of these")
    names = None if columns is None else list(columns)
    with open_text(path, encoding) as text:
        if suffix == ".jsonl":
            yield from _jsonl(path.name, text, bad)
        elif suffix == ".json":
            yield from _json(path.name, text, bad)
        else:
            first, delimiter = next(text, ""), "," if suffix == ".csv" else "\t"
            if 3 * first.count("\0") > len(first):  # halves of letters: they would be read, as garbage
                remedy = "write it again as UTF-8" if encoding is None else "say data.encoding=utf-16-le or utf-16-be"
                raise UserError(
                    f"{path.name}, line 1: many of its bytes are zero, as in UTF-16 text without a mark: {remedy}, or "
                    "take them out"
                )
            if names is not None:
                _check_headerless(path.name, names, first, delimiter)
            if suffix == ".txt" and names is None and "\t" not in first:
                names = ["text"]  # plain lines: the first is no header
            lines = itertools.chain([first], text)
            unnamed = "Give each its own name." if encoding is None else "Without a header, name them by data.columns."
            yield from _table(path.name, lines, delimiter, names, bad, unnamed)


_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


def _zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _bytes(path: Path) -> Any:
    return gzip.open(path, "rb") if _zipped(path) else path.open("rb")


@contextmanager
def open_text(path: Path, encoding: str | None) -> Iterator[TextIO]:
    """The file as text, without a byte-order mark, un-zipped; decoding errors name line and byte.

    Args:
        path: it exists.
        encoding: see `read_file`.
    """
    mark = _mark("utf-8" if encoding is None else encoding)
    try:
        with _bytes(path) as raw:
            if mark and raw.peek(len(mark))[: len(mark)] == mark:
                raw.read(len(mark))
            # Untranslated line ends: those within a quoted field are part of it.
            yield io.TextIOWrapper(raw, encoding="utf-8" if encoding is None else encoding, newline="")
    except UnicodeError as error:  # also what is no UnicodeDecodeError: UTF-16 without its mark
        raise _undecodable(path, encoding, error) from error
    except _BROKEN_GZIP as error:
        raise UserError(f"{path} is no whole gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error


def _mark(encoding: str) -> bytes:
    """The byte-order mark that a text of this encoding may begin with; none where the decoder takes it away itself."""
    try:
        if codecs.lookup(encoding).name in ("utf-16", "utf-32", "utf-8-sig"):
            return b""
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses codecs that are not of text, such as rot13
        return "\ufeff".encode(encoding)
    except UnicodeEncodeError:
        return b""
    except (LookupError, ValueError, TypeError) as error:
        raise UserError(f"data.encoding={encoding!r} is no encoding that Python knows") from error


def _undecodable(path: Path, chosen: str | None, error: UnicodeError) -> UserError:
    encoding = "utf-8" if chosen is None else chosen
    try:
        with _bytes(path) as file:
            content = file.read()
    except _BROKEN_GZIP as broken:
        return UserError(f"{path} is no whole gzip file: {broken}")
    name = codecs.lookup(encoding).name
    if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and not name.startswith(("utf-16", "utf-32")):
        remedy = "Write it again as UTF-8." if chosen is None else "Say so: data.encoding=utf-16."
        return UserError(f"{path.name} is UTF-16 text. {remedy}")
    remedy = f"Say the file's encoding, as in data.encoding={'utf-8' if name.startswith('utf-16') else 'latin-1'}."
    if chosen is None:
        remedy = "Write the file again as UTF-8."
    try:
        content.decode(encoding)
    except UnicodeDecodeError as wrong:
        before = content[: wrong.start].decode(encoding, errors="replace")
        line = 1 + len(_LINE_END.findall(before))
        return UserError(f"{path.name}, line {line}: byte {content[wrong.start]:#04x} is not {name}. {remedy}")
    except UnicodeError as wrong:
        error = wrong
    return UserError(f"{path.name} is not {name}: {error}. {remedy}")


_LINE_END = re.compile(r"\r\n?|\n")


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
                value = parse(line)
            except Fault as fault:
                bad(UserError(f"{place}: {fault.reason}{hint}"))
                continue
            yield from _object(place, value, bad, hint)


def _json(name: str, text: TextIO, bad: OnBad) -> Iterator[Record]:
    try:
        content = parse(text.read())
    except Fault as fault:
        hint = ". If it holds an object a line, name it .jsonl" if "Extra data" in fault.reason else ""
        raise UserError(f"{name}, {fault}{hint}") from fault
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


def _table(
    name: str, lines: Iterable[str], delimiter: str, names: list[str] | None, bad: OnBad, unnamed: str
) -> Iterator[Record]:
    csv.field_size_limit(1 << 27)
    if delimiter == ",":
        # Strict: otherwise a quote that is never closed takes in the rest of the file without a word.
        rows = csv.reader(lines, strict=True)
    else:
        rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    start = 1  # a row's first line: a quoted field may span several
    try:
        headed = names is None
        if names is None:
            names = next(filter(None, rows), [])
            if len(set(names)) < len(names):
                raise UserError(f"{name}, line {rows.line_num}: a column name occurs twice. {unnamed}")
        while True:
            start = rows.line_num + 1
            row = next(rows, None)
            if row is None:
                return
            if not row:
                continue
            place = f"{name}, line {start}"
            if len(row) != len(names):
                found = f"{len(row)} field{'s' * (len(row) != 1)}"
                bad(UserError(f"{place}: {found}, expected {len(names)} ({listed(names)})"))
                continue
            yield Record(place, {k: v for k, v in zip(names, row, strict=True) if headed or k != "_"})
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
        source: Any = io.BytesIO(gzip.decompress(path.read_bytes())) if _zipped(path) else str(path)
        file = pyarrow.parquet.ParquetFile(source)
        names = file.schema_arrow.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{path.name}: the column {shown(twice[0])} occurs twice")
        number = 0
        for batch in file.iter_batches():
            for row in _rows_of(batch, path.name, number):
                number += 1
                yield Record(f"{path.name}, row {number}", row)
    except (pyarrow.ArrowException, OSError, EOFError, ValueError, TypeError, OverflowError, zlib.error) as error:
        raise UserError(f"{path} is no Parquet file that can be read: {_reason(error)}") from error


def _rows_of(batch: Any, name: str, before: int) -> list[dict[str, Any]]:
    """The rows of a batch as Python has them, which not every value is: text that is no UTF-8, a day in the year 0."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError, TypeError):
        for number in range(batch.num_rows):
            for column in batch.schema.names:
                try:
                    batch.column(column)[number].as_py()
                except (ValueError, OverflowError, TypeError) as error:
                    raise UserError(
                        f"{name}, row {before + number + 1}: the field {shown(column)} can't be read: {error}"
                    ) from error
        raise


def read_parallel(paths: Mapping[str, Path], encoding: str) -> Iterator[Record]:
    """Records of text files with a row a line: ``{column: path}``.

    Raises:
        UserError: if they have different numbers of lines.
    """
    texts = {}
    for column, path in paths.items():
        check_exists(path)
        with open_text(path, encoding) as text:
            content = text.read()
            if "\r" in content and "\n" not in content:
                raise UserError(f"{path}: its lines end in a carriage return alone, as on old Macs: write it with \\n")
            texts[column] = content.removesuffix("\n").split("\n") if content else []
    counts = {str(paths[column]): len(lines) for column, lines in texts.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{path} has {count} lines" for path, count in counts.items())
        raise UserError(f"line-parallel files must have equally many lines: {told}")
    name = " | ".join(path.name for path in paths.values())
    for number, row in enumerate(zip(*texts.values(), strict=True), start=1):
        values = {column: line.removesuffix("\r") for column, line in zip(texts, row, strict=True)}
        yield Record(f"{name}, line {number}", values)
