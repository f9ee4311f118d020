"""Attempts to break in."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from helpers.judges import HERE, PAGE, Clock, Server, User, pairs
from starlette.testclient import TestClient

from rlhf_lightning.feedback.database import tables
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.server.app import create_app
from rlhf_lightning.feedback.server.security import MAX_BODY, Rate, Refused, host_allowed
from rlhf_lightning.feedback.server.site import read_static

Make = Callable[..., Server]
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
WIN = {"kind": "pairwise", "outcome": "win", "winner": 0}
REFUSED = {400, 401, 403, 404, 405, 409, 413, 415, 422, 429}


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
    assert set(answer.json()) == {"error", "message"}


# --- what models write -----------------------------------------------------------------------------------------------


def test_a_script_in_a_completion_is_a_string_that_nothing_would_run(make_server: Make) -> None:
    item = Item.model_validate({"asked": {"text": SCRIPT}, "candidates": [{"text": SCRIPT}, {"text": "b"}]})
    user = make_server([item]).user()
    answer = user.post("next", {"tab": "t", "queue": "judge"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["item"]["asked"]["text"] == SCRIPT
    for response in (answer, user.client.get("/"), user.client.get("/static/page.js"), user.client.get("/nowhere")):
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in str(policy)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in response.headers
    assert answer.headers["cache-control"] == "no-store"
    assert user.client.get("/").headers["content-type"].startswith("text/html")


def test_the_page_loads_nothing_that_its_policy_forbids() -> None:
    for name, content in read_static().items():
        text = content.decode() if not name.endswith(".png") else ""
        assert not re.search(r"""(src|href|from|import)\s*[=(]?\s*["'](https?:)?//""", text), name
        if name.endswith(".html"):
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son[a-z]+\s*=|\sstyle\s*=", text), name


def test_models_names_are_sent_only_where_people_do_not_judge_blind(make_server: Make) -> None:
    assert "model" not in make_server().user().post("next", {"tab": "t"}).text.replace("secret-models", "")
    answer = make_server(blind=False).user().ask()
    assert sorted(c["model"] for c in answer["item"]["candidates"]) == ["other-model", "secret-model"]


# --- another page ----------------------------------------------------------------------------------------------------

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "https://127.0.0.1:8000"},
    {"origin": "http://localhost:8000"},
    {"origin": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": HERE, "sec-fetch-site": "cross-site"},
]
CHANGES = ["consent", "next", "judgements", "undo", "heartbeat", "invitations", "people/someone"]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_change_that_another_page_asks_for_is_refused(make_server: Make, headers: dict[str, str]) -> None:
    server = make_server()
    user = server.user("owner")
    for path in CHANGES:
        answer = user.client.post(f"/api/{path}", json={"tab": "t"}, headers={**user.csrf, **headers})
        refused(answer, 403, "foreign_origin")
    refused(user.client.delete("/api/session", headers={**user.csrf, **headers}), 403, "foreign_origin")
    token = server.token()
    refused(server.client().post("/api/session", json={"token": token}, headers=headers), 403, "foreign_origin")
    assert server.client().post("/api/session", json={"token": token}).status_code == 200


def test_the_own_page_is_let_in(make_server: Make) -> None:
    user = make_server().user()
    same = {**user.csrf, "origin": HERE, "sec-fetch-site": "same-origin"}
    assert user.client.post("/api/next", json={"tab": "t"}, headers=same).status_code == 200


def test_behind_a_proxy_its_address_is_the_own_one(make_server: Make) -> None:
    server = make_server(address="https://Judge.example.org:8443/")
    client = server.client(headers={"host": "judge.example.org:8443", "origin": "https://judge.example.org:8443"})
    answer = client.post("/api/session", json={"token": server.token("owner")})
    refused(answer, 403, "foreign_origin")  # the case of the name is as the browser sends it, in small letters
    server = make_server(address="https://judge.example.org:8443/")
    client = TestClient(server.app, headers={"host": "judge.example.org:8443"})
    origin = {"origin": "https://judge.example.org:8443"}
    answer = client.post("/api/session", json={"token": server.token("owner")}, headers=origin)
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é" * 64, "\ud800"], ids=repr)
def test_a_change_without_the_pages_token_is_refused(make_server: Make, token: str | None) -> None:
    user = make_server().user("owner")
    given = {} if token is None else {"X-CSRF-Token": token.encode("utf-8", "surrogatepass")}
    for path in CHANGES:
        refused(user.client.post(f"/api/{path}", json={"tab": "t"}, headers=given), 403, "csrf")
    refused(user.client.delete("/api/session", headers=given), 403, "csrf")


