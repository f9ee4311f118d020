"""A project with a clock that is set by hand, and people who use its server as the page does."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from starlette.testclient import TestClient

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.server import people, standing
from rlhf_lightning.feedback.server.app import create_app
from rlhf_lightning.feedback.server.people import PersonRole
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.tables import turn
from rlhf_lightning.feedback.store import Store

HERE = "http://127.0.0.1:8000"
PAGE = {"page.html": b"<!doctype html><title>page</title>", "page.js": b"export {}", "i18n/zh.js": b"export {}"}


class Clock:
    """A clock that is moved by hand, and a millisecond each time it is read."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    def add(self, **how_long: float) -> None:
        self.time += timedelta(**how_long)


class User:
    """A person at the page."""

    def __init__(self, server: Server, client: TestClient, me: dict[str, Any]) -> None:
        self.server, self.client, self.me = server, client, me
        self.id = me["annotator"]["id"]
        self.csrf = {"X-CSRF-Token": me["csrf"]}

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """The answer to a change."""
        return self.client.post(f"/api/{path}", json={} if body is None else body, headers=self.csrf, **options)

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/{path}")

    def ask(self, tab: str = "tab", queue: str = "judge") -> dict[str, Any]:
        """The next question."""
        answer = self.post("next", {"tab": tab, "queue": queue})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def say(self, question: dict[str, Any], payload: Any = None, status: str = "submitted", **more: Any) -> Any:
        """The answer to a judgement of it; a pair's first one wins where nothing else is said."""
        if payload is None and status == "submitted":
            payload = {"kind": "pairwise", "outcome": "win", "winner": 0}
        body = {
            "id": uuid.uuid4().hex,
            "item": question["item"]["id"],
            "lease": question["lease"]["id"],
            "status": status,
            "payload": payload,
            "reason": None,
            "timing": {},
            **more,
        }
        return self.post("judgements", body)

    def prefer(self, text: str, tab: str = "tab", queue: str = "judge") -> dict[str, Any]:
        """Take the next pair and say that the candidate of this text wins."""
        question = self.ask(tab, queue)
        texts = [candidate["text"] for candidate in question["item"]["candidates"]]
        answer = self.say(question, {"kind": "pairwise", "outcome": "win", "winner": texts.index(text)})
        assert answer.status_code == 200, answer.text
        return question


class Server:
    """A project's server; each user has a client of their own."""

    def __init__(self, store: Store, items: Sequence[Item], clock: Clock, **options: Any) -> None:
        self.store, self.clock = store, clock
        if items:
            store.add_items(items, options.get("name", "default"))
        self.project = Project(store, now=clock, **{"gold_share": 0.0, "repeat_share": 0.0, **options})
        with turn(store) as connection:
            standing.catch_up(self.project, connection)
        self.app = create_app(self.project, PAGE)
        self.app.state.site.rate.burst = self.app.state.site.entries.burst = 10**6

    def client(self, **options: Any) -> TestClient:
        return TestClient(self.app, base_url=HERE, **options)

    def token(self, role: PersonRole = "annotator", number: int = 0) -> str:
        with turn(self.store) as connection:
            token = people.place(self.project, connection, role, number)
        assert token is not None
        return token

    def user(self, role: PersonRole = "annotator", number: int = 0) -> User:
        return User(self, *self.enter(self.token(role, number)))

    def enter(self, token: str) -> tuple[TestClient, dict[str, Any]]:
        """A client that is in, and what the page is told of the person."""
        client = self.client()
        answer = client.post("/api/session", json={"token": token, "consent": None})
        assert answer.status_code == 200, answer.text
        return client, answer.json()

    def log(self) -> list[Event]:
        return list(self.store.events(self.project.name))

    def current(self) -> list[Event]:
        return current(self.log())


def pairs(count: int, **fields: Any) -> list[Item]:
    """Pairs of the texts ``good`` and ``bad``, each about another prompt."""
    candidates = ({"text": "good", "model": "secret-model"}, {"text": "bad", "model": "other-model"})
    return [
        Item.model_validate({"id": f"q{i}", "asked": {"text": f"question {i}"}, "candidates": candidates, **fields})
        for i in range(count)
    ]
