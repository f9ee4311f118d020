"""What a run remembers of itself, so that it can be gone on with: ``state.json`` in its folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import write_atomic

if TYPE_CHECKING:  # the command line looks here before anything heavy is loaded
    from rlhf_lightning.data.sources import TaskData

FILE = "state.json"
SCHEMA = 1
ROWS = ("train", "validation", "test", "prompts", "preferences", "preferences_test", "unpaired", "unpaired_test")
INDIFFERENT = (
    "resume",
    "reuse",
    "max_time",
    "checkpoint",
    "paths",
    "logger",
    "samples",
    "profile",
    "dry_run",
    "trainer.enable_progress_bar",
    *(f"data.{part}" for part in ROWS),
)
"""Options that may differ when a run is gone on with: they don't change what it computes (the rows are compared)."""


@dataclass
class State:
    """How far a run is.

    Attributes:
        overrides: the options that the run was started with.
        config: all its options that matter, one level deep: ``ppo.kl_coef: 0.05``.
        data: for each kind of rows their number and a hash.
        done: the steps that are finished, in their order.
        results: what is reported, as of the last of them.
        measured: what stages logged last, by stage.
        wandb: the id of each stage's W&B run.
        code: a hash of the package's source when it began.
        files: what `row_files` gave then.
        mlflow: the id of each stage's MLflow run.
    """

    overrides: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, list] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    wandb: dict[str, str] = field(default_factory=dict)
    code: str = ""
    files: dict[str, list] = field(default_factory=dict)
    mlflow: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_atomic(folder / FILE, json.dumps({"schema": SCHEMA, **asdict(self)}, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> State | None:
        """What is remembered in a folder; None where nothing is.

        Raises:
            UserError: for a file that can't be read, or of another version.
        """
        content = read_record(folder / FILE, SCHEMA, "run")
        return None if content is None else cls(**content)


def read_record(path: Path, schema: int, what: str) -> dict[str, Any] | None:
    """What a JSON file of ours holds, without its schema; None where there is none.

    Args:
        path: the file.
        schema: the version of its form that is understood.
        what: what it remembers: a run or a sweep.

    Raises:
        UserError: for a file that can't be read, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}. Start the {what} anew, in another folder.") from error
    if not isinstance(content, dict) or content.pop("schema", None) != schema:
        raise UserError(f"{path} is of another version of rlhf-lightning. Start the {what} anew, in another folder.")
    return content


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config one level deep, without what makes no difference."""
    made: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in INDIFFERENT:
            continue
        if isinstance(value, dict) and value:
            made |= flat(value, f"{name}.")
        else:
            made[name] = value
    return made


def row_files(config: dict[str, Any]) -> dict[str, list]:
    """The options that name rows; of those that are local files also size and time, to see a change without a look."""
    found: dict[str, list] = {}
    for part in ROWS:
        named = config.get("data", {}).get(part)
        stats = [os.stat(name) for name in _texts(named) if os.path.isfile(name)]  # noqa: PTH113, PTH116 (any text)
        found[part] = [named, [[stat.st_size, stat.st_mtime_ns] for stat in stats]]
    return found


def named_files(config: dict[str, Any]) -> list[str]:
    """The local files that the options name as rows."""
    named = (config.get("data", {}).get(part) for part in ROWS)
    return [name for part in named for name in _texts(part) if os.path.isfile(name)]  # noqa: PTH113 (any text)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _texts(entry)]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in _texts(entry)]
    return [value] if isinstance(value, str) else []


def fingerprint(data: TaskData, asked: Sequence[Any]) -> dict[str, list]:
    """For each kind of rows how many there are, and a hash of them."""
    parts = {**{name: getattr(data, name) for name in ROWS}, "predict.input": asked}
    return {name: [len(rows), _hash(rows)] for name, rows in parts.items()}


def _hash(rows: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        content = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
        digest.update(json.dumps(content, sort_keys=True, default=str).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()[:32]


def differences(old: State, new: State) -> list[str]:
    """What a run would now do otherwise, in words."""
    told = []
    for name in sorted({*old.config, *new.config}):
        before, now = (state.config.get(name, "nothing") for state in (old, new))
        if before != now:
            told.append(f"{name} was {before!r} and is {now!r}")
    for name in new.data:
        before, now = old.data.get(name, [0, _hash([])]), new.data[name]
        if before != now:
            where = name if "." in name else f"data.{name}"
            told.append(f"the rows of {where} are others ({before[0]} then, {now[0]} now)")
    return told


def open_state(folder: Path, new: State, resume: bool | str, sweep: bool = False) -> tuple[State, list[str]]:
    """The state to go on from; a new one where there is none, or none is wanted.

    Args:
        folder: the run folder.
        new: the state of a run with these options and rows that has not begun.
        resume: whether to go on with what is there; ``force`` also if options or rows have changed.
        sweep: whether it is a job of a sweep, beside which lie others that were not meant.

    Returns:
        The state, and what is to be said about it.

    Raises:
        UserError: if options or rows have changed, naming them; or if ``force`` finds no run, but one that it may mean.
    """
    old = State.read(folder) if resume else None
    if old is None:
        if not resume:
            return new, []
        other = "" if sweep else _other_command(folder, new.overrides)
        if "resume=" in other and resume == "force":
            raise UserError(f"resume=force finds no run that was started with these options. {other} resume=force")
        said = f"there is no run to resume in {folder}: it starts from the beginning"
        return new, [f"{said}. {other}" if other else said]
    told = differences(old, new)
    if told and resume != "force":
        shown = "; ".join(told[:6]) + (f"; and {len(told) - 6} more" if len(told) > 6 else "")
        raise UserError(
            f"the run in {folder} can't be resumed: {shown}. Start it with what it had, or add resume=force to go on "
            "with what is new (the result is then that of neither)"
        )
    old.config, old.data, old.files = new.config, new.data, new.files
    return old, [f"resumed with changes: {text}" for text in told]


def clear(folder: Path) -> None:
    """Remove what an earlier run in this folder left to be gone on with: it must not get into a new one."""
    (folder / FILE).unlink(missing_ok=True)
    for name in ("checkpoints", "best"):
        for path in folder.glob(f"*/{name}"):
            shutil.rmtree(path, ignore_errors=True)


# --- which folder ----------------------------------------------------------------------------------------------------


def own_options(overrides: Sequence[str]) -> list[str]:
    """A command's options without those that say how it is gone on with."""
    return [o for o in overrides if not o.startswith(("resume=", "max_time=", "reuse=", "hydra."))]


def same_command(overrides: Sequence[str]) -> list[str]:
    """The same in one order: equal for commands that start the same run."""
    return sorted(own_options(overrides))


def find_run(parent: Path, overrides: Sequence[str]) -> Path | None:
    """The newest run folder under ``parent`` that was started with the same options; None where there is none."""

    def same(folder: Path) -> bool:
        state = State.read(folder)
        return state is not None and same_command(state.overrides) == same_command(overrides)

    return newest(parent, FILE, same)


def newest(parent: Path, file: str, same: Callable[[Path], bool]) -> Path | None:
    """The last by name of the folders under ``parent`` that hold a file and are the same; None where there is none."""
    for path in sorted(parent.glob(f"*/{file}"), key=lambda path: path.parent.name, reverse=True):
        with suppress(UserError):  # of another version: not ours to go on with
            if same(path.parent):
                return path.parent
    return None


NEAR = 2
"""Options by which a finished run may differ from a command and still be the one that was meant."""


def _other_command(folder: Path, overrides: Sequence[str]) -> str:
    """Words about a run beside a folder that whoever resumes may have meant: the newest one, if it is not finished, or
    the newest finished one that was started with almost the same options."""
    paths = [path for path in sorted(folder.parent.glob(f"*/{FILE}"), reverse=True) if path.parent != folder]
    newest = True
    for path in paths:
        try:
            state = State.read(path.parent)
        except UserError:
            state = None
        if state is not None:
            finished = state.results.get("status") == "finished"
            had, has = set(same_command(state.overrides)), set(same_command(overrides))
            if had != has and (len(had ^ has) <= NEAR if finished else newest):
                return _meant(path.parent, finished, newest, had, has)
        newest = False
    return ""


def _meant(folder: Path, finished: bool, newest: bool, had: set[str], has: set[str]) -> str:
    """A run that was started with other options, and which they were."""
    changes = [f"without {' '.join(sorted(has - had))}"] * bool(has - had)
    changes += [f"with {' '.join(sorted(had - has))}"] * bool(had - has)
    which = f"The newest run, {folder}," if newest else f"The run in {folder}"
    if finished:
        return f"{which} is finished, and was started {' and '.join(changes)}: for its results nothing need be run"
    return f"{which} is not finished, but was started {' and '.join(changes)}. To go on with it: resume={folder}"


def command_of(folder: Path) -> list[str]:
    """The options that the run in a folder was started with, and that folder.

    Raises:
        UserError: if there is none.
    """
    state = State.read(folder)
    if state is None:
        raise UserError(f"resume={folder}: there is no run to resume ({FILE} is missing). Give the folder of a run.")
    own = [o for o in state.overrides if not o.startswith(("resume=", "max_time=", "hydra.run.dir="))]
    alone = ["hydra.mode=RUN"] if any(o.startswith("sweep=") for o in own) else []  # not the sweep that it was a job of
    return [*own, *alone, f"hydra.run.dir={folder}"]
