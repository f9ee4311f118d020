"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--remote-allow-origins=*"]

KEYS = {
    "Backspace": 8,
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Delete": 46,
}


class Browser:
    """One page, and all that it reported: requests, console messages, exceptions."""

    def __init__(self, profile: Path, language: str = "en") -> None:
        command = [
            str(CHROMIUM),
            *FLAGS,
            f"--lang={language}",
            f"--accept-lang={language}",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = profile / "DevToolsActivePort"
        for _ in range(600):
            if address.exists() and address.read_text().count("\n"):
                break
            time.sleep(0.1)
        port = address.read_text().split()[0]
        self.devtools = f"http://127.0.0.1:{port}/json"
        with urllib.request.urlopen(self.devtools) as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        self._connect(pages[0]["webSocketDebuggerUrl"])

    def _connect(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=120)
        self.events: list[dict[str, Any]] = []
        self.calls = 0
        self.painted = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def tab(self) -> Browser:
        """Another page of the same browser, with the same cookies and storage; it ends with the browser."""
        request = urllib.request.Request(f"{self.devtools}/new?about:blank", method="PUT")
        with urllib.request.urlopen(request) as answer:
            target = json.load(answer)
        made = copy.copy(self)
        made._connect(target["webSocketDebuggerUrl"])
        return made

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol; what else comes before its answer is kept as events."""
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.calls:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, page: Path | str, width: int, scripts: bool = True, height: int = 800, mobile: bool = False) -> None:
        """Show a file, or an address, on a screen of this size; a mobile one has touch."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self._loaded()

    def reload(self) -> None:
        """Load the page again."""
        self.call("Page.reload")
        self._loaded()

    def _loaded(self) -> None:
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))
        self.events = [event for event in self.events if event.get("method") != "Page.loadEventFired"]
        self.painted = False

    def _paint(self) -> None:
        """Wait until something is on the screen: Chromium drops keys and clicks that come before."""
        if not self.painted:
            self.until("performance.getEntriesByName('first-contentful-paint').length")
            self.painted = True

    def until(self, expression: str, seconds: float = 15) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never true: {expression}\n{self.js('document.body.innerText')[:500]}"
            time.sleep(0.05)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, *modifiers: str) -> None:
        """A key of the keyboard, down and up, with others held (Alt, Ctrl, Meta, Shift)."""
        self._paint()
        held = sum({"Alt": 1, "Ctrl": 2, "Meta": 4, "Shift": 8}[name] for name in modifiers)
        code = KEYS[key] if key in KEYS else ord(key.upper()) if key.isalnum() else 0
        named = f"Key{key.upper()}" if key.isalpha() and len(key) == 1 else f"Digit{key}" if key.isdigit() else key
        text = "\r" if key == "Enter" else key if len(key) == 1 and not held & 7 else None
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": named, "windowsVirtualKeyCode": code, "modifiers": held}
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", **event, **typed)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.call("Input.insertText", text=text)

    def centre(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is on the screen; it is scrolled there."""
        found = f"document.querySelector({json.dumps(selector)})"
        rect = "{const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]}"
        x, y = self.js(f"(e => {{e.scrollIntoView({{block: 'center'}}); {rect}}})({found})")
        return x, y

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse here, let go there."""
        self._paint()
        steps = [(start[0] + (end[0] - start[0]) * i / 8, start[1] + (end[1] - start[1]) * i / 8) for i in range(9)]
        held = {"button": "left", "buttons": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], clickCount=1, **held)
        for x, y in steps:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **held)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], clickCount=1, button="left")

    def tap(self, selector: str) -> None:
        """A finger on the middle of an element."""
        self._paint()
        x, y = self.centre(selector)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def touch_drag(self, start: tuple[float, float], end: tuple[float, float], rest: float = 0.4) -> None:
        """Put a finger here, let it rest for some seconds, move it there."""
        self._paint()
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": start[0], "y": start[1]}])
        time.sleep(rest)
        for i in range(1, 9):
            at = {"x": start[0] + (end[0] - start[0]) * i / 8, "y": start[1] + (end[1] - start[1]) * i / 8}
            self.call("Input.dispatchTouchEvent", type="touchMove", touchPoints=[at])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def picture(self, path: Path, whole: bool = False) -> None:
        """What is on the screen, or the whole page, as a PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def accessible(self) -> list[dict[str, str]]:
        """What a screen reader finds: role and name of each node that it is not told to pass over."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        said = [node for node in nodes if not node["ignored"]]
        return [{part: str(node.get(part, {}).get("value", "")) for part in ("role", "name")} for node in said]

    def reported(self, *methods: str) -> list[dict[str, Any]]:
        """The events of these kinds so far."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def close(self) -> None:
        """End it."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
