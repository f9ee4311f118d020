"""Every real set can be read and made into rows; skipped where they are not there."""

import tarfile
import zipfile

import pytest

from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.data.sources import load_task_data

TRANSLATE = RowFormat("Translate: {source}", completion="reference")


def test_real_tatoeba(shared_data):
    columns = ["source", "reference", "_"]
    data = load_task_data(TRANSLATE, train=shared_data / "tatoeba_enzh" / "cmn.txt", columns=columns, test_size=1000)
    assert len(data.train) + len(data.validation) + len(data.test) == 29155
    assert len(data.test) == 1000
    assert not {r.prompt.text for r in data.train} & {r.prompt.text for r in data.test}


def test_real_scitldr(shared_data):
    folder = shared_data / "scitldr"
    form = RowFormat("{document}\nTL;DR:", completion="summary", references="references", cut="document")
    data = load_task_data(
        form,
        train=folder / "train.jsonl",
        validation=folder / "dev.jsonl",
        test=folder / "test.jsonl",
        columns={"document": "source", "references": "target"},
    )
    assert (len(data.train), len(data.validation), len(data.test)) == (1992, 619, 618)
    assert max(len(r.references) for r in data.test) > 1
    assert all(r.prompt.text.endswith("\nTL;DR:") for r in data.train)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_xquad(shared_data, language):
    form = RowFormat("{context}\n{question}", completion="answer", references="answers", cut="context")
    data = load_task_data(form, train=shared_data / "xquad" / f"xquad.{language}.json", group="context", test_size=200)
    assert len(data.train) + len(data.validation) + len(data.test) == 1190
    assert not {r.meta["context"] for r in data.train} & {r.meta["context"] for r in data.test}


def test_real_truthfulqa(shared_data):
    columns = {"question": "Question", "chosen": "Best Answer", "rejected": "Best Incorrect Answer"}
    data = load_task_data(
        RowFormat("{question}"), preferences=shared_data / "truthfulqa" / "TruthfulQA.csv", columns=columns
    )
    assert len(data.preferences) + len(data.preferences_test) == 790


def test_real_banking77(shared_data):
    folder = shared_data / "banking77"
    labels = sorted({r.values["category"] for r in read_records(folder / "train.csv")})
    assert len(labels) == 77
    form = RowFormat("{text}", completion="category", labels=labels)
    data = load_task_data(form, train=folder / "train.csv", test=folder / "test.csv", validation_size=0)
    assert (len(data.train), len(data.test)) == (10003, 3080)


def test_real_sentences_in_latin_1(shared_data, tmp_path):
    zipfile.ZipFile(shared_data / "nltk_sentiment" / "sentence_polarity.zip").extractall(tmp_path)
    for name in ("pos", "neg"):
        source = {"text": tmp_path / "sentence_polarity" / f"rt-polarity.{name}"}
        assert sum(1 for _ in read_records(source, encoding="latin-1")) == 5331


@pytest.mark.parametrize(("part", "count"), [("train", 7000), ("dev", 1000), ("test", 1000)])
def test_real_mlqe_pe(shared_data, tmp_path, part, count):
    for kind in ("direct-assessments", "post-editing"):
        (archive,) = (shared_data / "mlqe_pe_enzh" / kind / part).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path / kind, filter="data")
    (ratings,) = (tmp_path / "direct-assessments").rglob("*.tsv")
    assert sum(1 for _ in read_records(ratings)) == count
    (source,) = (tmp_path / "post-editing").rglob("*.src")
    lines = {"source": source, "mt": source.with_suffix(".mt"), "reference": source.with_suffix(".pe")}
    data = load_task_data(TRANSLATE, train=lines, test_size=0, validation_size=0)
    assert len(data.train) == count


def test_real_ifllm(shared_data):
    folder = shared_data / "ifllm_implicit"
    assert sum(1 for _ in read_records(folder / "query_logs_table.csv")) == 1691
    assert sum(1 for _ in read_records(folder / "all_metrics.csv")) == 1335


@pytest.mark.parametrize(
    ("name", "kept", "notes"),
    [
        ("harmless-base", 2308, ["preferences: 4 preference(s) dropped, one dialogue ends without an answer"]),
        (
            "helpful-base",
            2348,
            [
                "preferences: 2 preference(s) dropped, chosen and rejected are equal",
                "preferences: 4 preference(s) dropped, one dialogue ends without an answer",
            ],
        ),
    ],
)
def test_real_hh(shared_data, name, kept, notes):
    data = load_task_data(TRANSLATE, preferences=shared_data / "hh_rlhf" / name / "test.jsonl.gz", test_size=200)
    assert data.notes[: len(notes)] == notes
    rows = data.preferences + data.preferences_test
    assert (len(rows), len(data.preferences_test)) == (kept, 200)
    for row in rows:
        roles = [message["role"] for message in row.prompt.text]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        start = row.meta["chosen"].rfind(row.chosen)
        assert row.chosen
        assert row.meta["chosen"][start:].strip() == row.chosen
