"""Data files of every form and every kind of damage, with what reading them must give.

Nothing here calls the project's readers or Python's csv: files are put together by hand, so that a text that comes out
otherwise than it went in shows.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Row = dict[str, Any]

# --- texts and rows -------------------------------------------------------------------------------------------------

# fmt: off
PIECES = [
    "the cat", "Ein Satz, mit Komma", 'a "quoted" word', "it's", "a;b", "C:\\new\\table", "\\u0041", "{brace}", "5%",
    "中文 句子",
    "שלום עולם", "مرحبا", "\u202eabc\u202c", "हिन्दी", "e\u0301", "ﬁ", "İı", "👩\u200d👩\u200d👧", "🇳🇴", "𝔘",
    "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e", "\x7f", "\x1b[31m", "\x01", "\u200b", "\u00a0",
    "a\x00 zero byte", "<eos>", "</s>", "<pad>", "<|im_end|>", "NaN", "null", "-0", "1e999", "true", "'", '"', '""',
    "[", "a\ufeffb", "\ufffd", "\uffff", "\U0010ffff", "  ", " ", "\n\nHuman: hi\n\nAssistant:", "- list", "=1+1",
]
# fmt: on
"""What texts are put together from: scripts, separators that are no line ends, what other formats would take apart."""
if sys.version_info < (3, 11):  # whose csv module refuses zero bytes
    PIECES = [piece for piece in PIECES if "\x00" not in piece]
BREAKS = ["\n", "\r\n", "\r", "\t"]
LABELS = ("tech", "sports", "中文 ✓")
TEXT = ("csv", "json", "jsonl", "squad", "parquet")
"""Forms that can hold tabs and line ends within a text."""


def text(rng: random.Random, form: str) -> str:
    """A text that the form can hold."""
    pieces = PIECES + BREAKS * (form in TEXT)
    made = " ".join(rng.choice(pieces) for _ in range(rng.randint(1, 5)))
    if form not in TEXT:
        made = re.sub(r"[\t\r\n]", "", made)
    return made if made.strip() else f"word{made}"


def make_row(rng: random.Random, kind: str, form: str) -> Row:
    """A good row of a kind."""
    structured = form in ("json", "jsonl", "parquet")

    def some() -> str:
        return text(rng, form)

    if kind == "sft":
        return {"document": some(), "reference": some(), "id": some()}
    if kind == "prompts":
        return {"document": some(), "references": [some() for _ in range(rng.randint(1, 3))] if structured else some()}
    if kind == "pairs":
        weight = rng.choice([0.5, 2.0, 1e-3])
        pair = {"chosen": f"{some()} yes", "rejected": f"{some()} no"}
        return {"document": some(), **pair, "weight": weight if structured else str(weight)}
    if kind == "labels":
        return {"text": some(), "label": rng.choice(LABELS)}
    if kind == "chat":
        said = [{"role": "user", "content": some()}, {"role": "assistant", "content": some()}]
        prompt = said * rng.randint(0, 2) + said[:1]
        return {"prompt": prompt, "completion": [{"role": "assistant", "content": some()}]}
    if kind == "unpaired":
        return {"prompt": some(), "completion": some(), "label": rng.choice([True, False]) if structured else "true"}
    if kind == "squad":
        answers = list(dict.fromkeys(some() for _ in range(rng.randint(1, 3))))
        asked = {"title": some(), "context": some(), "question": some(), "answers": answers}
        return {"id": f"q{rng.randrange(10**9)}", **asked}
    return {"text": some()}


def typed(kind: str, row: Row) -> tuple | None:
    """The row as the stages see it, by the documented rules; None: it must be refused. `DROP`: equal completions."""

    def texts(*names: str) -> list[str]:
        found = [row.get(name) for name in names]
        if not all(isinstance(value, str) and value.strip() for value in found):
            raise ValueError
        return [value.strip() for value in found]  # type: ignore[union-attr]

    try:
        if kind == "sft":
            document, reference = texts("document", "reference")
            return (f"{document}\nTL;DR:", (0, len(document)), reference)
        if kind == "prompts":
            references = row["references"] if isinstance(row["references"], list) else [row["references"]]
            if not references or not all(isinstance(r, str) and r.strip() for r in references):
                return None
            return (f"Q: {texts('document')[0]} A:", [r.strip() for r in references])
        if kind == "pairs":
            document, chosen, rejected = texts("document", "chosen", "rejected")
            weight = float(row["weight"])
            return (f"{document}\n", chosen, rejected, weight) if 0 <= weight < 1e300 else None
        if kind == "labels":
            document, label = texts("text", "label")
            return (f"{document} is", label) if label in LABELS else None
        if kind == "unpaired":
            (completion,) = texts("completion")
            if not texts("prompt") or str(row["label"]).lower() not in ("true", "false"):
                return None
            return (row["prompt"], completion, str(row["label"]).lower() == "true")
        if kind == "chat":
            content = row["completion"][0]["content"].strip()
            return (row["prompt"], content) if content else None
        if kind == "squad":
            context, question = texts("context", "question")
            return (f"{context}\nQ: {question}", [answer.strip() for answer in row["answers"]])
        return tuple(texts("text"))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


# --- forms ----------------------------------------------------------------------------------------------------------

FORMS = ("jsonl", "json", "squad", "csv", "tsv", "txt", "plain", "parquet", "parallel")
KINDS = dict.fromkeys(FORMS, ("sft", "prompts", "pairs", "labels", "unpaired"))
for _form in ("jsonl", "json", "parquet"):
    KINDS[_form] += ("chat",)
KINDS["plain"], KINDS["squad"] = ("plain",), ("squad",)
KINDS["parallel"] = ("sft", "prompts", "labels")


@dataclass(frozen=True)
class Case:
    """One source of rows, and what must come of it.

    Attributes:
        form, kind: of `FORMS` and `KINDS`.
        files: name to content; the first is the one that is read (all of them, where the form is ``parallel``).
        rows: what each record must be; None in it is a record that must be refused. None: all must be refused.
        places: of each record, such as ``line 3``.
        fault: what a refusal of the whole must name besides the file, such as ``line 3``.
        encoding: as the user says it.
        loose: it may be refused as well as read: damage that may hit or not.
        state: ``directory``, ``unreadable``, ``missing``: something else stands in the file's place.
        mutation: what was done to it.
    """

    form: str
    kind: str
    files: dict[str, bytes]
    rows: list[Row | None] | None
    places: list[str]
    fault: str = ""
    encoding: str = "utf-8"
    loose: bool = False
    state: str = ""
    mutation: str = ""


def dump(value: Any, ascii_only: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii_only)


def quoted(value: Any, always: bool = True) -> str:
    value = str(value)
    if always or re.search(r'[",\r\n]', value) or not value or value != value.strip():
        return '"' + value.replace('"', '""') + '"'
    return value


def lines_in(content: str) -> int:
    return len(re.findall(r"\r\n?|\n", content))


def render(rows: list[Any], form: str, end: str = "\n", ascii_only: bool = False) -> tuple[str, list[str]]:
    """The text of a file and the place of each row; a row that is a text already stands as it is."""

    def cells(row: Any) -> list[Any]:
        return list(row.values())

    if form == "json":
        parts = [row if isinstance(row, str) else dump(row, ascii_only) for row in rows]
        return f"[{end}" + f",{end}".join(parts) + f"{end}]", [f"row {i}" for i in range(1, len(rows) + 1)]
    if form == "squad":
        articles = [dump(squad(row), ascii_only) for row in rows]
        return f'{{"data": [{end}' + f",{end}".join(articles) + f"{end}]}}", [f"question {row['id']}" for row in rows]
    if form == "jsonl":
        parts = [row if isinstance(row, str) else dump(row, ascii_only) for row in rows]
    elif form == "csv":
        header = ",".join(quoted(name, False) for name in first_of(rows))
        parts = [header] + [
            row if isinstance(row, str) else ",".join(quoted(v, i % 2 == 0) for v in cells(row))
            for i, row in enumerate(rows)
        ]
    elif form in ("tsv", "txt"):
        parts = ["\t".join(first_of(rows))] + [row if isinstance(row, str) else "\t".join(cells(row)) for row in rows]
    else:
        parts = [row if isinstance(row, str) else row["text"] for row in rows]
    at, places = 1, []
    for part in parts:
        places.append(f"line {at}")
        at += lines_in(part) + 1
    return end.join(parts) + end, places[len(parts) - len(rows) :]


def squad(row: Row) -> dict[str, Any]:
    """An article with one paragraph and one question, in the form of that set."""
    answers = [{"text": answer, "answer_start": 0} for answer in row["answers"]]
    asked = {"id": row["id"], "question": row["question"], "answers": answers}
    return {"title": row["title"], "paragraphs": [{"context": row["context"], "qas": [asked]}]}


def first_of(rows: list[Any]) -> list[str]:
    return list(next(row for row in rows if isinstance(row, dict)))


def file_name(form: str, zipped: bool) -> str:
    suffix = {"plain": "txt", "squad": "json"}.get(form, form)
    return f"rows.{suffix}" + ".gz" * zipped


def table_bytes(table: Any) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def make(
    form: str,
    kind: str,
    rows: list[Any],
    zipped: bool,
    *,
    encoding: str = "utf-8",
    edit: Callable[[str], str] = lambda text: text,
    patch: Callable[[bytes], bytes] = lambda content: content,
    end: str = "\n",
    ascii_only: bool = False,
) -> Case:
    """A case of these rows, written in a form, edited as text, encoded, patched as bytes, zipped."""
    places = [f"{'row' if form == 'parquet' else 'line'} {i}" for i in range(1, len(rows) + 1)]
    if form == "parquet":
        import pyarrow as pa

        files = {file_name(form, zipped): patch(table_bytes(pa.Table.from_pylist(rows)))}
    elif form == "parallel":
        texts = {column: edit(end.join(row[column] for row in rows) + end) for column in rows[0]}
        files = {f"{column}.txt" + ".gz" * zipped: patch(text.encode(encoding)) for column, text in texts.items()}
    else:
        written, places = render(rows, form, end, ascii_only)
        files = {file_name(form, zipped): patch(edit(written).encode(encoding))}
    if zipped:
        files = {name: gzip.compress(content, 1) for name, content in files.items()}
    return Case(form, kind, files, rows, places, encoding=encoding)


# --- mutations ------------------------------------------------------------------------------------------------------

Mutation = Callable[[random.Random, str, str, list[Row], bool], Case]
MUTATIONS: dict[str, tuple[Mutation, tuple[str, ...], bool]] = {}
"""What each does, to which forms, and whether also to chats."""

JSON = ("jsonl", "json")
TABLES = ("csv", "tsv", "txt")
LINES = (*TABLES, "jsonl", "plain")
ONE_TEXT = (*LINES, "json", "squad")
ONE_FILE = (*ONE_TEXT, "parquet")


def on(*forms: str, chats: bool = True) -> Callable[[Mutation], Mutation]:
    def register(function: Mutation) -> Mutation:
        MUTATIONS[function.__name__] = function, forms, chats
        return function

    return register


@on(*FORMS)
def good(rng, form, kind, rows, zipped):
    return make(form, kind, rows, zipped)


@on(*ONE_TEXT, "parallel")
def byte_order_mark(rng, form, kind, rows, zipped):
    return make(form, kind, rows, zipped, patch=lambda content: b"\xef\xbb\xbf" + content)


@on(*ONE_TEXT, "parallel")
def crlf(rng, form, kind, rows, zipped):
    return make(form, kind, rows, zipped, end="\r\n")


@on(*ONE_TEXT, "parallel")
def lone_cr(rng, form, kind, rows, zipped):
    if form == "parallel":  # a column would be one line with the texts of all rows
        return replace(make(form, kind, rows, zipped, end="\r"), rows=None, fault="carriage return")
    return make(form, kind, rows, zipped, end="\r")


@on(*ONE_TEXT, "parallel")
def no_final_line_end(rng, form, kind, rows, zipped):
    return make(form, kind, rows, zipped, edit=lambda text: text.removesuffix("\n"))


@on(*LINES)
def blank_lines(rng, form, kind, rows, zipped):
    mutated = [part for row in rows for part in (row, "")]
    case = make(form, kind, mutated, zipped)
    return replace(case, rows=rows, places=case.places[::2])


@on(*JSON)
def ascii_escapes(rng, form, kind, rows, zipped):
    return make(form, kind, rows, zipped, ascii_only=True)


@on("json")
def object_with_list(rng, form, kind, rows, zipped):
    return make(form, kind, rows, zipped, edit=lambda text: f'{{"version": 1, "data":\n{text}\n}}')


@on(*ONE_TEXT, "parallel")
def declared_encoding(rng, form, kind, rows, zipped):
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf_8", "UTF8", "utf-8-sig", "gb18030"])
    mark = "\ufeff" if rng.random() < 0.5 and encoding.startswith("utf-16-") else ""
    return make(form, kind, rows, zipped, encoding=encoding, edit=lambda text: mark + text)


@on(*FORMS, chats=False)
def huge_field(rng, form, kind, rows, zipped):
    big = rng.choice(["x", "word ", "中", "👩", '"', "a\\"]) * (1 << 19)
    column = "context" if form == "squad" else next(iter(rows[0]))
    return make(form, kind, [{**rows[0], column: big}, *rows[1:]], zipped)


@on(*TABLES, *JSON, "parquet")
def many_columns(rng, form, kind, rows, zipped):
    more = {f"c{i}": "x" for i in range(2000)}
    return make(form, kind, [{**row, **more} for row in rows], zipped)


@on(*TABLES, *JSON, "parquet", "parallel", chats=False)
def empty_texts(rng, form, kind, rows, zipped):
    column = rng.choice([name for name in rows[0] if name != "id"])
    rows = [dict(row) for row in rows]
    whole = form != "parquet" or isinstance(rows[0][column], str)
    rng.choice(rows)[column] = rng.choice(["", " ", "  ", "\u2003"]) if whole else None
    return make(form, kind, rows, zipped)


@on(*TABLES, *JSON, chats=False)
def all_empty(rng, form, kind, rows, zipped):
    return make(form, kind, [dict.fromkeys(row, "") for row in rows], zipped)


@on(*JSON, chats=False)
def wrong_type(rng, form, kind, rows, zipped):
    column = rng.choice([name for name in rows[0] if name != "id"])
    rows = [dict(row) for row in rows]
    rng.choice(rows)[column] = rng.choice([None, 3, 2.5, True, {}, {"a": 1}, [1, 2], [[]], [None, "a"], 10**400])
    return make(form, kind, rows, zipped)


@on("parquet", chats=False)
def wrong_column_type(rng, form, kind, rows, zipped):
    column = rng.choice([name for name in rows[0] if name not in ("id", "label", "weight")])
    wrong = rng.choice([b"\xff\xfe", 3, 2.5, None, {"a": 1}])
    return make(form, kind, [{**row, column: wrong} for row in rows], zipped)


@on("parquet")
def text_that_is_no_utf_8(rng, form, kind, rows, zipped):
    import pyarrow as pa

    bad = pa.array([b"ok", b"caf\xe9"]).view(pa.string())
    return raw(form, kind, table_bytes(pa.table({"document": bad})), zipped, fault="row 2")


@on(*JSON)
def not_an_object(rng, form, kind, rows, zipped):
    wrong = rng.choice(["3", '"text"', "[1]", "null", "true", "NaN"])
    return spoiled(form, kind, rows, zipped, rng.randrange(len(rows)), wrong)


@on(*JSON, chats=False)
def missing_column(rng, form, kind, rows, zipped):
    gone, at = next(iter(rows[0])), rng.randrange(len(rows))
    return make(
        form, kind, [{k: v for k, v in row.items() if (i, k) != (at, gone)} for i, row in enumerate(rows)], zipped
    )


@on(*JSON)
def duplicate_key(rng, form, kind, rows, zipped):
    at = rng.randrange(len(rows))
    key = next(iter(rows[at]))
    second = rng.choice([dump(key), f'"\\u{ord(key[0]):04x}{key[1:]}"'])
    more = rng.choice([f'{second}: "other"', '"more": [{"x": 1, "y": {"k": 1, "k": 1}}]'])
    case = spoiled(form, kind, rows, zipped, at, f"{dump(rows[at])[:-1]}, {more}}}")
    # A row stands on one line, behind that of the opening bracket.
    return case if form == "jsonl" else replace(case, rows=None, fault=f"line {at + 2}")


@on(*JSON)
def deep_nesting(rng, form, kind, rows, zipped):
    at, depth = rng.randrange(len(rows)), rng.choice([120, 200, 900, 990, 1100, 100_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    case = spoiled(
        form, kind, rows, zipped, at, f'{dump(rows[at])[:-1]}, "more": {opening * depth}1{closing * depth}}}'
    )
    # What Python's parser can't read ends a JSON list; what it can is one bad row.
    return case if form == "jsonl" or depth < 300 else replace(case, rows=None)


@on(*JSON)
def huge_integer(rng, form, kind, rows, zipped):
    at = rng.randrange(len(rows))
    number = rng.choice(["", "-"]) + "7" * rng.choice([4301, 6000, 200_000])
    case = spoiled(form, kind, rows, zipped, at, f'{dump(rows[at])[:-1]}, "more": {number}}}')
    return case if form == "jsonl" else replace(case, rows=None, fault=f"line {at + 2}")


@on(*JSON)
def lone_surrogate(rng, form, kind, rows, zipped):
    at = rng.randrange(len(rows))
    half = rng.choice(["\\ud800", "a\\uDFFFb", "\\udc00\\ud800", "\\ud83d \\ude00"])
    more = rng.choice([f'"more": "{half}"', f'"more": [{{"x": "{half}"}}]', f'"{half}": 1'])
    return spoiled(form, kind, rows, zipped, at, f"{dump(rows[at])[:-1]}, {more}}}")


@on(*ONE_TEXT)
def surrogate_bytes(rng, form, kind, rows, zipped):
    case = make(form, kind, rows, zipped, patch=lambda content: content + b"\xed\xa0\x80")
    return replace(case, rows=None, fault="line ")


@on("plain")
def surrogate_by_utf_7(rng, form, kind, rows, zipped):
    return raw(form, kind, b"word +2AA-\n", zipped, fault="line 1", encoding="utf-7")


@on(*JSON)
def not_a_number(rng, form, kind, rows, zipped):
    at = rng.randrange(len(rows))
    spelled = rng.choice(["NaN", "Infinity", "-Infinity", "1e999"])
    column = "weight" if kind == "pairs" else "more"
    written = dump({**rows[at], column: "HERE"}).replace('"HERE"', spelled)
    expected = [*rows[:at], {**rows[at], column: json.loads(spelled)}, *rows[at + 1 :]]
    return replace(make(form, kind, [*rows[:at], written, *rows[at + 1 :]], zipped), rows=expected)


@on(*TABLES)
def wrong_number_of_fields(rng, form, kind, rows, zipped):
    return spoiled(form, kind, rows, zipped, rng.randrange(len(rows)), rng.choice(["one", DELIMITER[form] * 40]))


@on("csv")
def unclosed_quote(rng, form, kind, rows, zipped):
    case = make(form, kind, [*rows, 'a,"never closed'], zipped)
    return replace(case, rows=None, fault=case.places[-1])


@on(*TABLES)
def header_twice(rng, form, kind, rows, zipped):
    return raw(form, kind, DELIMITER[form].join("aa\n").encode(), zipped, fault="line 1")


@on("parquet")
def column_twice(rng, form, kind, rows, zipped):
    import pyarrow as pa

    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    return raw(form, kind, table_bytes(table), zipped, fault="'text'")


@on(*TABLES)
def header_only(rng, form, kind, rows, zipped):
    return raw(form, kind, DELIMITER[form].join(["a", "b"]).encode(), zipped)


@on(*ONE_FILE)
def empty_file(rng, form, kind, rows, zipped):
    content = rng.choice([b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"])
    return raw(form, kind, content, zipped)


@on(*ONE_TEXT)
def latin_1_line(rng, form, kind, rows, zipped):
    line = 1 + lines_in(render(rows, form)[0])
    case = make(form, kind, rows, zipped, patch=lambda content: content + "café".encode("latin-1"))
    return replace(case, rows=None, fault=f"line {line}")


@on(*LINES, "json")
def undeclared_utf_16(rng, form, kind, rows, zipped):
    written = render([dict.fromkeys(rows[0], "plain words")], form)[0]
    return raw(form, kind, written.encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be"])), zipped)


@on(*ONE_TEXT)
def wrongly_declared(rng, form, kind, rows, zipped):
    encodings = ["utf-16", "utf-32", "ascii", "rot13", "no-such", "", "utf-8\0", "hex", "idna", "undefined"]
    case = make(form, kind, rows, zipped, patch=lambda content: content + "é".encode())
    return replace(case, rows=None, encoding=rng.choice(encodings), fault="encoding")


@on(*ONE_FILE)
def truncated_gzip(rng, form, kind, rows, zipped):
    name, content = only(make(form, kind, rows, True))
    return raw(form, kind, content[: rng.randrange(1, len(content))], False, name=name)


@on(*ONE_FILE)
def gzip_bits(rng, form, kind, rows, zipped):
    name, content = only(make(form, kind, rows, True))
    return loosely(form, kind, name, flipped(rng, content))


@on(*ONE_FILE)
def gzip_in_parts(rng, form, kind, rows, zipped):
    case = make(form, kind, rows, False)
    name, content = only(case)
    cut = rng.randrange(len(content))
    return replace(case, files={name + ".gz": gzip.compress(content[:cut]) + gzip.compress(content[cut:])})


@on(*TABLES, *JSON, "parquet")
def misnamed(rng, form, kind, rows, zipped):
    """A file of one form under the name of another."""
    suffix = rng.choice(["jsonl", "json", "csv", "tsv", "txt", "parquet", "jsonl.gz", "xlsx", "", "gz", "zip"])
    return loosely(form, kind, f"rows.{suffix}", only(make(form, kind, rows, zipped))[1])


@on(*ONE_FILE)
def damaged_bytes(rng, form, kind, rows, zipped):
    name, content = only(make(form, kind, rows, False))
    content = flipped(rng, content)
    return loosely(form, kind, name + ".gz" * zipped, gzip.compress(content) if zipped else content)


@on(*ONE_FILE)
def random_bytes(rng, form, kind, rows, zipped):
    content = rng.randbytes(rng.choice([1, 10, 300]))
    if rng.random() < 0.5:
        content = bytes(rng.choice(b'{}[]":,\\u d8001eE+-.tfn\n\r\tab') for _ in range(60))
    return loosely(form, kind, file_name(form, zipped), gzip.compress(content) if zipped else content)


@on("parallel")
def unequal_lengths(rng, form, kind, rows, zipped):
    case = make(form, kind, rows, False)
    (name, content), *others = case.files.items()
    return replace(case, files={name: content + b"more\n", **dict(others)}, rows=None)


@on(*FORMS)
def something_else_there(rng, form, kind, rows, zipped):
    states = ["directory", "unreadable", "missing", "nul name", "long name", "loop", "no such home"]
    return replace(make(form, kind, rows, zipped), rows=None, state=rng.choice(states))


DELIMITER = {"csv": ",", "tsv": "\t", "txt": "\t"}


def spoiled(form: str, kind: str, rows: list[Row], zipped: bool, at: int, line: str) -> Case:
    """A case with one more row, written as this line says, which must be refused."""
    case = make(form, kind, [*rows[:at], line, *rows[at:]], zipped)
    return replace(case, rows=[*rows[:at], None, *rows[at:]])


def raw(form: str, kind: str, content: bytes, zipped: bool, *, name: str = "", **more: Any) -> Case:
    """A case of this very content, which must be refused."""
    files = {name or file_name(form, zipped): gzip.compress(content) if zipped else content}
    return Case(form, kind, files, None, [], **more)


def only(case: Case) -> tuple[str, bytes]:
    ((name, content),) = case.files.items()
    return name, content


def loosely(form: str, kind: str, name: str, content: bytes) -> Case:
    """A case of damage that may hit or not: what its bytes say, or a refusal."""
    return Case(form, kind, {name: content}, oracle(name, content), [], loose=True)


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, put in or taken out, or the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(changed) + 1)
        what = rng.randrange(5)
        if what == 0:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            changed[at:at] = rng.choice(
                [b"\x00", b'"', b"\n", b"\r", b"\t", b",", b"{", b"]", b"\xff", b"\xed\xa0\x80"]
            )
        elif what == 2:
            del changed[at : at + rng.choice([1, 2, 16])]
        elif what == 3:
            changed = changed[: max(at, 1)]
        else:
            changed[at:at] = changed[max(at - 20, 0) : at]
    return bytes(changed)


def applies(mutation: str, form: str, kind: str) -> bool:
    """Whether a form and a kind of row can have this."""
    _, forms, chats = MUTATIONS[mutation]
    return form in forms and kind in KINDS[form] and (chats or kind != "chat")


def draw(rng: random.Random, mutation: str, form: str, kind: str, zipped: bool) -> Case:
    """A case of this mutation."""
    rows = [make_row(rng, kind, form) for _ in range(rng.randint(2, 4))]
    return replace(MUTATIONS[mutation][0](rng, form, kind, rows, zipped), mutation=mutation)


# --- an independent reader, for damage whose outcome only reading tells ---------------------------------------------


def oracle(name: str, content: bytes) -> list[Row | None] | None:
    """Rows of a file by the rules of its form; None: there is no reading it."""
    if name.endswith(".gz"):
        name = name.removesuffix(".gz")
        unzipped = b""
        while content:
            stream = zlib.decompressobj(31)
            try:
                unzipped += stream.decompress(content) + stream.flush()
            except zlib.error:
                return None
            if not stream.eof:
                return None
            content = stream.unused_data.lstrip(b"\0")
        content = unzipped
    form = name.rpartition(".")[2]
    if form == "parquet":
        import pyarrow.parquet as pq

        try:
            return pq.read_table(io.BytesIO(content)).to_pylist()
        except Exception:
            return None
    try:
        written = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return None
    try:
        if form == "json":
            value = json.loads(written, object_pairs_hook=distinct)
            if isinstance(value, dict):
                (value,) = [v for v in value.values() if isinstance(v, list)]
            if value and "paragraphs" in value[0]:
                return [flat(*part) for part in questions(value)]
            return [row if isinstance(row, dict) else None for row in value] if isinstance(value, list) else None
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if form == "jsonl":
        found: list[Row | None] = []
        for line in re.split(r"\r\n?|\n", written):
            if line.strip():
                try:
                    row = json.loads(line, object_pairs_hook=distinct)
                except (ValueError, RecursionError):
                    row = None
                found.append(row if isinstance(row, dict) else None)
        return found
    if form == "csv":
        table = csv_fields(written)
    elif form in ("tsv", "txt"):
        lines = re.split(r"\r\n?|\n", written)
        if form == "txt" and "\t" not in lines[0]:
            lines = ["text", *lines]
        table = [line.split("\t") for line in lines if line]
    else:
        return None
    if not table:
        return None
    header = table[0]
    return [dict(zip(header, row, strict=True)) if len(row) == len(header) else None for row in table[1:]]


def questions(articles: list[Row]) -> list[tuple[Row, Row, Row]]:
    return [(a, p, q) for a in articles for p in a["paragraphs"] for q in p["qas"]]


def flat(article: Row, paragraph: Row, asked: Row) -> Row:
    answers = list(dict.fromkeys(answer["text"] for answer in asked["answers"]))
    row = {"id": asked.get("id"), "title": article.get("title", ""), "context": paragraph["context"]}
    return {**row, "question": asked["question"], "answers": answers}


def distinct(pairs: list[tuple[str, Any]]) -> Row:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def csv_fields(written: str) -> list[list[str]] | None:
    """The table of a CSV text (RFC 4180); None where a quote stands where none may."""
    table: list[list[str]] = []
    row: list[str] = []
    at = 0
    field = re.compile(r'"((?:[^"]|"")*)"(?=,|\r|\n|\Z)|([^",\r\n][^,\r\n]*|)(?=,|\r|\n|\Z)')
    while at < len(written):
        match = field.match(written, at)
        if match is None:
            return None
        row.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        at = match.end()
        if written[at : at + 1] == ",":
            at += 1
            if at == len(written):
                row.append("")
        else:
            if row != [""] or match[1] is not None:
                table.append(row)
            row = []
            at += 2 if written[at : at + 2] == "\r\n" else 1
    if row:
        table.append(row)
    return table
