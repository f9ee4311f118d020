"""The page of a loop as a process of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra feedback")

from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.store import Store


def test_a_page_that_cannot_be_served_says_why_and_ends(tmp_path: Path):
    """While a thread of it waits for the process that started it, which holds the other end."""
    with Store(tmp_path / "f.db") as store, socket.socket() as taken:
        asked = {"kind": "thumbs", "asked": {"text": "q"}, "candidates": [{"text": "a"}]}
        store.add_items([Item.model_validate(asked)])
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "rlhf_lightning.loop.page", "serve", "--port", str(taken.getsockname()[1])]
        environment = {**os.environ, "RLHF_FEEDBACK_STORE": str(tmp_path / "f.db")}
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, text=True, **streams) as page:
            status = page.wait(60)
            said = page.stderr.read() if page.stderr else ""
    assert status == 2, said
    assert "port" in said
    assert "Fatal Python error" not in said
