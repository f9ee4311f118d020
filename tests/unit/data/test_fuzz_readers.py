"""Whatever a file holds: rows with the very text, or an error that names file and line. In bulk: tests/benchmarks."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from helpers.fuzz import KINDS, MUTATIONS, outcome, rows_of_csv, written
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.data.encoding import Codec
from rlhf_lightning.data.rows import SFTRow
from rlhf_lightning.models import ModelSpec
from rlhf_lightning.models.loading import load_tokenizer


@pytest.fixture(scope="module")
def codec(model_dir) -> Codec:
    return Codec(load_tokenizer(ModelSpec(str(model_dir("llama")))), "causal", 40, 8)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), mutation=st.sampled_from(MUTATIONS))
def test_a_file_gives_its_rows_or_an_error_that_names_it(codec: Codec, seed: int, kind: str, mutation: str) -> None:
    def encode(row: SFTRow) -> None:
        codec.encode_prompt(row.prompt)
        codec.encode_completion(row.prompt, row.completion)

    with tempfile.TemporaryDirectory() as folder:
        source = written(random.Random(seed), Path(folder), kind, mutation)
        assert outcome(source, kind, encode) in ("rows", "some rows refused", "refused")


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_not_all_refused(kind: str, tmp_path: Path) -> None:
    """The test above would pass of readers that read nothing."""
    found = Counter(
        outcome(written(random.Random(seed), tmp_path / str(seed), kind, "none"), kind) for seed in range(20)
    )
    assert found["rows"] + found["some rows refused"] > 10


def test_what_is_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would also pass if nothing were compared."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "completion": "b"}\n')
    assert outcome(path, "jsonl") == "some rows refused", "there is no preference in it"
    monkeypatch.setattr("helpers.fuzz.expected", lambda *_: [{"question": "a", "completion": "c"}])
    assert outcome(path, "jsonl") == "changed: other records"
    monkeypatch.setattr("helpers.fuzz.read_records", lambda _: 1 / 0)
    assert outcome(path, "jsonl").startswith("crash: ZeroDivisionError")


def test_the_independent_csv_reader() -> None:
    assert rows_of_csv('a,"b ""c"", d\ne"\r\n\r\n"",f\n') == [["a", 'b "c", d\ne'], ["", "f"]]
