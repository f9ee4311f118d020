"""Which question whom: leases, raters, repeats, disagreements; on both databases."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.judges import Clock, Server, User, pairs

from rlhf_lightning.feedback.database import events
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.server import people as people_of
from rlhf_lightning.feedback.server import progress, queue, standing
from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.tables import assignments, people, turn
from rlhf_lightning.feedback.server.tables import queue as queue_table
from rlhf_lightning.feedback.store import Store

Make = Callable[..., Server]
WIN = {"kind": "pairwise", "outcome": "win", "winner": 0}


def asked(question: dict) -> str:
    return question["item"]["asked"]["text"]


def test_a_reload_gives_the_same_question_with_its_draft(make_server_on: Make) -> None:
    user = make_server_on().user()
    question = user.ask()
    draft = {**WIN, "outcome": None, "winner": None, "rationale": "not sure yet"}
    assert user.say(question, draft, "draft", reason="later").status_code == 200
    again = user.ask()
    assert (again["item"], again["lease"]["id"]) == (question["item"], question["lease"]["id"])
    assert (again["draft"]["rationale"], again["reason"]) == ("not sure yet", "later")


def test_two_tabs_get_two_questions_and_too_many_are_refused(make_server_on: Make) -> None:
    user = make_server_on(pairs(20)).user()
    shown = [asked(user.ask(f"tab {i}")) for i in range(queue.MOST_LEASES)]
    assert len(set(shown)) == queue.MOST_LEASES
    assert user.post("next", {"tab": "one more", "queue": "judge"}).json()["error"] == "too_many_tabs"


def test_the_highest_priority_comes_first_and_then_the_oldest(make_server_on: Make) -> None:
    items = [item.model_copy(update={"priority": p}) for item, p in zip(pairs(4), (0, 2, 1, 2), strict=True)]
    user = make_server_on(items).user()
    assert [asked(user.prefer("good")) for _ in items] == [f"question {i}" for i in (1, 3, 2, 0)]


def test_questions_added_later_are_asked_too(make_server_on: Make) -> None:
    server = make_server_on(pairs(1))
    user = server.user()
    user.prefer("good")
    assert user.ask()["why"] == "done"
    server.store.add_items(pairs(2))
    server.store.add_items(pairs(1, id="other"), "another project")
    assert asked(user.prefer("good")) == "question 1"
    assert user.ask()["why"] == "done"


@pytest.mark.parametrize("raters", [1, 3])
def test_each_question_goes_to_as_many_people_as_it_wants_and_to_nobody_twice(
    make_server_on: Make, raters: int
) -> None:
    items = [*pairs(5), *(item.model_copy(update={"id": "own", "raters": 4}) for item in pairs(1))]
    server = make_server_on(items, raters=raters)
    seen: Counter[tuple[str, str]] = Counter()
    for number in range(5):
        user = server.user(number=number)
        while (question := user.ask())["item"] is not None:
            user.prefer("good")
            assert question["item"]["id"]
    for event in server.current():
        seen[event.item, event.annotator.id] += 1
    assert set(seen.values()) == {1}
    assert Counter(item for item, _ in seen) == {**{f"q{i}": raters for i in range(5)}, "own": 4}


def test_a_lease_that_ends_frees_its_question_and_is_lost_once_that_is_taken(
    make_server_on: Make, clock: Clock
) -> None:
    server = make_server_on(pairs(1))
    slow, quick = server.user(number=0), server.user(number=1)
    question = slow.ask()
    assert (quick.ask()["item"], quick.ask()["why"]) == (None, "none_now")
    clock.add(minutes=11)
    taken = quick.ask()
    assert asked(taken) == asked(question)
    lost = slow.say(question)
    assert (lost.status_code, lost.json()["error"]) == (409, "lease_lost")
    assert slow.say(question, WIN, "draft").status_code == 409
    assert slow.post("heartbeat", {"lease": question["lease"]["id"]}).status_code == 409
    assert quick.say(taken).status_code == 200
    assert [event.annotator.id for event in server.current()] == [quick.id]
    assert slow.ask()["why"] == "done"


def test_who_comes_back_late_goes_on_where_nobody_took_the_place(make_server_on: Make, clock: Clock) -> None:
    user = make_server_on(pairs(3)).user()
    question = user.ask()
    user.say(question, {**WIN, "rationale": "half"}, "draft")
    clock.add(hours=3)
    again = user.ask("another tab")
    assert (asked(again), again["draft"]["rationale"]) == (asked(question), "half")
    clock.add(hours=3)
    assert user.say(again).status_code == 200


def test_a_heartbeat_keeps_a_lease(make_server_on: Make, clock: Clock) -> None:
    server = make_server_on(pairs(1))
    user, other = server.user(number=0), server.user(number=1)
    question = user.ask()
    for _ in range(3):
        clock.add(minutes=9)
        assert user.post("heartbeat", {"lease": question["lease"]["id"]}).status_code == 200
        assert other.ask()["why"] == "none_now"


def test_a_question_that_is_released_is_for_others_at_once(make_server_on: Make) -> None:
    server = make_server_on(pairs(1))
    one, two = server.user(number=0), server.user(number=1)
    question = one.ask()
    assert two.ask()["why"] == "none_now"
    assert two.post("release", {"lease": question["lease"]["id"]}).json() == {"released": False}
    assert two.ask()["why"] == "none_now"
    assert one.post("release", {"lease": question["lease"]["id"]}).json() == {"released": True}
    again = one.ask()  # a reload
    assert again["item"] == question["item"]
    one.post("release", {"lease": again["lease"]["id"]})
    assert asked(two.ask()) == "question 0"
    assert one.say(again).json()["error"] == "lease_lost"
    assert one.ask()["why"] == "none_now"


def test_who_released_a_question_may_come_back_to_it(make_server_on: Make) -> None:
    user = make_server_on(pairs(1)).user()
    question = user.ask()
    user.post("release", {"lease": question["lease"]["id"]})
    assert user.say(question).status_code == 200


def test_what_was_begun_is_kept_when_it_is_released(make_server_on: Make) -> None:
    server = make_server_on(pairs(1))
    one, two = server.user(number=0), server.user(number=1)
    question = one.ask()
    one.say(question, {**WIN, "rationale": "half"}, "draft")
    assert one.post("release", {"lease": question["lease"]["id"]}).json() == {"released": False}
    assert two.ask()["why"] == "none_now"
    one.say(question)
    undone = one.post("undo", {"tab": "tab"}).json()
    assert one.post("release", {"lease": undone["lease"]["id"]}).json() == {"released": False}
    assert one.ask()["item"] == undone["item"]


def test_a_skip_leaves_the_question_to_others(make_server_on: Make) -> None:
    server = make_server_on(pairs(1))
    one, two = server.user(number=0), server.user(number=1)
    answer = one.say(one.ask(), None, "skipped", reason="I can't read this")
    assert answer.json()["progress"] == {"done": 0, "skipped": 1, "left": 0, "total": 1}
    assert one.ask()["why"] == "done"
    two.prefer("good")
    assert [(e.status, e.reason) for e in server.log()] == [("skipped", "I can't read this"), ("submitted", None)]


def test_what_is_taken_back_holds_until_it_is_said_anew(make_server_on: Make) -> None:
    server = make_server_on(pairs(3))
    user = server.user()
    user.prefer("good")
    first = server.log()[0]
    begun = user.ask()
    undone = user.post("undo", {"tab": "tab"}).json()
    assert asked(undone) == "question 0"
    assert undone["draft"]["winner"] == [c["text"] for c in undone["item"]["candidates"]].index("good")
    assert user.ask()["item"] == undone["item"]  # a reload
    user.say(undone, {**WIN, "rationale": "thinking"}, "draft")
    user.say(undone, {**WIN, "rationale": "thinking on"}, "draft")
    assert server.current() == [first]
    assert user.say(undone, {"kind": "pairwise", "outcome": "tie"}).status_code == 200
    assert [event.payload.outcome for event in server.current()] == ["tie"]
    assert [event.status for event in current(server.log(), drafts=True)] == ["submitted"]
    assert user.ask()["item"] == begun["item"]  # what it interrupted
    assert user.post("undo", {"tab": "other"}).json()["draft"]["outcome"] == "tie"


def test_nothing_to_take_back(make_server_on: Make) -> None:
    answer = make_server_on().user().post("undo", {"tab": "tab"})
    assert (answer.status_code, answer.json()["error"]) == (404, "nothing")


def test_a_skip_that_another_made_good_is_not_taken_back(make_server_on: Make) -> None:
    server = make_server_on(pairs(2))
    one, two = server.user(number=0), server.user(number=1)
    one.say(one.ask(), None, "skipped")
    assert one.say(one.post("undo", {"tab": "tab"}).json(), None, "skipped").status_code == 200
    undone = one.post("undo", {"tab": "tab"}).json()
    assert asked(two.prefer("good")) == "question 1"
    assert two.ask()["why"] == "none_now"  # the first one thinks it over
    server.clock.add(minutes=11)
    assert asked(two.prefer("good")) == "question 0"
    assert one.say(undone).json()["error"] == "lease_lost"
    assert one.post("undo", {"tab": "tab"}).json()["error"] == "lease_lost"
    assert Counter(event.item for event in server.current()) == {"q0": 1, "q1": 1}


def test_a_judgement_turned_into_a_skip_is_asked_of_another(make_server_on: Make) -> None:
    server = make_server_on(pairs(1))
    one, two = server.user(number=0), server.user(number=1)
    one.prefer("good")
    assert two.ask()["why"] == "done"
    assert one.say(one.post("undo", {"tab": "tab"}).json(), None, "skipped").status_code == 200
    assert server.current() == []
    assert asked(two.prefer("bad")) == "question 0"


# --- disagreement ----------------------------------------------------------------------------------------------------


def test_a_disagreement_goes_to_an_adjudicator_who_has_not_judged(make_server_on: Make) -> None:
    server = make_server_on(pairs(2), raters=2)
    one, two, judge = server.user(number=0), server.user(number=1), server.user("adjudicator")
    owner = server.user("owner")
    owner.prefer("good")
    one.prefer("good")
    assert judge.ask(queue="adjudicate")["why"] == "done"
    one.prefer("good")
    two.prefer("bad")  # question 1, as question 0 has its two
    said = [event for event in server.log() if event.item == "q1"]
    assert len(said) == 2
    assert one.post("next", {"tab": "t", "queue": "adjudicate"}).status_code == 403
    assert [user.ask()["progress"].get("disputes") for user in (one, judge)] == [None, 1]  # annotators settle nothing
    assert judge.get("dashboard").json()["progress"] == {"done": 0, "skipped": 0, "left": 0, "total": 0, "disputes": 1}
    question = judge.ask(queue="adjudicate")
    assert asked(question) == "question 1"
    texts = [candidate["text"] for candidate in question["item"]["candidates"]]
    assert sorted(texts[other["payload"]["winner"]] for other in question["others"]) == ["bad", "good"]
    assert owner.ask(queue="adjudicate")["why"] == "none_now"  # the adjudicator is at it
    judge.prefer("bad", queue="adjudicate")
    verdict = server.log()[-1]
    assert set(verdict.adjudicates) == {event.id for event in said}
    assert verdict.annotator.role == "adjudicator"
    assert owner.get("dashboard").json()["items"]["settled"] == 1
    assert owner.ask(queue="adjudicate")["why"] == "done"


def test_a_person_does_not_settle_a_dispute_of_their_own(make_server_on: Make) -> None:
    server = make_server_on(pairs(1), raters=2)
    one, judge = server.user(number=0), server.user("adjudicator")
    one.prefer("good")
    judge.prefer("bad")
    assert judge.ask(queue="adjudicate")["item"] is None
    assert server.user("owner").ask(queue="adjudicate")["item"] is not None


def test_a_majority_is_no_dispute(make_server_on: Make) -> None:
    server = make_server_on(pairs(1), raters=3)
    for number, text in enumerate(("good", "bad", "good")):
        server.user(number=number).prefer(text)
    assert server.user("owner").get("dashboard").json()["items"] == {
        "total": 1, "open": 0, "done": 1, "disputed": 0, "settled": 0, "gold": 0
    }  # fmt: skip


def test_who_changes_their_mind_ends_the_dispute(make_server_on: Make) -> None:
    server = make_server_on(pairs(1), raters=2)
    one, two, judge = server.user(number=0), server.user(number=1), server.user("adjudicator")
    one.prefer("good")
    two.prefer("bad")
    assert judge.ask(queue="adjudicate")["item"] is not None
    undone = two.post("undo", {"tab": "tab"}).json()
    texts = [candidate["text"] for candidate in undone["item"]["candidates"]]
    two.say(undone, {"kind": "pairwise", "outcome": "win", "winner": texts.index("good")})
    assert server.user("owner").ask(queue="adjudicate")["why"] == "done"


def test_a_given_dispute_is_asked_of_adjudicators_alone(make_server_on: Make) -> None:
    server = make_server_on(pairs(1, adjudicates=("event-1", "event-2")))
    assert server.user().ask()["why"] == "done"
    judge = server.user("adjudicator")
    assert judge.ask()["item"] is None
    judge.prefer("good", queue="adjudicate")
    assert server.log()[0].adjudicates == ("event-1", "event-2")
    assert server.user("owner").ask(queue="adjudicate")["why"] == "done"


# --- gold and repeats ------------------------------------------------------------------------------------------------

GOLD = {"expected": {"kind": "pairwise", "outcome": "win", "winner": 0}}


def gold(count: int) -> list[Item]:
    return [
        Item.model_validate({**item.model_dump(), "id": f"gold{i}", "asked": {"text": f"known {i}"}, **GOLD})
        for i, item in enumerate(pairs(count))
    ]


def test_gold_and_repeats_are_mixed_in_as_often_as_was_asked_for(make_server: Make) -> None:
    server = make_server([*pairs(80), *gold(40)], gold_share=0.2, repeat_share=0.2)
    user = server.user()
    while user.ask()["item"] is not None:
        user.prefer("good")
    log = server.current()
    kinds = Counter("gold" if e.gold else "repeat" if e.repeats else "plain" for e in log)
    # The plain ones are all asked; of about 133 questions a fifth are gold: 3 standard deviations are 14.
    assert kinds["plain"] == 80
    assert 12 <= kinds["gold"] <= 41
    assert 10 <= kinds["repeat"] <= 41
    place = {event.item: i for i, event in enumerate(log)}
    for event in log:
        if event.repeats is not None:
            original = next(e for e in log if e.item == event.repeats)
            assert (event.candidates, event.asked) == (original.candidates, original.asked)
            assert place[event.item] - place[event.repeats] > queue.REPEAT_AFTER
            assert not original.gold
    assert max(Counter(event.item for event in log).values()) == 1
    orders = {(e.shown.order == next(o for o in log if o.item == e.repeats).shown.order) for e in log if e.repeats}
    assert orders == {True, False}  # the order is drawn anew


def test_what_is_drawn_is_another_for_each_person_and_the_same_again(make_server: Make) -> None:
    server = make_server([*pairs(15), *gold(20)], gold_share=0.3, raters=9)

    def course(number: int) -> list[str]:
        user = server.user(number=number)
        while user.ask()["item"] is not None:
            user.prefer("good")
        return [event.item for event in server.log() if event.annotator.id == user.id]

    courses = [course(0), course(1)]
    golden = [[i for i, item in enumerate(course) if item[0] == "g"] for course in courses]
    assert golden[0] != golden[1]
    person = next(e.annotator.id for e in server.log())
    assert golden[0] == [i for i in range(len(courses[0])) if server.project.chance("draw", person, i) < 0.3]


def test_a_page_cannot_tell_gold_and_repeats_from_others(make_server: Make) -> None:
    server = make_server([*pairs(20), *gold(10)], gold_share=0.3, repeat_share=0.3)
    user = server.user()
    forms = set()
    while (question := user.ask())["item"] is not None:
        told = {**question["item"], "asked": None, "candidates": None, "id": len(question["item"]["id"])}
        forms.add(str((told, sorted(question), len(question["lease"]["id"]))))
        shown = str({**question, "lease": None, "item": {**question["item"], "id": None}})  # those are random
        for word in ("gold", "expected", "repeats", "'q1"):
            assert word not in shown, word
        user.prefer("good")
    assert len(forms) == 1


def test_progress_does_not_give_gold_and_repeats_away(make_server: Make) -> None:
    """If the total grew with each of them, everyone could tell, and think better of it with undo."""
    server = make_server([*pairs(40), *gold(20)], gold_share=0.2, repeat_share=0.2)
    user = server.user()
    totals = {user.me["progress"]["total"]}
    while (question := user.ask())["item"] is not None:
        totals |= {question["progress"]["total"], user.say(question).json()["progress"]["total"]}
    assert {"gold" if e.gold else "repeat" if e.repeats else "plain" for e in server.log()} == {
        "gold",
        "repeat",
        "plain",
    }
    assert totals == {len(server.current())}


def test_progress_of_many_questions_is_estimated_alike(make_server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what is looked up, the total moves with what lies far ahead, not with the question that was answered."""
    monkeypatch.setattr(progress, "FORESEEN", 10)
    server = make_server([*pairs(60), *gold(60)], gold_share=0.3)
    user = server.user()
    before, grew = user.me["progress"]["total"], dict[bool, list[int]]({True: [], False: []})
    for _ in range(50):
        after = user.say(user.ask()).json()["progress"]["total"]
        grew[server.log()[-1].gold].append(after - before)
        before = after
    assert max(abs(step) for steps in grew.values() for step in steps) <= 2
    assert len(set(grew[True])) > 1  # no step is that of gold alone
    assert set(grew[True]) <= set(grew[False])