def test_another_persons_csrf_token_is_refused(make_server: Make) -> None:
    server = make_server()
    one, two = server.user(number=0), server.user(number=1)
    refused(one.client.post("/api/next", json={"tab": "t"}, headers=two.csrf), 403, "csrf")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_read(make_server: Make, kind: str) -> None:
    user = make_server().user("owner")
    for path in CHANGES:
        headers = {**user.csrf, "content-type": kind}
        refused(user.client.post(f"/api/{path}", content=b'{"tab": "t"}', headers=headers), 415, "content_type")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:8000", True),
        ("192.168.1.7:80", True),
        ("judge.example.org", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("evil.example:80@127.0.0.1", False),
        ("127.0.0.1/evil.example", False),
        ("127.0.0.1:port", False),
        ("127.0.0.1:99999", False),
        ("[::1", False),
        ("", False),
        ("127.1", False),
        ("0x7f000001", False),
    ],
)
def test_names_that_the_server_is_called_by(host: str, allowed: bool) -> None:
    assert host_allowed(host, ["judge.example.org"]) is allowed


def test_a_foreign_name_that_points_here_is_refused(make_server: Make) -> None:
    """DNS rebinding: the browser would take our answers for that name's own."""
    server = make_server()
    user = server.user()
    for path in ("/", "/static/page.js", "/api/me", "/nowhere"):
        refused(user.client.get(path, headers={"host": "evil.example:8000"}), 400, "host")


def test_the_name_that_it_listens_at_is_its_own(make_server: Make) -> None:
    app = create_app(make_server().project, PAGE, host="Judge.lan")
    assert TestClient(app, base_url="http://judge.lan:8321").get("/").status_code == 200
    assert TestClient(app, base_url="http://evil.lan:8321").get("/").status_code == 400


def test_a_public_name_is_no_name_of_another_server(make_server: Make) -> None:
    app = make_server(address="https://judge.example.org").app
    assert TestClient(app, base_url="https://judge.example.org").get("/").status_code == 200
    assert TestClient(app, base_url="https://judge.example.org.evil.example").get("/").status_code == 400


# --- who may do what -------------------------------------------------------------------------------------------------

EVERYONE = {"annotator", "adjudicator", "owner"}
ROUTES = [
    ("GET", "/api/me", None, EVERYONE),
    ("POST", "/api/consent", {"version": "x"}, EVERYONE),
    ("POST", "/api/next", {"tab": "t", "queue": "judge"}, EVERYONE),
    ("POST", "/api/next", {"tab": "t", "queue": "adjudicate"}, {"adjudicator", "owner"}),
    ("POST", "/api/judgements", {"id": "a", "item": "b", "lease": "c", "status": "draft"}, EVERYONE),
    ("POST", "/api/undo", {"tab": "t"}, EVERYONE),
    ("POST", "/api/heartbeat", {"lease": "x"}, EVERYONE),
    ("POST", "/api/release", {"lease": "x"}, EVERYONE),
    ("GET", "/api/dashboard", None, {"adjudicator", "owner"}),
    ("GET", "/api/people", None, {"owner"}),
    ("POST", "/api/invitations", {"role": "annotator", "count": 1}, {"owner"}),
    ("POST", "/api/people/someone", {"active": False}, {"owner"}),
    ("DELETE", "/api/session", None, EVERYONE),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "roles"), ROUTES, ids=[f"{m} {p} {i}" for i, (m, p, *_) in enumerate(ROUTES)]
)
def test_roles(make_server: Make, method: str, path: str, body: Any, roles: set[str]) -> None:
    server = make_server()
    for role in sorted(EVERYONE):
        user = server.user(role)  # type: ignore[arg-type]
        answer = user.client.request(method, path, json=body, headers=user.csrf)
        told = answer.json().get("error")
        assert (told == "role") is (role not in roles), (role, answer.text)
        assert answer.status_code not in ((401, 500) if role in roles else range(200, 300))
    stranger = server.client().request(method, path, json=body)
    refused(stranger, 401, "session")


