"""Run folders as the comparison sees them: found, read, told apart by their settings."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.report.results import PolicyResult, RunResults

# Where a run lies and what it is called says nothing about why it came out as it did.
IGNORED_ROOTS = {"hydra", "paths", "logger"}
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
}


@dataclass
class Run:
    """A run folder, read."""

    path: Path
    results: RunResults
    settings: dict[str, str]
    """Dotted key of the composed config to its value as text."""
    choices: dict[str, str]
    """Config group to the option chosen; the settings below a group that differs are summed up by it."""
    overridden: list[str]
    """The keys given on the command line."""

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


def sft_policy(results: RunResults) -> PolicyResult | None:
    """The fine-tuned policy, if the run has one."""
    return next((policy for policy in results.policies if policy.name == "sft"), None)


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Read every run at or below the paths, in natural order (2 before 10), each once.

    ``LATEST`` as the last part of a path is the folder's newest sub-folder, unless there is an entry of that name.

    Raises:
        UserError: a path without runs, or a run whose files cannot be read.
    """
    found: dict[Path, Run] = {}
    for given in paths:
        path = Path(given)
        if path.name == "LATEST" and not path.exists():
            folders = [entry for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
            path = max(folders, key=lambda folder: folder.stat().st_mtime, default=path)
        below: list[Path] = []
        for root, subfolders, files in os.walk(path):
            if "metrics.json" in files:
                below.append(Path(root))
                subfolders.clear()  # a run holds no runs, but models and checkpoints of any size
        if not below:
            raise UserError(f"no runs found under {path}: no folder there holds a metrics.json")
        for folder in sorted(below, key=_natural_order):
            found.setdefault(folder.resolve(), read_run(folder))
    return list(found.values())


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def read_run(path: Path) -> Run:
    """Read a run folder: its results, and its settings as Hydra saved them."""
    results = RunResults.read(path / "metrics.json")
    config = {name: _read_yaml(path / ".hydra" / f"{name}.yaml") or {} for name in ("config", "hydra", "overrides")}
    settings = dict(_flatten(config["config"]))
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
    overridden = [str(item).lstrip("+~").split("=")[0].split("@")[-1] for item in config["overrides"]]
    return Run(path, results, settings, choices, overridden)


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
        summed_up = any(name == group or name.startswith(f"{group}.") for group in groups) and name not in overridden
        if len(set(values)) > 1 and not summed_up:
            rows.setdefault(name, values)
    return dict(sorted(rows.items(), key=lambda item: (item[0] not in overridden, item[0] not in groups, item[0])))


def group_runs(runs: Sequence[Run], name: str) -> dict[str, list[Run]]:
    """Runs by their value of a setting; its last parts do for a name where they are clear (``kl_coef``)."""
    known = dict.fromkeys(known for run in runs for known in [*run.settings, *run.choices])
    matches = [name] if name in known else [full for full in known if full.endswith(f".{name}")]
    if len(matches) != 1:
        names = ", ".join(matches or differing_settings(runs)) or "none"
        said = "is several settings" if matches else "is no setting of these runs; those that differ"
        raise UserError(f"--group-by {name} {said}: {names}")
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        value = run.choices.get(matches[0]) or run.settings.get(matches[0], "-")
        grouped.setdefault(value, []).append(run)
    return grouped
