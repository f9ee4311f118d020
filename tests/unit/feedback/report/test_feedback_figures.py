"""What is planted into simulated judgements is found in the report's figures, and nothing where nothing is."""

from datetime import timedelta

import pytest
from helpers.judged import QUALITY, ask, question

from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event, Shown, Timing
from rlhf_lightning.feedback.payloads import Implicit, Pairwise, Spans
from rlhf_lightning.feedback.report.build import Report, build, read, write
from rlhf_lightning.feedback.report.figures import few, share, share_by
from rlhf_lightning.feedback.report.said import answer, to_read
from rlhf_lightning.feedback.simulated import START, Simulated
from rlhf_lightning.feedback.statistics.raters import READING_LIMIT

EQUAL = [0.5, 0.5]


def person(report: Report, number: int):
    return next(one for one in report.people.each if one.id == f"simulated-{number}")


def test_a_position_bias_is_found_in_the_one_who_has_it():
    fair = ask(Simulated(noise=[0.1]), 150, scores=EQUAL)
    swayed = ask(Simulated(noise=[0.1], position=0.3), 150, persons=[7], scores=EQUAL)
    alone = build(fair, "fair")
    assert not alone.position.found
    assert alone.position.first.low is not None
    assert alone.position.first.low < 0.5 < (alone.position.first.high or 0)
    assert alone.position.stored_first == pytest.approx(0.5, abs=0.1)
    both = build(fair + swayed, "both")
    assert both.position.found
    assert person(both, 7).position.found
    assert person(both, 7).remarks[0] == "prefers what is shown first"
    assert person(both, 7).position.first.value == pytest.approx(0.95, abs=0.05)  # sigmoid(0.3 / 0.1)
    assert not any(person(both, k).position.found for k in range(3))


def test_a_length_bias_is_found_and_none_where_none_is():
    assert not build(ask(Simulated(noise=[0.1]), 150, scores=EQUAL), "x").length.found
    report = build(ask(Simulated(noise=[0.1], length=0.1), 150, scores=EQUAL), "x")
    assert report.length.found
    assert report.length.longer.value is not None
    assert report.length.longer.value > 0.6
    assert report.length.odds.value == pytest.approx(2.0, rel=0.35)  # exp(0.1 log 2 / 0.1)
    assert "prefers the longer answer" in person(report, 0).remarks


def test_noise_lowers_agreement_and_accuracy():
    people = Simulated(noise=[0.02, 0.02, 0.5])
    report = build(ask(people, 200), "x")
    (pairwise,) = report.agreement
    assert (pairwise.kind, pairwise.level, pairwise.people, pairwise.questions) == ("pairwise", "nominal", 3, 200)
    quality = {k: person(report, k).accuracy.value or 0 for k in range(3)}
    assert quality[2] + 0.1 < min(quality[0], quality[1])
    others = {k: person(report, k).with_others.value or 0 for k in range(3)}
    assert others[2] + 0.1 < min(others[0], others[1])
    assert report.people.accuracy_kind == "pairwise"


def test_random_answers_agree_by_chance():
    report = build(ask(Simulated(lapse=1.0), 200), "x")
    alpha = report.agreement[0].alpha
    assert alpha.low is not None
    assert alpha.low < 0 < (alpha.high or 0)
    assert report.agreement[0].raw.value == pytest.approx(0.5, abs=0.07)


def test_coefficients_are_those_that_suit_the_kind_and_the_people():
    two = build(ask(Simulated(noise=[0.1]), 40, persons=[0, 1]), "x").agreement[0]
    assert two.alpha.value is not None
    assert two.cohen.value == pytest.approx(two.alpha.value, abs=0.05)
    three = build(ask(Simulated(noise=[0.1]), 40), "x").agreement[0]
    assert three.cohen.why == "it is of two people, here are 3"
    assert three.alpha.value is not None
    assert three.fleiss.value == pytest.approx(three.alpha.value, abs=0.02)
    missing = build(ask(Simulated(noise=[0.1]), 40)[:-1], "x").agreement[0]
    assert missing.fleiss.why == "questions have 2 to 3 judgements: alpha takes them"
    assert missing.alpha.value is not None
    ranks = build(ask(Simulated(noise=[0.1]), 40, models=list(QUALITY), kind="ranking"), "x").agreement[0]
    assert ranks.level == "ordinal"
    assert ranks.fleiss.why == "it is of names, here are numbers"


