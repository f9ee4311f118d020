"""A real HTTP server on the loopback, whose answers a test scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Notes every request, and answers it as the script says."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.tokens.append(self.headers.get("Authorization"))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self, body)

    def do_GET(self) -> None:
        self.server.requests.append({"GET": self.path})
        reply(self, b"{}")

    def log_message(self, *args: Any) -> None:
        """Nothing on the screen."""


class Server(ThreadingHTTPServer):
    """One answer a request, in the order of the script; its last one for all that follow."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *script: Answer, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.requests, self.tokens = list(script), [], []  # type: ignore[var-annotated]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/score"


@contextmanager
def serving(*script: Answer, port: int = 0) -> Iterator[Server]:
    """A server in a thread of its own."""
    with Server(*script, port=port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def reply(handler: Handler, body: bytes, status: int = 200, **headers: str) -> None:
    """A whole answer."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def lengths(handler: Handler, body: dict[str, Any]) -> None:
    """A tenth of each completion's letters: what `length_reward` gives."""
    reply(handler, json.dumps({"rewards": [len(text) / 10 for text in body["completions"]]}).encode())


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Another status."""
    return lambda handler, _: reply(handler, body, code, **headers)


def says(body: bytes) -> Answer:
    """These bytes, with status 200."""
    return lambda handler, _: reply(handler, body)


def breaks_off(handler: Handler, body: dict[str, Any]) -> None:
    """The half of an answer, which is whole JSON, and then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(json.dumps({"rewards": [9.0] * len(body["completions"])}).encode())
    handler.close_connection = True


def hangs_up(handler: Handler, body: dict[str, Any]) -> None:
    """No answer at all."""
    handler.close_connection = True
