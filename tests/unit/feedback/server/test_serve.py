"""`rlhf-feedback serve`, the real thing: a process, a socket, a kill in the middle."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

import pytest
from helpers.judges import pairs

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.cli import main
from rlhf_lightning.feedback.commands import serve
from rlhf_lightning.feedback.events import Asked, Candidate
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.privacy.storing import Scrubber
from rlhf_lightning.feedback.store import Store

Links = list[tuple[str, str, str]]


@contextmanager
def serving(store: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], Links]]:
    """The process, and role, address and token of each link it prints."""
    command = [sys.executable, "-m", "rlhf_lightning.feedback.cli", "serve", "--store", store, "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    links: Links = []
    told = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            told += line
            if found := re.match(r"(\w+) +(http://\S+)/#token=(\S+)", line):
                links.append((found[1], found[2], found[3]))
            if "Ctrl-C" in line:
                break
        assert links, told
        yield process, links
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def call(browser: OpenerDirector, address: str, path: str, body: Any = None, csrf: str = "", **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    more = {"Content-Type": "application/json", "X-CSRF-Token": csrf, **headers}
    with browser.open(Request(f"{address}{path}", data, more), timeout=30) as answer:
        return json.load(answer)


def test_a_server_that_is_killed_loses_nothing_that_it_acknowledged(store_place: str, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(item.to_json() + "\n" for item in pairs(6)))
    browser = build_opener(HTTPCookieProcessor())
    ids = []
    with serving(store_place, "--items", str(items), "--annotators", "1") as (process, links):
        assert [role for role, *_ in links] == ["owner", "annotator"]
        _, address, token = links[1]
        me = call(browser, address, "/api/session", {"token": token})
        for _ in range(2):
            question = call(browser, address, "/api/next", {"tab": "t"}, me["csrf"])
            ids.append(uuid.uuid4().hex)
            payload = {"kind": "pairwise", "outcome": "win", "winner": 0}
            sent = {"id": ids[-1], "item": question["item"]["id"], "lease": question["lease"]["id"]}
            sent |= {"status": "submitted", "payload": payload}
            assert call(browser, address, "/api/judgements", sent, me["csrf"])["stored"]
        begun = call(browser, address, "/api/next", {"tab": "t"}, me["csrf"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    with Store(store_place, create=False) as store:
        assert [event.id for event in store.events()] == ids
    port = address.rpartition(":")[2]
    with serving(store_place, "--port", port) as (process, links):  # the questions are in the store
        assert [role for role, *_ in links] == ["owner"]
        again = call(browser, address, "/api/next", {"tab": "t"}, me["csrf"])
        assert (again["item"], again["lease"]["id"]) == (begun["item"], begun["lease"]["id"])
        assert again["progress"]["done"] == 2
        assert call(browser, address, "/api/judgements", sent, me["csrf"])["stored"]  # its answer was lost on the way
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in out
    with Store(store_place, create=False) as store:
        assert [event.id for event in store.events()] == ids


def test_over_a_real_socket(tmp_path: Path) -> None:
    store = str(tmp_path / "feedback.db")
    with Store(store) as open_store:
        open_store.add_items(pairs(3))
    with serving(store) as (process, links):
        ((_, address, token),) = links
        browser = build_opener(HTTPCookieProcessor())
        with pytest.raises(HTTPError) as told:
            call(browser, address, "/api/session", {"token": token}, Origin="https://evil.example")
        assert told.value.code == 403
        with pytest.raises(HTTPError) as told:
            call(browser, address, "/api/session", {"token": token}, Host="evil.example")
        assert told.value.code == 400
        host, port = address.removeprefix("http://").split(":")
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for request in (
            b"GET /static/../app.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET /static/%2e%2e/app.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ):
            assert b" 404 " in exchange(host, int(port), [request])
        head = b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        assert b" 413 " in exchange(host, int(port), [head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40])
        assert b" 413 " in exchange(host, int(port), [head + b"Content-Length: 99999999999\r\n\r\n"])
        assert b" 400 " in exchange(host, int(port), [b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n"])
        both = head + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"  # smuggling
        assert b" 400 " in exchange(host, int(port), [both])
        upgrade = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        assert b" 200 " in exchange(host, int(port), [upgrade])
        me = call(browser, address, "/api/session", {"token": token}, Origin=address)
        assert me["annotator"]["role"] == "owner"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    cookies = [cookie.value for handler in browser.handlers for cookie in getattr(handler, "cookiejar", [])]
    assert len(cookies) == 1
    for secret in (token, me["csrf"], *cookies):
        assert str(secret) not in out


def exchange(host: str, port: int, parts: list[bytes]) -> bytes:
    """What comes back for these bytes."""
    answer = b""
    with socket.create_connection((host, port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was told that it is too much, and hung up
        try:
            while b"\r\n\r\n" not in answer:
                got = connection.recv(65536)
                if not got:
                    break
                answer += got
        except ConnectionResetError:
            pass
    return answer


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(list(given))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "there is no feedback store"),
        (["--items", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--run", "nowhere"], "there is no folder nowhere"),
        (["--project", "../x"], "--project"),
        (["--gold-share", "0.6", "--repeat-share", "0.6"], "more than all"),
        (["--url", "judge.example.org"], "--url"),
        (["--guidelines", "nowhere.md"], "nowhere.md"),
    ],
)
def test_mistakes_are_told_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main(["serve", "--store", str(tmp_path / "x.db"), "--port", "0", *options]) == 2
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "x.db") as store:
        store.add_items(pairs(1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--store", str(tmp_path / "x.db"), "--port", port]) == 2
    assert "--port 0" in capsys.readouterr().err


def test_what_is_refused_leaves_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"prompt": "x", "a": "1", "b": "2"}\n')
    bad.write_text('{"prompt": "x", "a": "1", "b": "2"}\n{"prompt": "x", "a": "1"}\n')
    place = tmp_path / "x.db"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, said in (
            (["--items", str(bad)], "bad.jsonl, line 2"),
            (["--items", str(good), "--url", "nowhere"], "--url"),
            (["--items", str(good), "--guidelines", str(tmp_path / "none.md")], "none.md"),
            (["--items", str(good), "--port", port], "--port 0"),
            ([], "--items or --run"),
        ):
            assert main(["serve", "--store", str(place), *options]) == 2
            assert said in capsys.readouterr().err
            assert not place.exists()
    Store(place).close()
    assert main(["serve", "--store", str(place)]) == 2
    assert "holds no questions of the project default" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--raters", "0"], ["--port", "70000"], ["--gold-share", "2"], ["--annotators", "-1"]]
)
def test_numbers_out_of_their_range(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(*options)
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--raters", "two"], "argument --raters: a whole number from 1 to 1000, not 'two'"),
        (["--port", "x"], "argument --port: a whole number from 0 to 65535, not 'x'"),
        (["--repeat-share", "nan"], "argument --repeat-share: a number from 0 to 1, not 'nan'"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *options])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert "--help`" in said


def test_what_is_replaced_in_questions_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        Item(asked=Asked(text=text), candidates=(Candidate(text="1"), Candidate(text="2")))
        for text in ("to ann@example.org or bob@example.org", "call 415-555-0134", "plain")
    ]
    with Store(tmp_path / "x.db", scrubber=Scrubber()) as store:
        serve.prepare(store, arguments(), items)
        told = "3 placeholders in place of personal data (2 EMAIL, 1 PHONE): `rlhf-feedback review --all` lists them"
        assert told in capsys.readouterr().out.splitlines()
        serve.prepare(store, arguments(), items)
        assert "placeholder" not in capsys.readouterr().out


def test_what_the_options_say(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("# Be fair\n")
    with Store(tmp_path / "x.db") as store:
        store.add_items(pairs(2), "p")
        options = ["--project", "p", "--raters", "3", "--guidelines", str(tmp_path / "guide.md"), "--show-models"]
        project = serve.prepare(store, arguments(*options, "--keep-names", "--gold-share", "0.2"))
    assert (project.name, project.raters, project.guidelines) == ("p", 3, "# Be fair")
    assert (project.blind, project.keep_names, project.gold_share, project.repeat_share) == (False, True, 0.2, 0.05)


@pytest.mark.parametrize("host", ["192.0.2.7", "judge.lan", "localhost", "::1"])
def test_links_name_the_address_that_it_listens_at(host: str) -> None:
    assert serve.reached_at(host) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_links_of_a_server_at_every_address_name_one_that_others_reach(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = serve.reached_at(host)
    assert found != host
    assert not serve._loopback(found)

    class Alone(socket.socket):
        def connect(self, _: Any) -> None:
            raise OSError("no network")

    monkeypatch.setattr(socket, "socket", Alone)
    monkeypatch.setattr(socket, "gethostname", lambda: "judge-7")
    assert serve.reached_at(host) == "judge-7"


def test_a_server_at_every_address_says_how_it_is_reached(tmp_path: Path) -> None:
    store = str(tmp_path / "feedback.db")
    with Store(store) as open_store:
        open_store.add_items(pairs(1))
    with serving(store, "--host", "0.0.0.0") as (process, links):
        ((_, address, token),) = links
        assert "0.0.0.0" not in address
        assert call(build_opener(HTTPCookieProcessor()), address, "/api/session", {"token": token})["csrf"]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    host, _, port = address.removeprefix("http://").rpartition(":")
    assert f"the links name one of them, {host}." in out
    assert f"--url http://NAME:{port}" in out


def test_a_host_that_others_reach_is_warned_of(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.add_items(pairs(1))
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False), ("::1", False)):
        assert serve._loopback(host) is not warned
    with pytest.raises(UserError, match="can't listen"):
        serve._listen("203.0.113.1", 0)
