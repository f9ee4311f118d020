from helpers.judgements import judged, rating, win

from rlhf_lightning.feedback.events import digest
from rlhf_lightning.feedback.rewarding import reward_of


def key(text, prompt="Question"):
    return digest(prompt), digest(text)


def test_thumbs_are_one_and_zero_averaged_over_people():
    events = [
        judged("thumbs", ["a", "b"], up=[True, None]),
        judged("thumbs", ["a"], person="x", up=[False]),
        judged("thumbs", ["a"], person="x", up=[False]),
        judged("thumbs", ["a"], prompt="other", up=[True]),
    ]
    assert reward_of(events) == {key("a"): 0.5, key("a", "other"): 1.0}


def test_ratings_are_shares_of_the_scale_averaged_over_aspects():
    events = [
        judged("rating", ["a", "b"], values={"truth": [5, 2], "style": [3, None]}),
        rating([1, 5], ["a", "b"], person="x", low=0, high=10),
        win(0),
    ]
    assert reward_of(events) == {key("a"): (0.75 + 0.1) / 2, key("b"): (0.25 + 0.5) / 2}


def test_what_is_settled_does_not_count():
    one = judged("thumbs", ["a"], up=[True], id="one")
    verdict = judged("thumbs", ["a"], "j", up=[False], role="adjudicator", adjudicates=("one",))
    assert reward_of([one, verdict]) == {key("a"): 0.0}
