"""What several people say of one thing."""

from collections import Counter

import numpy as np
import pytest
from helpers.judgements import both_bad, judged, rating, tie, win

from rlhf_lightning.feedback.rows import rows_of
from rlhf_lightning.feedback.rules import Rules
from rlhf_lightning.feedback.statistics.consensus import dawid_skene


def merged(events, merge, **rules):
    return rows_of(events, Rules(merge=merge, **rules))


def people(*said, **fields):
    """One judgement of the pair a, b by each of several people; every second one was shown them the other way round."""
    events = []
    for i, what in enumerate(said):
        texts = ("a", "b") if i % 2 == 0 else ("b", "a")
        more = {"texts": texts, "person": f"p{i}", "id": f"{fields.get('prompt', '')}{i}", **fields}
        events.append(
            {"tie": tie, "bad": both_bad}.get(what, lambda w=what, t=texts, **k: win(t.index(w), **k))(**more)
        )
    return events


def outcome(rows):
    return [(row.chosen, row.rejected, row.probability) for row in rows.preferences]


def test_each_judgement_is_a_row_of_its_own():
    assert outcome(merged(people("a", "a", "b"), "each")) == [("a", "b", 1), ("a", "b", 1), ("b", "a", 1)]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (("a", "a", "b"), [("a", "b", 1)]),
        (("a", "b"), []),
        (("a", "tie", "tie"), []),
        (("b", "tie", "b", "bad"), [("b", "a", 1)]),
        (("bad", "bad", "a"), []),
    ],
)
def test_majority(said, wanted):
    rows = merged(people(*said), "majority")
    assert outcome(rows) == wanted
    for row in rows.preferences:
        assert row.meta["events"] == [f"{i}" for i in range(len(said))]
        assert row.meta["annotators"] == [f"p{i}" for i in range(len(said))]


def test_a_tie_of_several_may_be_half():
    assert outcome(merged(people("a", "b"), "majority", ties="half")) == [("a", "b", 0.5)]
    assert outcome(merged(people("a", "b"), "soft", ties="half")) == [("a", "b", 0.5)]
    assert merged(people("a", "b"), "soft").dropped == Counter({"tied": 1})


def test_negatives_where_most_say_that_both_are_bad():
    for merge in ("majority", "soft"):
        few = merged(people("bad", "a", "a"), merge)
        assert not few.unpaired
        many = merged(people("bad", "bad", "bad", "a"), merge)
        assert [(row.completion, row.label, row.weight) for row in many.unpaired] == [
            ("a", False, 0.75),
            ("b", False, 0.75),
        ]


def test_soft_is_the_share_of_votes_with_one_more_for_either_side():
    rows = merged(people("a", "a", "b", "tie"), "soft")
    assert outcome(rows) == [("a", "b", pytest.approx((2.5 + 1) / (4 + 2)))]
    assert outcome(merged(people("b"), "soft")) == [("b", "a", pytest.approx(2 / 3))]


def test_dawid_skene_is_the_posterior_of_the_fit():
    rng = np.random.default_rng(0)
    items, raters, labels, events = [], [], [], []
    for item in range(40):
        texts = ("a", "b")
        truth = int(rng.random() < 0.5)
        for rater, good in enumerate((0.95, 0.9, 0.6, 0.3)):
            said = truth if rng.random() < good else 1 - truth
            items.append(item)
            raters.append(rater)
            labels.append(said)
            events.append(win(said, texts, f"p{rater}", f"q{item}"))
    posterior = dawid_skene(items, raters, labels, classes=2).posterior
    rows = merged(events, "dawid_skene")
    assert len(rows.preferences) == 40
    for row in rows.preferences:
        first, second = posterior[int(row.prompt.text[1:])]
        assert row.probability == pytest.approx(max(first, second))
        assert (row.chosen == "a") == (first > second)
    soft = {row.prompt.text: row.chosen for row in merged(events, "soft", ties="half").preferences}
    assert any(soft[row.prompt.text] != row.chosen for row in rows.preferences), "bad raters weigh less than good ones"


