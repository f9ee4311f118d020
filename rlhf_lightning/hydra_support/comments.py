"""What the comments of YAML files say: the meaning of a config, and of each of its options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Explained:
    """A config file's comments.

    Attributes:
        title: its first comment line, which says what the config is.
        package: where its options stand in the whole, as its ``@package`` line says; None where it has none.
        meanings: of each option that has a comment, by its dotted name within the file.
        names: of every option, in the file's order.
    """

    title: str = ""
    package: str | None = None
    meanings: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def read(path: Path) -> Explained:
    """The comments of a config file.

    Raises:
        UserError: if it is no YAML.
    """
    import yaml

    from rlhf_lightning.errors import UserError

    try:
        return explained(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


def explained(text: str) -> Explained:
    """Read the comments of a YAML file. An option's is at the end of its line.

    >>> explained("# How.\\nlr: 0.1  # learning rate\\nloader: {size: 8}  # rows").meanings
    {'lr': 'learning rate', 'loader': 'rows'}
    """
    import yaml

    found, lines = Explained(), text.split("\n")
    for line in lines:
        if not line.startswith("#"):
            break
        words = line.lstrip("# ").strip()
        if words.startswith("@package"):
            found.package = words.split()[1]
        else:
            found.title = found.title or words

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
            if not prefix and key.value in ("defaults", "hydra"):
                continue
            name = f"{prefix}{key.value}"
            found.names.append(name)
            nested = isinstance(value, yaml.CollectionNode) and not value.flow_style
            # What follows the value on its line; of a block, what follows the key's colon.
            mark = key.end_mark if nested else value.end_mark
            rest = lines[mark.line][mark.column :].lstrip(":").strip() if mark.line < len(lines) else ""
            if rest.startswith("#"):
                found.meanings[name] = rest.lstrip("# ")
            walk(value, f"{name}.")

    walk(yaml.compose(text), "")
    return found


def config_folders(arguments: list[str]) -> list[Path]:
    """Where configs are: the folder of the user's own that a command names with ``--config-dir``, and ours.

    Raises:
        UserError: if the user's isn't named, or isn't there.
    """
    from importlib.resources import files

    from rlhf_lightning.errors import UserError
    from rlhf_lightning.processes import config_flags

    flags = config_flags(arguments)
    folders = []
    for i, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            if not equals and i + 1 == len(flags):
                raise UserError(f"{name} needs a folder")
            folder = Path(value if equals else flags[i + 1])
            if not folder.is_dir():
                raise UserError(f"--config-dir {folder}: there is no such folder")
            folders.append(folder)
    return [*folders, Path(str(files("rlhf_lightning.conf")))]