def test_models_are_ordered_as_they_are_worth_and_intervals_are_about_them():
    people = Simulated(noise=[0.2])
    duels = [["base", "sft"], ["sft", "ppo"], ["base", "ppo"]]
    events = [e for k, models in enumerate(duels) for e in ask(people, 200, models=models, seed=k)]
    report = build(events, "x").models
    (table,) = report.tables
    assert [one.name for one in table.models] == ["ppo", "sft", "base"]
    for one, truth in zip(table.models, (1.0, 0.0, -1.0), strict=True):  # differences of worth over the noise
        assert one.strength.value == pytest.approx(truth, abs=0.15)
        assert one.strength.low is not None
        assert one.strength.low < (one.strength.value or 0) < (one.strength.high or 0) < one.strength.low + 0.3
    duel = next(d for d in report.duels if (d.first, d.second) == ("ppo", "base"))
    assert duel.wins.low is not None
    assert duel.wins.low < 0.881 < (duel.wins.high or 0)  # sigmoid(2)
    assert (duel.won + duel.tied + duel.lost, duel.prompts, duel.people) == (600, 200, 3)


def test_models_that_were_never_compared_have_tables_of_their_own():
    people = Simulated(noise=[0.2])
    events = ask(people, 20, models=("base", "ppo")) + [
        people.judge(question(i + 100, ("sft", "other")), [0.6, 0.4], 0) for i in range(20)
    ]
    report = build(events, "x").models
    assert sorted(len(table.models) for table in report.tables) == [2, 2]


def test_comparisons_with_names_shown_say_nothing_of_the_models():
    events = [
        event.model_copy(update={"shown": event.shown.model_copy(update={"blind": False})})
        for event in ask(Simulated(), 20)
    ]
    report = build(events, "x").models
    assert (report.tables, report.seen) == ([], 60)


def test_the_same_answer_again_and_again_is_told_of():
    fair = ask(Simulated(noise=[0.1]), 60, scores=EQUAL)
    lazy = [
        event.model_copy(update={"payload": Pairwise(outcome="win", winner=event.shown.order[0])})
        for event in ask(Simulated(), 40, persons=[5])
    ]
    report = build(fair + lazy, "x")
    run = person(report, 5).monotony
    assert (run.longest, run.choice, run.kind) == (40, "first", "pairwise")
    assert run.p is not None
    assert run.p < 1e-6
    assert "chose first 40 times on end" in person(report, 5).remarks
    assert person(report, 0).monotony.longest < 15
    assert not any("on end" in remark for remark in person(report, 0).remarks)
    assert "chose first 40 times on end" in person(build(lazy, "x"), 5).remarks  # also where nobody else judged


def test_who_is_faster_than_reading_is_told_of():
    events = ask(Simulated(noise=[0.1]), 30, persons=[0, 1])  # 20 characters a second
    hasty = [
        e.model_copy(update={"timing": Timing(active_ms=300)}) if e.annotator.id == "simulated-1" else e for e in events
    ]
    report = build(hasty, "x")
    assert person(report, 0).too_fast.value == 0.0
    assert person(report, 1).too_fast.value == 1.0
    assert person(report, 1).median_seconds == 0.3
    assert "is often faster than reading allows" in person(report, 1).remarks


def test_chinese_is_read_by_fewer_characters_a_second():
    def event(text: str) -> Event:
        return Event(
            item="i",
            kind="pairwise",
            asked=Asked(text=""),
            candidates=(Candidate(text=text), Candidate(text=text)),
            annotator=Annotator(id="p"),
            payload=Pairwise(outcome="tie"),
        )

    ((n, limit),) = to_read([event("a word")])
    assert (n, limit) == (12, READING_LIMIT)
    ((n, limit),) = to_read([event("猫が好き")])
    assert n == 8
    assert limit == pytest.approx(READING_LIMIT / 3.2)
    assert to_read([event("x"), event("x")])[1][0] == 2
    assert to_read([event("")]) == [(0, READING_LIMIT)]


