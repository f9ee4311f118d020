"""Places on the screen and stored positions; how far two judgements agree."""

from __future__ import annotations

import random
import time
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rlhf_lightning.feedback.payloads import Payload
from rlhf_lightning.feedback.server.comparing import disputed, likeness, to_shown, to_stored
from rlhf_lightning.feedback.server.judging import order_from


def said(kind: str, **fields: Any) -> Any:
    return TypeAdapter(Payload).validate_python({"kind": kind, **fields})


def test_what_is_said_of_a_place_is_stored_of_the_candidate_that_was_there() -> None:
    order = (2, 0, 1)  # the third candidate is first on the screen
    assert to_stored(said("ranking", ranks=[1, 2, 3]), order).ranks == (2, 3, 1)
    assert to_stored(said("thumbs", up=[True, False, None]), order).up == (False, None, True)
    assert to_stored(said("rating", values={"fluency": [5, 3, 1]}), order).values == {"fluency": (3, 1, 5)}
    assert to_stored(said("pairwise", outcome="win", winner=0), (1, 0)).winner == 1
    assert to_stored(said("pairwise", outcome="tie"), (1, 0)).winner is None
    for kind, more in (("correction", {"text": "x"}), ("spans", {}), ("label", {"label": "x"})):
        assert to_stored(said(kind, candidate=0, **more), order).candidate == 2
    assert to_stored(said("label", label="x"), ()).candidate is None


@pytest.mark.parametrize(
    ("payload", "order"),
    [
        (said("pairwise", outcome="win", winner=1), (0,)),
        (said("ranking", ranks=[1, 2]), (0, 1, 2)),
        (said("rating", values={"a": [1, 2, 3]}), (0, 1)),
        (said("correction", candidate=-1, text="x"), (0, 1)),
    ],
)
def test_what_is_said_of_other_candidates_is_refused(payload: Any, order: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="candidate"):
        to_stored(payload, order)


@given(st.data())
def test_there_and_back(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 9))
    order = data.draw(st.permutations(range(n)))
    texts = [f"text {i}" for i in range(n)]
    on_screen = [texts[i] for i in order]
    ranks = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    place = data.draw(st.integers(0, n - 1))
    for payload in (
        said("ranking", ranks=ranks),
        said("rating", values={"a": ranks, "b": ranks[::-1]}, high=9),
        said("thumbs", up=[rank > 4 for rank in ranks]),
        said("correction", candidate=place, text="x"),
    ):
        assert to_shown(to_stored(payload, order), order) == payload
        assert to_stored(to_shown(payload, order), order) == payload
    stored = to_stored(said("ranking", ranks=ranks), order)
    assert dict(zip(texts, stored.ranks, strict=True)) == dict(zip(on_screen, ranks, strict=True))
    assert on_screen[place] == texts[to_stored(said("correction", candidate=place, text="x"), order).candidate]


def test_every_order_is_drawn_as_often_as_any_other() -> None:
    chance = random.Random(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(6000):
        order = order_from(chance.getrandbits(32), 3)
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom: above 20.5 once in 1000.
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 20.5
    assert order_from(1, 5) == order_from(1, 5) == (3, 0, 1, 2, 4)


def test_likeness_by_hand() -> None:
    first, second = (said("pairwise", outcome="win", winner=i) for i in (0, 1))
    tie = said("pairwise", outcome="tie")
    assert (likeness(first, first), likeness(first, second), likeness(first, tie)) == (1, 0, 0)
    # Of the pairs 12, 13, 23 the first two are ordered alike.
    assert likeness(said("ranking", ranks=[1, 2, 3]), said("ranking", ranks=[1, 3, 2])) == pytest.approx(2 / 3)
    assert likeness(said("ranking", ranks=[1, 1, 2]), said("ranking", ranks=[1, 2, 3])) == pytest.approx(2 / 3)
    assert likeness(said("rating", values={"a": [5, 1]}), said("rating", values={"a": [3, 1]})) == 0.75
    assert likeness(said("rating", values={"a": [5, None]}), said("rating", values={"a": [None, 1]})) is None
    assert likeness(said("thumbs", up=[True, False, None]), said("thumbs", up=[True, True, True])) == 0.5
    assert likeness(said("label", label="a"), said("label", label="b")) == 0
    marks = [{"start": 0, "end": 4, "label": "x"}], [{"start": 2, "end": 6, "label": "x"}]
    assert likeness(said("spans", spans=marks[0]), said("spans", spans=marks[1])) == 0.5
    assert likeness(said("spans"), said("spans")) == 1
    assert likeness(said("spans"), said("spans", spans=marks[0])) == 0
    assert likeness(said("correction", text="a"), said("correction", text="b")) is None
    assert likeness(first, said("label", label="a")) is None


def spans(length: int = 30) -> st.SearchStrategy[list[dict[str, Any]]]:
    ends = st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True).map(sorted)
    one = st.tuples(ends, st.sampled_from("xyz")).map(
        lambda got: {"start": got[0][0], "end": got[0][1], "label": got[1]}
    )
    return st.lists(one, max_size=8)


@given(spans(), spans())
def test_marks_agree_as_far_as_their_characters_do(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    first, second = ({(i, m["label"]) for m in marks for i in range(m["start"], m["end"])} for marks in (a, b))
    dice = 2 * len(first & second) / (len(first) + len(second)) if first or second else 1
    assert likeness(said("spans", spans=a), said("spans", spans=b)) == pytest.approx(dice)


def test_many_marks_over_one_another_cost_little() -> None:
    """One person could hold up all others else: the server compares judgements one after the other."""
    many = said("spans", spans=[{"start": i, "end": 10**6 - i, "label": "x"} for i in range(10_000)])
    start = time.process_time()
    assert likeness(many, many) == 1
    assert time.process_time() - start < 5  # character by character it is 10 ** 10 steps


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=6))
def test_a_dispute_has_no_label_of_more_than_half(labels: list[str]) -> None:
    payloads = [said("label", label=label) for label in labels]
    majority = any(2 * labels.count(label) > len(labels) for label in labels)
    assert disputed(payloads) is (len(labels) > 1 and not majority)


def test_rankings_that_turn_each_other_round_are_a_dispute() -> None:
    rankings = [said("ranking", ranks=ranks) for ranks in ([1, 2, 3], [1, 3, 2], [3, 2, 1])]
    assert disputed([rankings[0], rankings[2]])
    assert not disputed(rankings)
    assert not disputed([said("correction", text="a"), said("correction", text="b")])
    assert all(likeness(a, b) == likeness(b, a) for a, b in combinations(rankings, 2))
