"""Labels of jobs that write to one screen."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

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


def test_a_line_that_overwrites_itself_is_written_as_it_is_in_the_end() -> None:
    screen = io.StringIO()
    Labelled(screen, "[1] ").write("\r10 %\r50 %\r100 %\nend\r\n")
    assert screen.getvalue() == "[1] 100 %\n[1] end\n"


def test_all_else_is_the_streams_own(tmp_path: Path) -> None:
    with (tmp_path / "screen").open("w", encoding="utf-8") as screen:
        stream = Labelled(screen, "[1] ")
        assert (stream.fileno(), stream.encoding) == (screen.fileno(), "utf-8")
        assert stream.buffer is screen.buffer
        stream.writelines(["a", "\n"])
    assert (tmp_path / "screen").read_text() == "[1] a\n"


def test_log_handlers_say_which_job_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    """Those made before the first job, and those that a job made for all that come after it in the process."""
    logger = logging.getLogger("judge")
    before = logging.StreamHandler(sys.stdout)
    made: logging.StreamHandler | None = None
    logger.addHandler(before)
    try:
        for job in (0, 2):
            with labelled(f"[{job}] "):
                if made is None:
                    logger.addHandler(made := logging.StreamHandler(sys.stderr))
                logger.warning("job %d", job)
        logger.warning("end")
    finally:
        logger.removeHandler(before)
        if made is not None:
            logger.removeHandler(made)
    said = ["[0] job 0", "[2] job 2", "end"]
    out, err = capsys.readouterr()
    assert (out.splitlines(), err.splitlines()) == (said, said)
