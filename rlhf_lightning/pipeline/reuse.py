"""What jobs of a sweep have in common is computed by one of them and taken by the others.

A step's outcome is kept in ``<sweep>/shared/<step>-<key>/``. The key is a hash of all that it depends on: options,
rows, code, versions of the libraries, and what made the policy that it starts from. Each step begins with the same
random numbers whatever came before, so a job ends the same whether it took the step or did it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf_lightning.models.saving import write_folder
from rlhf_lightning.processes import agreed, wait_for_all
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.stages import Sample

if TYPE_CHECKING:
    from rlhf_lightning.pipeline.run import Run

FOLDER, FILE = "shared", "made.json"

MODEL, CURVES = "model", "metrics.csv"
"""What of a stage's folder is kept."""

INDIFFERENT = {
    "start measured": ("sft.", "reward.", "ppo."),
    "sft": ("reward.", "ppo.", "evaluate."),
    "sft measured": ("sft.", "reward.", "ppo."),
    "reward": ("sft.", "ppo.", "evaluate."),
}
"""The steps that are kept, and the options that make no difference to each; what made the policy is in its key."""

NEVER = ("predict.", "model.recommended.", "stages")
"""Options that make no difference to any of them."""

LOOK_EVERY = 10.0
"""Seconds between two looks at whether another job has finished a step."""


def is_shared(run: Run) -> bool:
    """Whether what the run does next may be another job's, or be taken by one."""
    return run.sweep is not None and run.cfg["reuse"] and run.lineage is not None


def taken_or_done(run: Run, step: str, work: Callable[[], None]) -> None:
    """Do a step, unless a job of the same sweep has done it: then take what came of it; and if it is at it, wait.

    Args:
        run: the run.
        step: its name, one of `INDIFFERENT`.
        work: does it, and puts what came of it into the run's folder, results and answers.

    Raises:
        Preempted: if the run was told to stop while it waited.
    """
    if not is_shared(run):
        work()
        return
    assert run.sweep is not None
    from filelock import FileLock, Timeout

    from rlhf_lightning.pipeline.run import is_rank_zero, say

    kept = run.sweep / FOLDER / f"{step.replace(' ', '-')}-{key_of(run, step)[:16]}"
    lock = FileLock(f"{kept}.lock")
    waited = False

    def look() -> str:
        if (kept / FILE).exists():
            return "take"
        if not is_rank_zero():
            return "do"  # not connected yet: rank zero is at it, and this process is here to help
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOOK_EVERY if waited else 0)
        except Timeout:
            return "wait"
        if (kept / FILE).exists():  # finished between the two looks
            lock.release()
            return "take"
        return "do"

    while (what := agreed(look)) == "wait":
        if not waited:
            say(f"{step}: another job of the sweep is at it; this one waits for it")
        waited = True
        run.stop.check()
    if what == "take":
        take(run, step, kept)
        job = run.results.reused.get(step)
        taken = f"taken from {job}, whose options, data and code for it are the same"
        say(f"{step}: {taken if job else 'done before'}")
        return
    before, notes = set(run.answers), len(run.results.notes)
    policies = len(run.results.policies)
    try:
        work()
        if is_rank_zero():
            keep(run, step, kept, policies, notes, set(run.answers) - before)
    finally:
        lock.release()


def keep(run: Run, step: str, kept: Path, policies: int, notes: int, answered: set[str]) -> None:
    """Write down what came of a step: whole or not at all.

    Args:
        run: the run, after the step.
        step: its name, which is that of its folder if it was a training.
        kept: the folder for it.
        policies, notes: how many of them the results held before.
        answered: the policies whose answers are new.
    """
    results = run.results
    measures = [name for group, names in results.columns.items() if group != "reward" for name in names]
    made = {
        "job": run.dir.name,
        "policies": [asdict(policy) for policy in results.policies[policies:]],
        "notes": results.notes[notes:],
        "directions": {name: results.directions[name] for name in measures if name in results.directions},
        "columns": results.columns,
        "exported": {stage: count for stage, count in results.exported.items() if stage == step},
        "reward_model": results.reward_model if step == "reward" else None,
        "held_out": results.held_out,
        "answers": {name: [[s.id, s.completion, s.measures] for s in run.answers[name]] for name in answered},
    }

    def fill(folder: Path) -> None:
        _copy_stage(run.dir / step, folder)
        (folder / FILE).write_text(json.dumps(made), encoding="utf-8")

    write_folder(kept, fill)


