import pytest
import torch

from rlhf_lightning.data.rows import PreferenceRow, Prompt
from rlhf_lightning.feedback.events import Annotator, Asked, Candidate, Event
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.loop.figures import foretold, gains, said_of, wins_of


def compared(outcome: str, winner: int | None, models=("round 2", "round 1"), item: str = "i") -> Event:
    return Event(
        item=item,
        kind="pairwise",
        asked=Asked(text="p"),
        candidates=tuple(Candidate(text=f"by {model}", model=model) for model in models),
        annotator=Annotator(id="a"),
        payload=Pairwise(outcome=outcome, winner=winner),  # type: ignore[arg-type]
    )


def test_wins_count_a_tie_one_half_whatever_the_place():
    events = [
        compared("win", 0, item="1"),
        compared("win", 1, item="2"),
        compared("win", 1, ("round 1", "round 2"), "3"),
        compared("tie", None, item="4"),
        compared("win", 0, ("round 3", "round 2")),  # others
    ]
    found = wins_of("round 2", "round 1", events)
    assert found["win_rate"] == pytest.approx(2.5 / 4)
    assert found["compared"] == 4
    assert found["win_low"] < 0.5 < found["win_high"]
    assert wins_of("round 9", "round 8", events) == {}


class ByText:
    """Scores a text by a table."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def score(self, prompts, completions):
        return torch.tensor([self.scores[text] for text in completions])


def test_what_the_reward_model_foretold_leaves_ties_out_and_counts_its_own_one_half():
    model = ByText({"a": 1.0, "b": 0.0, "c": 0.0})
    right, wrong, level = (PreferenceRow(Prompt("p"), *texts) for texts in (("a", "b"), ("b", "a"), ("b", "c")))
    assert foretold(model, [right, right, wrong, level]) == 2.5 / 4  # type: ignore[arg-type]
    assert foretold(model, []) is None  # type: ignore[arg-type]


def test_several_people_s_judgements_of_one_question_are_one_comparison():
    twice = [compared("win", 0), compared("win", 0), compared("win", 1)]
    found = wins_of("round 2", "round 1", twice)
    assert found["compared"] == 1
    assert found["win_rate"] == pytest.approx(2 / 3)


def test_gains_are_differences_and_none_where_a_figure_is_missing():
    assert gains({"learned": 1.0, "gold": 0.5}, {"learned": 3.0, "gold": 0.25, "kl": 2.0}, "gold") == {
        "learned": 2.0,
        "objective": -0.25,
        "kl": 2.0,
    }
    assert gains({"mine": 1.0}, {"mine": 3.0}, None, "mine")["learned"] == 2.0
    assert gains({}, {"learned": 3.0}, None) == {"learned": None, "objective": None, "kl": None}


@pytest.mark.parametrize(
    ("now", "before", "direction", "word"),
    [
        ({"learned": 1.0, "objective": -0.1}, {}, "max", "beyond what people want"),
        ({"learned": 1.0, "objective": 0.1}, {}, "min", "beyond what people want"),
        ({"foretold": 0.6, "new_pairs": 90}, {"accuracy": 0.8, "held_out": 80}, None, "have moved away"),
        ({"win_rate": 0.3, "win_low": 0.2, "win_high": 0.45}, {}, None, "prefer the answers before it"),
        ({"win_rate": 0.7, "win_low": 0.6, "win_high": 0.8}, {}, None, "prefer its answers"),
    ],
)
def test_each_warning_is_given(now, before, direction, word):
    (said,) = said_of({"round": 2, **now}, before, direction)
    assert word in said
    assert said.startswith("round 2: ")


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ({"learned": 1.0, "objective": 0.1}, {}),
        ({"learned": -1.0, "objective": -0.1}, {}),
        ({"foretold": 0.75, "new_pairs": 90}, {"accuracy": 0.8, "held_out": 80}),
        ({"foretold": 0.2, "new_pairs": 90}, {"accuracy": 1.0, "held_out": 6}),  # of so few nothing follows
        ({"win_rate": 0.6, "win_low": 0.4, "win_high": 0.8}, {}),
        ({}, {}),
    ],
)
def test_nothing_is_said_without_a_reason(now, before):
    assert said_of({"round": 2, **now}, before, "max") == []
