import csv
import gzip
import io
import json
import sys

import pytest

from rlhf_lightning.data.files import Record
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.errors import UserError

ROWS = [
    {"text": 'A "quoted" word, a comma', "label": "x"},
    {"text": "中文 \u2028 line separator \x85 kept", "label": "y"},
]


def values(source, **options):
    return [record.values for record in read_records(source, **options)]


def as_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_tsv(rows):
    return "".join("\t".join(line) + "\n" for line in [list(rows[0]), *(list(r.values()) for r in rows)])


FORMS = {
    "a.jsonl": as_jsonl,
    "a.json": json.dumps,
    "b.json": lambda rows: json.dumps({"version": 1, "data": rows}),
    "a.csv": as_csv,
    "a.tsv": as_tsv,
    "a.txt": as_tsv,
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", FORMS)
def test_reader_round_trip(tmp_path, name, zipped, mark):
    content = mark + FORMS[name](ROWS).encode()
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert values(path) == ROWS
    assert values(str(path)) == ROWS


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_reader_parquet_round_trip(tmp_path, zipped):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{**row, "references": ["a", "b"], "weight": 0.5} for row in ROWS]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    if zipped:
        packed = tmp_path / "a.parquet.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    assert values(path) == rows
    assert next(read_records(path)).place == f"{path.name}, row 1"


def test_reader_crlf_lines(tmp_path):
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        (tmp_path / name).write_bytes(FORMS[name](ROWS[:1]).replace("\r\n", "\n").replace("\n", "\r\n").encode())
        assert values(tmp_path / name) == ROWS[:1]