def test_where_there_is_nothing_else_gold_is_asked(make_server: Make) -> None:
    user = make_server(gold(3)).user()
    for _ in range(3):
        user.prefer("good")
    assert user.ask()["why"] == "done"


# --- at once, and again ----------------------------------------------------------------------------------------------


def test_many_people_at_once_never_get_in_each_others_way(store_place: str) -> None:
    """Two servers on one store, each with its own lock in the process: the database alone keeps them apart."""
    raters, count, crowd = 2, 20, 6
    stores = [Store(store_place) for _ in range(2)]
    stores[0].add_items(pairs(count))
    projects = [Project(store, raters=raters, gold_share=0, repeat_share=0) for store in stores]
    with turn(stores[0]) as connection:
        standing.catch_up(projects[0], connection)
    servers = [Server(store, (), Clock(), raters=raters) for store in stores]
    users = [servers[i % 2].user(number=i) for i in range(crowd)]
    failed: list[BaseException] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        user = users[number]
        try:
            for _ in range(1000):
                question = user.ask()
                if question["item"] is None:
                    if question["why"] == "done":
                        return
                    continue
                assert user.say(question).status_code == 200
                if chance.random() < 0.1:
                    user.say(user.post("undo", {"tab": "tab"}).json())
            raise AssertionError("there was no end")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed, failed[0]
    held = servers[0].current()
    assert Counter(event.item for event in held) == {f"q{i}": raters for i in range(count)}
    assert len({(event.item, event.annotator.id) for event in held}) == raters * count
    for store in stores:
        store.close()


