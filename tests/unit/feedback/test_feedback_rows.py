"""What each kind of judgement gives, against cases worked out by hand."""

import math
from collections import Counter

import pytest
from helpers.judgements import both_bad, judged, rating, sign, tie, win
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lightning.data.rankings import ranks, together
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.pairs import penalty
from rlhf_lightning.feedback.rows import rows_of, split_rows
from rlhf_lightning.feedback.rules import Rules


def made(events, **rules):
    return rows_of(events, Rules(**rules))


def pairs(rows):
    return [(row.chosen, row.rejected) for row in rows.preferences]


def thumbs(rows):
    return [(row.completion, row.label) for row in rows.unpaired]


def shown(rows):
    return [row.completion for row in rows.sft]


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_a_win_is_a_pair_that_says_what_it_is_made_of():
    asked = {"document": "d1", "person": "p1", "meta": {"source": "Hallo", "document": "Text", "weight": 7}}
    rows = made([win(1, ("a", " b "), id="e1", item="i1", asked=asked)])
    (row,) = rows.preferences
    assert (row.prompt.text, row.chosen, row.rejected) == ("Question", "b", "a")
    assert (row.weight, row.margin, row.probability, row.group) == (1.0, 0.0, 1.0, None)
    own = {"events": ["e1"], "item": "i1", "feedback": "explicit", "annotators": ["ann"], "document_id": "d1"}
    # The task's own columns travel along, also those called source and document; names that a row needs don't.
    assert row.meta == {**own, "person_id": "p1", "source": "Hallo", "document": "Text"}
    assert not rows.unused
    assert not rows.dropped


def test_a_tie_is_dropped_or_half():
    rows = made([tie(id="t")])
    assert not len(rows)
    assert rows.unused == {"t": "tied"}
    (row,) = made([tie()], ties="half").preferences
    assert (row.chosen, row.rejected, row.probability) == ("a", "b", 0.5)


def test_both_bad_is_two_negatives_also_where_ties_are_half():
    for ties in ("drop", "half"):
        rows = made([both_bad()], ties=ties)
        assert not rows.preferences
        assert thumbs(rows) == [("a", False), ("b", False)]


def test_a_skip_or_what_is_taken_back_gives_nothing():
    first = win(0, id="one")
    skipped = first.model_copy(update={"id": "two", "status": "skipped", "payload": None, "supersedes": "one"})
    assert not len(made(current([first, skipped])))
    draft = first.model_copy(update={"status": "draft"})
    assert made([draft]).unused == {"one": "the judgement is draft"}


def test_strength_is_a_margin_where_it_is_asked_for():
    events = [win(0, strength=3), win(0, prompt="other")]
    assert [row.margin for row in made(events).preferences] == [0, 0]
    assert [row.margin for row in made(events, margin=0.5).preferences] == [1.5, 0]


@pytest.mark.parametrize(("texts", "reason"), [(("x", "x "), "chosen equals rejected"), (("", "x"), "a text is empty")])
def test_pairs_that_no_reader_takes_are_dropped_and_counted(texts, reason):
    rows = made([win(0, texts, id="e")])
    assert not len(rows)
    assert rows.dropped == Counter({reason: 1})
    assert rows.unused == {"e": reason}


def test_a_ranking_is_all_its_pairs_in_one_group():
    event = judged("ranking", ["a", "b", "c", "d"], ranks=[2, 1, 2, 3], id="r")
    rows = made([event])
    assert set(pairs(rows)) == {("b", "a"), ("b", "c"), ("b", "d"), ("a", "d"), ("c", "d")}
    assert {row.weight for row in rows.preferences} == {2 / (4 * 3)}
    assert {row.group for row in rows.preferences} == {"r"}
    assert rows.dropped == Counter({"tied": 1})
    half = made([event], ties="half")
    assert sum(row.weight for row in half.preferences) == pytest.approx(1)
    assert [pair for pair, row in zip(pairs(half), half.preferences, strict=True) if row.probability == 0.5] == [
        ("a", "c")
    ]


