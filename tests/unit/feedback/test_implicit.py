"""Signs of use: weak, and measured."""

import math

import pytest
from helpers.judgements import sign, tie, win
from statsmodels.stats.proportion import proportion_confint

from rlhf_lightning.feedback.implicit import CAP, CLIP, Accuracy, implicit_accuracy, implicit_rows, leans
from rlhf_lightning.feedback.rules import Dropped

TEXTS = ["a", "b"]


def found(events, **options):
    return [
        (lean.signal, lean.better, lean.worse, pytest.approx(lean.strength))
        for signs in leans(events, **options).values()
        for lean in signs
    ]


def rows(events):
    return [row for row in implicit_rows(events) if not isinstance(row, Dropped)]


def reasons(events):
    return [row.reason for row in implicit_rows(events) if isinstance(row, Dropped)]


@pytest.mark.parametrize("signal", ["copy", "edit_accepted"])
def test_what_was_used_is_liked(signal):
    assert found([sign(signal, 1, TEXTS)]) == [(signal, "b", "a", 1)]
    assert found([sign(signal, 0, TEXTS), sign(signal, 1, TEXTS)]) == []


@pytest.mark.parametrize("signal", ["regenerated", "rephrased", "abandoned"])
def test_what_was_given_up_is_not(signal):
    assert found([sign(signal, 1, TEXTS)]) == [(signal, "a", "b", 1)]
    # Answers one after the other: the first was regenerated, the second seen.
    assert found([sign(signal, None, ["a"]), sign("impression", 0, ["b"]), sign("impression", 0, ["a"])]) == [
        (signal, "b", "a", 1)
    ]
    assert found([sign(signal, None, TEXTS)]) == [], "nobody knows which of the two was meant"


@pytest.mark.parametrize("signal", ["scroll", "continued", "impression"])
def test_signs_that_say_nothing(signal):
    assert found([sign(signal, 0, TEXTS)]) == []


def test_clicks_weigh_by_clipped_inverse_propensity():
    assert found([sign("click", 0, TEXTS, propensity=0.25)]) == [("click", "a", "b", 4 / CLIP)]
    assert found([sign("click", 0, TEXTS, propensity=0.001)]) == [("click", "a", "b", 1)]
    assert found([sign("click", 0, TEXTS)]) == [("click", "a", "b", 1 / CLIP)]
    (row,) = rows([sign("click", 0, TEXTS, propensity=0.25)])
    assert row.weight == pytest.approx(CAP * 0.4)


def test_what_was_not_seen_lost_to_nothing():
    three = ["a", "b", "c"]
    seen = [sign("impression", i, three) for i in (0, 1)]
    assert found([*seen, sign("click", 1, three)]) == [("click", "b", "a", 0.1)]
    assert len(found([sign("click", 1, three)])) == 2


def test_dwell_is_by_character_and_by_person():
    long, short = "x" * 100, "y" * 10
    # 20 ms and 30 ms by character: the shorter one was read more slowly.
    events = [
        sign("dwell", 0, [long, short], value=2000, unit="ms"),
        sign("dwell", 1, [long, short], value=300, unit="ms"),
    ]
    assert found(events) == [("dwell", short, long, 1)]
    assert found(events, raw_dwell=True) == [("dwell", long, short, 1)]
    # Beside other times of that person, log(30 / 20) is little: a share of the standard deviation.
    other = [
        sign("dwell", 0, ["z" * 10], prompt=f"{i}", value=value, unit="ms") for i, value in enumerate((10, 100_000))
    ]
    logs = [math.log(x) for x in (20, 30, 1, 10_000)]
    mean = sum(logs) / 4
    spread = math.sqrt(sum((x - mean) ** 2 for x in logs) / 4)
    assert found(events + other) == [("dwell", short, long, math.log(1.5) / spread)]


def test_times_of_two_visits_add_up_and_units_are_not_mixed():
    visits = [sign("dwell", 0, TEXTS, value=5, unit="ms") for _ in range(3)] + [
        sign("dwell", 1, TEXTS, value=9, unit="ms")
    ]
    assert found(visits)[0][1] == "a"
    assert found([sign("dwell", 0, TEXTS, value=5, unit="ms"), sign("dwell", 1, TEXTS, value=9, unit="count")]) == []
    assert (
        found([sign("dwell", 0, TEXTS, value=0.5, unit="share"), sign("dwell", 1, TEXTS, value=0.9, unit="share")])
        == []
    )