def take(run: Run, step: str, kept: Path) -> None:
    """Put what came of a step in another job into this run."""
    from rlhf_lightning.pipeline.run import is_rank_zero

    made = json.loads((kept / FILE).read_text(encoding="utf-8"))
    results: RunResults = run.results
    if made["job"] != run.dir.name:  # else it is its own, from before it was resumed
        results.reused[step] = made["job"]
    results.policies += [PolicyResult(**policy) for policy in made["policies"]]
    results.notes += made["notes"]
    results.exported |= made["exported"]
    if made["answers"]:
        results.directions |= made["directions"]
        results.columns |= {group: names for group, names in made["columns"].items() if group != "reward"}
        results.columns.setdefault("reward", [])
        results.held_out = made["held_out"]
    if made["reward_model"] is not None:
        results.reward_model = made["reward_model"]
    for name, answers in made["answers"].items():
        run.answers[name] = [Sample(id, run.data.test[id], text, measures) for id, text, measures in answers]
    if is_rank_zero():
        _copy_stage(kept, run.dir / step)
    wait_for_all()


def _copy_stage(source: Path, folder: Path) -> None:
    """Copy a stage's model and curves, where there are some; weights, which are never written in place, are linked."""
    if (source / MODEL).exists():
        folder.mkdir(exist_ok=True)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        shutil.copytree(source / MODEL, folder / MODEL, copy_function=_link)
    if (source / CURVES).exists():
        shutil.copyfile(source / CURVES, folder / CURVES)


def _link(source: str, target: str) -> None:
    """Link weights, which take the room; what somebody may edit is copied, as is all where there are no links."""
    if source.endswith(".safetensors"):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


# --- what a step depends on ------------------------------------------------------------------------------------------


def key_of(run: Run, step: str) -> str:
    """A hash of all that a step depends on."""
    without = (*INDIFFERENT[step], *NEVER)
    options = {name: value for name, value in run.state.config.items() if not name.startswith(without)}
    parts = {
        "step": step,
        "policy": run.lineage,
        "options": options,
        "data": {name: rows for name, rows in run.state.data.items() if name != "predict.input"},
        "code": code_hash(),
        "files": dict(_files_of(options)),
        "versions": run.results.versions,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


@cache
def code_hash() -> str:
    """A hash of this package's own source."""
    import rlhf_lightning
    from rlhf_lightning import tasks

    digest = hashlib.sha256()
    for package in (rlhf_lightning, tasks):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _files_of(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What options name that lies in files: the source of functions and classes, and folders of models."""
    for name, value in options.items():
        if not isinstance(value, str):
            continue
        if name.endswith(("_target_", ".path", ".gold")) and (source := _source_of(value)) is not None:
            yield name, hashlib.sha256(source.read_bytes()).hexdigest()
        elif value and os.path.isdir(value):  # noqa: PTH112 (Path.is_dir raises for a long text that is no path)
            files = sorted((path.name, path.stat()) for path in Path(value).iterdir() if path.is_file())
            yield name, [(file, stat.st_size, stat.st_mtime_ns) for file, stat in files]


def _source_of(dotted: str) -> Path | None:
    """The file that holds what a dotted path names, as far as it can be found."""
    parts = dotted.split(".")[:-1]
    while parts:
        try:
            spec = importlib.util.find_spec(".".join(parts))
        except (ImportError, ValueError, AttributeError):
            spec = None
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
        parts.pop()
    return None
