"""`rlhf-feedback serve` as a process, and what people do in front of its page."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from browser import Browser
from console import BIN, environment, write_rows

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.store import Store


class Server:
    """A server of some questions, in a folder of its own."""

    def __init__(self, folder: Path, items: list[dict], *options: str) -> None:
        self.folder, self.options = folder, list(options)
        folder.mkdir(parents=True, exist_ok=True)
        self.items = write_rows(folder / "items.jsonl", items)
        self.port = "0"
        self.links: dict[str, list[str]] = {}
        self.start()

    def start(self) -> None:
        """Start it, on the port that it had before."""
        command = [str(BIN / "rlhf-feedback"), "serve", "--store", "feedback.db", "--items", self.items]
        command += ["--port", self.port, "--gold-share", "0", "--repeat-share", "0", *self.options]
        with (self.folder / "errors.txt").open("a") as errors:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.process.stdout is not None
        self.links = {}
        for line in self.process.stdout:
            if found := re.match(r"(\w+)\s+(http://\S+:(\d+)/#token=\S+)", line):
                self.links.setdefault(found[1], []).append(found[2])
                self.port = found[3]
            if line.startswith("Each link"):
                return
        raise AssertionError((self.folder / "errors.txt").read_text())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def kill(self) -> None:
        """End it without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def log(self) -> list[Event]:
        """All events."""
        with Store(self.folder / "feedback.db") as store:
            return list(store.events())

    def holding(self) -> list[Event]:
        """The judgements that hold."""
        return current(self.log())


READY = (
    "document.querySelector('main .bar, main .end, main .tiles') && document.getElementById('question')"
    " && !document.querySelector('.sending')"
)
HEADING = "document.getElementById('question')?.textContent"


def enter(browser: Browser, link: str, width: int = 1200, height: int = 800, mobile: bool = False) -> None:
    """Open a one-time link, and wait for the first question."""
    browser.open("about:blank", width)  # else only the part behind the # would change
    browser.open(link, width, height=height, mobile=mobile)
    browser.until(READY)


def item_heading(browser: Browser) -> str:
    return browser.js(HEADING)
