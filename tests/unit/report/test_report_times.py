import json

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.report import RunResults, write_report
from rlhf_lightning.report.curves import Curve
from rlhf_lightning.report.results import StageTime
from rlhf_lightning.report.times import in_words, is_about_time, phases, read_times, stack, stage_time

PPO = {
    "ppo/seconds/sample": Curve([0, 1], [2.0, 4.0]),
    "ppo/seconds/score": Curve([0, 1], [0.5, 0.5]),
    "ppo/seconds/forward": Curve([0, 1], [1.0, 1.0]),
    "ppo/seconds/update": Curve([0, 1], [5.0, 5.0]),
    "ppo/seconds/step": Curve([0, 1], [9.0, 11.0]),
    "ppo/seconds/data": Curve([1], [0.5]),
    "ppo/tokens_per_second": Curve([0, 1], [100.0, 80.0]),
}
SFT = {
    "sft/loss": Curve([0, 1, 2, 3], [3.0, 2.0, 1.0, 0.0]),
    "sft/seconds/step": Curve([0, 1, 2, 3], [4.0, 3.0, 3.0, 3.0]),
    "sft/seconds/data": Curve([1, 2, 3], [1.0, 1.0, 1.0]),
    "sft/tokens_per_second": Curve([1, 2, 3], [100.0, 200.0, 300.0]),
    "sft/padding": Curve([0, 1, 2, 3], [0.1, 0.2, 0.3, 0.4]),
}


def test_the_totals_of_sft_by_hand():
    time = stage_time("sft", SFT)
    assert time.seconds == {"step": 13.0, "data": 3.0}
    assert time.tokens_per_second == pytest.approx(200)
    assert time.padding == pytest.approx(0.25)
    assert time.words == "16.0 s: step 81 %, data 19 %; 200 tokens/s, 25 % padding"


def test_the_totals_of_ppo_by_hand():
    """What the phases leave of a round is the rest, with the wait for the prompts; the longest phase comes first."""
    assert phases("ppo", PPO)["rest"] == Curve([0, 1], [0.5, 1.0])
    time = stage_time("ppo", PPO)
    assert list(time.seconds.items()) == [
        ("update", 10.0),
        ("sample", 6.0),
        ("forward", 2.0),
        ("rest", 1.5),
        ("score", 1.0),
    ]
    # 9 s at 100 tokens a second and 11.5 s at 80
    assert time.tokens_per_second == pytest.approx((9 * 100 + 11.5 * 80) / 20.5)
    assert time.words == ("20.5 s: update 49 %, sample 29 %, forward 10 %, rest 7 %, score 5 %; 89 response tokens/s")


def test_a_round_that_was_passed_over_is_rest():
    longer = {**PPO, "ppo/seconds/step": Curve([0, 1, 2], [9.0, 11.0, 3.0])}
    assert phases("ppo", longer)["rest"] == Curve([0, 1, 2], [0.5, 1.0, 3.0])
    assert phases("ppo", longer)["update"].values == [5.0, 5.0, 0.0]


def test_steps_that_were_not_logged_are_like_the_others():
    every_fifth = {"sft/seconds/step": Curve([4, 9], [1.0, 3.0])}
    assert stage_time("sft", every_fifth).seconds == {"step": 20.0}


def test_nothing_timed_nothing_told(run_dir):
    assert stage_time("sft", {"sft/loss": SFT["sft/loss"]}) is None
    assert read_times(run_dir, ["sft", "ppo"]) == {}
    assert "Where the time went" not in write_report(run_dir).read_text(encoding="utf-8")


def test_words_where_there_is_little_to_say():
    assert in_words("reward", {"step": 90.0}, None, None) == "1 min 30 s: step 100 %"
    assert in_words("reward", {"step": 0.0}, 5.0, None) == "0.0 s; 5 tokens/s"


def test_the_stack_keeps_its_area_when_it_is_thinned_out():
    spent = {"step": Curve([*range(10)], [float(i) for i in range(10)]), "data": Curve([*range(10)], [1.0] * 10)}
    for limit, stretches in ((60, 10), (5, 5)):
        lower, upper = stack(spent, limit)
        assert len(lower.high) == len(lower.edges) - 1 == stretches
        assert lower.edges[0] == pytest.approx(-0.5)
        assert lower.edges[-1] == pytest.approx(9.5)
        assert lower.low == [0.0] * stretches
        assert upper.low == lower.high

        def area(one):
            sides = zip(one.low, one.high, one.edges, one.edges[1:], strict=False)
            return sum((high - low) * (right - left) for low, high, left, right in sides)

        assert (area(lower), area(upper)) == (pytest.approx(45), pytest.approx(10))
    (alone,) = stack({"step": Curve([7], [2.0])})
    assert (alone.edges, alone.high) == ([6.5, 7.5], [2.0])


def test_the_page_shows_it(run_dir):
    curves = "step,sft/loss,sft/seconds/step,sft/seconds/data,sft/tokens_per_second,sft/padding\n"
    (run_dir / "sft" / "metrics.csv").write_text(curves + "0,3,4,,,0.1\n1,2,3,1,100,0.3\n")
    text = write_report(run_dir).read_text(encoding="utf-8")
    part = text[text.index("Where the time went") : text.index("<h2>Settings")]
    assert part.count("<svg") == 1, "PPO's and the reward model's log says nothing of it"
    assert "8.0 s: step 88 %, data 12 %; 100 tokens/s, 20 % padding" in part
    for label in ("seconds a step", "tokens / s", "padding, %"):
        assert f">{label}<" in part
    curves_of_sft = text[text.index("Learning curves of SFT") : text.index("Learning curves of the reward")]
    assert curves_of_sft.count("<svg") == 1, "what the picture shows is no learning curve"
    assert [is_about_time(name) for name in ("seconds/data", "tokens_per_second", "padding", "loss")] == [True] * 3 + [
        False
    ]


def test_it_is_written_and_read_back(results, tmp_path):
    results.time = {"sft": stage_time("sft", SFT), "ppo": stage_time("ppo", PPO)}
    results.write(tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["time"]["sft"]["words"].startswith("16.0 s: step")
    assert RunResults.read(tmp_path / "metrics.json") == results
    results.time = {"sft": StageTime("", padding="much")}
    results.write(tmp_path / "metrics.json")
    with pytest.raises(UserError, match="padding: expected a number, found a string"):
        RunResults.read(tmp_path / "metrics.json")
