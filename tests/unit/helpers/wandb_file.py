"""What an offline W&B run has written, read back: a ``.wandb`` file is LevelDB's log format, its records protobuf."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, CHUNK_HEADER = 32768, 7, 7
FULL, LAST = 1, 4


@dataclass
class OfflineRun:
    """Everything of one file.

    Attributes:
        run: the record that describes it: id, group, job type, tags, sweep, host.
        config: its config.
        history: a dict a row, in the order they were logged.
        metrics: definitions by name or glob.
        summary: as the rows left it, where no metric has a summary of its own.
        artifacts: names of those that were logged or used.
    """

    path: Path
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)

    def values(self, name: str) -> list[Any]:
        """The logged values of a metric."""
        return [row[name] for row in self.history if name in row]


def records(path: Path) -> Iterator[bytes]:
    """The records of the log, each put together from its chunks."""
    content, place, record = path.read_bytes(), FILE_HEADER, b""
    while place + CHUNK_HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < CHUNK_HEADER:  # a block's last bytes hold no header
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + CHUNK_HEADER])
        if kind == 0:
            break
        record += content[place + CHUNK_HEADER : place + CHUNK_HEADER + length]
        place += CHUNK_HEADER + length
        if kind in (FULL, LAST):
            yield record
            record = b""


def read_run(path: Path) -> OfflineRun:
    """Read a ``.wandb`` file."""
    from wandb.proto import wandb_internal_pb2 as pb

    made = OfflineRun(path)
    for data in records(path):
        record = pb.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            made.run = record.run
            made.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            for item in record.config.update:
                _put(made.config, [item.key] if item.key else list(item.nested_key), json.loads(item.value_json))
        elif kind == "history":
            items = record.history.item
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            made.history.append({**row, "_step": record.history.step.num})
            made.summary |= made.history[-1]
        elif kind == "summary":
            made.summary |= {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
        elif kind == "metric":
            made.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind in ("artifact", "use_artifact"):
            made.artifacts.append(getattr(record, kind))
    return made


def read_runs(folder: Path) -> list[OfflineRun]:
    """Every offline run below a folder, in the order of their names, which begin with the time."""
    return [read_run(path) for path in sorted(folder.rglob("*.wandb"))]


def _put(config: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    config[keys[-1]] = value
