"""From what the page shows and sends to the event in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.judges import Clock, Server, User

from rlhf_lightning.feedback.database import stamp
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.privacy.storing import Scrubber
from rlhf_lightning.feedback.server import judging
from rlhf_lightning.feedback.server.project import version_of

Make = Callable[..., Server]
TEXTS = ("alpha", "beta", "gamma")


def item(kind: str, count: int, number: int = 0, **more: Any) -> Item:
    asked = {"text": f"question {number}", "context": "beside it", "language": "en", "meta": {"row": number}}
    candidates = [{"text": text, "model": f"model-{text}"} for text in TEXTS[:count]]
    return Item.model_validate({"kind": kind, "task": "qa", "asked": asked, "candidates": candidates, **more})


def on_screen(question: dict) -> list[str]:
    return [candidate["text"] for candidate in question["item"]["candidates"]]


def answers(make_server: Make, kind: str, count: int, say: Callable[[list[str]], dict], **more: Any) -> list[Event]:
    """What 12 people, who see different orders, are stored to have said."""
    server = make_server([item(kind, count, **more)], raters=12)
    orders = set()
    for number in range(12):
        user = server.user(number=number)
        question = user.ask()
        texts = on_screen(question)
        orders.add(tuple(texts))
        answer = user.say(question, {"kind": kind, **say(texts)})
        assert answer.status_code == 200, answer.text
    assert len(orders) > 1 or count < 2
    log = server.log()[-12:]
    assert {tuple(event.candidates[i].text for i in event.shown.order) for event in log} == orders
    return log


def test_a_pair(make_server: Make) -> None:
    for event in answers(make_server, "pairwise", 2, lambda texts: {"outcome": "win", "winner": texts.index("beta")}):
        assert event.candidates[event.payload.winner].text == "beta"


def test_a_ranking(make_server: Make) -> None:
    wanted = {"gamma": 1, "alpha": 2, "beta": 2}
    for event in answers(make_server, "ranking", 3, lambda texts: {"ranks": [wanted[text] for text in texts]}):
        assert {c.text: rank for c, rank in zip(event.candidates, event.payload.ranks, strict=True)} == wanted


def test_ratings(make_server: Make) -> None:
    wanted = {"gamma": 5, "alpha": 1, "beta": 3}
    for aspects in ((), ("fluency", "safety")):
        names = aspects or ("overall",)
        more = {"aspects": aspects, "low": 0, "high": 10}
        log = answers(
            make_server,
            "rating",
            3,
            lambda texts, names=names: {
                "values": {name: [wanted[text] for text in texts] for name in names},
                "low": 0,
                "high": 10,
            },
            **more,
        )
        for event in log:
            for name in names:
                found = zip(event.candidates, event.payload.values[name], strict=True)
                assert {c.text: value for c, value in found} == wanted


def test_thumbs(make_server: Make) -> None:
    for event in answers(make_server, "thumbs", 3, lambda texts: {"up": [text == "beta" for text in texts]}):
        assert event.payload.up == (False, True, False)


def test_a_correction_marks_and_a_label(make_server: Make) -> None:
    corrected = answers(make_server, "correction", 1, lambda _: {"text": "ALPHA"})
    assert {event.payload.text for event in corrected} == {"ALPHA"}
    span = {"start": 0, "end": 5, "label": "wrong", "severity": "major"}
    marked = answers(make_server, "spans", 1, lambda _: {"spans": [span]}, labels=("wrong", "odd"))
    assert marked[-1].payload.spans[0].label == "wrong"
    labelled = answers(make_server, "label", 0, lambda _: {"label": "spam"}, labels=("spam", "ham"))
    assert labelled[-1].payload.label == "spam"


@pytest.mark.parametrize(
    ("kind", "more", "payload", "told"),
    [
        ("label", {"labels": ("a", "b")}, {"label": "c"}, "label"),
        ("spans", {"labels": ("a",)}, {"spans": [{"start": 0, "end": 1, "label": "b"}]}, "label"),
        ("spans", {}, {"spans": [{"start": 0, "end": 99, "label": "b"}]}, "beyond"),
        ("spans", {}, {"candidate": 1}, "candidate"),
        ("rating", {"aspects": ("a",)}, {"values": {"b": [1]}}, "values.b"),
        ("rating", {}, {"values": {"overall": [9]}, "high": 10}, "low and high"),
        ("rating", {}, {"values": {"overall": [9]}}, "scale"),
        ("rating", {}, {"values": {"overall": [1, 2]}}, "2 values for 1"),
        ("rating", {}, {"values": {}}, "missing"),
        ("correction", {}, {"text": "  "}, "missing"),
    ],
)
def test_answers_to_another_question(make_server: Make, kind: str, more: dict, payload: dict, told: str) -> None:
    user = make_server([item(kind, 0 if kind == "label" else 1, **more)]).user()
    answer = user.say(user.ask(), {"kind": kind, **payload})
    assert answer.status_code == 422
    assert told in answer.json()["message"]


def test_an_event_holds_all_that_was_shown(make_server: Make, clock: Clock) -> None:
    server = make_server(
        [item("pairwise", 2, strategy="margin", probability=0.25)],
        guidelines="# Be fair",
        consent="It is kept.",
        interface="page-1",
        blind=False,
    )
    server.project.keep_texts()
    user = server.user()
    assert user.post("next", {"tab": "t"}).json()["error"] == "consent"
    assert user.post("consent", {"version": "another"}).status_code == 409
    assert user.me["consent"] == {"version": version_of("It is kept."), "text": "It is kept.", "given": False}
    assert user.post("consent", {"version": user.me["consent"]["version"]}).json() == {"given": True}
    assert user.get("me").json()["consent"]["given"] is True
    question = user.ask()
    timing = {
        "shown": "2026-01-31T12:00:01Z",
        "first_action": "2026-01-31T14:00:02+02:00",
        "submitted": "2026-01-31T12:00:03.5Z",
        "active_ms": 1500,
    }
    clock.add(seconds=10)
    assert user.say(question, {"kind": "pairwise", "outcome": "both_bad"}, id="mine", timing=timing).status_code == 200
    (event,) = server.log()
    assert (event.id, event.project, event.task, event.kind, event.status) == (
        "mine",
        "default",
        "qa",
        "pairwise",
        "submitted",
    )
    assert event.asked.meta == {"row": 0}
    assert [c.model for c in event.candidates] == ["model-alpha", "model-beta"]
    assert (event.annotator.id, event.annotator.role) == (user.id, "annotator")
    assert event.consent == version_of("It is kept.")
    shown = event.shown
    assert (shown.blind, shown.interface, shown.guideline) == (False, "page-1", version_of("# Be fair"))
    assert (shown.strategy, shown.probability) == ("margin", 0.25)
    assert [event.candidates[i].text for i in shown.order] == on_screen(question)
    assert (event.timing.submitted - event.timing.shown).total_seconds() == 2.5
    assert event.timing.active_ms == 1500


def test_a_new_text_needs_a_new_consent(make_server: Make) -> None:
    server = make_server(consent="One.")
    user = server.user()
    user.post("consent", {"version": version_of("One.")})
    later = Server(server.store, (), server.clock, consent="Two.")
    token = later.token()
    client = later.client()
    me = client.post("/api/session", json={"token": token, "consent": version_of("One.")}).json()
    assert me["consent"]["given"] is False
    assert User(later, client, me).post("next", {"tab": "t"}).json()["error"] == "consent"
    me = later.client().post("/api/session", json={"token": later.token(), "consent": version_of("Two.")}).json()
    assert me["consent"]["given"] is True


def test_the_answer_to_the_known_question_is_kept_with_the_judgement(make_server: Make) -> None:
    expected = {"kind": "pairwise", "outcome": "win", "winner": 1}
    server = make_server([item("pairwise", 2, expected=expected)])
    server.user().prefer("beta")
    (event,) = server.log()
    assert event.gold
    assert event.payload.winner == event.expected.winner == 1


def test_drafts_follow_each_other(make_server: Make) -> None:
    server = make_server([item("correction", 1)])
    user = server.user()
    question = user.ask()
    for text in ("a", "al", "alp"):
        user.say(question, {"kind": "correction", "text": text}, "draft", id=f"draft-{text}")
    user.say(question, {"kind": "correction", "text": "alph"}, id="final")
    assert [(e.id, e.supersedes) for e in server.log()] == [
        ("draft-a", None),
        ("draft-al", "draft-a"),
        ("draft-alp", "draft-al"),
        ("final", "draft-alp"),
    ]


def test_a_draft_that_says_what_the_last_one_says_is_not_stored_again(make_server: Make) -> None:
    server = make_server([item("correction", 1)])
    user = server.user()
    question = user.ask()
    # Also where what is stored is not what was sent: personal data is replaced.
    server.store.scrubber = Scrubber()
    for text in ("a@example.org", "a@example.org", "b", "a@example.org"):
        assert user.say(question, {"kind": "correction", "text": text}, "draft").json()["stored"]
    texts = [event.payload.text for event in server.log()]
    assert len(texts) == 3
    assert texts[0] == texts[2] != "a@example.org"
    assert user.ask()["version"] == server.log()[-1].id
    assert user.ask()["written"] == stamp(server.log()[-1].time)


def test_what_one_person_stores_of_one_question_is_bounded(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST_DRAFTS", 3)
    monkeypatch.setattr(judging, "MOST_JUDGEMENTS", 2)
    server = make_server([item("correction", 1)], raters=2)
    user, other = server.user(), server.user(number=1)

    def say(person: User, text: str, status: str = "submitted") -> tuple[int, str | None]:
        answer = person.say(asked[person.id], {"kind": "correction", "text": text}, status)
        return answer.status_code, answer.json().get("error")

    asked = {user.id: user.ask(), other.id: other.ask()}
    assert [say(user, text, "draft")[0] for text in "abcc"] == [200] * 4
    assert say(user, "d", "draft") == (422, "too_often")
    assert say(other, "d", "draft")[0] == 200, "another person has room of their own"
    assert say(user, "d") == (200, None), "it is the drafts that are too many, not the answer"
    asked[user.id] = user.post("undo", {"tab": "tab"}).json()
    assert say(user, "e") == (200, None)
    asked[user.id] = user.post("undo", {"tab": "tab"}).json()
    assert say(user, "f") == (422, "too_often")
    assert user.say(asked[user.id], None, "skipped", reason="unclear").json()["error"] == "too_often"
    said = [event for event in server.log() if event.annotator.id == user.id]
    assert [event.status for event in said] == ["draft"] * 3 + ["submitted"] * 2
    assert [event.payload.text for event in server.current()] == ["e"], "the last answer holds"


def test_an_answer_has_room_in_proportion_to_its_question(make_server: Make) -> None:
    server = make_server([item("correction", 1)])
    user = server.user()
    question = user.ask()
    room = judging.ROOM + 2 * len("question 0" + "beside it" + "alpha")
    form = len('{"kind":"correction","candidate":0,"text":"","rationale":"why"}')
    long = {"kind": "correction", "text": "x" * (room - form), "rationale": "why"}
    assert user.say(question, {**long, "rationale": "why?"}, "draft").json()["error"] == "too_long"
    assert user.say(question, {**long, "rationale": "why?"}).json()["error"] == "too_long"
    assert server.log() == []
    assert user.say(question, long).status_code == 200


def test_a_draft_of_a_label_may_have_none_yet(make_server: Make) -> None:
    server = make_server([item("label", 1, labels=["x", "y"])])
    user = server.user()
    question = user.ask()
    unsure = {"kind": "label", "label": "", "candidate": 0, "rationale": "x or y"}
    assert user.say(question, unsure, "draft").status_code == 200
    assert user.ask()["draft"]["rationale"] == "x or y"
    assert user.say(question, unsure).json()["error"] == "payload"
    assert user.say(question, {**unsure, "label": "z"}, "draft").json()["error"] == "payload"


def test_a_chat_is_sent_as_turns(make_server: Make) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    one = Item.model_validate({"kind": "thumbs", "asked": {"text": turns}, "candidates": [{"text": "x"}]})
    question = make_server([one]).user().ask()
    assert question["item"]["asked"] == {"turns": turns, "context": None, "language": None}
