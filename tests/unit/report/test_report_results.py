import json
import math

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.report import PolicyResult, RunResults, Sample, read_samples, write_samples
from rlhf_lightning.report.results import write_atomic


def test_what_is_written_is_read_back(results, tmp_path):
    results.write(tmp_path / "metrics.json")
    assert RunResults.read(tmp_path / "metrics.json") == results
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["schema"] == 1
    assert content["policies"][2]["metrics"]["gold"] == 0.71
    assert content["directions"]["kl"] is None


def test_values_that_are_not_finite_become_null_and_come_back_as_nan(tmp_path):
    path = tmp_path / "metrics.json"
    RunResults("qa", policies=[PolicyResult("base", None, {"f1": math.nan, "kl": math.inf})]).write(path)
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    metrics = RunResults.read(path).policies[0].metrics
    assert all(math.isnan(value) for value in metrics.values())


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(results, tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    results.write(path)
    before = path.read_bytes()

    def fail(self, target):
        assert self.parent == target.parent  # a rename is atomic within one folder only
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    results.task = "other"
    with pytest.raises(OSError, match="disk full"):
        results.write(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


def test_write_atomic_replaces(tmp_path):
    write_atomic(tmp_path / "a", "one")
    write_atomic(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"task": 5}, "task: expected a string, found a number"),
        ({"status": "done"}, "status is 'done'"),
        ({"policies": [{"name": "sft", "metrics": {"f1": "high"}}]}, r"policies\[0\]: metrics: f1: expected a number"),
        ({"policies": [{"metrics": {}}]}, r"policies\[0\]: name: expected a string, found nothing"),
        ({"directions": {"f1": "up"}}, "directions.f1 is 'up'"),
        ({"notes": "one"}, "notes: expected a list of strings"),
        ({"columns": ["f1"]}, "columns: expected an object, found a list"),
    ],
)
def test_a_malformed_file_is_named_with_its_field(results, tmp_path, change, message):
    path = tmp_path / "metrics.json"
    results.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message) as error:
        RunResults.read(path)
    assert str(path) in str(error.value)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        RunResults.read(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text('{"schema": 1, ')
    with pytest.raises(UserError, match="no valid JSON"):
        RunResults.read(tmp_path / "metrics.json")


def test_samples_round_trip_with_awkward_text(tmp_path):
    # U+2028 ends a line for str.splitlines but not for JSON; a lone surrogate has no UTF-8.
    samples = [Sample(0, "a\u2028b\nc", ["é"], {"sft": "\ud800"}, {"sft": {"gold": 0.5}}), Sample("x", "猫")]
    write_samples(tmp_path / "samples.jsonl", samples)
    assert read_samples(tmp_path / "samples.jsonl") == samples


def test_samples_missing_or_malformed(tmp_path):
    path = tmp_path / "samples.jsonl"
    assert read_samples(path) == []
    path.write_text('{"id": 0, "prompt": "a"}\n{"id": 1}\n')
    with pytest.raises(UserError, match=r"line 2: prompt: expected a string"):
        read_samples(path)