def test_answers_that_were_not_shown_at_once_are_not_compared_by_time_or_clicks():
    apart = [sign(signal, 0, [text], value=i) for i, text in enumerate(TEXTS, 1) for signal in ("dwell", "click")]
    assert found(apart[:3]) == []
    assert found([sign("copy", 0, ["a"]), sign("impression", 0, ["a"]), sign("impression", 0, ["b"])]) == [
        ("copy", "a", "b", 1)
    ]


def test_times_of_an_answer_that_is_shown_again_are_compared_page_by_page():
    texts = {"one": ["a", "b"], "two": ["a", "c"]}
    spent = {"one": (30, 40), "two": (30, 50)}
    events = [sign("dwell", i, texts[k], item=k, value=spent[k][i], unit="ms") for k in texts for i in (0, 1)]
    assert [lean[:3] for lean in found(events)] == [("dwell", "b", "a"), ("dwell", "c", "a")]


def test_a_lower_bound_that_is_the_smaller_one_says_nothing():
    def times(first, second, **cut):
        return [
            sign("dwell", 0, TEXTS, value=first, unit="ms", **cut),
            sign("dwell", 1, TEXTS, value=second, unit="ms"),
        ]

    assert found(times(50, 20, censored=True)) == [("dwell", "a", "b", 1)]
    assert found(times(20, 50, censored=True)) == []
    assert found(times(20, 50)) == [("dwell", "b", "a", 1)]
    assert found(times(20, 20)) == []


def overlap(right: int, wrong: int, signal="copy"):
    events = []
    for i in range(right + wrong):
        events += [sign(signal, 0, TEXTS, prompt=f"o{i}"), win(0 if i < right else 1, prompt=f"o{i}")]
    return events


def test_accuracy_is_the_share_of_agreement_with_wilsons_interval():
    events = [*overlap(9, 3), sign("click", 0, TEXTS), tie(prompt="t"), sign("copy", 0, TEXTS, prompt="t")]
    # Another person's preference, and one who says now this and now that, count for nothing.
    events += [sign("copy", 0, TEXTS, person="x", prompt="o0"), sign("copy", 0, TEXTS, prompt="u")]
    events += [win(0, prompt="u"), win(1, prompt="u")]
    got = implicit_accuracy(events)
    low, high = proportion_confint(9, 12, method="wilson")
    assert got["copy"] == Accuracy(9, 12, 0.75, pytest.approx(low), pytest.approx(high))
    assert got["click"][:2] == (0, 0)
    assert math.isnan(got["click"].share)


def test_rows_are_weak_and_marked():
    (row,) = rows([sign("copy", 1, TEXTS, id="e")])
    assert (row.chosen, row.rejected, row.weight, row.group) == ("b", "a", CAP, None)
    assert row.probability == pytest.approx(0.6), "what is believed beforehand"
    assert row.meta["feedback"] == "implicit"
    assert row.meta["events"] == ["e"]


def test_the_probability_is_what_was_measured():
    (row,) = rows([*overlap(60, 20), sign("copy", 0, TEXTS)])
    assert row.probability == pytest.approx((60 + 12) / (80 + 20))
    (row,) = rows([*overlap(200, 0), sign("copy", 0, TEXTS)])
    assert row.probability == 0.9, "never certain"
    assert "a sign no better than chance" in reasons([*overlap(20, 40), sign("copy", 0, TEXTS)])


def test_what_the_person_said_is_not_guessed():
    assert rows(overlap(3, 0)) == []
    assert set(reasons(overlap(3, 0))) == {"the person said which is better"}
    assert len(rows([sign("copy", 0, TEXTS), win(0, person="other")])) == 1


def test_signs_on_one_pair_are_averaged():
    assert reasons([sign("copy", 0, TEXTS), sign("abandoned", 0, TEXTS)]) == ["signs contradict each other"]
    events = [*overlap(60, 20), sign("copy", 0, TEXTS), sign("abandoned", 0, TEXTS)]
    (row,) = rows(events)
    assert (row.chosen, row.weight) == ("a", CAP)
    assert row.probability == pytest.approx(0.5 + (0.22 - 0.1) / 2)