def test_gold_repeats_and_adjudication():
    people = Simulated(noise=[0.0])
    events = []
    for i in range(12):
        item = question(i)
        events.append(people.judge(item, [0.4, 0.6], 0))
        again = item.model_copy(update={"id": f"again-{i}", "repeats": item.id})
        events.append(people.judge(again, [0.4, 0.6] if i < 9 else [0.6, 0.4], 0))
        gold = question(i + 50, expected=Pairwise(outcome="win", winner=0))
        events.append(people.judge(gold, [0.6, 0.4] if i < 6 else [0.4, 0.6], 0))
        other = people.judge(item, [0.6, 0.4], 1)
        judge = Annotator(id="judge", role="adjudicator")
        settled = other.model_copy(
            update={"id": f"s{i}", "annotator": judge, "adjudicates": (events[-3].id, other.id), "repeats": None}
        )
        events += [other, settled]
    report = build(events, "x")
    assert report.people.with_self.value == pytest.approx(9 / 12)
    assert report.people.gold.value == pytest.approx(6 / 12)
    assert person(report, 0).with_adjudicator.value == 0.0
    assert person(report, 1).with_adjudicator.value == 1.0
    assert report.counts.checks == {"gold": 12, "repeats": 12, "adjudications": 12}
    assert report.agreement[0].raw.value == 0.0  # of the two alone
    assert report.disputes.disputed == 12
    assert report.disputes.most[0].answers == {"B better": 1, "A better": 1}
    assert report.disputes.most[0].settled == "A better"


def test_a_change_over_time_is_found():
    events = ask(Simulated(noise=[0.1]), 60, persons=[0], scores=EQUAL)
    late = [
        event.model_copy(
            update={
                "time": START + timedelta(minutes=i),
                "payload": Pairwise(outcome="win", winner=event.shown.order[0 if i > 30 else 1]),
            }
        )
        for i, event in enumerate(events)
    ]
    found = {one.title: one for one in build(late, "x").over_time}
    first = found["share of wins of the answer shown first"]
    assert first.found
    assert first.means == pytest.approx((0, 0, 0, 0.9, 1, 1))
    assert found["share of ties and of “both bad”"].why == "always 0"
    steady = {one.title: one for one in build(events, "x").over_time}
    assert not steady["share of wins of the answer shown first"].found


def looks(event: Event, longer_looked_at: int) -> list[Event]:
    return [
        event.model_copy(
            update={
                "id": f"{event.id}-{place}",
                "kind": "implicit",
                "expected": None,
                "payload": Implicit(
                    signal="dwell", candidate=place, value=9000.0 if place == longer_looked_at else 10.0, unit="ms"
                ),
            }
        )
        for place in (0, 1)
    ]


def test_signs_of_use_are_held_against_what_was_said():
    said = ask(Simulated(noise=[0.0]), 40, persons=[0])
    seen = [look for i, e in enumerate(said) for look in looks(e, 1 if i % 4 else 0)]  # the second is the better one
    report = build(said + seen, "x")
    assert report.implicit["dwell"].value == pytest.approx(0.75)
    only = build(seen, "x")
    assert only.implicit["dwell"].why == "no comparisons of which the same person said which is better"
    assert only.agreement == []
    assert only.counts.by_source == {"implicit": 80}
    assert only.people.each == []


def test_nothing_one_person_and_one_question_are_said_in_words():
    empty = build([], "x")
    assert empty.position.first.why == "no comparisons of two with a winner and a known order"
    assert empty.models.tables == []
    assert all(course.why == "no values" for course in empty.over_time)
    alone = build(ask(Simulated(noise=[0.1]), 30, persons=[0]), "x")
    assert alone.agreement[0].alpha.why == "no questions with two judgements"
    assert alone.people.each[0].accuracy.why == "no question of names was judged by others, too"
    one = build(ask(Simulated(noise=[0.0]), 1, persons=range(20)), "x")
    assert one.agreement[0].alpha.why == "1 question with two judgements: too few"
    assert one.models.duels[0].wins.why == "20 of 20 comparisons won, of 1 prompt: too few for a share"
    assert one.models.tables[0].why is not None


