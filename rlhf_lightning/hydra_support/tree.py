"""A composed config as a tree, as `rlhf-train --tree` shows it: every value, what it means and where it comes from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.errors import UserError
from rlhf_lightning.hydra_support.comments import config_folders, read
from rlhf_lightning.processes import config_flags

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

COMMAND = "command line"

_NOTHING = object()


@dataclass
class Composed:
    """A config, and what is known of its options by their dotted names.

    Attributes:
        config: the config, interpolations included.
        meanings: what options mean.
        sources: the file under ``conf/`` that set them, or the command line.
    """

    config: DictConfig
    meanings: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def composed(arguments: list[str]) -> Composed:
    """Compose the config that a command's arguments describe, without Hydra's own part.

    Raises:
        UserError: if ``--config-dir`` isn't there; Hydra's and OmegaConf's errors for options that can't be composed.
    """
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    folders = config_folders(arguments)
    flags = {flag for argument in config_flags(arguments) for flag in (argument, argument.partition("=")[0])}
    overrides = [a for a in arguments if a not in flags and not a.startswith("-")]
    found = [f"hydra.searchpath=[{','.join(f'file://{folder.resolve()}' for folder in folders[:-1])}]"]
    names = overrides + (found if folders[:-1] else [])
    GlobalHydra.instance().clear()
    with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
        made = Composed(compose("train", overrides=names))
        defaults = GlobalHydra.instance().config_loader().compute_defaults_list("train", names, RunMode.RUN)
    for default in defaults.defaults:
        package, path = default.package or "", default.config_path or ""
        if not package.startswith("hydra") and not path.startswith("hydra"):
            _add(made, folders, path, package)
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if "@" in key or any((folder / key).is_dir() for folder in folders):
            continue  # a choice of a file, which is named itself
        for name in [key, *(n for n in made.sources if n.startswith(f"{key}."))]:
            made.sources[name] = COMMAND
    return made


def _add(made: Composed, folders: list[Path], path: str, package: str) -> None:
    """Take up what a config's file says of its options."""
    file = next((f for f in (folder / f"{path}.yaml" for folder in folders) if f.is_file()), None)
    if file is None:
        return
    told = read(file)
    prefix = f"{package}." if package and package != "_global_" else ""
    for name in told.names:
        made.sources[f"{prefix}{name}"] = f"{path}.yaml"
    made.meanings |= {f"{prefix}{name}": meaning for name, meaning in told.meanings.items()}
    if not told.title or not prefix:
        return
    top = [name for name in told.names if "." not in name]
    # What stands in a list of its kind (a reward, a logger) is told of there.
    single = len(top) == 1 and (told.package is not None or package == "logger")
    made.meanings[prefix + top[0] if single else package] = told.title


def tree(made: Composed, part: str = "") -> Tree:
    """The config, or the part of it with a dotted name, as a tree.

    Raises:
        UserError: for a part that there isn't.
    """
    from rich.text import Text
    from rich.tree import Tree

    node = OmegaConf.select(made.config, part, default=_NOTHING, throw_on_missing=False) if part else made.config
    if node is _NOTHING:
        names = [str(key) for key in made.config]
        close = difflib.get_close_matches(part, names, n=1)
        raise UserError(
            f"--tree {part}: there is no such part.{f' Did you mean {close[0]}?' if close else ''} There are "
            f"{', '.join(names)}, and what is in them, such as ppo.alarms."
        )
    title = Text(part or "config", "bold")
    root = Tree(title, guide_style="dim")
    if isinstance(node, DictConfig):
        source = _source_of(made, part, node) if part else "train.yaml"
        _tell(title, made.meanings.get(part, ""), source)
        _grow(root, made, node, part, source)
    else:
        parent, _, leaf = part.rpartition(".")
        title.append(": ").append(
            _value(OmegaConf.select(made.config, parent) if parent else made.config, leaf), "cyan"
        )
        _tell(title, made.meanings.get(part, ""), made.sources.get(part, ""))
    return root


def _grow(branch: Tree, made: Composed, node: DictConfig, prefix: str, source: str) -> None:
    from rich.text import Text

    for key in map(str, node):
        if key == "_partial_":
            continue
        name = f"{prefix}.{key}" if prefix else key
        raw, own = node._get_node(key), made.sources.get(name, source)
        told = own if own != source else ""
        if isinstance(raw, DictConfig) and not raw._is_none() and not raw._is_interpolation() and len(raw):
            label = Text(key, "bold")
            inner = _source_of(made, name, raw) or own
            _tell(label, made.meanings.get(name, ""), told or (inner if inner != source else ""))
            _grow(branch.add(label), made, raw, name, inner)
            continue
        label = Text(f"{key}: ").append(_value(node, key), "cyan")
        _tell(label, made.meanings.get(name, ""), told)
        branch.add(label)


def _source_of(made: Composed, name: str, node: DictConfig) -> str:
    """Where most of a node's own values come from."""
    inner = [source for key in map(str, node) if (source := made.sources.get(f"{name}.{key}")) and source != COMMAND]
    return max(dict.fromkeys(inner), key=inner.count, default="")


def _tell(label: Text, meaning: str, source: str) -> None:
    if meaning:
        label.append(f"  # {meaning}", "dim")
    if source:
        label.append(f"  [{source}]", "green")


def _value(node: DictConfig, key: str) -> str:
    """A value as it is written on the command line; of an interpolation also what it is made of."""
    from omegaconf.errors import OmegaConfBaseException

    if OmegaConf.is_missing(node, key):
        return "must be given"
    try:
        value: Any = node[key]
    except OmegaConfBaseException as error:
        return f"can't be resolved: {str(error).splitlines()[0]}"
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    words = "null" if value is None else str(value).lower() if isinstance(value, bool) else _one_line(value)
    if OmegaConf.is_interpolation(node, key):
        words += f"  (= {OmegaConf.to_container(node, resolve=False)[key]})"  # type: ignore[index,call-overload]
    return words


def _one_line(value: Any) -> str:
    return str(value).replace("\n", "\\n")