def _state(project: Project) -> list:
    with project.store.engine.connect() as connection:
        columns = [c for c in assignments.c if c.name != "given"]
        places, line = (
            connection.execute(sa.select(*wanted).order_by(wanted[0], wanted[1], wanted[2])).all()
            for wanted in (columns, list(queue_table.c))
        )
    return [*map(tuple, places), *map(tuple, line)]


def test_the_queue_follows_from_the_log(make_server_on: Make) -> None:
    server = make_server_on([*pairs(25), *gold(5)], raters=2, gold_share=0.2, repeat_share=0.2)
    chance = random.Random(3)
    users = [server.user(number=i) for i in range(3)] + [server.user("adjudicator")]
    for _ in range(60):
        user = chance.choice(users)
        task = "adjudicate" if user is users[-1] and chance.random() < 0.5 else "judge"
        question = user.ask(queue=task)
        if question["item"] is None:
            continue
        server.clock.add(seconds=chance.randint(1, 60))
        match chance.randint(0, 9):
            case 0:
                user.say(question, None, "skipped")
            case 1 | 2:
                user.say(question, {**WIN, "outcome": None, "winner": None}, "draft")
            case 3:
                undone = user.post("undo", {"tab": "tab"})
                if undone.status_code == 200:
                    user.say(undone.json(), {"kind": "pairwise", "outcome": "both_bad"})
            case _:
                user.say(question, {"kind": "pairwise", "outcome": "win", "winner": chance.randint(0, 1)})
    before = _state(server.project)
    assert {value for row in before for value in row} >= {"submitted", "skipped", "repeat"}  # else nothing is tested
    with turn(server.store) as connection:
        standing.catch_up(server.project, connection)
    assert _state(server.project) == before


