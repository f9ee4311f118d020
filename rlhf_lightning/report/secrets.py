"""Configs without their secrets and without the places of a machine: reports and logged configs are passed on."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden)"

_NAME = (
    r"(?:[\w.@/-]*[_.-])?"
    r"(?:api_?key|(?:access|private|secret|auth)_?key|password|passwd|secret|(?<!pad_)(?<!eos_)(?<!bos_)token)"
)
_IS_SECRET = re.compile(rf"(?i){_NAME}")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_PATH = re.compile(
    r"(?<![\w:/\\.~}])(?:file:/*(?=/))?"  # neither the rest of a URL nor that of a relative path
    r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[\\/]+[^\s\\/'\",;:=<>()\[\]{}|]+){2,}[\\/]?"
)
_INSIDE = re.compile(rf"""(?i)(['"{{,\s]{_NAME}['"]?\s*[:=]\s*)(?!null\b)('[^']*'|"[^"]*"|[^,}}\s]+)""")


def hide_secrets(value: Any) -> Any:
    """A plain config with the values of API keys, passwords and tokens replaced by ``(hidden)``.

    A value is a secret by the name of its key; in a text of the form ``key=value`` (an override) by the name before
    the first equals sign, and in braces by the names there.
    """
    if isinstance(value, dict):
        return {key: _hide(str(key), entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_override(entry) if isinstance(entry, str) else hide_secrets(entry) for entry in value]
    return value


def hide_paths(value: Any) -> Any:
    """A plain config with the folders of this machine left out: of an absolute path, or one that begins with ``~``,
    ``./`` or ``../``, the last part remains. Names and passwords in URLs become ``(hidden)``.

    >>> hide_paths({"train": "/home/anna/my rows.jsonl", "model": "google-t5/t5-small", "note": "see /data/anna/x.csv"})
    {'train': 'my rows.jsonl', 'model': 'google-t5/t5-small', 'note': 'see x.csv'}
    """
    if isinstance(value, dict):
        return {key: hide_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_paths(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"(?:file:/*(?=/))?(?:~|\.{1,2}|[A-Za-z]:)?[\\/][^\n]*[\w.-][\\/]?", value):
        return _last(value)  # a path as a whole may hold spaces
    return _PATH.sub(lambda found: _last(found[0]), _LOGIN.sub(f"{HIDDEN}@", value))


def _last(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def _hide(key: str, value: Any) -> Any:
    if _IS_SECRET.fullmatch(key) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return HIDDEN
    return hide_secrets(value)


def _override(text: str) -> str:
    key, equals, value = text.partition("=")
    if equals and value not in ("", "null") and _IS_SECRET.fullmatch(key.strip().lstrip("+~")):
        return f"{key}={HIDDEN}"
    return _INSIDE.sub(rf"\1{HIDDEN}", text) if "{" in text else text
