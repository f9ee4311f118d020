"""Files of rows that are whole, odd or broken, and what an independent reader makes of them.

Used by test_fuzz_readers.py, and in bulk by tests/benchmarks/fuzz_readers.py.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.errors import UserError

KINDS = ("jsonl", "chat", "json", "csv", "tsv", "txt", "parquet", "parallel", "squad")
COLUMNS = ("question", "completion", "chosen", "rejected")
FORM = RowFormat("{question}\nA:", completion="completion")
SECONDS = 20

TEXTS = (
    "plain words",
    "",
    " ",
    "\u3000",
    'a "quoted" word, and a comma',
    "it's\\nnot a line break",
    "two\nlines",
    "old\rMac",
    "tab\there",
    "\u2028line\u2029paragraph\u0085next",
    "\ufeffmark",
    "nul\0byte",
    "bell\a and escape\x1b[31m",
    "\u202eright-to-left\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 family, e\u0301 and \u00e9",
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "{braces} %s {0} ${oc.env:HOME}",
    "null",
    "NaN",
    "-1e999",
    "[1, 2]",
    "<script>alert(1)</script>",
    "\\ud800 as an escape of an escape",
    "\uffff\ufffd\U0010ffff",
    "x" * 5000,
    "word " * 3000,
)

VALUES = (
    None,
    True,
    0,
    -7,
    3.5,
    math.nan,
    math.inf,
    10**30,
    [],
    {},
    ["a"],
    ["a", "b"],
    [{"role": "assistant"}],
    [[[]]],
)

BYTES = ("none", "cut", "flip", "insert", "delete", "garbage", "utf-16", "latin-1", "bom", "crlf", "cr", "blank lines")
ROWS = ("type", "missing key", "twice the key", "deep", "digits", "surrogate", "huge", "empty")
MUTATIONS = (*BYTES, *ROWS)


class Hang(BaseException):
    """It took too long."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise `Hang` in the main thread after so many seconds."""

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def text(rng: random.Random) -> str:
    """A text that some reader has stumbled over."""
    if rng.random() < 0.3:
        return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(160, 0x2FFF)))) for _ in range(9))
    return rng.choice(TEXTS)


def one_line(value: str) -> str:
    """The text as it can stand in a line of a file without quoting."""
    return value.replace("\n", " ").replace("\r", " ").replace("\t", " ")


def mutated_row(rng: random.Random, row: dict[str, Any], mutation: str) -> str:
    """A JSON object with something wrong in it."""
    key = rng.choice(COLUMNS)
    if mutation == "type":
        return json.dumps({**row, key: rng.choice(VALUES)})
    if mutation == "missing key":
        return json.dumps({k: v for k, v in row.items() if k != key})
    whole = json.dumps(row)
    inside = {
        "twice the key": f'"{key}": "another"',
        "deep": f'"deep": {"[" * 100_000}{"]" * 100_000}',
        "digits": f'"digits": {"9" * 6000}',
        "surrogate": f'"{key}": "half a pair \\ud83d"',
        "huge": f'"huge": "{"y" * 3_000_000}"',
        "empty": '"": ""',
    }[mutation]
    return f"{whole[:-1]}, {inside}}}" if mutation != "surrogate" else json.dumps({**row, key: "half \ud83d a pair"})


