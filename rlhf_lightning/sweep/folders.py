"""A sweep's folder: what it was started with, a sub-folder for each job, and how each of them ended."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from rlhf_lightning.hydra_support.instantiate import plain
from rlhf_lightning.hydra_support.leftovers import note, take_away
from rlhf_lightning.report.results import DONE, RunResults, write_atomic
from rlhf_lightning.report.secrets import hide_paths
from rlhf_lightning.report.summary import brief
from rlhf_lightning.state import State, flat, newest, own_options, read_record, row_files, same_command

if TYPE_CHECKING:
    from omegaconf import DictConfig

FILE = "sweep.json"
REFUSED = "refused.txt"
"""Names of finished jobs that were refused when their sweep was gone on with."""

SCHEMA = 1
LONGEST_NAME = 120
"""Characters of a job's folder name; file systems take 255 bytes."""

started: list[Path] = []
"""The folders of the sweeps that this process has started."""


class SweepFolder(Callback):
    """Hydra's hook at a sweep's start: writes down what it was started with, by which it is found again."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the folder with its `sweep.json`; one that is gone on with keeps its own."""
        folder = Path(config.hydra.sweep.dir)
        note(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / FILE).exists():
            content = {"schema": SCHEMA, "overrides": list(config.hydra.overrides.task)}
            content["hydra"] = [o for o in config.hydra.overrides.hydra if not o.startswith("hydra.mode")]
            write_atomic(folder / FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        (folder / REFUSED).unlink(missing_ok=True)
        started.append(folder)


def read_sweep(folder: Path) -> dict[str, list[str]] | None:
    """The options that the sweep in a folder was started with, Hydra's own apart; None where there is no sweep.

    Raises:
        UserError: for a file that can't be read, or of another version.
    """
    return read_record(folder / FILE, SCHEMA, "sweep")


def find_sweep(parent: Path, overrides: Sequence[str], hydra: Sequence[str] = ()) -> Path | None:
    """The newest sweep folder under ``parent`` that was started with the same options; None where there is none.

    Of Hydra's own options those count that say what is swept over.
    """

    def same(folder: Path) -> bool:
        began = read_sweep(folder)
        if began is None or same_command(began["overrides"]) != same_command(overrides):
            return False
        return _searched(began["hydra"]) == _searched(hydra)

    return newest(parent, FILE, same)


def _searched(hydra: Sequence[str]) -> list[str]:
    return sorted(o for o in hydra if o.startswith(("hydra.sweeper.params", "hydra/sweeper", "hydra.sweeper.sampler")))


def job_name(swept: Sequence[str]) -> str:
    """A folder name made of options, of characters that no shell and no option of Hydra's needs quotes for.

    Where that would give two options one name, or one too long, a few digits of their hash are added. Of numbers that
    were drawn, with all the digits that a computer's have, four are shown.

    >>> job_name(["ppo.kl_coef=0.02", "stages=[sft,ppo]"]), job_name(["rewards.chrf.weight=-1"])
    ('ppo.kl_coef-0.02_stages-sft-ppo', 'rewards.chrf.weight--1')
    >>> job_name(["ppo.lr=0.00034512345678901234"])
    'ppo.lr-0.0003451_e0865d17'
    """
    shown = [brief(option) for option in hide_paths(list(swept))]
    options = [re.sub(r"[\[\]]", "", option.lstrip("+~")) for option in shown]
    name = "_".join(re.sub(r"[^\w.-]", "-", option, flags=re.ASCII) for option in options)
    told_whole = all(re.fullmatch(r"[\w.,=-]*", option, flags=re.ASCII) for option in options)
    if told_whole and shown == list(swept) and len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256("\n".join(swept).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}_{digest}"


def job_folder(sweep: Path, num: int, overrides: Sequence[str], resume: Any) -> str:
    """The sub-folder of a job: its number, and those of its options in which it differs from others.

    Args:
        sweep: the sweep's folder.
        num: the job's number.
        overrides: the job's options.
        resume: whether to go on with the folder of a job with the same options, whatever its number was.
    """
    content = read_sweep(sweep)
    common = _fixed(content["overrides"]) if content else set()
    name = job_name([o for o in own_options(overrides) if o.partition("=")[0] not in common])
    folder = f"{num}_{name}" if name else str(num)
    if resume and name and not (sweep / folder).exists():
        found = [path.name for path in sweep.glob("[0-9]*_*") if path.name.partition("_")[2] == name]
        return min(found, default=folder, key=lambda other: int(other.partition("_")[0]))
    return folder


def _fixed(overrides: Sequence[str]) -> set[str]:
    """The options of a sweep's command that all its jobs have in common; of two of the same option the later counts."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    last = {override.get_key_element(): override for override in parsed}
    return {key for key, override in last.items() if not override.is_sweep_override()}


def jobs(sweep: Path) -> list[tuple[str, RunResults]]:
    """Name and results of every job that has begun, in the order of their numbers."""
    found = [(path.parent.name, RunResults.read(path)) for path in sweep.glob("[0-9]*/metrics.json")]
    return sorted(found, key=lambda job: int(re.match(r"\d+", job[0])[0]))  # type: ignore[index]


def refused(sweep: Path) -> list[str]:
    """Names of the finished jobs that were refused this time."""
    path = sweep / REFUSED
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def begin(folder: Path, task: str, seed: int) -> None:
    """Write down that a job has begun: where nothing else is written later, it was killed."""
    if not (folder / "metrics.json").exists():
        RunResults(task=task, seed=seed, status="running").write(folder / "metrics.json")


def write_failure(folder: Path, task: str, seed: int, reason: str) -> None:
    """Write down that a job failed, and why, where it has not done so itself.

    What a finished job came to stands, also where it was refused when its sweep was gone on with: that is told in
    `REFUSED`, until the sweep begins anew.
    """
    path = folder / "metrics.json"
    results = RunResults.read(path) if path.exists() else RunResults(task=task, seed=seed)
    if results.status in DONE:
        with (folder.parent / REFUSED).open("a", encoding="utf-8") as file:
            file.write(f"{folder.name}\n")
        return
    results.status = "failed"
    if not any(reason in note for note in results.notes):
        results.notes.append(f"the run failed: {reason}")
    results.write(path)


def is_done(folder: Path) -> bool:
    """Whether the job in a folder, if there is one, is finished."""
    path = folder / "metrics.json"
    return path.exists() and RunResults.read(path).status in DONE


def done_before(folder: Path, config: Any) -> RunResults | None:
    """The results of a job that is finished, had the same options, and files that have not changed; None otherwise."""
    state = State.read(folder)
    if state is None or state.results.get("status") not in DONE:
        return None
    values = plain(config)
    if state.config != flat(values) or state.files != row_files(values):
        return None
    return RunResults.from_dict(state.results, folder / "state.json")


def remove_empty(sweep: Path) -> None:
    """Remove a sweep's folder in which no job has begun, and those above it that were made for it."""
    there = list(sweep.iterdir())
    if all(path.is_file() and path.name.startswith((FILE, "multirun.yaml", "study.journal")) for path in there):
        for path in there:
            path.unlink()
        take_away(sweep)