def test_every_route_is_in_the_table(make_server: Make) -> None:
    known = {(method, re.sub("someone", "{name}", path)) for method, path, *_ in ROUTES}
    known |= {("GET", "/"), ("GET", "/static/{name:path}"), ("POST", "/api/session")}
    found = set()

    def walk(routes: Any) -> None:
        for route in routes:
            inner = getattr(getattr(route, "original_router", None), "routes", None)
            if inner is not None:
                walk(inner)
            else:
                found.update((method, route.path) for method in route.methods - {"HEAD"})

    walk(make_server().app.routes)
    assert found == known


# --- guessing, replaying ---------------------------------------------------------------------------------------------


def test_ids_and_leases_that_are_guessed_or_anothers(make_server: Make) -> None:
    server = make_server(raters=2)
    one, two = server.user(number=0), server.user(number=1)
    his = one.ask()
    hers = two.ask()
    assert his["item"]["asked"] == hers["item"]["asked"]
    assert his["item"]["id"] != hers["item"]["id"]
    for question in (
        his,
        {**his, "lease": hers["lease"]},
        {**hers, "lease": his["lease"]},
        {**his, "lease": {"id": "guess"}},
        {**hers, "item": {"id": "q0"}},
        {**hers, "item": {"id": "' or 1=1 --"}},
    ):
        refused(two.say(question), 409, "lease_lost")
    refused(two.post("heartbeat", {"lease": his["lease"]["id"]}), 409, "lease_lost")
    refused(two.post("people/" + one.id, {"active": False}), 403, "role")
    assert server.log() == []
    assert two.say(hers).status_code == 200


def test_a_judgement_that_is_sent_again_is_stored_once(make_server: Make) -> None:
    server = make_server()
    user = server.user()
    question = user.ask()
    for _ in range(3):
        assert user.say(question, WIN, id="my-judgement").json()["stored"] is True
    assert len(server.log()) == 1
    changed = user.say(question, {**WIN, "winner": 1}, id="my-judgement")
    refused(changed, 409, "known_id")
    refused(user.say(question, {"kind": "pairwise", "outcome": "tie"}, id="another-id"), 409, "lease_lost")


def test_anothers_id_tells_nothing(make_server: Make) -> None:
    server = make_server(raters=2)
    one, two = server.user(number=0), server.user(number=1)
    one.say(one.ask(), {**WIN, "rationale": "private words"}, id="taken")
    answer = two.say(two.ask(), {**WIN, "rationale": "private words"}, id="taken")
    refused(answer, 409, "known_id")
    own = two.say(two.ask(), WIN, id="mine")
    assert own.status_code == 200
    assert answer.json() == two.say(two.ask(), {"kind": "pairwise", "outcome": "tie"}, id="mine").json()
    assert "private" not in answer.text


