"""Files of all forms, good and damaged: the rows that were written, or the project's error with file and line."""

import contextlib
import random
import sys
import tempfile
from pathlib import Path

import pytest
from helpers.odd_files import FORMS, KINDS, LABELS, MUTATIONS, applies, draw, file_name, make, oracle
from helpers.verdicts import judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_lightning.data.encoding import Codec, transcript
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError

RIGHT = ("rows", "refused")
SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def check(case, codecs=()):
    with tempfile.TemporaryDirectory() as folder:
        verdict, reason = judge(case, Path(folder), codecs)
    assert verdict in RIGHT, f"{verdict}: {reason} ({case.mutation}, {case.form}, {case.kind}, {case.encoding})"
    return verdict


@pytest.mark.parametrize("mutation", MUTATIONS)
@settings(max_examples=12, **SETTINGS)
@given(data=st.data())
def test_fuzz_every_damage(mutation, data):
    pytest.importorskip("pyarrow")
    choices = [(form, kind) for form in FORMS for kind in KINDS[form] if applies(mutation, form, kind)]
    form, kind = data.draw(st.sampled_from(choices))
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    check(draw(rng, mutation, form, kind, zipped=data.draw(st.booleans())))


ZERO = "\0" if sys.version_info < (3, 11) else ""  # Python's csv module refused it
ANY = st.text()
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=ZERO))
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"\t\r\n{ZERO}"), min_size=1)
TEXTS = {"jsonl": ANY, "json": ANY, "parquet": ANY, "csv": CELLS, "tsv": WORDS, "parallel": WORDS}


@settings(max_examples=60, **SETTINGS)
@given(
    form=st.sampled_from(list(TEXTS)),
    data=st.data(),
    zipped=st.booleans(),
)
def test_fuzz_any_text_comes_back(form, data, zipped):
    pytest.importorskip("pyarrow")
    pairs = data.draw(st.lists(st.tuples(TEXTS[form], TEXTS[form]), min_size=1, max_size=4))
    rows = [{"document": document, "reference": reference} for document, reference in pairs]
    check(make(form, "sft", rows, zipped))


@pytest.fixture
def codecs(tokenizer):
    kinds = {"llama": "causal", "chat": "causal", "gpt2": "causal", "t5": "seq2seq", "bert": "encoder"}
    return [Codec(tokenizer(family), kind, 24, 16) for family, kind in kinds.items()]


@settings(max_examples=40, **SETTINGS)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["sft", "prompts", "pairs", "unpaired", "chat", "labels"]))
def test_fuzz_what_is_read_can_be_encoded(codecs, seed, kind):
    assert check(draw(random.Random(seed), "good", "jsonl", kind, zipped=False), codecs) == "rows"


@settings(max_examples=60, **SETTINGS)
@given(text=st.text(min_size=1), seed=st.integers(0, 10**6))
def test_fuzz_any_text_can_be_encoded(codecs, text, seed):
    row = {"document": f"{text}.", "reference": f"-{text}."}
    check(make("jsonl", "sft", [row], zipped=False), codecs)


def test_fuzz_oracle_reads_csv():
    written = b'a,b\r\n1,"x\ny, ""z"""\n\n3,\n'
    assert oracle("a.csv", written) == [{"a": "1", "b": 'x\ny, "z"'}, {"a": "3", "b": ""}]
    assert oracle("a.csv", b'a\n"x"y\n') is None


def test_fuzz_verdicts_tell_wrong_readings(monkeypatch, tmp_path):
    """The check itself: readers that change, lose, or choke on a text are found out."""
    from helpers import verdicts

    def judged(reader):
        monkeypatch.setattr(verdicts, "read_records", reader)
        rows = [{"text": "a", "label": LABELS[0]}]
        return judge(make("jsonl", "labels", rows, zipped=False), tmp_path)[0]

    def changing(source, **options):
        for record in read_records(source, **options):
            record.values["text"] += " "
            yield record

    def losing(source, **options):
        raise UserError(f"{source}, line 1: no")

    def choking(source, **options):
        raise KeyError("text")

    assert judged(read_records) == "rows"
    assert judged(changing) == "changed"
    assert judged(losing) == "lost"
    assert judged(choking) == "crash"