def test_drafts_cost_a_start_nothing(make_server_on: Make) -> None:
    """They are most of what a log of long corrections holds."""
    server = make_server_on(pairs(2))
    user = server.user()
    question = user.ask()
    for number in range(20):
        user.say(question, {**WIN, "rationale": "x" * number}, "draft")
    user.say(question)
    user.say(user.ask(), WIN, "draft")
    before = _state(server.project)
    with turn(server.store) as connection:  # who reads one fails
        connection.execute(sa.update(events).where(events.c.status == "draft").values(body="no event"))
        standing.catch_up(server.project, connection)
    assert _state(server.project) == before
    counts = user.server.user("owner").get("dashboard").json()["judgements"]
    assert counts == {"submitted": 1, "skipped": 0, "draft": 1}


def test_a_start_takes_as_many_queries_for_a_long_log_as_for_a_short_one(make_server: Make) -> None:
    queries: list[str] = []

    def of_a_start(name: str, count: int) -> list[str]:
        found: list[str] = []
        server = make_server(pairs(count), name=name)
        user = server.user()
        while user.ask()["item"] is not None:
            user.prefer("good")
        with turn(server.store) as connection:
            for again in range(2):
                if not again:
                    connection.execute(sa.delete(assignments).where(assignments.c.project == name))
                    connection.execute(sa.delete(queue_table).where(queue_table.c.project == name))
                queries.clear()
                standing.catch_up(server.project, connection)
                written = [query for query in queries if not query.startswith("SELECT")]
                assert bool(written) == (not again)  # what is so already is not written
                found += queries
        return found

    sa.event.listen(make_server().store.engine, "before_cursor_execute", lambda *told: queries.append(told[2]))
    assert of_a_start("short", 3) == of_a_start("long", 30)


