"""Reading a run's JSON files: typed fields, and errors that name file, line and field."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError


def read_text(path: Path) -> str:
    """A text file of a run's folder.

    Raises:
        UserError: naming the file, if it isn't there, can't be read or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is {path.parent} the folder of a run?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def parse_json(text: str, place: str) -> Any:
    """The value of a JSON text.

    Raises:
        UserError: naming ``place`` (file, or file and line), if it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: no valid JSON ({error})") from None


def kind_of(value: Any) -> str:
    """What a JSON value is, as a message says it: ``a list``, ``null``."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


@dataclass
class Fields:
    """Typed access to the fields of a JSON object; what is of another type is a `UserError` that names place and field.

    Attributes:
        content: the object.
        place: where it stands: the file, its line, the field that holds it.
    """

    content: dict[str, Any]
    place: str

    def wrong(self, name: str, expected: str) -> UserError:
        """The error that says what was expected in a field, and what is there."""
        found = kind_of(self.content[name]) if name in self.content else "nothing"
        return UserError(f"{self.place}: {name}: expected {expected}, found {found}")

    def text(self, name: str) -> str:
        """A string."""
        value = self.content.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def optional(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A value of this kind, or None where there is none or null."""
        value = self.content.get(name)
        if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
            return value
        kinds = {int: "a whole number", float: "a number", str: "a string", dict: "an object"}
        raise self.wrong(name, "a number" if isinstance(kind, tuple) else kinds[kind])

    def count(self, name: str) -> int:
        """A whole number."""
        value = self.optional(name, int)
        if value is None:
            raise self.wrong(name, "a whole number")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings; empty where there is none."""
        value = self.content.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "a list of strings")
        return value

    def objects(self, name: str) -> list[Fields]:
        """The objects of a list; empty where there is none."""
        value = self.content.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(name, "a list of objects")
        return [Fields(item, f"{self.place}: {name}[{i}]") for i, item in enumerate(value)]

    def inside(self, name: str) -> Fields:
        """The fields of an object; of an empty one where there is none."""
        return Fields(self.optional(name, dict) or {}, f"{self.place}: {name}")

    def parts(self, name: str) -> dict[str, Fields]:
        """An object of objects; empty where there is none."""
        fields = self.inside(name)
        return {key: fields.inside(key) for key in fields.content}

    def numbers(self, name: str) -> dict[str, float]:
        """An object of numbers, nan for null; empty where there is none."""
        fields = self.inside(name)
        numbers = {}
        for key, value in fields.content.items():
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise fields.wrong(key, "a number or null")
            numbers[key] = math.nan if value is None else float(value)
        return numbers