def test_a_text_that_is_ranked_twice_has_the_mean_of_its_ranks():
    rows = made([judged("ranking", ["a", "b", "a", ""], ranks=[1, 2, 4, 5])])
    assert pairs(rows) == [("b", "a")]  # 2 against 2.5
    assert rows.preferences[0].weight == 1
    assert rows.dropped == Counter({"chosen equals rejected": 1, "a text is empty": 1})


@given(st.lists(st.integers(1, 4), min_size=2, max_size=6), st.sampled_from(["drop", "half"]))
@settings(deadline=None)
def test_rankings_rules(numbers, ties):
    texts = [f"text {i}" for i in range(len(numbers))]
    rows = made([judged("ranking", texts, ranks=numbers)], ties=ties)
    rank = dict(zip(texts, numbers, strict=True))
    for row in rows.preferences:
        better = rank[row.chosen] < rank[row.rejected]
        assert better if row.probability == 1 else rank[row.chosen] == rank[row.rejected]
    k = len(numbers)
    tied = sum(numbers[i] == numbers[j] for i in range(k) for j in range(i))
    assert len(rows.preferences) == k * (k - 1) // 2 - (tied if ties == "drop" else 0)
    assert rows.dropped["tied"] == (tied if ties == "drop" else 0)
    assert sum(row.weight for row in rows.preferences) <= 1 + 1e-9


# --- ratings ---------------------------------------------------------------------------------------------------------


def test_ratings_4_and_2_are_a_pair_and_the_4_a_demonstration():
    rows = made([rating([4, 2], ["good", "poor"])])
    assert pairs(rows) == [("good", "poor")]
    assert rows.preferences[0].weight == 1
    assert shown(rows) == ["good"]


def test_ratings_are_compared_within_person_and_prompt_alone():
    events = [rating([5], ["a"]), rating([1], ["b"], person="bob"), rating([2], ["c"], prompt="other")]
    rows = made(events)
    assert not rows.preferences
    assert shown(rows) == ["a"]


def test_ratings_of_one_person_in_several_judgements_are_compared():
    events = [rating([5], ["a"], id="x"), rating([1], ["b"], id="y")]
    (row,) = made(events).preferences
    assert (row.chosen, row.meta["events"]) == ("a", ["x", "y"])


def test_the_gap_is_in_standard_deviations_of_the_person():
    # Of 1, 5, 1, 5, 3, 4 the standard deviation is 1.675: 3 and 4 are 0.597 of it apart.
    spread = math.sqrt(sum((x - 19 / 6) ** 2 for x in (1, 5, 1, 5, 3, 4)) / 6)
    events = [rating([1, 5], ["a", "b"], prompt=f"{i}") for i in range(2)] + [rating([3, 4], ["a", "b"], id="near")]
    assert len(made(events, gap=1 / spread - 0.001).preferences) == 3
    rows = made(events, gap=1 / spread + 0.001)
    assert len(rows.preferences) == 2
    assert rows.dropped["ratings too close"] == 1


def test_a_wide_and_a_narrow_use_of_the_scale_count_alike():
    wide = [rating([1, 5], ["a", "b"], prompt=f"{i}") for i in range(3)]
    narrow = [rating([2.9, 3.1], ["a", "b"], person="bob", prompt=f"{i}") for i in range(3)]
    assert len(made(wide + narrow, gap=1.9).preferences) == 6


def test_who_gives_one_value_only_says_nothing():
    rows = made([rating([3, 3], ["a", "b"], id="e")], ties="half")
    assert not rows.preferences
    assert rows.dropped["the rater uses one value only"] == 2
    assert rows.unused["e"] == "the rater uses one value only; rated too low to be imitated"
    assert (
        made([rating([1], ["a"], id="e")]).unused["e"]
        == "no pair: the person judged no other completion of the prompt; rated too low to be imitated"
    )


def test_equal_ratings_are_a_tie():
    events = [rating([3, 3, 1], ["a", "b", "c"])]
    assert len(made(events).preferences) == 2
    assert sorted(row.probability for row in made(events, ties="half").preferences) == [0.5, 1, 1]
    assert {row.weight for row in made(events).preferences} == {1 / 3}


