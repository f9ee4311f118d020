import math

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.simulated import Simulated


def pair(i: int = 0, kind: str = "pairwise", texts: tuple[str, ...] = ("good", "poor")) -> Item:
    return Item(
        kind=kind,  # type: ignore[arg-type]
        asked=Asked(text=f"question {i}"),
        candidates=tuple(Candidate(text=text) for text in texts),
    )


def wins_of_first(people: Simulated, scores: list[float], n: int = 2000, **options) -> float:
    events = [people.judge(pair(i), scores, 0, **options) for i in range(n)]
    return sum(event.payload.winner == 0 for event in events) / n  # type: ignore[union-attr]


def test_without_noise_the_better_one_always_wins():
    assert wins_of_first(Simulated(noise=[0.0]), [0.6, 0.5], 100) == 1.0
    assert wins_of_first(Simulated(noise=[0.0]), [0.4, 0.5], 100) == 0.0


@pytest.mark.parametrize(("gap", "noise"), [(0.2, 0.2), (0.1, 0.3), (-0.3, 0.2)])
def test_noise_is_that_of_bradley_and_terry(gap, noise):
    expected = 1 / (1 + math.exp(-gap / noise))
    assert wins_of_first(Simulated(noise=[noise]), [0.5 + gap, 0.5], 4000) == pytest.approx(expected, abs=0.035)


def test_a_position_bias_prefers_what_is_shown_first():
    people = Simulated(noise=[0.1], position=0.2)
    events = [people.judge(pair(i), [0.5, 0.5], 0) for i in range(2000)]
    first = sum(event.payload.winner == event.shown.order[0] for event in events) / len(events)  # type: ignore[union-attr]
    assert first == pytest.approx(1 / (1 + math.exp(-2)), abs=0.035)


def test_a_taste_stays_the_same_and_differs_between_people():
    people = Simulated(noise=[0.0, 0.0], taste=1.0)

    def winners(person: int) -> list[int | None]:
        items = [pair(i, texts=(f"a{i}", f"b{i}")) for i in range(300)]
        return [people.judge(item, [0, 0], person).payload.winner for item in items]  # type: ignore[union-attr]

    ones = [winners(0), winners(1)]
    assert winners(0) == ones[0]
    assert 0.4 < sum(a == b for a, b in zip(*ones, strict=True)) / 300 < 0.6


def test_rankings_put_the_better_first_and_close_ones_level():
    item = pair(kind="ranking", texts=("a", "b", "c"))
    assert Simulated(noise=[0.0]).judge(item, [0.1, 0.9, 0.5], 0).payload.ranks == (3, 1, 2)  # type: ignore[union-attr]
    assert Simulated(noise=[0.0], tie=0.1).judge(item, [0.85, 0.9, 0.5], 0).payload.ranks == (1, 1, 3)  # type: ignore[union-attr]


def test_lapses_are_coin_flips():
    assert wins_of_first(Simulated(noise=[0.0], lapse=1.0), [1.0, 0.0]) == pytest.approx(0.5, abs=0.04)


def test_ratings_and_thumbs_follow_the_score():
    people = Simulated(noise=[0.0])
    assert people.judge(pair(kind="rating"), [1.0, 0.25], 0).payload.values == {"overall": (5.0, 2.0)}  # type: ignore[union-attr]
    assert people.judge(pair(kind="thumbs"), [0.7, 0.3], 0).payload.up == (True, False)  # type: ignore[union-attr]


