"""Runs are noted beside the rows of judgements that they read, and no run fails for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlhf_lightning.feedback.lineage import MANIFEST, MODELS, models_of, note_models


def test_runs_are_noted_beside_rows_of_judgements_alone(tmp_path: Path) -> None:
    rows, plain = tmp_path / "rows", tmp_path / "plain"
    for folder in (rows, plain):
        folder.mkdir()
        (folder / "preferences.jsonl").write_text("{}\n")
    (rows / MANIFEST).write_text("{}")
    files = [str(folder / "preferences.jsonl") for folder in (rows, plain)]
    for name in ("one", "two", "one"):  # the last: gone on with
        assert note_models(tmp_path / name, [*files, files[0], "", "org/name"]) == []
    assert [Path(one.path).name for one in models_of(rows)] == ["one", "two"]
    assert models_of(plain) == models_of(tmp_path / "nowhere") == []
    assert not (plain / MODELS).exists()


def test_a_list_that_was_broken_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / MODELS).write_bytes(b'{"path": "/a", "time": "t"}\n[1]\n\xff\n{"path": "/b", "ti')
    assert [one.path for one in models_of(tmp_path)] == ["/a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    tmp_path.chmod(0o500)
    try:
        assert "will not know" in note_models(tmp_path / "run", [str(tmp_path / "x")])[0]
    finally:
        tmp_path.chmod(0o700)


def test_a_list_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / MODELS).mkdir()
    assert "will not know" in note_models(tmp_path / "run", [str(tmp_path / "x")])[0]