def test_aspects_are_averaged_over_those_that_both_have():
    values = {"fluency": [1, 5], "truth": [5, 4]}
    events = [judged("rating", ["a", "b"], values=values), judged("rating", ["c", "d"], prompt="o", values=values)]
    # fluency: +-1 spread 2, so 2 deviations for b; truth: spread 0.5, 2 deviations for a: a tie.
    rows = made(events)
    assert not rows.preferences
    assert rows.dropped["tied"] == 2
    assert pairs(made(events, aspect="truth")) == [("a", "b"), ("c", "d")]
    apart = judged("rating", ["a", "b"], values={"fluency": [1, None], "truth": [None, 4], "style": [1, 2]})
    alone = judged("rating", ["a", "b"], values={"fluency": [1, None], "truth": [None, 4]}, prompt="p")
    assert made([*events, apart, alone]).dropped["no aspect in common"] == 1


def test_a_demonstration_needs_the_target_and_to_be_the_best():
    assert shown(made([rating([3, 2], ["a", "b"])])) == []
    assert shown(made([rating([3, 2], ["a", "b"])], target=0.5)) == ["a"]
    assert shown(made([rating([4, 4, 1], ["a", "b", "c"])])) == ["a", "b"]
    events = [rating([4], ["a"]), rating([5], ["b"])]  # of one person, in two judgements
    assert shown(made(events)) == ["b"]
    assert shown(made([rating([80, 10], ["a", "b"], low=0, high=100)])) == ["a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ann", "bob"]), st.sampled_from("pq"), st.lists(st.integers(1, 5), min_size=1, max_size=4)
        ),
        max_size=8,
    ),
    st.floats(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_rating_pairs_against_a_loop(given_ratings, gap):
    events, everything = [], {"ann": [], "bob": []}
    for n, (person, prompt, numbers) in enumerate(given_ratings):
        events.append(rating(numbers, [f"{n} {i}" for i in range(len(numbers))], person, prompt))
        everything[person] += numbers
    wanted = set()
    for person, numbers in everything.items():
        if len(set(numbers)) < 2:
            continue
        mean = sum(numbers) / len(numbers)
        spread = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))
        for prompt in "pq":
            mine = [
                (text.text, value)
                for e in events
                if e.annotator.id == person and e.asked.text == prompt
                for text, value in zip(e.candidates, e.payload.values["quality"], strict=True)
            ]
            for a, x in mine:
                for b, y in mine:
                    if x > y and (x - y) / spread >= gap - 1e-9:
                        wanted.add((prompt, a, b))
    found = [(row.prompt.text, row.chosen, row.rejected) for row in made(events, gap=gap).preferences]
    assert len(found) == len(set(found))
    assert set(found) == wanted


# --- thumbs, corrections, spans, labels ------------------------------------------------------------------------------


def test_thumbs_are_unpaired_rows_and_pairs_where_they_differ():
    rows = made([judged("thumbs", ["a", "b", "c"], up=[True, False, None])])
    assert thumbs(rows) == [("a", True), ("b", False)]
    assert pairs(rows) == [("a", "b")]
    apart = [judged("thumbs", ["a"], up=[False]), judged("thumbs", ["b"], up=[True])]
    assert pairs(made(apart)) == [("b", "a")]
    assert pairs(made([apart[0], judged("thumbs", ["b"], up=[True], person="bob")])) == []
    three = made([judged("thumbs", ["a", "b", "c"], up=[True, False, False])])
    assert [(row.chosen, row.weight) for row in three.preferences] == [("a", 1 / 3)] * 2
    assert made([judged("thumbs", ["", "b"], up=[False, True])]).dropped == Counter({"a text is empty": 1})


def test_a_correction_is_a_demonstration_and_a_pair():
    rows = made([judged("correction", ["teh cat"], text="the cat")])
    assert shown(rows) == ["the cat"]
    assert pairs(rows) == [("the cat", "teh cat")]
    assert rows.preferences[0].meta["feedback"] == rows.sft[0].meta["feedback"] == "correction"


