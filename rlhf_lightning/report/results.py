"""What a run leaves for its report: ``metrics.json`` and ``samples.jsonl``, typed, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.json_fields import Fields, kind_of, parse_json, read_text

SCHEMA = 1
STATUSES = ("running", "interrupted", "failed", "pruned", "finished")
DONE = ("finished", "pruned")
"""Those of a run that has nothing left to do."""

DIRECTIONS = ("max", "min", None)
COLUMN_GROUPS = ("task", "reward", "guardrails")


@dataclass
class PolicyResult:
    """The scores of one policy on the held-out rows."""

    name: str
    """The stage that made it, or ``base``."""
    model: str | None = None
    """Its model folder, relative to the run folder; for ``base`` a hub name or a folder."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metric name to value. A value that is not finite is written as null and read back as nan."""


@dataclass
class StageTime:
    """Where the time of a stage's training went; validation, checkpoints and loading are not in it."""

    words: str
    """The same in words: "62 s: update 58 %, sample 22 %, ..."."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Phase to its seconds, the longest first."""
    tokens_per_second: float | None = None
    """Of the whole training; PPO counts the tokens of responses."""
    padding: float | None = None
    """Mean share of padding among the positions that went through the model."""


@dataclass
class RunResults:
    """All results of a run, as ``metrics.json`` holds them."""

    task: str
    seed: int | None = None
    status: str = "finished"
    """``running``, ``interrupted``, ``failed``, ``pruned`` (ended early by a sweep) or ``finished``."""
    stages: list[str] = field(default_factory=list)
    """The stages asked for, in their order."""
    objective: str | None = None
    """The metric that the run is judged by."""
    policies: list[PolicyResult] = field(default_factory=list)
    """In the order of the stages, ``base`` first."""
    held_out: int | None = None
    """Rows that the policies were measured on."""
    directions: dict[str, str | None] = field(default_factory=dict)
    """Metric name to ``max``, ``min`` or None: which way is better, if either is."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """Metric names by the group they are shown in: ``task``, ``reward``, ``guardrails``; the most important first."""
    reward_model: dict[str, float] | None = None
    """``accuracy``, ``longer_wins`` and other measures on held-out preferences."""
    exported: dict[str, float] = field(default_factory=dict)
    """Stage to the number of batches (PPO's rounds) after which it gave its model, where that was chosen."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage to its wall-clock time."""
    time: dict[str, StageTime] = field(default_factory=dict)
    """Stage to where the time of its training went."""
    reused: dict[str, str] = field(default_factory=dict)
    """Steps that were taken from another job of the same sweep, and its name."""
    rounds: list[dict[str, float | None]] = field(default_factory=list)
    """Figures of each round of a loop, by name; empty in a run that is none."""
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of the results has to know."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package to version."""

    @property
    def outcome(self) -> float | None:
        """The objective of the last policy; None where it has none, or a sweep ended the run early."""
        last = self.policies[-1].metrics if self.policies and self.status != "pruned" else {}
        return last.get(self.objective or "")

    def write(self, path: str | Path) -> None:
        """Write the results as JSON; a reader sees the old file or the new one, never half of one."""
        write_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n")

    def to_dict(self) -> dict[str, Any]:
        """What `write` writes, as plain values."""
        return _finite_or_null({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def read(cls, path: str | Path) -> RunResults:
        """Read ``metrics.json``.

        Raises:
            UserError: no such file, no JSON, or a field that is missing or of another type. It names file and field.
        """
        path = Path(path)
        return cls.from_dict(parse_json(read_text(path), str(path)), path)

    @classmethod
    def from_dict(cls, content: Any, path: str | Path) -> RunResults:
        """What `to_dict` gave, from the file ``path``.

        Raises:
            UserError: as `read`.
        """
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected an object with the results of a run, not {kind_of(content)}")
        if content.get("schema") != SCHEMA:
            raise UserError(
                f"{path}: schema is {content.get('schema')!r}, this version reads {SCHEMA}. "
                "Was it written by rlhf-train, or by another version of it?"
            )
        fields = Fields(content, str(path))
        results = cls(
            task=fields.text("task"),
            seed=fields.optional("seed", int),
            status=fields.text("status"),
            stages=fields.texts("stages"),
            objective=fields.optional("objective", str),
            policies=[
                PolicyResult(policy.text("name"), policy.optional("model", str), policy.numbers("metrics"))
                for policy in fields.objects("policies")
            ],
            held_out=fields.optional("held_out", int),
            directions=fields.optional("directions", dict) or {},
            columns={group: fields.inside("columns").texts(group) for group in COLUMN_GROUPS},
            reward_model=None if content.get("reward_model") is None else fields.numbers("reward_model"),
            exported=fields.numbers("exported"),
            seconds=fields.numbers("seconds"),
            time={stage: _stage_time(time) for stage, time in fields.parts("time").items()},
            reused={step: str(job) for step, job in (fields.optional("reused", dict) or {}).items()},
            rounds=[{k: row.optional(k, (int, float)) for k in row.content} for row in fields.objects("rounds")],
            notes=fields.texts("notes"),
            versions={name: str(version) for name, version in (fields.optional("versions", dict) or {}).items()},
        )
        if results.status not in STATUSES:
            raise UserError(f"{path}: status is {results.status!r}, expected one of {', '.join(STATUSES)}")
        for name, direction in results.directions.items():
            if direction not in DIRECTIONS:
                raise UserError(f"{path}: directions.{name} is {direction!r}, expected max, min or null")
        return results


def _stage_time(fields: Fields) -> StageTime:
    return StageTime(
        fields.text("words"),
        fields.numbers("seconds"),
        fields.optional("tokens_per_second", float),
        fields.optional("padding", float),
    )


@dataclass
class Sample:
    """One held-out row with what each policy made of it."""

    id: int | str
    prompt: str
    references: list[str] = field(default_factory=list)
    completions: dict[str, str] = field(default_factory=dict)
    """Policy name to its completion."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Policy name to the scores of its completion by name."""
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    """Policy name to what was measured of its completion beside the text: ``length``, ``eos_rate``, ``kl``."""


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write ``samples.jsonl``, one row a line, whole or not at all."""
    write_atomic(path, "".join(json.dumps(_finite_or_null(asdict(row)), ensure_ascii=False) + "\n" for row in samples))


def read_samples(path: str | Path) -> list[Sample]:
    """Read ``samples.jsonl``; an empty list where there is none, as in a run that was stopped early.

    Raises:
        UserError: a line that is no row. It names file, line and field.
    """
    path = Path(path)
    if not path.exists():
        return []
    samples = []
    # Not splitlines(): it would also split at U+2028 and its like, which JSON leaves unescaped inside a string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        content = parse_json(line, place)
        if not isinstance(content, dict):
            raise UserError(f"{place}: expected an object, not {kind_of(content)}")
        row = Fields(content, place)
        completions = row.inside("completions")
        scores, measures = row.inside("scores"), row.inside("measures")
        samples.append(
            Sample(
                id=content.get("id", number - 1),
                prompt=row.text("prompt"),
                references=row.texts("references"),
                completions={name: completions.text(name) for name in completions.content},
                scores={name: scores.numbers(name) for name in scores.content},
                measures={name: measures.numbers(name) for name in measures.content},
            )
        )
    return samples


def write_atomic(path: str | Path, text: str) -> None:
    """Write a text file by way of one beside it, so that a kill in between leaves the old content."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # A lone surrogate, which a byte-level tokenizer can give, has no UTF-8; as an escape JSON reads it back.
        beside.write_bytes(text.encode("utf-8", "backslashreplace"))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _finite_or_null(value: Any) -> Any:
    """The value with null for nan and the infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): _finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