def test_reader_tsv_has_no_quoting(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('en\tzh\n"Hi.\t嗨\nThe 5" disk\t盘\n')
    assert values(path) == [{"en": '"Hi.', "zh": "嗨"}, {"en": 'The 5" disk', "zh": "盘"}]


def test_reader_csv_field_over_lines_and_places(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x\ny, ""z"""\n3,4\n')
    assert list(read_records(path)) == [
        Record("a.csv, line 2", {"a": "1", "b": 'x\ny, "z"'}),
        Record("a.csv, line 4", {"a": "3", "b": "4"}),
    ]


def test_reader_long_csv_field(tmp_path):
    (tmp_path / "a.csv").write_text("a\n" + "x" * 200_000 + "\n")
    assert len(values(tmp_path / "a.csv")[0]["a"]) == 200_000


def test_reader_headerless_columns_skip_and_rename(tmp_path):
    path = tmp_path / "cmn.txt"
    path.write_text("Hi.\t嗨。\tby\nRun.\t跑\tme\n")
    assert values(path, columns=["source", "reference", "_"]) == [
        {"source": "Hi.", "reference": "嗨。"},
        {"source": "Run.", "reference": "跑"},
    ]
    named = tmp_path / "a.jsonl"
    named.write_text(as_jsonl([{"document": "old", "body": "b", "y": "r"}]))
    renamed = values(named, columns={"document": "body", "completion": "y", "references": "y"})
    assert renamed == [{"document": "b", "completion": "r", "references": "r"}]


def test_reader_text_without_tabs_is_one_column(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("one\ntwo\n")
    assert values(path) == [{"text": "one"}, {"text": "two"}]
    assert values(path, columns=["source"]) == [{"source": "one"}, {"source": "two"}]


def test_reader_list_of_sources(tmp_path):
    for i, row in enumerate(ROWS):
        (tmp_path / f"{i}.jsonl").write_text(as_jsonl([row]))
    assert values([tmp_path / "0.jsonl", tmp_path / "1.jsonl"]) == ROWS


def test_reader_parallel_files(tmp_path):
    (tmp_path / "a.src").write_text("one\n\nthree")
    (tmp_path / "a.mt").write_text("eins\n\ndrei\n")
    assert values({"source": tmp_path / "a.src", "mt": tmp_path / "a.mt"}) == [
        {"source": "one", "mt": "eins"},
        {"source": "", "mt": ""},
        {"source": "three", "mt": "drei"},
    ]
    (tmp_path / "b.mt").write_text("eins\n")
    with pytest.raises(UserError, match=r"a\.src has 3 lines, .*b\.mt has 1 lines"):
        values({"source": tmp_path / "a.src", "mt": tmp_path / "b.mt"})


def test_reader_squad(tmp_path):
    answers = [{"text": "Oslo", "answer_start": 3}, {"text": "Oslo", "answer_start": 3}]
    qas = [
        {"id": "1", "question": "Where?", "answers": answers},
        {"id": "2", "question": "Who?", "answers": [], "is_impossible": True},
    ]
    squad = {"version": "2", "data": [{"title": "T", "paragraphs": [{"context": "In Oslo.", "qas": qas}]}]}
    (tmp_path / "s.json").write_text(json.dumps(squad))
    assert values(tmp_path / "s.json") == [
        {"id": "1", "title": "T", "context": "In Oslo.", "question": "Where?", "answers": ["Oslo"]},
        {"id": "2", "title": "T", "context": "In Oslo.", "question": "Who?", "answers": []},
    ]


def test_reader_saved_dataset_and_class_labels(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    dataset.save_to_disk(tmp_path / "one")
    assert values(tmp_path / "one") == [{"text": "a", "label": "positive"}, {"text": "b", "label": "negative"}]
    datasets.DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "two")
    assert len(values(tmp_path / "two" / "train")) == 2
    with pytest.raises(UserError, match=r"several splits.*train, test"):
        values(tmp_path / "two")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:owner/name", ("owner/name", None, None, None)),
        ("hub:owner/name:conf@v1#test", ("owner/name", "conf", "v1", "test")),
        ("hub:owner/name#train[:10]", ("owner/name", None, None, "train[:10]")),
    ],
)
def test_reader_hub_id(monkeypatch, source, expected):
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(name, config, **options):
        assert set(options) == {"revision", "split"}, "no code of the data set's own may be trusted"
        calls.append((name, config, options["revision"], options["split"]))
        return datasets.Dataset.from_list([{"a": "b"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert values(source) == [{"a": "b"}]
    assert calls == [expected]


def test_reader_hub_error_is_the_users(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*args, **options):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="cannot load the data set hub:a/b: no route to the hub"):
        values("hub:a/b")


ERRORS = {
    "empty.jsonl": (b"", "there are no rows"),
    "header.csv": (b"a,b\n", "there are no rows"),
    "bad.jsonl": (b'{"a": 1}\n{"a": \n', r"bad\.jsonl, line 2: this is no JSON"),
    "list.jsonl": (b"[1]\n", r"list\.jsonl, line 1: expected a JSON object .* found a list"),
    "bad.json": (b'[{"a": 1},\n{"a" 2}]', r"bad\.json, line 2: this is no JSON"),
    "lines.json": (b'{"a": 1}\n{"a": 2}\n', r"Extra data.*name it \.jsonl"),
    "two.json": (b'{"a": [], "b": []}', "found 2 lists"),
    "array.jsonl": (b'[{"a": 1},\n{"a": 2}]', r"line 1: this is no JSON.*one list, name it \.json"),
    "one.jsonl": (b'[{"a": 1}]', r"found a list\. If the whole file is one list, name it \.json"),
    "text.json": (b'"a"', "expected a list of rows, found a str"),
    "texts.json": (b'["a"]', r"texts\.json, row 1: expected a JSON object .* found a str$"),
    "few.csv": (b"a,b\n1,2\n3\n", r"few\.csv, line 3: 1 field, expected 2 \(a, b\)"),
    "many.tsv": (b"a\tb\n1\t2\t3\n", r"many\.tsv, line 2: 3 fields, expected 2"),
    "open.csv": (b'a,b\n1,"x\n2,y\n', r"open\.csv, line 2: .*unexpected end of data"),
    "twice.csv": (b"a,a\n1,2\n", "a column name occurs twice.*data.columns"),
    "latin.tsv": ("a\tb\n1\t2\ncaf\xe9\t2\n".encode("latin-1"), r"latin\.tsv, line 3: byte 0xe9 .*encoding=latin-1"),
    "wide.csv": ("a,b\n1,2\n".encode("utf-16"), "data.encoding=utf-16"),
    "a.xlsx": (b"x", r"unknown kind of file '\.xlsx'; there are \.jsonl, \.json, .*\.parquet"),
    "a.parquet": (b"not parquet", "is no Parquet file"),
    "cut.jsonl.gz": (gzip.compress(b'{"a": 1}\n' * 100)[:-12], "is no whole gzip file"),
    "cut.csv.gz": (gzip.compress(b"a,b\n" * 100)[:-12], "is no whole gzip file"),
    "cut.parquet.gz": (gzip.compress(b"PAR1" * 100)[:-12], "is no Parquet file"),
    "rot.tsv.gz": (gzip.compress(b"a\tb\n" * 100)[:12] + b"\xff" * 20, "is no whole gzip file"),
    "latin.csv.gz": (gzip.compress(b"a,b\n1,caf\xe9\n"), r"latin\.csv\.gz, line 2: byte 0xe9"),
    "not.jsonl.gz": (b'{"a": 1}\n', "is no whole gzip file"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_reader_errors(tmp_path, name):
    content, message = ERRORS[name]
    if ".parquet" in name:
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        values(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(
            "1" * 5000,
            "a number of too many digits",
            marks=pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="Python reads any number"),
        ),
        ("[" * 200_000 + "]" * 200_000, "nested more than 100 levels"),
    ],
    ids=["digits", "depth"],
)
def test_reader_json_that_python_cannot_read(tmp_path, value, message):
    row = f'{{"a": {value}}}'
    (tmp_path / "a.jsonl").write_text(f'{{"a": 1}}\n{row}\n{{"a": 2}}\n')
    (tmp_path / "a.json").write_text(f"[{row}]")
    with pytest.raises(UserError, match=rf"a\.jsonl, line 2: .*{message}"):
        values(tmp_path / "a.jsonl")
    assert values(tmp_path / "a.jsonl", on_bad=lambda error: None) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UserError, match=rf"a\.json, line 1: .*{message}"):
        values(tmp_path / "a.json")


def test_reader_json_bytes_of_another_encoding_name_the_line(tmp_path):
    (tmp_path / "a.json").write_bytes('[{"a": 1},\n{"a": "café"}]'.encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.json, line 2: byte 0xe9 is not utf-8"):
        values(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet", "folder", "hub:a/b", "parallel"])
def test_reader_refuses_names_for_columns_that_have_names(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for file in ("a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"):
        (tmp_path / file).touch()
    source = {"hub:a/b": name, "parallel": {"a": str(tmp_path / "a.json")}}.get(name, tmp_path / name)
    for sources in (source, [source]):
        with pytest.raises(
            UserError, match=r"data\.columns=\[text,label\] is a list.*without a header.*\{ours: theirs"
        ):
            values(sources, columns=["text", "label"])


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "q.csv"])
@pytest.mark.parametrize("columns", [["text", "label"], ["text", "_"]])
def test_reader_refuses_names_that_the_header_has(tmp_path, name, columns):
    content = FORMS[name](ROWS) if name in FORMS else as_csv(ROWS).replace("text,label", '"text","label"')
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    with pytest.raises(UserError, match=rf"{name}, line 1: this is a header .*leave data.columns out"):
        values(tmp_path / name, columns=columns)
    other = values(tmp_path / name, columns=["text", "y"])
    assert other[0] == {"text": "text", "y": "label"}, "only the very names are surely a header"


def test_reader_a_plain_text_may_begin_with_the_word_text(tmp_path):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    assert values(tmp_path / "a.txt") == [{"text": "text"}, {"text": "more"}]


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"text": "text", "document": 1}, r"\{document: 1\}: both must be column names"),
        ({"document": None}, r"\{document: null\}: both must be column names"),
        ({1: "text"}, r"\{1: text\}: both must be column names"),
        (["text", 1], "a list of names as texts"),
        ("text", "a list of names as texts"),
    ],
)
def test_reader_refuses_columns_that_are_no_texts(tmp_path, columns, named):
    (tmp_path / "a.tsv").write_text("text\tlabel\na\tb\n")
    with pytest.raises(UserError, match=f"^data.columns=.*{named}"):
        values(tmp_path / "a.tsv", columns=columns)


SQUAD = {
    "article '': the field 'paragraphs' of SQuAD's form is a str, not a list": {"paragraphs": "x"},
    "article 'T': the field 'context' of SQuAD's form is missing": {"title": "T", "paragraphs": [{"qas": []}]},
    "article '': the field 'context' of SQuAD's form is missing": {"paragraphs": [3]},
    "article '': the field 'qas' of SQuAD's form is missing": {"paragraphs": [{"context": "c"}]},
    "question : the field 'question' of SQuAD's form is missing": {"paragraphs": [{"context": "c", "qas": [3]}]},
    "question 7: the field 'answers' of SQuAD's form is missing": {
        "paragraphs": [{"context": "c", "qas": [{"id": 7, "question": "q"}]}]
    },
    "question 7: the field 'text' of SQuAD's form is missing": {
        "paragraphs": [{"context": "c", "qas": [{"id": 7, "question": "q", "answers": ["a"]}]}]
    },
}


@pytest.mark.parametrize("message", SQUAD)
def test_reader_squad_errors(tmp_path, message):
    whole = {"paragraphs": [{"context": "c", "qas": [{"id": 1, "question": "q", "answers": [{"text": "a"}]}]}]}
    (tmp_path / "s.json").write_text(json.dumps({"data": [whole, SQUAD[message]]}))
    with pytest.raises(UserError) as caught:
        values(tmp_path / "s.json")
    assert str(caught.value) == f"s.json, {message}"


@pytest.mark.parametrize("source", [3, [None], {"a": ["x.txt"]}])
def test_reader_refuses_what_is_no_source(source):
    with pytest.raises(UserError, match=r"is no source of rows|expected one path"):
        values(source)


def test_reader_suffix_in_capitals(tmp_path):
    (tmp_path / "A.TSV").write_text("a\n1\n")
    assert values(tmp_path / "A.TSV") == [{"a": "1"}]


def test_reader_csv_with_nul_bytes(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,x\x00y\n")
    if sys.version_info >= (3, 11):
        assert values(tmp_path / "a.csv") == [{"a": "1", "b": "x\x00y"}]
        return
    with pytest.raises(UserError, match=r"line 2.*NUL"):
        values(tmp_path / "a.csv")


def test_reader_empty_parallel_files(tmp_path):
    for name in ("a.src", "a.mt"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="there are no rows"):
        values({"source": tmp_path / "a.src", "mt": tmp_path / "a.mt"})


def test_reader_latin_1(tmp_path):
    (tmp_path / "a.csv").write_bytes("a\ncafé\n".encode("latin-1"))
    assert values(tmp_path / "a.csv", encoding="latin-1") == [{"a": "café"}]
    with pytest.raises(UserError, match="no encoding that Python knows"):
        values(tmp_path / "a.csv", encoding="latin-99")


def test_reader_missing_file_and_column_suggest_near_names(tmp_path):
    (tmp_path / "train.jsonl").write_text(as_jsonl(ROWS))
    with pytest.raises(UserError, match=r"there is no file .*did you mean 'train\.jsonl'"):
        values(tmp_path / "trian.jsonl")
    with pytest.raises(UserError, match="nor a folder"):
        values(tmp_path / "nowhere" / "train.jsonl")
    with pytest.raises(UserError, match=r"data.columns names 'texxt'.*text, label.*did you mean 'text'"):
        values(tmp_path / "train.jsonl", columns={"document": "texxt"})
    with pytest.raises(UserError, match=r"not one that datasets.save_to_disk wrote"):
        values(tmp_path)


def test_reader_bad_lines_can_be_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{bad\n[1]\n{"a": 2}\n')
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n4,5\n")
    for name, bad in (("a.jsonl", 2), ("a.csv", 1)):
        errors = []
        assert len(values(tmp_path / name, on_bad=errors.append)) == 2
        assert len(errors) == bad


def test_reader_names_the_extra_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rlhf-lightning\[parquet\]'"):
        values(tmp_path / "a.parquet")
    for source in (tmp_path, "hub:a/b"):
        with pytest.raises(UserError, match=r"pip install 'rlhf-lightning\[hub\]'"):
            values(source)


def test_reader_streams_line_formats(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{bad')
    assert next(read_records(tmp_path / "a.jsonl")).values == {"a": 1}


def test_reader_module_needs_no_heavy_package():
    import subprocess

    code = "import sys, rlhf_lightning.data.sources\n"
    code += "print(sorted({'pyarrow', 'datasets', 'transformers'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reader_fields_of_objects_are_named_with_a_dot(tmp_path):
    """As the hub has translations: one column of {language: text}."""
    rows = [{"translation": {"en": "one", "ro": "unu"}}, {"translation": {"en": "two", "ro": "doi"}}]
    (tmp_path / "pairs.jsonl").write_text(as_jsonl(rows))
    columns = {"source": "translation.en", "reference": "translation.ro"}
    read = values(tmp_path / "pairs.jsonl", columns=columns)
    assert [(row["source"], row["reference"]) for row in read] == [("one", "unu"), ("two", "doi")]
    with pytest.raises(UserError, match=r"names 'translation\.fr', which no row has; the columns are translation"):
        values(tmp_path / "pairs.jsonl", columns={"source": "translation.fr"})
    (tmp_path / "dotted.jsonl").write_text(as_jsonl([{"a.b": "whole name", "a": {"b": "field"}}]))
    assert values(tmp_path / "dotted.jsonl", columns={"text": "a.b"})[0]["text"] == "whole name"
