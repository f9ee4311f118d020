"""Configs without their secrets: reports and logged configs are passed on."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden)"

_NAME = (
    r"(?:[\w.@/-]*[_.-])?"
    r"(?:api_?key|(?:access|private|secret|auth)_?key|password|passwd|secret|(?<!pad_)(?<!eos_)(?<!bos_)token)"
)
_IS_SECRET = re.compile(rf"(?i){_NAME}")
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


def _hide(key: str, value: Any) -> Any:
    if _IS_SECRET.fullmatch(key) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return HIDDEN
    return hide_secrets(value)


def _override(text: str) -> str:
    key, equals, value = text.partition("=")
    if equals and value not in ("", "null") and _IS_SECRET.fullmatch(key.strip().lstrip("+~")):
        return f"{key}={HIDDEN}"
    return _INSIDE.sub(rf"\1{HIDDEN}", text) if "{" in text else text