@pytest.mark.parametrize(
    "sent",
    [
        {"expected": WIN},
        {"annotator": {"id": "x", "role": "owner"}},
        {"supersedes": "x"},
        {"adjudicates": ["x"]},
        {"shown": {"order": [0, 1]}},
        {"status": "erased"},
        {"status": "retracted"},
        {"id": "../../etc/passwd"},
        {"id": "x" * 101},
        {"payload": {**WIN, "winner": 2}},
        {"payload": {**WIN, "winner": -1}},
        {"payload": {**WIN, "admin": True}},
        {"payload": {"kind": "implicit", "signal": "click"}},
        {"payload": {"kind": "thumbs", "up": [True, False]}},
        {"payload": {"kind": "ranking", "ranks": [1] * 1000}},
        {"payload": {**WIN, "aspect": "made up"}},
        {"payload": None},
        {"payload": WIN, "status": "skipped"},
        {"reason": "x" * 5000},
        {"timing": {"shown": "2026-01-31T12:30:00Z"}},
        {"timing": {"shown": "2026-01-31T12:00:00Z", "submitted": "2026-01-31T11:59:00Z"}},
        {"timing": {"shown": "2026-01-31T12:00:00"}},
        {"timing": {"active_ms": -1}},
        {"timing": {"active_ms": 1e400}},
        {"timing": {"active_ms": 10**400}},
        {"timing": {"shown": "0001-01-01T00:00:00+14:00"}},
        {"timing": {"shown": "2026-01-31T11:59:00Z", "submitted": "2026-01-31T12:00:00Z", "active_ms": 62_000}},
        {"lease": ["x"]},
    ],
    ids=lambda sent: str(sent)[:50],
)
def test_what_the_page_may_not_say(make_server: Make, sent: dict[str, Any]) -> None:
    server = make_server()
    user = server.user()
    question = user.ask()
    body = {"id": "a", "item": question["item"]["id"], "lease": question["lease"]["id"], "status": "submitted"}
    text = json.dumps({**body, "payload": WIN, **sent})
    answer = user.client.post(
        "/api/judgements", content=text, headers={**user.csrf, "content-type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"error", "message"}
    assert server.log() == []


# --- odd bodies ------------------------------------------------------------------------------------------------------


def send(user: User, content: Any) -> Any:
    return user.client.post(
        "/api/judgements", content=content, headers={**user.csrf, "content-type": "application/json"}
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"payload":' * 5000 + b"1" + b"}" * 5000,
        b'{"id": "a", "item": "b", "lease": "\\ud800", "status": "draft"}',
        b'{"id": "a", "item": "b", "lease": "\\u0000", "status": "draft"}',
        b'{"id": "a", "item": "b", "lease": "c", "status": "draft", "payload": NaN}',
        b'{"id": 1' + b"0" * 5000 + b"}",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_bodies_that_are_no_request(make_server: Make, content: bytes) -> None:
    answer = send(make_server().user(), content)
    assert answer.status_code in (400, 422)
    assert len(answer.text) < 500


@pytest.mark.parametrize("text", ["a\ud800b", "nul\x00nul"], ids=repr)
def test_texts_that_no_database_holds(make_server: Make, text: str) -> None:
    server = make_server()
    user = server.user("owner")
    question = user.ask()
    body = {"id": "a", "item": question["item"]["id"], "lease": question["lease"]["id"], "status": "draft"}
    for more in ({"reason": text}, {"payload": {**WIN, "rationale": text}}, {"item": text}, {"lease": text}):
        assert send(user, json.dumps({**body, **more})).status_code in (400, 422)
    for path, told in (("next", {"tab": text}), ("invitations", {"role": "annotator", "name": text})):
        answer = user.client.post(
            f"/api/{path}", content=json.dumps(told), headers={**user.csrf, "content-type": "application/json"}
        )
        assert answer.status_code in (400, 422)
    assert server.log() == []


def test_bodies_that_are_too_large(make_server: Make) -> None:
    user = make_server().user()
    refused(send(user, b" " * (MAX_BODY + 1)), 413, "too_large")
    read = 0

    def without_a_length() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b" " * 65536

    refused(send(user, without_a_length()), 413, "too_large")
    headers = {**user.csrf, "content-type": "application/json", "content-length": "-5"}
    refused(user.client.post("/api/judgements", content=b"{}", headers=headers), 413, "too_large")
    stranger = user.server.client().post("/api/session", content=b" " * (MAX_BODY + 1))
    refused(stranger, 413, "too_large")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/%2e%2e%2fapp.py",
        "/static/..%5capp.py",
        "/static/%252e%252e%252fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/page.js%00.html",
        "/static/",
        "/static/i18n",
        "/static/i18n/../page.js",
        "/static/page.JS",
        "/app.py",
        "/docs",
        "/openapi.json",
    ],
)
def test_files_outside_the_page(make_server: Make, path: str) -> None:
    app = make_server().app
    refused(raw(app, path), 404, "not_found")
    assert raw(app, "/static/page.js").status_code == 200
    assert raw(app, "/static/i18n/zh.js").status_code == 200


def raw(app: Any, path: str) -> Any:
    """A GET of exactly this path: a client would tidy it."""
    from urllib.parse import unquote

    import anyio
    import httpx

    async def call() -> httpx.Response:
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        return httpx.Response(sent[0]["status"], content=body)

    return anyio.run(call)


# --- how often -------------------------------------------------------------------------------------------------------


def test_a_bucket_of_tokens() -> None:
    now = 0.0
    rate = Rate(burst=3, each_second=2, clock=lambda: now)
    for _ in range(3):
        rate.take("a")
    with pytest.raises(Refused):
        rate.take("a")
    rate.take("b")
    now = 0.5
    rate.take("a")
    with pytest.raises(Refused):
        rate.take("a")
    now = 1000.0
    for _ in range(3):
        rate.take("a")
    with pytest.raises(Refused):
        rate.take("a")
    for i in range(20_000):
        rate.take(f"made up {i}")
    assert len(rate._left) <= 10_000


def test_too_many_requests_of_a_session_and_tries_to_come_in(make_server: Make) -> None:
    server = make_server()
    one, two = server.user(number=0), server.user(number=1)
    server.app.state.site.rate.burst = server.app.state.site.entries.burst = 5
    answers = [one.get("me") for _ in range(40)]
    assert {a.status_code for a in answers} == {200, 429}
    refused(next(a for a in answers if a.status_code == 429), 429, "too_many")
    assert next(a for a in answers if a.status_code == 429).headers["retry-after"] == "1"
    assert two.get("me").status_code == 200
    tries = [server.client().post("/api/session", json={"token": f"guess {i}"}).status_code for i in range(12)]
    assert {401, 429} == set(tries)


# --- what is kept and told -------------------------------------------------------------------------------------------


def test_the_store_and_the_log_hold_no_secret_and_no_name(
    make_server: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    server = make_server()
    owner = server.user("owner")
    link = owner.post("invitations", {"role": "annotator", "name": "Ada Lovelace"}).json()["links"][0]
    token = link["url"].split("#token=")[1]
    client = server.client()
    client.post("/api/session", json={"token": token})
    unused = owner.post("invitations", {"role": "annotator"}).json()["links"][0]["url"].split("#token=")[1]
    question = owner.ask()
    owner.say(question, {**WIN, "rationale": "private words"})

    from rlhf_lightning.feedback.server import leases

    def fail(*_: Any) -> None:
        raise ValueError(" ".join(("private", "words")))  # the log shows the line

    monkeypatch.setattr(leases, "take_back", fail)
    refused(owner.post("undo", {"tab": "t"}), 500, "internal")
    told = caplog.text
    assert "ValueError" in told
    assert "/api/undo" in told
    stored = ""
    with server.store.engine.connect() as connection:
        for table in tables.sorted_tables:
            stored += str(connection.execute(sa.select(table)).all())
    cookies = [*client.cookies.values(), *owner.client.cookies.values()]
    for secret in (token, unused, *cookies, owner.csrf["X-CSRF-Token"]):
        assert secret not in stored
        assert secret not in told
    assert "Lovelace" not in stored
    assert "lovelace" not in stored.lower()
    assert question["lease"]["id"] not in told
    assert "private words" not in told


def test_an_id_does_not_tell_a_name(make_server: Make, tmp_path: Any) -> None:
    from rlhf_lightning.feedback.store import Store

    server = make_server()
    owner = server.user("owner")
    ids = {
        owner.post("invitations", {"role": "annotator", "name": n}).json()["links"][0]["id"] for n in ("Ada", "ada ")
    }
    assert len(ids) == 1  # the same person
    with Store(tmp_path / "other.db") as store:
        other = Server(store, pairs(1), Clock()).user("owner")
        ids.add(other.post("invitations", {"role": "annotator", "name": "Ada"}).json()["links"][0]["id"])
    assert len(ids) == 2
    import hashlib

    for name in ("Ada", "ada", b"Ada".hex()):
        for kind in ("md5", "sha1", "sha256", "blake2b"):
            digest = hashlib.new(kind, name.encode()).hexdigest()
            assert not any(one in digest for one in ids)


def test_the_cookie_is_for_the_browser_alone(make_server: Make) -> None:
    server = make_server()
    answer = server.client().post("/api/session", json={"token": server.token()})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/api" in cookie
    assert "Domain" not in cookie
    assert next(iter(answer.cookies.values())) not in answer.text


def test_the_default_page_is_served(make_server: Make) -> None:
    client = TestClient(create_app(make_server().project), base_url=HERE)
    for name in read_static():
        assert client.get(f"/static/{name}").status_code == 200