def test_spans_are_compared_by_their_characters():
    events = []
    for i in range(12):
        item = question(i, ("base",), "spans")
        for k, (start, end) in enumerate(((0, 4), (2, 6))):
            events.append(
                Event(
                    item=item.id,
                    kind="spans",
                    asked=item.asked,
                    candidates=item.candidates,
                    annotator=Annotator(id=f"p{k}"),
                    payload=Spans(spans=({"start": start, "end": end, "label": "wrong"},)),  # type: ignore[arg-type]
                )
            )
    (found,) = build(events, "x").agreement
    assert found.raw.value == pytest.approx(0.5)
    assert found.alpha.value is None


def test_the_same_candidates_in_another_order_are_the_same_question():
    events = ask(Simulated(noise=[0.0]), 20, persons=[0, 1])
    turned = [
        event.model_copy(
            update={
                "candidates": event.candidates[::-1],
                "payload": Pairwise(outcome="win", winner=0 if event.payload.winner else 1),  # type: ignore[union-attr]
                "shown": Shown(order=tuple(1 - i for i in event.shown.order)),
            }
        )
        if event.annotator.id == "simulated-1"
        else event
        for event in events
    ]
    assert build(turned, "x").agreement[0].raw.value == 1.0
    assert build(turned, "x").position.first == build(events, "x").position.first


def test_questions_of_one_id_in_two_projects_are_two():
    """The same simulated log under two names, where people say the opposite in the second."""
    said = ask(Simulated(noise=[0.02, 0.02]), 40)

    def of_another(event: Event) -> Event:
        payload = event.payload
        assert isinstance(payload, Pairwise)
        turned = payload.model_copy(update={"winner": None if payload.winner is None else 1 - payload.winner})
        return event.model_copy(update={"id": f"other-{event.id}", "project": "other", "payload": turned})

    alone, both = build(said, "one"), build([*said, *map(of_another, said)], "two")
    assert both.counts.questions == 2 * alone.counts.questions
    assert both.agreement[0].judgements == 2 * alone.agreement[0].judgements
    assert both.agreement[0].raw.value == alone.agreement[0].raw.value
    assert both.people.with_others.n == 2 * alone.people.with_others.n
    assert both.disputes.disputed == 2 * alone.disputes.disputed
    assert {one.project for one in both.disputes.most} == ({"default", "other"} if alone.disputes.disputed else set())


def test_counts_add_up_and_the_json_is_read_back(tmp_path):
    events = ask(Simulated(noise=[0.1], tie=0.1), 30, scores=EQUAL)
    report = build(events, "x")
    (pairwise,) = report.counts.by_kind
    assert pairwise.logged == 90 == pairwise.used + sum(report.counts.unused.values())
    assert pairwise.pairs == pairwise.used
    assert 10 < pairwise.used < 80
    assert report.counts.dropped == {"tied": 90 - pairwise.used}
    write(report, tmp_path / "feedback.json")
    assert read(tmp_path / "feedback.json") == report


def test_words_for_small_numbers():
    assert few(3, "questions") == "3 questions: too few"
    assert share(2, 3, "gold questions").why == "2 of 3 gold questions: too few for a share"
    assert share(9, 10, "x").value == 0.9
    assert share_by([1 / 3] * 7, "abcdefg", "wins").why == "2.3 of 7 wins: too few for a share"
    thirds = share_by([2 / 3] * 20, "ab" * 10, "comparisons won")
    assert thirds.why == "13.3 of 20 comparisons won, of 2 prompts: too few for a share"
    assert share_by([1.0] * 12, "a" * 12, "wins").why == "12 of 12 wins, of 1 prompt: too few for a share"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"kind": "pairwise", "outcome": "both_bad"}, "both bad"),
        ({"kind": "rating", "values": {"fluency": [4, None]}}, "fluency 4, -"),
        ({"kind": "thumbs", "up": [True, False]}, "up, down"),
        ({"kind": "label", "label": "spam"}, "spam"),
    ],
)
def test_answers_in_words(payload, words):
    candidates = (Candidate(text="x"), Candidate(text="y"))
    kind = payload["kind"]
    asked, who = Asked(text="?"), Annotator(id="p")
    event = Event(item="i", kind=kind, asked=asked, candidates=candidates, annotator=who, payload=payload)
    assert answer(event) == words