@pytest.mark.parametrize("score", [0.3, 0.5, 0.6])
def test_thumbs_and_ratings_are_noisy_to_both_sides(score):
    """Noise with a mean above 0 would turn thumbs up that should be as often down."""
    people = Simulated(noise=[0.2])
    items = [pair(i, kind="thumbs", texts=("only",)) for i in range(2000)]
    up = sum(people.judge(item, [score], 0).payload.up[0] for item in items) / len(items)  # type: ignore[union-attr]
    assert up == pytest.approx(1 / (1 + math.exp(-(score - 0.5) / 0.2)), abs=0.035)
    rated = pair(kind="rating", texts=("only",)).model_copy(update={"low": 0, "high": 100})
    given = [people.judge(rated, [0.5], 0, seed=i).payload.values["overall"][0] for i in range(2000)]  # type: ignore[union-attr]
    assert sum(given) / len(given) == pytest.approx(50, abs=2)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1, 5, 3.0), (0, 1, 0.5), (0.5, 4.5, 2.5), (-2, 2, 0.0), (0, 2.5, 1.0)]
)
def test_ratings_are_on_the_scale(low, high, expected):
    item = pair(kind="rating", texts=("a", "b", "c")).model_copy(update={"low": low, "high": high})
    values = Simulated(noise=[0.0]).judge(item, [0.5, -3.0, 9.0], 0).payload.values["overall"]  # type: ignore[union-attr]
    assert values == (expected, low, high)


def test_a_longer_text_is_worth_more_by_the_logarithm_of_its_length():
    item = pair(texts=("a" * 999, "a" * 99))
    longer = [Simulated(noise=[0.5], length=0.3).judge(item, [0, 0], 0, seed=i).payload.winner for i in range(2000)]  # type: ignore[union-attr]
    assert longer.count(0) / 2000 == pytest.approx(1 / (1 + math.exp(-0.3 * math.log(10) / 0.5)), abs=0.035)


def test_rankings_follow_plackett_and_luce():
    item = pair(kind="ranking", texts=("a", "b", "c"))
    scores, noise, n = [0.5, 0.3, 0.1], 0.2, 2000
    seen = [Simulated(noise=[noise]).judge(item, scores, 0, seed=i).payload.ranks for i in range(n)]  # type: ignore[union-attr]
    worth = [math.exp(score / noise) for score in scores]
    expected = worth[1] / sum(worth) * worth[0] / (worth[0] + worth[2])
    assert seen.count((2, 1, 3)) / n == pytest.approx(expected, abs=0.035)


def test_ties_are_of_what_is_felt():
    people = Simulated(noise=[0.0], tie=0.1)
    assert people.judge(pair(), [0.55, 0.5], 0).payload.outcome == "tie"  # type: ignore[union-attr]
    assert people.judge(pair(), [0.7, 0.5], 0).payload.outcome == "win"  # type: ignore[union-attr]
    noisy = Simulated(noise=[0.2], tie=0.1)
    ties = sum(noisy.judge(pair(i), [0.5, 0.5], 0).payload.outcome == "tie" for i in range(2000)) / 2000  # type: ignore[union-attr]
    assert ties == pytest.approx(math.tanh(0.1 / 0.2 / 2), abs=0.035)  # P(|logistic(0, 0.2)| < 0.1)


@pytest.mark.parametrize(
    ("item", "scores", "word"),
    [
        (pair(), [0.5], "1 scores for 2"),
        (pair(), [0.5, math.nan], "not all finite"),
        (pair(kind="correction", texts=("only",)), [0.5], "of kind correction"),
    ],
)
def test_what_can_not_be_judged_is_refused(item, scores, word):
    with pytest.raises(ValueError, match=word):
        Simulated().judge(item, scores, 0)


def test_what_is_said_is_an_event_that_is_read_back_and_is_the_same_again():
    people = Simulated()
    event = people.judge(pair(), [0.5, 0.4], 1, seed=3)
    assert event == people.judge(pair(), [0.5, 0.4], 1, seed=3)
    assert Event.from_json(event.to_json()) == event
    assert event.annotator.role == "simulated"
    assert event.id != people.judge(pair(), [0.5, 0.4], 1, seed=4).id


@pytest.mark.parametrize(
    "options",
    [
        {"noise": []},
        {"noise": [-1]},
        {"noise": [math.inf]},
        {"lapse": 2},
        {"taste": -1},
        {"tie": math.nan},
        {"position": math.nan},
        {"length": math.inf},
    ],
)
def test_impossible_people_are_refused(options):
    with pytest.raises(UserError, match=r"simulated\."):
        Simulated(**options)