def content(rng: random.Random, kind: str, rows: list[dict[str, Any]], mutation: str) -> bytes:
    """The bytes of a file."""
    wrong = rng.randrange(len(rows)) if rows and mutation in ROWS else -1
    rows = [dict(row) for row in rows]
    if kind == "chat":  # a prompt of messages, as TRL writes it
        rows = [{**row, "prompt": [{"role": "user", "content": row.pop("question")}]} for row in rows]
    objects = [
        mutated_row(rng, row, mutation) if i == wrong else json.dumps(row, ensure_ascii=rng.random() < 0.5)
        for i, row in enumerate(rows)
    ]
    if kind in ("jsonl", "chat"):
        return "".join(f"{one}\n" for one in objects).encode()
    if kind == "json":
        listed = f"[{', '.join(objects)}]"
        return (listed if rng.random() < 0.7 else f'{{"version": 1, "data": {listed}}}').encode()
    if kind == "squad":
        questions = [
            {"id": str(i), "question": row["question"], "answers": [{"text": row["completion"], "answer_start": 0}]}
            for i, row in enumerate(rows)
        ]
        if wrong >= 0:
            questions[wrong][rng.choice(["question", "answers"])] = rng.choice(VALUES)
        return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": questions}]}]}).encode()
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
        if wrong >= 0:
            columns[rng.choice(COLUMNS)] = [rng.choice((None, 3, [1], b"\xff")) for _ in [0]] * len(rows)
        whole = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), whole)
        return whole.getvalue()
    table = [list(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)]
    if wrong >= 0:
        table[wrong + 1] = rng.choice(([], ["one"], [*table[wrong + 1], "more"], ["", "", "", ""]))
    if kind == "csv":
        written = io.StringIO()
        csv.writer(written, lineterminator=rng.choice(("\n", "\r\n"))).writerows(table)
        return written.getvalue().encode()
    return "".join("\t".join(fields) + "\n" for fields in table).encode()


def broken(rng: random.Random, whole: bytes, mutation: str) -> bytes:
    """The bytes with something done to them."""
    at = rng.randrange(len(whole) + 1)
    few = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5)))
    if mutation in ("utf-16", "latin-1"):
        return whole.decode("utf-8", "replace").encode(mutation, "replace")
    return {
        "cut": whole[:at],
        "flip": whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :],
        "insert": whole[:at] + few + whole[at:],
        "delete": whole[:at] + whole[at + rng.randrange(1, 9) :],
        "garbage": whole + few,
        "bom": b"\xef\xbb\xbf" + whole,
        "crlf": whole.replace(b"\n", b"\r\n"),
        "cr": whole.replace(b"\n", b"\r"),
        "blank lines": b"\n\n" + whole.replace(b"\n", b"\n\n"),
    }.get(mutation, whole)


