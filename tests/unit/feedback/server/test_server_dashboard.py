"""What the owner sees while people judge, against counts made by loops over the log."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest
from helpers.judges import Server, pairs

from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.privacy import erasing

Make = Callable[..., Server]


def gold(number: int) -> Item:
    return Item.model_validate(
        {
            "id": f"gold{number}",
            "asked": {"text": f"known {number}"},
            "candidates": [{"text": "good"}, {"text": "bad"}],
            "expected": {"kind": "pairwise", "outcome": "win", "winner": 0},
        }
    )


def test_counts_speed_and_agreement(make_server_on: Make) -> None:
    server = make_server_on([*pairs(14), *map(gold, range(6))], raters=2, gold_share=0.3, repeat_share=0.3)
    users = [server.user(number=i) for i in range(3)]
    owner = server.user("owner")
    tastes = [("good", "good"), ("good", "bad"), ("bad", "good", "good")]
    for turn in range(90):
        number = turn % 3
        user = users[number]
        question = user.ask()
        if question["item"] is None:
            continue
        if turn % 14 == 0:
            user.say(question, None, "skipped")
            continue
        if turn % 11 == 0:
            user.say(question, {"kind": "pairwise"}, "draft")
        text = tastes[number][turn // 3 % len(tastes[number])]
        winner = [c["text"] for c in question["item"]["candidates"]].index(text)
        payload = {"kind": "pairwise", "outcome": "win", "winner": winner}
        user.say(question, payload, timing={"active_ms": 1000 * (number + 1) + turn})
        server.clock.add(minutes=25)
        if turn % 10 == 5:
            owner.get("dashboard")  # what it has read so far must not matter
    told = owner.get("dashboard").json()
    log = server.current()
    assert told["judgements"]["submitted"] == len(log) == sum(row["done"] for row in told["people"])
    assert told["judgements"]["skipped"] == sum(e.status == "skipped" for e in server.log())
    assert told["by_kind"] == {"pairwise": len(log)}
    days = Counter(str(event.time.date()) for event in log)
    assert {row["day"]: row["count"] for row in told["by_day"]} == days
    assert len(days) > 1
    alike = {user.id: [] for user in users}
    for a, b in combinations([event for event in log if not event.gold], 2):
        if a.item == b.item and a.annotator.id != b.annotator.id:
            for event in (a, b):
                alike[event.annotator.id].append(a.payload.winner == b.payload.winner)
    rows = {row["id"]: row for row in told["people"]}
    for user in users:
        own = [event for event in log if event.annotator.id == user.id]
        row = rows[user.id]
        assert row["median_seconds"] == pytest.approx(statistics.median(e.timing.active_ms / 1000 for e in own))
        assert (row["agreement"], row["compared"]) == (
            pytest.approx(statistics.mean(alike[user.id])),
            len(alike[user.id]),
        )
        right = [event.payload.winner == 0 for event in own if event.gold]
        share = pytest.approx(statistics.mean(right)) if right else None  # who was asked gold is up to chance
        assert row["gold"] == {"accuracy": share, "count": len(right)}
        first = {event.item: event.payload.winner for event in own}
        again = [event.payload.winner == first[event.repeats] for event in own if event.repeats]
        assert row["repeats"]["count"] == len(again)
        assert row["repeats"]["agreement"] == (pytest.approx(statistics.mean(again)) if again else None)
    every = [x for found in alike.values() for x in found]
    assert told["agreement"] == {"value": pytest.approx(statistics.mean(every)), "pairs": len(every) // 2}
    items = told["items"]
    assert items["total"] == 14
    assert items["open"] + items["done"] + items["disputed"] == 14
    assert items["gold"] == 6


def test_what_was_erased_is_not_counted_any_more(make_server: Make) -> None:
    server = make_server()
    user, owner = server.user(), server.user("owner")
    user.prefer("good")
    user.prefer("good")
    assert owner.get("dashboard").json()["judgements"]["submitted"] == 2
    erasing.erase(server.store, erasing.annotator(server.store, user.id), "anonymise")
    told = owner.get("dashboard").json()
    assert told["judgements"]["submitted"] == 2
    assert [row["done"] for row in told["people"] if row["id"] == user.id] in ([], [0])
    other = server.user(number=1)
    other.prefer("good")
    assert owner.get("dashboard").json()["judgements"]["submitted"] == 3
    erasing.erase(server.store, erasing.annotator(server.store, other.id), "remove")
    assert owner.get("dashboard").json()["judgements"]["submitted"] == 2


def test_before_anyone_has_judged(make_server: Make) -> None:
    told = make_server().user("owner").get("dashboard").json()
    assert told["agreement"] == {"value": None, "pairs": 0}
    assert told["people"][0]["median_seconds"] is None
