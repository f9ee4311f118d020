"""Coming in, staying in, being shut out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from helpers.judges import Clock, Server, User, pairs
from starlette.testclient import TestClient

from rlhf_lightning.feedback.server import people

Make = Callable[..., Server]


def test_a_token_works_once(make_server_on: Make) -> None:
    server = make_server_on()
    token = server.token()
    assert server.client().post("/api/session", json={"token": token}).status_code == 200
    for used in (token, token[:-1], token + "x", "x"):
        answer = server.client().post("/api/session", json={"token": used})
        assert (answer.status_code, answer.json()["error"]) == (401, "token")


def test_a_token_gets_old(make_server: Make, clock: Clock) -> None:
    server = make_server()
    token = server.token()
    clock.add(days=8)
    assert server.client().post("/api/session", json={"token": token}).status_code == 401


def test_a_new_link_takes_the_place_of_an_unused_one(make_server: Make) -> None:
    server = make_server()
    old, new = server.token(), server.token()
    assert server.client().post("/api/session", json={"token": old}).status_code == 401
    assert server.client().post("/api/session", json={"token": new}).status_code == 200


def test_a_session_lasts_as_long_as_it_is_used_and_outlives_the_server(make_server_on: Make, clock: Clock) -> None:
    server = make_server_on()
    user = server.user()
    for _ in range(4):
        clock.add(hours=11)
        assert user.get("me").status_code == 200
    again = Server(server.store, (), clock)
    client = TestClient(again.app, base_url="http://127.0.0.1:8000", cookies=dict(user.client.cookies))
    assert client.get("/api/me").json()["annotator"]["id"] == user.id
    clock.add(hours=13)
    assert client.get("/api/me").status_code == 401
    assert user.post("next", {"tab": "t"}).json()["error"] == "session"


def test_a_session_does_not_last_for_ever(make_server: Make, clock: Clock) -> None:
    user = make_server().user()
    passed = timedelta()
    while user.get("me").status_code == 200:
        clock.add(hours=10)
        passed += timedelta(hours=10)
    assert people.LONGEST <= passed < people.LONGEST + timedelta(hours=11)


def test_who_logs_out_is_out(make_server: Make) -> None:
    server = make_server()
    user = server.user()
    stolen = dict(user.client.cookies)
    assert user.client.delete("/api/session", headers=user.csrf).json() == {"left": True}
    assert user.get("me").status_code == 401
    assert server.client(cookies=stolen).get("/api/me").status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "é", "a" * 5000])
def test_a_made_up_cookie(make_server: Make, cookie: str) -> None:
    server = make_server()
    name = server.app.state.site.cookie
    headers = {"cookie": f"{name}={cookie}".encode()}
    assert server.client().get("/api/me", headers=headers).status_code == 401


def test_the_same_person_whenever_the_server_is_started(make_server: Make) -> None:
    server = make_server()
    first = server.user(number=1)
    first.prefer("good")
    again = server.user(number=1)
    assert again.id == first.id != server.user(number=0).id
    assert again.me["progress"]["done"] == 1


def test_names_are_kept_only_where_it_was_asked_for(make_server: Make) -> None:
    for keep in (False, True):
        server = make_server(keep_names=keep, name=f"p{int(keep)}")
        owner = server.user("owner")
        (link,) = owner.post("invitations", {"role": "adjudicator", "name": "Ada"}).json()["links"]
        client = server.client()
        me = client.post("/api/session", json={"token": link["url"].split("=")[1]}).json()
        assert me["annotator"] == {"id": link["id"], "role": "adjudicator", "name": "Ada" if keep else None}
        rows = {row["id"]: row["name"] for row in owner.get("dashboard").json()["people"]}
        assert rows[link["id"]] == ("Ada" if keep else None)
        assert all("name" not in row for row in User(server, client, me).get("dashboard").json()["people"])


def test_the_owner_invites_and_shuts_out(make_server_on: Make) -> None:
    server = make_server_on(raters=2)
    owner = server.user("owner")
    answer = owner.post("invitations", {"role": "annotator", "count": 3}).json()
    assert len({link["id"] for link in answer["links"]}) == 3
    assert answer["links"][0]["url"].startswith("http://127.0.0.1:8000/#token=")
    assert owner.post("invitations", {"role": "annotator", "count": 2, "name": "Ada"}).status_code == 422
    assert owner.post("invitations", {"role": "annotator", "count": 101}).status_code == 422
    client = server.client()
    me = client.post("/api/session", json={"token": answer["links"][0]["url"].split("=")[1]}).json()
    user = User(server, client, me)
    user.ask()
    assert owner.post(f"people/{user.id}", {"role": "adjudicator"}).json() == {"changed": True, "url": None}
    assert user.get("me").json()["annotator"]["role"] == "adjudicator"
    assert owner.post(f"people/{user.id}", {"active": False}).status_code == 200
    assert user.get("me").status_code == 401
    listed = {row["id"]: row for row in owner.get("people").json()["people"]}
    assert listed[user.id]["active"] is False
    link = owner.post(f"people/{user.id}", {"active": True, "link": True}).json()["url"]
    assert server.client().post("/api/session", json={"token": link.split("=")[1]}).status_code == 200
    assert owner.post(f"people/{owner.id}", {"role": "annotator"}).json()["error"] == "yourself"
    assert owner.post(f"people/{owner.id}", {"active": False}).json()["error"] == "yourself"
    assert owner.post("people/nobody", {"active": False}).status_code == 404


def test_no_link_is_made_that_lets_nobody_in(make_server: Make) -> None:
    server = make_server()
    owner = server.user("owner")
    (ada,) = owner.post("invitations", {"role": "annotator", "name": "Ada"}).json()["links"]
    owner.post(f"people/{ada['id']}", {"active": False})
    assert owner.post("invitations", {"role": "annotator", "name": "Ada"}).json()["error"] == "known"
    assert owner.post(f"people/{ada['id']}", {"link": True}).json()["error"] == "known"
    link = owner.post(f"people/{ada['id']}", {"link": True, "active": True}).json()["url"]
    assert server.client().post("/api/session", json={"token": link.split("=")[1]}).status_code == 200


def test_who_starts_the_server_is_its_owner(make_server_on: Make) -> None:
    """Another owner may take it from them while it runs; but no project is ever left without one."""
    server = make_server_on()
    owner = server.user("owner")
    (other,) = owner.post("invitations", {"role": "owner"}).json()["links"]
    client = server.client()
    second = User(server, client, client.post("/api/session", json={"token": other["url"].split("=")[1]}).json())
    for change in ({"role": "annotator"}, {"active": False}):
        assert second.post(f"people/{owner.id}", change).status_code == 200
        assert owner.get("people").status_code in (401, 403)
        assert server.user("owner").get("people").status_code == 200


def test_who_is_made_an_annotator_settles_nothing_any_more(make_server_on: Make) -> None:
    server = make_server_on(pairs(2), raters=2)
    one, two, judge, owner = server.user(), server.user(number=1), server.user("adjudicator"), server.user("owner")
    for _ in range(2):
        one.prefer("good")
        two.prefer("bad")
    judge.prefer("good", queue="adjudicate")
    question = judge.ask(queue="adjudicate")
    owner.post(f"people/{judge.id}", {"role": "annotator"})
    assert judge.say(question).json()["error"] == "lease_lost"
    assert judge.post("undo", {"tab": "tab"}).json()["error"] == "nothing"  # it would show what others said
    assert owner.ask(queue="adjudicate")["item"] is not None


def test_who_was_shut_out_gets_no_link_when_the_server_starts(make_server: Make) -> None:
    from rlhf_lightning.feedback.commands.serve import links

    server = make_server()
    user = server.user(number=0)
    owner = server.user("owner")
    assert [role for role, _ in links(server.project, 2, 1)] == ["owner", "annotator", "annotator", "adjudicator"]
    owner.post(f"people/{user.id}", {"active": False})
    assert [role for role, _ in links(server.project, 2, 1)] == ["owner", "annotator", "adjudicator"]
