"""Which job of a sweep said what, where several of them write to one screen."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast


class Labelled:
    """A stream whose lines begin with a label, and come whole: those of several processes don't mix.

    It is no terminal to those who write to it: bars of several jobs would overwrite each other, and of a line that
    overwrites itself the last state is written. All else is the stream's own.

    >>> import io
    >>> screen = io.StringIO()
    >>> _ = Labelled(screen, "[3] ").write("one\\ntwo\\nthr")
    >>> screen.getvalue()
    '[3] one\\n[3] two\\n'
    """

    def __init__(self, stream: TextIO, label: str) -> None:
        self.stream, self.label, self.begun = stream, label, ""
        self.lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write the lines that are whole now."""
        with self.lock:
            *lines, self.begun = (self.begun + text).split("\n")
            if lines:
                shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines)
                self.stream.write("".join(f"{self.label}{line}\n" for line in shown))
                self.stream.flush()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write them all."""
        self.write("".join(lines))

    def isatty(self) -> bool:
        """No."""
        return False

    def end(self) -> None:
        """Write what is left of the last line."""
        if self.begun:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_known: dict[int, Labelled] = {}
"""The labelled stream of each stream of this process: what a job's log handlers were given has the next job's label."""


@contextlib.contextmanager
def labelled(label: str) -> Iterator[None]:
    """Begin each line with a label, of what is printed or logged meanwhile."""
    streams = [sys.stdout, sys.stderr]
    ours = [_known.setdefault(id(stream), Labelled(stream, label)) for stream in streams]
    for stream in ours:
        stream.label = label
    moved = [
        (handler, stream)
        for handler in _handlers()
        for stream, own in zip(streams, ours, strict=True)
        if handler.stream is stream and handler.setStream(cast("TextIO", own)) is not None
    ]
    out, err = (cast("TextIO", stream) for stream in ours)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            for stream in ours:
                stream.end()
                stream.label = ""
            for handler, before in moved:
                handler.setStream(before)


def _handlers() -> list[logging.StreamHandler]:
    """The log handlers of this process that write to a stream."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", [])]
    # Python's own of last resort looks its stream up each time.
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler) and "stream" in vars(handler)]
