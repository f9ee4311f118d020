"""What is wrong with JSON is told with the place where it is wrong."""

from __future__ import annotations

import pytest

from rlhf_lightning.data.strict_json import Fault, parse


@pytest.mark.parametrize("end", ["", "\n", " \r\n", "\n\n"])
@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('{"prompt":"x2","a":"y","b":', 1, "Expecting value at character 28, where it ends"),
        ('[{"a": 1},\n{"a": ', 2, "Expecting value at character 6, where it ends"),
        ('{"a": 1,, "b": 2}', 1, "Expecting property name enclosed in double quotes at character 9"),
        ('{"a": "x', 1, "Unterminated string starting at character 7"),
        ('{"a": 1} 2', 1, "Extra data at character 10"),
    ],
)
def test_a_fault_has_its_place(text: str, line: int, reason: str, end: str) -> None:
    with pytest.raises(Fault) as found:
        parse(text + end)
    assert (found.value.line, found.value.reason) == (line, f"this is no JSON: {reason}")
