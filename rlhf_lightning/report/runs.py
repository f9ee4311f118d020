"""Run folders as the comparison sees them: found, read, told apart by their settings."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.curves import Curve, read_curves
from rlhf_lightning.report.human import Preferred, read_human
from rlhf_lightning.report.results import PolicyResult, RunResults, Sample, read_samples
from rlhf_lightning.report.secrets import hide_secrets

# Where a run lies, what it is called and what it showed says nothing about why it came out as it did.
IGNORED_ROOTS = {
    "hydra",
    "paths",
    "logger",
    "resume",
    "max_time",
    "reuse",
    "dry_run",
    "sweep",
    "launcher",
    "samples",
    "profile",
    "checkpoint",
}
IGNORED_NAMES = {
    "dir",
    "cwd",
    "output_dir",
    "work_dir",
    "run_dir",
    "save_dir",
    "dirpath",
    "default_root_dir",
    "run_name",
    "enable_progress_bar",
}


@dataclass(eq=False)
class Run:
    """A run, read: a folder, or what another place that keeps runs has of one."""

    path: Path
    """Its folder; of a run from elsewhere a name in the form of a path."""
    results: RunResults
    settings: dict[str, str] = field(default_factory=dict)
    """Dotted key of the composed config to its value as text."""
    choices: dict[str, str] = field(default_factory=dict)
    """Config group to the option chosen; the settings below a group that differs are summed up by it."""
    overridden: list[str] = field(default_factory=list)
    """The keys given on the command line."""
    config: dict[str, Any] = field(default_factory=dict)
    """The composed config, interpolations as they stand in it."""
    logged: dict[str, dict[str, Curve]] | None = None
    """What `curves` gives; None: still to be read from the folder."""
    answered: list[Sample] | None = None
    """What `samples` gives; None: still to be read from the folder."""

    def human(self, other: Callable[[RunResults], PolicyResult | None]) -> Preferred | None:
        """How often people prefer the final policy's answers to another policy's of the run, where they were asked."""
        final, against = self.final, other(self.results)
        said = read_human(self.path) if final and against and final is not against else None
        return said.of(final.name, against.name) if said and final and against else None

    def curves(self) -> dict[str, dict[str, Curve]]:
        """Stage to logged name to curve."""
        if self.logged is None:
            self.logged = read_curves(self.path, self.results.stages)
        return self.logged

    def samples(self) -> list[Sample]:
        """The held-out rows with what each policy answered; empty where the run has none."""
        if self.answered is None:
            self.answered = read_samples(self.path / "samples.jsonl")
        return self.answered

    @property
    def final(self) -> PolicyResult | None:
        """The last policy that was measured."""
        return self.results.policies[-1] if self.results.policies else None

    def value(self, metric: str, minus: Callable[[RunResults], PolicyResult | None] | None = None) -> float | None:
        """The final policy's value of a metric, or what it gained over another policy of the run."""
        policies = self.results.policies
        final = policies[-1].metrics.get(metric) if policies else None
        if minus is None or final is None:
            return final
        other = minus(self.results)
        before = None if other is None or other is policies[-1] else other.metrics.get(metric)
        return None if before is None else final - before


def first_policy(results: RunResults) -> PolicyResult | None:
    """The policy that the run started from."""
    return results.policies[0] if results.policies else None


def policy_before(results: RunResults) -> PolicyResult | None:
    """The policy that the last one was made from."""
    return results.policies[-2] if len(results.policies) > 1 else None


def sft_policy(results: RunResults) -> PolicyResult | None:
    """The fine-tuned policy, if the run has one."""
    return next((policy for policy in results.policies if policy.name == "sft"), None)