def test_a_log_that_was_imported_counts(make_server: Make, tmp_path: Path) -> None:
    server = make_server(pairs(2))
    server.user().prefer("good")
    with Store(tmp_path / "other.db") as store:
        store.add(server.log())
        other = Server(store, pairs(2), Clock())
        user = other.user()
        assert asked(user.prefer("good")) == "question 1"
        assert user.ask()["why"] == "done"


def test_the_same_questions_are_judged_in_two_projects_on_their_own(make_server_on: Make) -> None:
    one, other = (make_server_on(pairs(20), name=n, raters=2, repeat_share=0.4) for n in ("one", "other"))
    store = one.store
    with turn(store) as connection:  # a person of this id is in both
        tokens = [people_of.invite(s.project, connection, "annotator", "Ann")[1] for s in (one, other)]
    ann, again = (User(s, *s.enter(token)) for s, token in zip((one, other), tokens, strict=True))
    assert ann.id == again.id
    bob, judge = one.user(number=1), one.user("adjudicator")
    for _ in range(3):
        ann.prefer("good")
    bob.prefer("bad")  # the first question is in dispute
    assert again.get("me").json()["progress"]["done"] == 0
    assert asked(again.ask()) == "question 0"
    assert other.user("adjudicator").ask(queue="adjudicate")["why"] == "done"
    assert asked(judge.ask(queue="adjudicate")) == "question 0"
    while (question := again.ask())["item"] is not None:
        again.say(question)
    other.user(number=1).prefer("good")
    assert any(event.repeats for event in other.current())
    done = Counter(event.item for event in other.current() if event.repeats is None)
    assert done.pop("q0") == 2
    assert set(done.values()) == {1}
    assert len(done) == 19
    assert [e.item for e in one.current()] == [e.item for e in one.log()]
    assert Counter(e.item for e in one.current()) == {"q0": 2, "q1": 1, "q2": 1}
    judge.prefer("good", queue="adjudicate")
    assert set(one.log()[-1].adjudicates) == {e.id for e in one.log()[:4] if e.item == "q0"}
    for server in (one, other):
        before = _state(server.project)
        with turn(store) as connection:
            standing.catch_up(server.project, connection)
        assert _state(server.project) == before


def test_people_are_of_one_project(make_server: Make) -> None:
    server = make_server(pairs(1))
    other = Server(server.store, pairs(1, id="else"), Clock(), name="other")
    token = server.token()
    assert other.client().post("/api/session", json={"token": token}).status_code == 401
    user = server.user()
    user.client.cookies.set(other.app.state.site.cookie, next(iter(user.client.cookies.values())))
    client = other.client(cookies=dict(user.client.cookies))
    assert client.get("/api/me").status_code == 401
    with server.store.engine.connect() as connection:
        assert set(connection.scalars(sa.select(people.c.project))) == {"default"}


def test_the_next_question_of_many_is_found_by_an_index(make_server: Make) -> None:
    server = make_server(pairs(3))
    person = Person("someone", "annotator", None, None, "")
    query = queue._ordinary(server.project, person, "judge", "2026")
    with server.store.engine.connect() as connection:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"explain query plan {text}"))
    assert "queue_next" in plan
    assert "TEMP B-TREE" not in plan