@pytest.mark.parametrize("text", ["café  noir\n", "cafe\u0301 noir", "cafénoir"])
def test_a_correction_of_space_or_code_points_is_no_preference(text):
    rows = made([judged("correction", ["café noir"], text=text)])
    assert not rows.preferences
    assert rows.dropped == Counter({"the correction changes nothing": 1})
    assert shown(rows) == [text.strip()]


def test_full_width_corrected_to_half_width_is_a_preference():
    assert pairs(made([judged("correction", ["你好,世界"], text="你好，世界")])) == [("你好，世界", "你好,世界")]


def test_marked_spans_are_compared_with_those_of_the_same_person():
    def mark(text, *severities, **more):
        spans = [{"start": 0, "end": 1, "label": "x", "severity": severity} for severity in severities]
        return judged("spans", [text], spans=spans, **more)

    one, other = mark("good", "minor", "minor"), mark("poor", "major", "critical", None)
    assert penalty(one.payload) == 2
    assert penalty(other.payload) == 5 + 25 + 1
    assert not len(made([one]))
    assert pairs(made([one, other])) == [("good", "poor")]
    assert not len(made([one, mark("poor", "critical", person="bob")]))
    assert not made(
        [mark("a"), rating([5], ["b"]), rating([1], ["b"], prompt="q"), mark("c", "major", prompt="q")]
    ).preferences


def test_a_label_of_the_prompt_is_a_demonstration():
    rows = made([judged("label", [], label="sports"), judged("label", ["a"], label="rude", candidate=0, id="c")])
    assert shown(rows) == ["sports"]
    assert rows.unused == {"c": "a label of a completion"}


def test_gold_and_repeated_items_are_left_out():
    gold = win(0, id="g", expected={"kind": "pairwise", "outcome": "win", "winner": 0})
    again = win(0, id="r", repeats="item")
    rows = made([gold, again])
    assert not len(rows)
    assert rows.unused == {"g": "gold: the answer was known", "r": "repeated: it was asked before"}
    assert len(made([gold, again], checks=True).preferences) == 2


def test_one_aspect_alone():
    events = [win(0, aspect="truth"), win(1, id="x"), judged("thumbs", ["a"], up=[True], aspect="truth")]
    rows = made(events, aspect="truth")
    assert pairs(rows) == [("a", "b")]
    assert thumbs(rows) == [("a", True)]
    assert rows.preferences[0].meta["aspect"] == "truth"
    assert rows.unused == {"x": "another aspect"}


def test_signs_of_use_are_left_out_unless_asked_for():
    event = sign("copy", 0, ["a", "b"], id="s")
    assert made([event]).unused == {"s": "signs of use are left out"}
    assert pairs(made([event], implicit=True)) == [("a", "b")]


