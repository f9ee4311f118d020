"""JSON, without what Python's parser passes over in silence: a key that occurs twice, of which it keeps the last."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

DEPTH = 100
"""The most lists and objects within one another. No row needs more, and what walks over a row later has a limit too."""


class Fault(Exception):
    """What is wrong with a text that should be JSON.

    Attributes:
        line: of the text, from 1.
        reason: in words.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line, self.reason = line, reason


class _Twice(Exception):
    """An object has a key twice."""


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        Fault: if it is no JSON, or has a key twice, a number that Python can't read, or too many levels.
    """
    text = text.rstrip(" \t\r\n")  # else what ends too early would lack something after the blank lines at its end
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        column = error.pos - max(text.rfind(end, 0, error.pos) for end in "\r\n")
        reason = f"{error.msg.removesuffix(' at')} at character {column}"  # some end in "at", some don't
        told = f"this is no JSON: {reason}{', where it ends' if error.pos == len(text) else ''}"
        raise Fault(_line(text, error.pos), told) from error
    except (_Twice, ValueError, RecursionError) as error:
        # These tell no place, so the text is gone through again.
        fault = next(_faults(text), Fault(1, f"this JSON can't be read: {str(error) or type(error).__name__}"))
        raise fault from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Twice
    return values


def _line(text: str, position: int) -> int:
    return 1 + len(re.findall(r"\r\n?|\n", text[:position]))


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


def _faults(text: str) -> Iterator[Fault]:
    """What JSON allows and `parse` doesn't, without recursion: the text may be nested as deeply as it likes."""
    digits = getattr(sys, "get_int_max_str_digits", int)()
    open_objects: list[set[str]] = []  # the keys of each object that is open; a list has none
    last = ""
    for token in _TOKEN.finditer(text):
        found = token[0]
        if found in "{[":
            open_objects.append(set())
            if len(open_objects) > DEPTH:
                yield Fault(_line(text, token.start()), f"this JSON is nested more than {DEPTH} levels deep")
        elif found in "}]" and open_objects:
            open_objects.pop()
        elif found == ":" and open_objects:
            key = json.loads(last)
            if key in open_objects[-1]:
                yield Fault(_line(text, token.start()), f"the key {key[:40]!r} occurs twice in one object")
            open_objects[-1].add(key)
        elif digits and len(found) > digits and found.lstrip("-").isdigit():
            reason = "this JSON has a number of too many digits to be read: write it in quotes"
            yield Fault(_line(text, token.start()), reason)
        last = found