def written(rng: random.Random, folder: Path, kind: str, mutation: str) -> Any:
    """A source of rows on the disk: a path, or for line-parallel texts one for each column."""
    rows = [{name: text(rng) for name in COLUMNS} for _ in range(rng.choice((0, 1, 1, 2, 3, 5)))]
    if kind in ("tsv", "txt", "parallel"):
        rows = [{name: one_line(value) for name, value in row.items()} for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "parallel":
        files = {}
        for name in ("question", "completion"):
            whole = "".join(f"{row[name]}\n" for row in rows).encode()
            files[name] = folder / f"{name}.txt"
            files[name].write_bytes(broken(rng, whole, mutation) if name == "question" else whole)
        return files
    whole = broken(rng, content(rng, kind, rows, mutation), mutation)
    suffix = {"squad": "json", "chat": "jsonl"}.get(kind, kind)
    path = folder / f"rows.{suffix}"
    if rng.random() < 0.25:
        path, whole = path.with_name(path.name + ".gz"), gzip.compress(whole)
        if mutation in ("cut", "flip", "insert", "delete", "garbage") and rng.random() < 0.5:
            whole = broken(rng, whole, mutation)
    path.write_bytes(whole)
    return path


# --- an independent reader -------------------------------------------------------------------------------------------


class Bad(Exception):
    """The independent reader can't read it."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise Bad("twice the key")
    return dict(pairs)


def rows_of_csv(whole: str) -> list[list[str]]:
    """RFC 4180, character by character."""
    rows: list[list[str]] = []
    row: list[str] = []
    field, quoted, closed, i = "", False, False, 0
    while i < len(whole):
        c = whole[i]
        if quoted:
            if c == '"' and whole[i + 1 : i + 2] == '"':
                field, i = field + c, i + 1
            elif c == '"':
                quoted, closed = False, True
            else:
                field += c
        elif c == '"' and not field and not closed:
            quoted = True
        elif c == ",":
            row, field, closed = [*row, field], "", False
        elif c in "\r\n":
            if row or field or closed:
                rows.append([*row, field])
            row, field, closed = [], "", False
        elif closed:
            raise Bad("text behind a quoted field")
        else:
            field += c
        i += 1
    if quoted:
        raise Bad("a quote that is not closed")
    return [*rows, [*row, field]] if row or field or closed else rows


def lines(whole: str) -> list[str]:
    split = whole.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return split[:-1] if split[-1] == "" else split


def expected(source: Any, kind: str) -> list[dict[str, Any]]:
    """The records of a source, by other means than ours.

    Raises:
        Bad: if there are none, or they can't be read.
    """
    try:
        return _expected(source, kind)
    except (ValueError, RecursionError, EOFError, OSError, TypeError, KeyError, AttributeError) as error:
        raise Bad(str(error)) from error
    except Exception as error:  # zlib's and pyarrow's own
        raise Bad(str(error)) from error


def _expected(source: Any, kind: str) -> list[dict[str, Any]]:
    if kind == "parallel":
        texts = [source[name].read_bytes().decode("utf-8-sig") for name in source]
        split = [[line.rstrip("\r") for line in one.removesuffix("\n").split("\n")] if one else [] for one in texts]
        if len(split[0]) != len(split[1]):
            raise Bad("unequal")
        return [dict(zip(source, pair, strict=True)) for pair in zip(*split, strict=True)]
    whole = source.read_bytes()
    if source.suffix == ".gz":
        whole = gzip.decompress(whole)
    if kind == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(io.BytesIO(whole)).to_pylist()
    told = whole.decode("utf-8-sig")
    if kind in ("jsonl", "chat"):
        return [json.loads(line, object_pairs_hook=unique) for line in lines(told) if line.strip()]
    if kind == "json":
        found = json.loads(told, object_pairs_hook=unique)
        return found if isinstance(found, list) else next(v for v in found.values() if isinstance(v, list))
    if kind == "squad":
        made = []
        for article in json.loads(told, object_pairs_hook=unique)["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    answers = list(dict.fromkeys(a["text"] for a in qa["answers"]))
                    values = {"context": paragraph["context"], "question": qa["question"], "answers": answers}
                    made.append({"id": qa.get("id"), "title": article.get("title", ""), **values})
        return made
    table = rows_of_csv(told) if kind == "csv" else [line.split("\t") for line in lines(told) if line]
    if kind == "txt" and table and len(table[0]) == 1 and "\t" not in lines(told)[0]:
        return [{"text": "\t".join(row)} for row in table]
    head, *rest = table
    if any(len(row) != len(head) for row in rest) or len(set(head)) < len(head):
        raise Bad("a row of another length")
    return [dict(zip(head, row, strict=True)) for row in rest]


# --- what comes of it ------------------------------------------------------------------------------------------------


def names_the_file(error: UserError, source: Any) -> bool:
    files = source.values() if isinstance(source, dict) else [source]
    return any(file.name in str(error) for file in files)


def same(a: Any, b: Any) -> bool:
    """Equal, NaN to NaN, and of one type."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def outcome(source: Any, kind: str, encode: Any = None) -> str:
    """``rows``, ``some rows refused``, ``refused``; or what must not be: ``crash ...``, ``hang``, ``changed ...``.

    Args:
        source: what `written` gave.
        kind: of it.
        encode: takes an SFT row; may refuse it too.
    """
    try:
        with at_most(SECONDS):
            try:
                records = list(read_records(source))
            except UserError as error:
                return "refused" if names_the_file(error, source) else f"crash: no file named: {str(error)[:200]}"
            try:
                known = expected(source, kind)
            except Bad as reason:
                return f"changed: read what can't be read ({reason})"
            if not same([record.values for record in records], known):
                return "changed: other records"
            refused = 0
            for record in records:
                for convert in (FORM.sft_row, FORM.prompt_row, FORM.preference_row):
                    try:
                        row = convert(record)
                    except UserError as error:
                        refused += 1
                        if record.place not in str(error):
                            return f"crash: no place named: {str(error)[:200]}"
                        continue
                    if convert == FORM.sft_row:
                        given = record.values["completion"]
                        if isinstance(given, str) and row.completion != given.strip():
                            return "changed: another completion"
                        if encode is not None:
                            encode(row)
            return "some rows refused" if refused else "rows"
    except Hang:
        return "hang"
    except Exception as error:
        return f"crash: {type(error).__name__}: {str(error)[:200]}"