@pytest.mark.parametrize(
    "wrong", [{"ties": "both"}, {"merge": "mean"}, {"gap": -1}, {"gap": math.nan}, {"target": 2}, {"margin": -1}]
)
def test_rules_that_are_none(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Rules(**wrong)


# --- whatever comes --------------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", " ", "a", "b", "a ", "c"])


@st.composite
def some_events(draw):
    kind = draw(st.sampled_from(["pairwise", "ranking", "rating", "thumbs", "correction", "label", "implicit"]))
    texts = [draw(TEXTS), draw(TEXTS)]
    payloads = {
        "pairwise": lambda: draw(
            st.sampled_from([{"outcome": "tie"}, {"outcome": "both_bad"}, {"outcome": "win", "winner": 1}])
        ),
        "ranking": lambda: {"ranks": [draw(st.integers(1, 2)), draw(st.integers(1, 2))]},
        "rating": lambda: {"values": {"q": [draw(st.integers(1, 5)), draw(st.integers(1, 5))]}},
        "thumbs": lambda: {"up": [draw(st.booleans()), draw(st.sampled_from([True, False, None]))]},
        "correction": lambda: {"text": draw(st.sampled_from(["a", "d"]))},
        "label": lambda: {"label": draw(st.sampled_from("xy"))},
        "implicit": lambda: {
            "signal": draw(st.sampled_from(["dwell", "copy", "click", "rephrased", "scroll"])),
            "candidate": draw(st.sampled_from([0, 1, None])),
            "value": draw(st.floats(0, 1e6)),
            "unit": draw(st.sampled_from(["ms", "count"])),
        },
    }
    payload = payloads[kind]()
    if kind == "thumbs" and payload["up"] == [None, None]:
        payload["up"] = [True, None]
    repeats = draw(st.sampled_from([None, None, "item"]))
    return judged(kind, texts, draw(st.sampled_from("xyz")), draw(st.sampled_from("pq")), repeats=repeats, **payload)


@given(
    st.lists(some_events(), max_size=12),
    st.sampled_from(["each", "majority", "soft", "dawid_skene"]),
    st.sampled_from(["drop", "half"]),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_rules_that_hold_for_all_rows(events, merge, ties, implicit):
    rows = made(events, merge=merge, ties=ties, implicit=implicit)
    for row in rows.preferences:
        assert row.chosen != row.rejected
        assert 0.5 <= row.probability <= 1
        assert row.probability > 0.5 or ties == "half"
        assert 0 < row.weight <= 1
        if row.meta["feedback"] == "implicit":
            assert implicit
            assert row.weight <= 0.2
            assert row.probability <= 0.9
    for row in rows.all:
        assert all(text and text == text.strip() for text in _texts(row))
    ids = {event.id for event in events}
    assert set(rows.events) | rows.unused.keys() == ids, "each event is in a row, or it is said why not"
    assert not set(rows.events) & rows.unused.keys()
    assert not {event.id for event in events if event.repeats} & set(rows.events)
    again = made(events, merge=merge, ties=ties, implicit=implicit)
    assert (again.preferences, again.unpaired, again.sft) == (rows.preferences, rows.unpaired, rows.sft)


def _texts(row):
    return [getattr(row, name) for name in ("chosen", "rejected", "completion") if hasattr(row, name)]


# --- splits ----------------------------------------------------------------------------------------------------------


def test_a_split_by_document_keeps_documents_and_their_prompts_together():
    events = []
    for i in range(30):
        asked = {"document": f"d{i % 6}"} if i % 5 else {}
        events += [win(0, prompt=f"{i % 10}", asked=asked), judged("thumbs", ["a"], prompt=f"{i}", up=[True])]
    rest, held = split_rows(made(events), 0.2, "document", 0)
    assert len(rest) + len(held) == 60
    assert len(held)
    for name in ("prompts", "documents"):
        sides = [
            {row.prompt.text if name == "prompts" else row.meta.get("document_id") for row in side.all} - {None}
            for side in (rest, held)
        ]
        assert not sides[0] & sides[1], name


def test_a_split_by_person_goes_by_whose_words_they_are_or_by_who_judged():
    events = [win(0, person=f"p{i % 5}", prompt=f"{i}") for i in range(20)]
    rest, held = split_rows(made(events), 0.2, "person", 0)
    people = [{tuple(row.meta["annotators"]) for row in side.all} for side in (rest, held)]
    assert not people[0] & people[1]
    assert len(held) == 4
    events = [win(0, person="one", prompt=f"{i}", asked={"person": f"w{i % 4}"}) for i in range(20)]
    rest, held = split_rows(made(events), 0.25, "person", 0)
    assert len({row.meta["person_id"] for row in held.all}) == 1
    assert len(held) == 5


def test_a_split_that_cant_be_made_is_refused():
    with pytest.raises(UserError, match=r"by person from 2 rows of 1 group"):
        split_rows(made([win(0), win(0, prompt="other")]), 0.5, "person")


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.sampled_from(["drop", "half"]))
@settings(deadline=None, max_examples=40)
def test_rankings_are_orders_to_the_reward_stage(numbers, ties):
    texts = [f"text {i}" for i in range(len(numbers))]
    rows = made([judged("ranking", texts, ranks=numbers)], ties=ties)
    for group in together(rows.preferences):
        better = ranks(group)
        assert all(
            (better[a] < better[b]) == (x < y)
            for a, x in zip(texts, numbers, strict=True)
            for b, y in zip(texts, numbers, strict=True)
            if a in better and b in better
        )