# --- what the bulk run found, one by one ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"b": {"k": 1, "k": 2}}\n', {}, r"a\.jsonl, line 2: the key 'k' occurs twice"),
        ("a.json", b'[{"a": 1},\r{"b": 1,\r"b": 2}]', {}, r"a\.json, line 3: the key 'b' occurs twice"),
        ("a.jsonl", b'{"a": "\\ud83d"}\n', {}, r"a\.jsonl, line 1: the field 'a' holds half a surrogate pair"),
        ("a.json", b'[{"a": ["x", {"b": "\\ud83d"}]}]', {}, r"a\.json, row 1: the field 'a' holds half a surrogate"),
        ("a.jsonl", b'{"\\ud83d": 1}\n', {}, r"a\.jsonl, line 1: a column's name holds half a surrogate pair"),
        ("a.jsonl", b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", {}, r"a\.jsonl, line 1: .*more than 100 levels"),
        ("a.tsv", b"a\tb\n1\t2\n", {"encoding": "utf-16"}, r"a\.tsv is not utf-16.*data\.encoding=utf-8"),
        ("a.tsv", b"a\tb\n1\t2\n", {"encoding": "utf-8\0"}, "is no encoding that Python knows"),
        ("a.tsv", b"a\tb\n1\t2\n", {"encoding": "hex"}, "is no encoding that Python knows"),
        ("a.tsv", "a\tb\n1\t2\n".encode("utf-16-le"), {}, r"a\.tsv, line 1: .*data\.encoding=utf-16-le"),
        ("a.tsv", "a\tb\nx\ud800\t2\n".encode("utf-16-le", "surrogatepass"), {"encoding": "utf-16-le"}, "line 2: byte"),
        ("a.txt", b"word +2AA-\n", {"encoding": "utf-7"}, r"a\.txt, line 1: .*half a surrogate pair"),
    ],
)
def test_fuzz_found(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_records(tmp_path / name, **options))


def test_fuzz_found_marks_before_other_unicode(tmp_path):
    (tmp_path / "a.tsv").write_bytes("\ufeffa\tb\n1\t2\n".encode("utf-16-be"))
    assert [r.values for r in read_records(tmp_path / "a.tsv", encoding="utf-16-be")] == [{"a": "1", "b": "2"}]


def test_fuzz_found_a_column_named_underscore_is_kept_where_the_header_has_it(tmp_path):
    (tmp_path / "a.csv").write_text("\n_,b\n1,2\n")
    assert [(r.place, r.values) for r in read_records(tmp_path / "a.csv")] == [("a.csv, line 3", {"_": "1", "b": "2"})]


def test_fuzz_found_parallel_lines_of_old_macs(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"one\rtwo\r")
    with pytest.raises(UserError, match="carriage return alone"):
        list(read_records({"a": tmp_path / "a", "b": tmp_path / "b"}))
    (tmp_path / "a").write_bytes(b"one\r\r\ntwo\rmore\n")
    (tmp_path / "b").write_bytes(b"1\n2\n")
    records = list(read_records({"a": tmp_path / "a", "b": tmp_path / "b"}))
    assert [r.values["a"] for r in records] == ["one\r", "two\rmore"]


def test_fuzz_found_a_parquet_column_whose_name_is_no_utf_8(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"document": ["a"]}), tmp_path / "a.parquet", store_schema=False)
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content.replace(b"document", b"docu\xffent"))
    with pytest.raises(UserError, match=r"a\.parquet is no Parquet file that can be read"):
        list(read_records(tmp_path / "a.parquet"))


def test_fuzz_found_messages_stay_short(tmp_path):
    (tmp_path / "a.csv").write_text("x" * 100_000 + "," * 5000 + "\n")
    with pytest.raises(UserError) as caught:
        list(read_records(tmp_path / file_name("csv", False).replace("rows", "a")))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("path", ["x" * 3000 + ".jsonl", "a\0b.jsonl", "~nobody-of-this-name/a.jsonl"])
def test_fuzz_found_paths_that_cannot_be(path):
    with pytest.raises(UserError, match=r"cannot read|there is no file"):
        list(read_records(path))


def test_fuzz_found_damaged_dataset_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "d")
    files = sorted(path for path in (tmp_path / "d").iterdir())
    for path in files:
        content = path.read_bytes()
        for damage in (b"", b"{}", b"[]", content[: len(content) // 2], b"\xff" * 40):
            path.write_bytes(damage)
            with contextlib.suppress(UserError):
                assert [r.values for r in read_records(tmp_path / "d")] == [{"text": "a"}, {"text": "b"}]
        path.write_bytes(content)


def test_fuzz_found_a_prompt_that_ends_with_the_end_token_keeps_it(tokenizer):
    for family in ("llama", "ending", "gpt2"):
        codec = Codec(tokenizer(family), "causal", 24, 16)
        assert codec.tokenizer.decode(codec.encode_prompt(Prompt("hi<eos>")).ids) == "hi<eos>"
        assert codec.tokenizer.decode(codec.encode_prompt(Prompt("hi")).ids) == "hi"


@pytest.mark.parametrize("cut", [None, "document", "chat"])
def test_fuzz_found_a_very_long_prompt_is_cut_as_a_shorter_one_is(tokenizer, cut):
    codec = Codec(tokenizer("chat" if cut == "chat" else "llama"), "causal", 24, 16)

    def prompt(size):
        text = "where does the sun rise " * size + "end."
        if cut == "chat":
            return Prompt([{"role": "user", "content": text}])
        return Prompt(f"{text} TL;DR:", (0, len(text)) if cut else None)

    lengths = []
    encode = codec._prompt_ids

    def counted(text):
        lengths.append(len(transcript(text)))
        return encode(text)

    object.__setattr__(codec, "_prompt_ids", counted)
    long = codec.encode_prompt(prompt(10_000))
    assert max(lengths) < 1000, "most of the text is never looked at"
    short = codec.encode_prompt(prompt(7))
    assert long.truncated
    assert short.truncated
    assert len(long.ids) == 24
    assert long.ids == short.ids
