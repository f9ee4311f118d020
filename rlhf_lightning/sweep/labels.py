"""Which job of a sweep said what, where several of them write to one screen."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO


class Labelled(io.TextIOBase):
    """A stream whose lines begin with a label, and come whole: those of several processes don't mix.

    It is no terminal to those who write to it: bars of several jobs would overwrite each other.

    >>> screen = io.StringIO()
    >>> _ = Labelled(screen, "[3] ").write("one\\ntwo\\nthr")
    >>> screen.getvalue()
    '[3] one\\n[3] two\\n'
    """

    def __init__(self, stream: TextIO, label: str) -> None:
        self.stream, self.label, self.begun = stream, label, ""

    def write(self, text: str) -> int:
        """Write the lines that are whole now."""
        *lines, self.begun = (self.begun + text).split("\n")
        if lines:
            self.stream.write("".join(f"{self.label}{line}\n" for line in lines))
            self.stream.flush()
        return len(text)

    def writable(self) -> bool:
        """Yes."""
        return True

    def end(self) -> None:
        """Write what is left of the last line."""
        if self.begun:
            self.write("\n")


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Begin each line with a label, of what is printed meanwhile."""
    out, err = Labelled(sys.stdout, label), Labelled(sys.stderr, label)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.end()
            err.end()
