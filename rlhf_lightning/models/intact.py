"""Whether a model folder is whole, seen from its files alone: what transformers would start anew, guess or unpickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")


def damaged(path: Path, what: str) -> UserError:
    """The error for a file of a model folder that can't be used."""
    return UserError(
        f"cannot load the model {str(path.parent)!r}: {path.name} {what}. Download or write the folder again."
    )


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: naming the file, and the line where there is one, if it holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise damaged(path, f"is no JSON: {error.msg} in line {error.lineno}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(value, dict):
        raise damaged(path, f"holds a {type(value).__name__} instead of settings by name")
    return value


def check_settings(folder: Path) -> None:
    """Refuse a folder with a file of settings that transformers would choke on, or leave out without a word.

    Raises:
        UserError: naming the file.
    """
    found = {name: read_object(folder / name) for name in SETTINGS if (folder / name).exists()}
    architectures = found.get("config.json", {}).get("architectures")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise damaged(folder / "config.json", "has an entry 'architectures' that is no list of names")
    ends = found.get("generation_config.json", {}).get("eos_token_id")
    if not all(end is None or isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends])):
        raise damaged(folder / "generation_config.json", f"names {ends!r} as eos_token_id, which is no number")


def check_weights(folder: Path) -> None:
    """Refuse a folder without whole weights in safetensors files.

    Pickles are never read: loading one can run whatever code its author put into it.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    if (folder / WEIGHTS).is_file():
        check_tensors(folder / WEIGHTS)
        return
    if not (folder / INDEX).exists():
        raise no_weights(folder, WEIGHTS)
    files = read_object(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise damaged(folder / INDEX, "has no entry 'weight_map' that says which file holds which weight")
    for name in sorted({str(name) for name in files.values()}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise damaged(folder / INDEX, f"names {name!r}, which is no safetensors file of the folder")
        if not (folder / name).is_file():
            raise damaged(folder / name, f"is missing, though {INDEX} names it")
        check_tensors(folder / name)


def no_weights(folder: Path, wanted: str) -> UserError:
    """The error for a folder that lacks its weights, or has them as a pickle only."""
    pickles = [name for name in PICKLES if (folder / name).exists()]
    if not pickles:
        return damaged(folder / wanted, "is missing")
    return UserError(
        f"cannot load the model {str(folder)!r}: its weights are in {pickles[0]}, a pickle, and loading one can run "
        f"any code. Only {wanted} is read: take a folder that has one, or have the model's author save it with "
        "safe_serialization=True."
    )


def check_tensors(path: Path) -> None:
    """Refuse a safetensors file that is cut or garbled; only its header is read.

    Raises:
        UserError: naming the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"is damaged ({' '.join(str(error).split())})") from error
