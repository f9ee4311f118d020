import math

import pytest

from rlhf_lightning.report import PolicyResult, headline
from rlhf_lightning.report.summary import (
    best,
    cautions,
    clean,
    decimals,
    improves,
    number,
    plain_words,
    result_columns,
)


def test_headline(results):
    assert headline(results) == "PPO raised gold from 0.520 to 0.710 (+0.190) at KL 3.1; the base model had 0.310."


def test_headline_says_which_way_is_better(results):
    results.objective = "ter"
    assert headline(results).startswith("PPO lowered ter from 60.0 to 55.5 (-4.5) at KL 3.1, which is better;")
    results.objective = "rougeL"
    assert headline(results).startswith("PPO lowered rougeL from 0.420 to 0.400 (-0.020) at KL 3.1, which is worse;")


def test_headline_of_partial_results(results):
    results.policies = results.policies[:2]
    assert headline(results) == "SFT raised gold from 0.310 to 0.520 (+0.210) at KL 1.5."
    results.policies = results.policies[1:]
    assert headline(results) == "SFT has gold 0.520."
    results.policies = []
    assert headline(results) == "No policy has been evaluated."
    results.stages = ["predict"]
    assert headline(results) == "Nothing was to be measured."


def test_headline_without_change_or_objective(results):
    results.policies = [PolicyResult("base", None, {"rougeL": 0.5}), PolicyResult("ppo", None, {"rougeL": 0.5})]
    assert headline(results) == "PPO left rougeL at 0.500."


def test_cautions(results):
    assert cautions(results) == []
    results.status = "interrupted"
    results.policies = results.policies[:2]
    assert cautions(results) == ["The run was interrupted; there are results up to SFT."]


def test_a_reward_that_rises_while_the_objective_falls_is_pointed_out(results):
    results.objective = "rougeL"
    assert cautions(results) == ["gold rose while rougeL got worse: the policy may have learnt to exploit it."]


def test_what_is_not_to_be_seen_in_the_table_is_no_rise_and_no_fall(results):
    results.objective, last = "rougeL", results.policies[-1].metrics
    last["rougeL"] = results.policies[-2].metrics["rougeL"] - 6e-8
    assert cautions(results) == []
    last["rougeL"] = results.policies[-2].metrics["rougeL"] - 0.001
    assert cautions(results)
    last["gold"] = results.policies[-2].metrics["gold"] + 6e-8
    assert cautions(results) == []


def test_columns_are_grouped_and_hold_the_change_to_the_policy_before(results):
    results.policies[2].metrics["unlisted"] = 1.0
    columns = {column.name: column for column in result_columns(results)}
    assert [(column.group, name) for name, column in columns.items()] == [
        ("task", "rougeL"),
        ("task", "ter"),
        ("reward", "gold"),
        ("guardrails", "kl"),
        ("guardrails", "length"),
        ("guardrails", "unlisted"),
    ]
    assert columns["rougeL"].best == {1}
    assert columns["ter"].best == {2}
    assert columns["kl"].best == set()
    assert columns["gold"].change(0) is None
    assert columns["gold"].change(2) == pytest.approx(0.19)
    assert columns["unlisted"].values == [None, None, 1.0]
    assert columns["unlisted"].change(2) is None


def test_best():
    assert best([0.1, 0.3, 0.3, None, math.nan], "max") == {1, 2}
    assert best([0.1, 0.3], "min") == {0}
    assert best([0.3, 0.3], "max") == set()
    assert best([0.1, 0.3], None) == set()


def test_improves():
    assert improves(0.1, "max") is True
    assert improves(0.1, "min") is False
    assert improves(0.0, "max") is None
    assert improves(0.1, None) is None


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.3124, 1.0], ["0.312", "1.000"]),
        ([31.249, 5.0], ["31.2", "5.0"]),
        ([3.084], ["3.08"]),
        ([12345.6], ["12346"]),
        ([1e38, -2.5e7], ["1e+38", "-2.5e+07"]),
        ([0.000123], ["0.000123"]),
        ([0.0], ["0.000"]),
        ([math.nan, 0.5], ["nan", "0.500"]),
    ],
)
def test_numbers_suit_their_column(values, texts):
    assert [number(value, decimals(values)) for value in values] == texts


def test_number_signs():
    assert number(0.19, 2, sign=True) == "+0.19"
    assert number(6.91e-7, decimals([6.91e-7, 0.0])) == "6.91e-07"
    assert number(0.0, decimals([6.91e-7, 0.0])) == "0"
    assert number(-6.91e-7, decimals([6.91e-7]), sign=True) == "-6.91e-07"
    assert number(-0.001, 2) == "0.00"
    assert number(-0.001, 2, sign=True) == "0.00"
    assert number(None, 2) == "-"


def test_clean_keeps_text_and_drops_what_steers():
    assert clean("a\tb\n猫 [b]") == "a\tb\n猫 [b]"
    assert clean("\x1b[31m\x00\x9b\ud800") == "\ufffd[31m\ufffd\ufffd?"


def test_plain_words():
    assert plain_words("reward/learned_model") == "Reward: learned model"
    assert plain_words("lr-AdamW") == "Learning rate"
    assert plain_words("my_metric") == "my metric"
