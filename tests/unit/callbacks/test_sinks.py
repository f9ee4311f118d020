"""Tables, histograms and settings in TensorBoard and MLflow, read back from their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from rlhf_lightning.callbacks.loggers import mlflow_logger
from rlhf_lightning.callbacks.sinks import log_histogram, log_table, markdown, shows_more_than_numbers

COLUMNS, ROWS = ["prompt", "now", "gold"], [["a | b\nc", "x", 0.25], ["d", None, 1.0]]


def test_markdown() -> None:
    assert markdown(COLUMNS, ROWS).splitlines() == [
        "| prompt | now | gold |",
        "| --- | --- | --- |",
        "| a \\| b<br>c | x | 0.25 |",
        "| d |  | 1 |",
    ]


def test_csv_files_show_numbers_alone(tmp_path: Path) -> None:
    assert not shows_more_than_numbers([CSVLogger(tmp_path)])


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(tmp_path), name="t", version="sft")
    assert shows_more_than_numbers([logger])
    log_table([logger], "sft/val/samples", COLUMNS, ROWS, 3)
    log_histogram([logger], "sft/val/histogram/gold", [0.25, 1.0], 3)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "t" / "sft"))
    events.Reload()
    (text,) = events.Tensors("sft/val/samples/text_summary")
    assert text.step == 3
    assert text.tensor_proto.string_val[0].decode() == markdown(COLUMNS, ROWS)
    (histogram,) = events.Histograms("sft/val/histogram/gold")
    assert (histogram.step, histogram.histogram_value.num, histogram.histogram_value.sum) == (3, 2, 1.25)


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a data base of the run folder, under one run also when it is gone on with; no user, no program's place."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    import json

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("USER", "anna")
    monkeypatch.setenv("LOGNAME", "anna")
    options = {"experiment_name": "e", "save_dir": str(tmp_path), "run_name": "r-sft", "tags": {"task": "qa"}}
    first = mlflow_logger(**options)
    assert shows_more_than_numbers([first])
    first.log_metrics({"sft/loss": 0.5}, 0)
    again = mlflow_logger(**options, run_id=first.run_id)
    again.log_metrics({"sft/loss": 0.25}, 1)
    log_table([again], "sft/val/samples", COLUMNS, ROWS, 1)
    log_histogram([again], "sft/val/histogram/gold", [0.25], 1)
    client, run = again.experiment, again.experiment.get_run(first.run_id)
    assert [(point.step, point.value) for point in client.get_metric_history(first.run_id, "sft/loss")] == [
        (0, 0.5),
        (1, 0.25),
    ]
    assert (run.data.tags["task"], run.data.tags["mlflow.runName"]) == ("qa", "r-sft")
    assert "anna" not in str(run.data.tags)
    (written,) = (tmp_path / "mlruns").rglob("samples.json")
    assert json.loads(written.read_text()) == {"columns": COLUMNS, "data": ROWS}
    assert (tmp_path / "mlflow.db").exists()


def test_an_mlflow_server_goes_before_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5")
    options = {"experiment_name": "e", "save_dir": str(tmp_path), "run_name": "r"}
    assert mlflow_logger(**options)._tracking_uri == "http://127.0.0.1:5"
    assert mlflow_logger(**options, tracking_uri="http://127.0.0.1:6")._tracking_uri == "http://127.0.0.1:6"