def test_pairs_of_rankings_are_merged_with_those_of_others():
    events = [
        judged("ranking", ["a", "b", "c"], "x", ranks=[1, 2, 3]),
        judged("ranking", ["c", "b", "a"], "y", ranks=[3, 1, 2]),
    ]
    rows = merged([*events, win(0, person="z")], "majority")
    assert sorted(outcome(rows)) == [("a", "b", 1), ("a", "c", 1), ("b", "c", 1)]
    weight = {(row.chosen, row.rejected): row.weight for row in rows.preferences}
    assert weight["a", "b"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    assert {row.group for row in rows.preferences} == {None}


def test_aspects_and_prompts_are_not_mixed():
    events = [win(0, aspect="truth"), win(1, aspect="style", person="x"), win(1, prompt="other")]
    assert len(merged(events, "majority").preferences) == 3


@pytest.mark.parametrize("merge", ["each", "majority", "soft", "dawid_skene"])
def test_an_adjudicator_overrides_those_that_are_settled(merge):
    events = people("a", "a", "b")
    verdict = win(1, person="judge", role="adjudicator", adjudicates=("0", "1", "2"), id="v")
    rows = merged([*events, verdict], merge)
    assert outcome(rows) == [("b", "a", 1)]
    assert rows.preferences[0].meta["events"] == ["v"]
    assert rows.unused == dict.fromkeys("012", "settled by an adjudicator")


def test_an_annotator_settles_nothing():
    events = people("a", "a", "b")
    loud = win(1, person="loud", adjudicates=("0", "1"))
    assert outcome(merged([*events, loud], "each")).count(("a", "b", 1)) == 2


def test_later_votes_on_what_is_settled_dont_count():
    verdict = win(1, person="judge", role="adjudicator", adjudicates=("0",), id="v")
    rows = merged([*people("a", "a", "a"), verdict], "majority")
    assert outcome(rows) == [("b", "a", 1)]


def test_thumbs_of_several():
    events = [judged("thumbs", ["a"], f"p{i}", up=[up]) for i, up in enumerate((True, True, False))]

    def given(merge, events=events):
        return [(row.completion, row.label, round(row.weight, 6)) for row in merged(events, merge).unpaired]

    assert given("each") == [("a", True, 1), ("a", True, 1), ("a", False, 1)]
    assert given("majority") == [("a", True, 1)]
    assert given("soft") == [("a", True, 0.6), ("a", False, 0.4)]  # (2 + 1) / (3 + 2)
    posterior = dawid_skene([0, 0, 0], [0, 1, 2], [0, 0, 1], classes=2).posterior[0, 0]
    assert given("dawid_skene")[0] == ("a", True, round(float(posterior), 6))
    assert merged(events[1:], "majority").dropped == Counter({"as many say one thing as another": 1})
    verdict = judged("thumbs", ["a"], "j", up=[False], role="owner", adjudicates=("none",))
    assert given("soft", [*events, verdict]) == [("a", False, 1)]


def test_labels_of_several():
    events = [judged("label", [], f"p{i}", label=label) for i, label in enumerate("xxy")]
    assert [row.completion for row in merged(events, "each").sft] == ["x", "x", "y"]
    for merge in ("majority", "soft", "dawid_skene"):
        assert [row.completion for row in merged(events, merge).sft] == ["x"]
    assert merged(events[1:], "majority").dropped == Counter({"as many say one thing as another": 1})


def test_ratings_of_several_choose_one_demonstration():
    events = [rating([5, 4], ["a", "b"], "x"), rating([2, 4], ["a", "b"], "y")]
    assert [row.completion for row in merged(events, "each").sft] == ["a", "b"]
    rows = merged(events, "soft")  # means 3.5 and 4
    assert [row.completion for row in rows.sft] == ["b"]
    assert len(rows.sft[0].meta["events"]) == 2
