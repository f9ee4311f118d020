import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.loop.options import Loop, check_loop


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rounds": 0}, r"loop\.rounds must be at least 1"),
        ({"candidates": 1}, r"loop\.candidates must be at least 2"),
        ({"candidates": 10}, "at most 9"),
        ({"temperature": 0.0}, r"loop\.temperature"),
        ({"ask": "best"}, r"loop\.ask must be random"),
        ({"random_share": 0.1}, r"loop\.random_share"),
        ({"ask": "margin", "candidates": 4}, r"loop\.candidates=2"),
        ({"raters": 4}, "simulated annotators"),
        ({"raters": 2, "annotators": "people"}, r"loop\.people=2"),
    ],
)
def test_what_can_not_be_is_refused(options, word):
    with pytest.raises(UserError, match=word):
        Loop(**options)


LEARNED = {"learned": {"_target_": "rlhf_lightning.rewards.LearnedReward", "weight": 1.0}}


def config(**more):
    return {
        "loop": {},
        "stages": ["sft", "reward", "ppo"],
        "dry_run": False,
        "profile": False,
        "ppo": {"rewards": LEARNED},
        **more,
    }


def test_a_sound_loop_passes():
    check_loop(config())
    check_loop(config(stages=["reward", "ppo"]))


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"stages": ["sft"]}, r"stages=\[sft,reward,ppo\]"),
        ({"stages": ["sft", "reward", "ppo", "evaluate"]}, "can't be"),
        ({"dry_run": True}, "dry_run"),
        ({"profile": True}, "profile"),
        ({"ppo": {"rewards": {"bleu": {"_target_": "x.MetricReward"}}}}, "rewards=learned"),
        ({"ppo": {"rewards": {"learned": {**LEARNED["learned"], "model": "some/model"}}}}, "rewards=learned"),
        ({"loop": {"annotators": "nowhere.jsonl"}}, "no such file"),
    ],
)
def test_what_does_not_go_with_a_loop_is_refused(more, word):
    with pytest.raises(UserError, match=word):
        check_loop(config(**more))
