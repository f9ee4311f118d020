"""Labels of jobs that write to one screen."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.sweep.labels import Labelled, labelled


@given(st.lists(st.text(alphabet="ab\n", max_size=8)))
def test_whatever_the_pieces_each_line_is_labelled_once(pieces: list[str]) -> None:
    screen = io.StringIO()
    stream = Labelled(screen, "[1] ")
    for piece in pieces:
        stream.write(piece)
    stream.end()
    whole = "".join(pieces)
    lines = whole.removesuffix("\n").split("\n") if whole else []
    assert screen.getvalue() == "".join(f"[1] {line}\n" for line in lines)


def test_what_is_printed_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    with labelled("[2] "):
        print("one\ntwo")
        print("three", end="", file=sys.stderr)
        assert not sys.stdout.isatty()
    print("four")
    assert capsys.readouterr() == ("[2] one\n[2] two\nfour\n", "[2] three\n")
