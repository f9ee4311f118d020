"""Hydra's complaints about overrides, with a hint at what was probably meant."""

from __future__ import annotations

import difflib
import re
import sys
from typing import Any

EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/ray": "ray",
}
"""Options that come with packages which are not installed everywhere, and the extra that installs them."""


def _keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in config:
        name = f"{prefix}{key}"
        keys.append(name)
        value = config._get_node(key)
        if hasattr(value, "_get_node") and type(value).__name__ == "DictConfig" and not value._is_none():
            keys += _keys(value, f"{name}.")
    return keys


def explain(error: Exception) -> str:
    """One message for a Hydra or OmegaConf error: what is wrong, and the nearest thing there is."""
    from hydra.errors import OverrideParseException

    text = str(error).strip()
    first = text.split("\n")[0]
    if isinstance(error, OverrideParseException):
        reason = next(line for line in text.split("\n") if not line.startswith("Error parsing override"))
        return (
            f"{error.override!r} can't be read as an option ({reason}). It is NAME=VALUE; lists are 'NAME=[a,b]', and "
            "a text with braces, commas or brackets needs two pairs of quotes: 'NAME=\"{text}, ...\"'."
        )
    needed = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if needed and needed[1] in EXTRAS:
        extra = EXTRAS[needed[1]]
        return f"that launcher needs a package that is not installed: pip install 'rlhf-lightning[{extra}]'"
    if first.startswith("Ambiguous value for argument"):
        return f"{first}. Several values make a sweep: give -m before all options (a text with a comma needs quotes)"
    option = re.search(r"Could not override '([^']+)'", text)
    if option:
        return f"there is no option {option[1]!r}.{_nearest_option(option[1])}"
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    available = re.findall(r"^\t(\w+)$", text, flags=re.MULTILINE)
    if missing:
        group, _, name = missing[1].rpartition("/")
        available = available or _options_of(group)  # Hydra lists none where one of several is wrong
        close = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
        hint = f" Did you mean {group}={close[0]}?" if close else ""
        choices = f" There are: {', '.join(available)}." if available else ""
        return f"there is no {group or 'config'} {name!r}.{hint}{choices}"
    unknown = re.search(r"(Sweeper|Launcher)'.*unexpected keyword argument '([^']+)'", text, re.DOTALL)
    if unknown:
        name = f"hydra.{unknown[1].lower()}.{unknown[2]}"
        return f"there is no option {name!r}.{_nearest_option(name)}"
    cause = error.__cause__
    return first if cause is None or str(cause).strip() in first else f"{first}: {str(cause).strip().splitlines()[0]}"


def _options_of(group: str) -> list[str]:
    """The names of a group's options, as `--list` has them."""
    from rlhf_lightning.hydra_support.comments import config_folders
    from rlhf_lightning.hydra_support.listing import config_groups

    groups = config_groups(config_folders(sys.argv[1:]))
    return [choice.name for one in groups if one.name == group for choice in one.choices]


def _nearest_option(name: str) -> str:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    groups = [a for a in sys.argv[1:] if "=" in a and "." not in a.split("=")[0] and not a.startswith(("-", "+"))]
    of_hydra = name.startswith("hydra.")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("rlhf_lightning.conf", version_base="1.3"):
            try:
                config = compose("train", overrides=groups, return_hydra_config=of_hydra)
            except HydraException:
                config = compose("train", return_hydra_config=of_hydra)
            keys = _keys(config)
    except Exception:  # only a hint is lost
        return ""
    group, leaf = name.partition(".")[0], name.rpartition(".")[2]
    # An option that stands elsewhere in the same group is meant sooner than one of the same name in another.
    beside = [key for key in keys if key.startswith(f"{group}.")]
    leaves = {key.rpartition(".")[2]: key for key in reversed(beside)}
    close = difflib.get_close_matches(name, beside, n=1, cutoff=0.8)
    close = close or [leaves[near] for near in difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.6)]
    close = close or difflib.get_close_matches(name, keys, n=1, cutoff=0.5)
    close = close or [key for key in keys if key.rpartition(".")[2] == leaf][:1]
    return f" Did you mean {close[0]!r}?" if close else " `rlhf-train --tree` shows all options."