def _latest(path: Path) -> Path:
    if "LATEST" not in path.parts or path.exists():
        return path
    parent = _latest(path.parent)
    if path.name != "LATEST":
        return parent / path.name
    folders = [entry for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=path)


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Read every run at or below the paths, in natural order (2 before 10), each once.

    ``LATEST`` as a part of a path is the newest sub-folder of what is before it, unless there is an entry of that name.

    Raises:
        UserError: a path without runs, or a run whose files cannot be read.
    """
    found: dict[Path, Run] = {}
    for given in paths:
        path = _latest(Path(given))
        below: list[Path] = []
        for root, subfolders, files in os.walk(path):
            if "metrics.json" in files:
                below.append(Path(root))
                subfolders.clear()  # a run holds no runs, but models and checkpoints of any size
        if not path.exists():
            beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
            close = difflib.get_close_matches(path.name, ["LATEST", *beside], n=1)
            raise UserError(f"there is no folder {path}" + (f" (did you mean {close[0]!r}?)" if close else ""))
        if not below:
            raise UserError(f"no runs found under {path}: no folder there holds a metrics.json")
        for folder in sorted(below, key=lambda folder: natural(str(folder))):
            found.setdefault(folder.resolve(), read_run(folder.resolve()))
    return list(found.values())


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts texts by the numbers in them: 2 before 10, 2e-05 before 0.0001, -1 before 0.5.

    >>> sorted(["job 10", "job 9"], key=natural), sorted(["0.1", "2e-05", "-1"], key=natural)
    (['job 9', 'job 10'], ['-1', '2e-05', '0.1'])
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return [(value, "")]
    parts = re.split(r"(\d+)", text)
    return [(float(part), "") if part.isdecimal() else (math.inf, part) for part in parts if part]


def read_run(path: Path) -> Run:
    """Read a run folder: its results, and its settings as Hydra saved them."""
    results = RunResults.read(path / "metrics.json")
    config = {name: _read_yaml(path / ".hydra" / f"{name}.yaml") or {} for name in ("config", "hydra", "overrides")}
    composed = hide_secrets(config["config"])
    settings = dict(_flatten(composed))
    here = str(path.resolve())
    settings = {
        name: value
        for name, value in settings.items()
        if name.split(".")[0] not in IGNORED_ROOTS and name.split(".")[-1] not in IGNORED_NAMES and here not in value
    }
    if results.seed is not None:
        settings.setdefault("seed", str(results.seed))
    chosen = config["hydra"].get("hydra", {}).get("runtime", {}).get("choices", {})
    choices = {str(group).split("@")[-1]: str(option) for group, option in chosen.items()}
    choices = {group: option for group, option in choices.items() if group.split("/")[0] not in IGNORED_ROOTS}
    choices["task"] = results.task
    for item in map(str, config["overrides"]):  # Hydra keeps no choice of a group of which several were chosen
        group, _, several = item.lstrip("+~").partition("=")
        if several.startswith("[") and group not in {*settings, *IGNORED_ROOTS}:
            choices.setdefault(group.split("@")[-1], several)
    overridden = [str(item).lstrip("+~").split("=")[0].split("@")[-1] for item in config["overrides"]]
    return Run(path, results, settings, choices, overridden, composed)


def _read_yaml(path: Path) -> Any:
    from omegaconf import OmegaConf

    if not path.is_file():
        return None
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # yaml's and omegaconf's own, which share no base
        raise UserError(f"{path}: no valid YAML ({' '.join(str(error).split())})") from None


def _flatten(config: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "null" if value is None else str(value)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Settings that are not the same in all runs: key to one value a run, those of the command line first.

    Where another option of a config group was chosen, the option stands for the settings it brings.
    """
    groups = {name: [run.choices.get(name, "-") for run in runs] for run in runs for name in run.choices}
    groups = {name: values for name, values in groups.items() if len(set(values)) > 1}
    overridden = list(dict.fromkeys(name for run in runs for name in run.overridden))
    rows = dict(groups)
    for name in dict.fromkeys(name for run in runs for name in run.settings):
        values = [run.settings.get(name, "-") for run in runs]
        if len(set(values)) > 1:  # one run's own value is held against what the others take from elsewhere
            values = [_followed(run, value) for run, value in zip(runs, values, strict=True)]
        summed_up = any(name == group or name.startswith(f"{group}.") for group in groups) and name not in overridden
        if len(set(values)) > 1 and not summed_up:
            rows.setdefault(name, values)
    return dict(sorted(rows.items(), key=lambda item: (item[0] not in overridden, item[0] not in groups, item[0])))


def _followed(run: Run, value: str) -> str:
    """What a setting that names another one (``${model.recommended.ppo.lr}``) stands for, where the run says it."""
    seen: set[str] = set()
    while (named := re.fullmatch(r"\$\{([\w.]+)\}", value)) and named[1] in run.settings and named[1] not in seen:
        seen.add(named[1])
        value = run.settings[named[1]]
    return value


def setting_names(runs: Sequence[Run], given: str) -> list[str]:
    """The full names of settings given as ``KEY`` or ``KEY,KEY``; a name's last parts do where they are clear.

    Raises:
        UserError: no run has the setting, or several settings end so. It lists those there are.
    """
    known = dict.fromkeys(known for run in runs for known in [*run.settings, *run.choices])
    names = []
    for name in filter(None, map(str.strip, given.split(","))):
        matches = [name] if name in known else [full for full in known if full.endswith(f".{name}")]
        if len(matches) != 1:
            listed = ", ".join(matches or differing_settings(runs)) or "none"
            said = "is several settings" if matches else "is no setting of these runs; those that differ"
            raise UserError(f"--group-by {name} {said}: {listed}")
        names.append(matches[0])
    return names


def setting(run: Run, name: str) -> str:
    """A run's value of a setting by its full name, the option of a config group before all; ``-`` where it has none."""
    return run.choices.get(name) or run.settings.get(name, "-")
