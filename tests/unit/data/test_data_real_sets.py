"""Every real set can be read and made into rows; skipped where they are not there."""

import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import rlhf_lightning.conf
import rlhf_lightning.tasks
from omegaconf import OmegaConf

from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.readers import read_records
from rlhf_lightning.data.sources import load_task_data
from rlhf_lightning.errors import UserError

CONF = Path(rlhf_lightning.conf.__file__).parent


def task_format(name, **changes):
    """The format of a task as the package ships it."""
    settings = OmegaConf.to_container(OmegaConf.load(CONF / "task" / f"{name}.yaml").format)
    settings.pop("_target_")
    return RowFormat(**{**settings, **changes})


TRANSLATE = task_format("translation")


@pytest.mark.parametrize("task", ["summarization", "translation", "qa", "classification"])
def test_real_samples_that_ship(task):
    names = ["train", "validation", "test", "preferences", "preferences_test"]
    folder = Path(rlhf_lightning.tasks.__file__).parent / task
    data = load_task_data(task_format(task), **{name: folder / f"{name}.jsonl" for name in names})
    for name in names:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(getattr(data, name)) == len(lines) > 0
    assert data.notes == [], "nothing is dropped, and no held-out prompt is learnt from"


def test_trl_rows_fit_a_task(tmp_path):
    """As the data set of conf/data/tldr.yaml has them."""
    rows = [{"prompt": f"SUBREDDIT: r/a POST: {i} TL;DR:", "completion": f" Short {i}."} for i in range(4)]
    for part, some in (("train", rows[:2]), ("test", rows[2:])):
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    files = {part: tmp_path / f"{part}.jsonl" for part in ("train", "test")}
    data = load_task_data(task_format("summarization"), **files, validation=files["test"])
    assert [row.prompt.text for row in data.test] == [row["prompt"] for row in rows[2:]]
    assert [row.references for row in data.test] == [["Short 2."], ["Short 3."]]
    assert [row.completion for row in data.train] == ["Short 0.", "Short 1."]


def test_real_tatoeba(shared_data):
    columns = ["source", "reference", "_"]
    data = load_task_data(TRANSLATE, train=shared_data / "tatoeba_enzh" / "cmn.txt", columns=columns, test_size=1000)
    assert len(data.train) + len(data.validation) + len(data.test) == 29155
    assert len(data.test) == 1000
    assert not {r.prompt.text for r in data.train} & {r.prompt.text for r in data.test}


def test_real_scitldr(shared_data):
    folder = shared_data / "scitldr"
    data = load_task_data(
        task_format("summarization"),
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
    path = shared_data / "xquad" / f"xquad.{language}.json"
    data = load_task_data(task_format("qa"), train=path, group="context", test_size=200)
    row = data.test[0]
    start, end = row.prompt.cut
    assert row.prompt.text[start:end] == row.meta["context"].strip()
    assert all(r.references == [a.strip() for a in r.meta["answers"]] for r in data.test)
    assert len(data.train) + len(data.validation) + len(data.test) == 1190
    assert not {r.meta["context"] for r in data.train} & {r.meta["context"] for r in data.test}


def test_real_truthfulqa(shared_data):
    path = shared_data / "truthfulqa" / "TruthfulQA.csv"
    form = RowFormat("{question}\nAnswer:", completion="answer", references="answer")
    columns = {"question": "Question", "answer": "Best Answer"}
    columns |= {"chosen": "Best Answer", "rejected": "Best Incorrect Answer"}
    data = load_task_data(form, train=path, preferences=path, columns=columns)
    assert len(data.preferences) + len(data.preferences_test) == 790
    assert len(data.train) + len(data.validation) + len(data.test) == 790
    assert all(row.chosen == row.meta["answer"].strip() for row in data.preferences)


def test_real_banking77(shared_data):
    folder = shared_data / "banking77"
    labels = json.loads((folder / "categories.json").read_text())
    assert len(labels) == 77
    form = task_format("classification", labels=labels)
    files = {"train": folder / "train.csv", "test": folder / "test.csv"}
    data = load_task_data(form, **files, columns={"label": "category"}, validation_size=0)
    assert (len(data.train), len(data.test)) == (10003, 3080)
    assert {row.completion for row in data.train} == set(labels)
    with pytest.raises(UserError, match=r"train\.csv, line \d+: the label .* is not one of"):
        load_task_data(task_format("classification", labels=labels[1:]), **files, columns={"label": "category"})


def test_real_sentences_by_class(shared_data, tmp_path):
    """Said to be Latin-1, the files of this zip are UTF-8; as Latin-1, they are what a user meets elsewhere."""
    zipfile.ZipFile(shared_data / "nltk_sentiment" / "sentence_polarity.zip").extractall(tmp_path)
    files = [tmp_path / "sentence_polarity" / f"rt-polarity.{name}" for name in ("pos", "neg")]
    read = [[record.values for record in read_records({"text": file})] for file in files]
    assert [len(rows) for rows in read] == [5331, 5331]
    assert any("é" in row["text"] for row in read[0])
    for file in files:
        file.write_bytes(file.read_text(encoding="utf-8").encode("latin-1"))
    sources = [{"text": file} for file in files]
    again = [record.values for record in read_records(sources, encoding="latin-1")]
    assert again == read[0] + read[1]
    with pytest.raises(UserError, match=r"rt-polarity\.\w+, line \d+: byte 0x.. is not utf-8.*encoding=latin-1"):
        list(read_records(sources))


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


def test_real_hh_dialogues_are_demonstrations(shared_data):
    path = shared_data / "hh_rlhf" / "helpful-base" / "test.jsonl.gz"
    files = {"train": path, "preferences": path}
    data = load_task_data(task_format("dialogue"), **files, test_size=100, validation_size=0, need_references=False)
    assert len(data.train) + len(data.test) > 2300
    for row in data.train:
        assert row.prompt.text[-1]["role"] == "user"
        assert row.meta["chosen"].rstrip().endswith(row.completion.split("\n\n")[-1])
    prompts = {str(row.prompt.text) for row in data.train}
    same = sum(str(row.prompt.text) in prompts for row in data.preferences)
    assert same > 0.8 * len(data.preferences), "nearly all pairs part at their last turn"
