"""What there is to choose from, as `rlhf-train --list` and `--help` tell it: read from the configs' own comments."""

from __future__ import annotations

import ast
import difflib
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support.comments import config_folders, read

HIDDEN = ("hydra", "paths")
"""Groups of which nobody chooses."""

CHOSEN_AS = {
    "stage": "stages=[NAME,...]",
    "optimizer": "optimizer@STAGE.optimizer=NAME",
    "schedule": "schedule@STAGE.schedule=NAME",
}
"""How an option is chosen where it is not GROUP=NAME."""

MEANT = {
    "stage": "what is done, one after the other",
    "optimizer": "what moves the weights of a stage",
    "schedule": "how the learning rate of a stage goes",
}
"""What those groups are; that of others stands in the primary config's defaults list."""

CODE = {
    "metrics": ("a task's metrics: {_target_: rlhf_lightning.metrics.NAME}", "what answers are measured by"),
    "detectors": ("rlhf_lightning.metrics.NAME", "signs that a reward is gamed"),
}
"""What is listed from code."""


@dataclass
class Choice:
    """One of a group's options: its name, what it is, and whether it is chosen where nothing is said."""

    name: str
    meaning: str
    default: bool = False


@dataclass
class Group:
    """A group of configs: its name, what is chosen by it and how, and its options."""

    name: str
    meaning: str
    chosen_as: str
    choices: list[Choice]


def config_groups(folders: list[Path]) -> list[Group]:
    """The groups of all folders, those of the primary config first, in its order; of two configs with one name the
    first counts."""
    primary = folders[-1] / "train.yaml"
    order, meanings, defaults = _table_of_contents(primary.read_text(encoding="utf-8"))
    found: dict[str, dict[str, Path]] = {}
    for folder in reversed(folders):
        for path in sorted(folder.rglob("*.yaml")):
            group = path.parent.relative_to(folder).as_posix()
            if group != "." and group.split("/")[0] not in HIDDEN:
                found.setdefault(group, {})[path.stem] = path
    groups = []
    for name in [*(n for n in order if n in found), *(n for n in sorted(found) if n not in order)]:
        choices = [
            Choice(stem, read(path).title, stem == defaults.get(name)) for stem, path in sorted(found[name].items())
        ]
        meaning = MEANT.get(name) or meanings.get(name, "")
        groups.append(Group(name, meaning, CHOSEN_AS.get(name, f"{name}=NAME"), choices))
    return groups


def _table_of_contents(text: str) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """The groups of a defaults list, what their comments say, and which option of each is its default."""
    import yaml

    order: list[str] = []
    meanings: dict[str, str] = {}
    defaults: dict[str, str] = {}
    lines, root = text.split("\n"), yaml.compose(text)
    entries: list[Any] = next((value.value for key, value in root.value if key.value == "defaults"), [])
    for entry in entries:
        if not isinstance(entry, yaml.MappingNode):
            continue
        key, value = entry.value[0]
        group, at, _ = key.value.partition("@")
        if group.startswith("override "):
            continue
        if group not in order:
            order.append(group)
        rest = lines[value.end_mark.line][value.end_mark.column :].strip()
        if rest.startswith("#"):
            meanings.setdefault(group, rest.lstrip("# "))
        if not at:
            defaults[group] = str(value.value)
    return order, meanings, defaults


def code_groups() -> list[Group]:
    """Metrics and detectors by their docstrings, without importing what they need."""
    folder = Path(__file__).parents[1] / "metrics"
    public = _public(folder / "__init__.py")
    metrics, detectors = [], []
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in public and _is_metric(node):
                metrics.append(Choice(node.name, _first_sentence(node)))
            elif isinstance(node, ast.FunctionDef) and node.name in public and path.stem == "detectors":
                detectors.append(Choice(node.name, _first_sentence(node)))
    made = {"metrics": metrics, "detectors": detectors}
    return [Group(name, meaning, how, made[name]) for name, (how, meaning) in CODE.items()]


def _public(path: Path) -> set[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def _is_metric(node: ast.ClassDef) -> bool:
    return any(getattr(base, "id", "").endswith("Metric") for base in node.bases)


def _first_sentence(node: Any) -> str:
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "")


def listing(kind: str | None, arguments: list[str]) -> str:
    """The options of one kind (``models``, ``rewards``, ...) or of all, one a line.

    Raises:
        UserError: for a kind that there isn't.
    """
    groups = [*config_groups(config_folders(arguments)), *code_groups()]
    if kind is not None:
        names = {group.name: group for group in groups}
        wanted = names.get(kind) or names.get(kind.removesuffix("s")) or names.get(f"{kind}s")
        if wanted is None:
            close = difflib.get_close_matches(kind, names, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UserError(f"--list {kind}: there is no such kind.{hint} There are {', '.join(names)}.")
        groups = [wanted]
    width = max((len(choice.name) for group in groups for choice in group.choices), default=0)
    parts = []
    for group in groups:
        head = f"{group.chosen_as}    {group.meaning}".rstrip()
        lines = [
            f"  {choice.name:{width}}  {choice.meaning}{' (the default)' if choice.default else ''}".rstrip()
            for choice in group.choices
        ]
        parts.append("\n".join([head, *lines]))
    return "\n\n".join(parts)


HELP = """\
rlhf-train fine-tunes a language model from human feedback: SFT, a reward model, PPO.

  rlhf-train                                               the whole chain on sample data
  rlhf-train task=qa stages=[sft] data.train=my.jsonl      a task, some of the stages, data of your own
  rlhf-train task=qa stages=[ppo] policy=DIR rewards=chrf  PPO from a saved model, against a metric
  rlhf-train -m ppo.kl_coef=0.02,0.1                       a sweep; rlhf-compare shows which was better
  rlhf-train resume=true                                   go on with a run that was cut off

Before a run:

  --list, --list models    what there is to choose from: one line each, also of your own --config-dir
  --tree, --tree ppo       every option of the run that the rest of the command describes: value, meaning, where from
  --cfg job                the same as YAML, to be saved
  dry_run=true             check everything, show rows as the model will see them, estimate time, memory and disk;
                           nothing is trained or kept
  profile=true             also tell which operations take the time

Groups, chosen as GROUP=NAME:

{groups}

Every other option is NAME=VALUE (ppo.kl_coef=0.1); lists are 'NAME=[a,b]'.

Completion of groups and options with the tab key, for this shell (put the line into its start-up file to keep it):

  bash    eval "$(rlhf-train -sc install=bash)"
  zsh     eval "$(rlhf-train -sc install=bash)"      after: autoload -U compinit bashcompinit; compinit; bashcompinit
  fish    rlhf-train -sc install=fish | source

rlhf-train --hydra-help shows what Hydra adds.
"""


def help_text(arguments: list[str]) -> str:
    """What `rlhf-train --help` says.

    Raises:
        UserError: as `config_folders`.
    """
    groups = config_groups(config_folders(arguments))
    width = max(len(group.name) for group in groups)
    columns = shutil.get_terminal_size((120, 24)).columns
    lines = []
    for group in groups:
        names = ", ".join(choice.name for choice in group.choices)
        how = "" if group.chosen_as == f"{group.name}=NAME" else f" (as {group.chosen_as})"
        text = f"  {group.name:{width}}  {group.meaning}{how}: {names}"
        lines.append(textwrap.fill(text, columns, subsequent_indent=" " * (width + 4), break_on_hyphens=False))
    return HELP.format(groups="\n".join(lines))
