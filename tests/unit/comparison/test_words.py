"""What is said of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_lightning.comparison.rows import Row, Rows
from rlhf_lightning.comparison.significance import Difference
from rlhf_lightning.comparison.significance import Tests as Found
from rlhf_lightning.comparison.words import findings, method, sentence, win_text
from rlhf_lightning.report import PolicyResult, RunResults
from rlhf_lightning.report.runs import Run
from rlhf_lightning.report.winrate import WinRate


def row(name: str, seeds: tuple[int, ...] = (1, 2)) -> Row:
    results = [RunResults("qa", seed, objective="gold", policies=[PolicyResult("ppo")]) for seed in seeds]
    return Row(name, name, {"lr": name[-1]}, [Run(Path(f"/{name}/{one.seed}"), one) for one in results])


def changed(change: float, p: float, better: bool | None) -> Difference:
    return Difference(0.5, 0.5 + change, change, change - 0.01, change + 0.01, p / 2, p, better)


def test_what_got_better_comes_before_what_broke() -> None:
    tests = {
        "chrf": changed(0.2, 0.04, True),
        "gold": changed(0.05, 0.003, True),
        "eos_rate": changed(-0.25, 0.0002, False),
        "copied": changed(0.1, 0.02, None),
        "ter": changed(-3.0, 0.02, True),
        "learned": changed(0.1, 0.06, True),
        "bleu": changed(0.0, 1.0, None),
    }
    assert sentence(row("lr=1"), tests) == (
        "lr=1 raises gold by 0.050 (p = .003) and chrf by 0.200 (p = .040) and lowers ter by 3.00 (p = .020), "
        "but lowers eos_rate by 0.250 (p < .001), raises copied by 0.100 (p = .020), neither better nor worse in "
        "itself. No certain difference in learned."
    )


def test_an_objective_that_is_not_certain_is_told_with_its_interval() -> None:
    assert sentence(row("lr=1"), {"gold": changed(0.02, 0.3, True)}) == (
        "lr=1 changes nothing for certain. Not certain of gold: +0.020 (95 % +0.010 to +0.030, p = .30)."
    )
    assert sentence(row("lr=1"), {"gold": changed(-0.02, 0.01, False)}) == (
        "lr=1 lowers gold by 0.020 (p = .010), which is worse."
    )


def test_certain_gains_come_first_and_all_rows_are_named() -> None:
    rows = Rows(["lr"], 1, [row(f"lr={i}") for i in range(4)], {}, {})
    found = Found({1: 0, 2: 0, 3: 0}, 2000, untested={3: "there is no samples.jsonl to test with"})
    found.differences = {1: {"gold": changed(0.01, 0.5, True)}, 2: {"gold": changed(0.1, 0.01, True)}}
    found.wins = {2: {"gold": WinRate(0.6, 0.55, 0.65, 0.58, 0.5, 0.6, 100)}}
    lines = findings(rows, found)
    assert lines[0] == "Against lr=0 (seeds 1, 2):"
    assert lines[1].startswith("lr=2 raises gold")
    assert lines[1].endswith("Its answers win 60 % by gold (55 to 65; 58 % at equal length).")
    assert lines[2].startswith("lr=1 changes nothing for certain.")
    assert lines[3] == "lr=3 is not tested: there is no samples.jsonl to test with."


def test_ties_are_not_worth_a_word() -> None:
    assert win_text({"gold": WinRate(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 100, tied=True)}) == ""
    assert "50 % by gold" in win_text({"gold": WinRate(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 100)})


def test_an_interval_that_knows_nothing_of_seeds_is_not_told_of_several() -> None:
    assert win_text({"gold": WinRate(0.6, 0.55, 0.65, 0.58, 0.5, 0.6, 100, pairs=3)}) == (
        "Its answers win 60 % by gold (58 % at equal length)."
    )


def test_what_was_not_tested_is_said() -> None:
    tests = {"gold": changed(0.0, 1.0, None)}
    assert sentence(row("lr=1"), tests, ["kl", "distinct_1"]) == (
        "lr=1 changes nothing for certain. Not tested: kl, distinct_1."
    )
    assert sentence(row("lr=1"), {}, ["kl"]) == "lr=1: none of its metrics can be tested."


def test_a_row_that_is_worse_for_certain_does_not_come_before_gains() -> None:
    rows = Rows(["lr"], 1, [row(f"lr={i}") for i in range(4)], {}, {})
    found = Found({1: 0, 2: 0, 3: 0}, 2000)
    found.differences = {
        1: {"gold": changed(-0.1, 0.01, False), "chrf": changed(-1, 0.01, False)},
        2: {"gold": changed(0.0, 1.0, None), "chrf": changed(1, 0.01, True)},
        3: {"gold": changed(0.1, 0.01, True)},
    }
    assert [line.split()[0] for line in findings(rows, found)[1:]] == ["lr=3", "lr=2", "lr=1"]


@pytest.mark.parametrize(
    ("seeds", "others", "told"),
    [((1,), (1,), True), ((1, 2), (1, 2), False), ((1, 2), (3,), False), ((1,), (2, 3), False)],
)
def test_of_one_run_a_row_it_says_what_that_can_not_tell(
    seeds: tuple[int, ...], others: tuple[int, ...], told: bool
) -> None:
    rows = [row("lr=0", seeds), row("lr=1", others)]
    text = method(rows, Found({1: 0}, 2000, {1: {}}))
    assert ("not of what other seeds would give" in text) == told
    assert ("Student" in text) != told
    assert "Win rates" not in text


@pytest.mark.parametrize(
    ("seeds", "others", "said"),
    [
        ((1,), (1,), "Intervals of win rates are over prompts alone."),
        ((1, 2), (1, 2), "Win rates are over pairs of runs with the same seed, without an interval."),
        (
            (1, 2, 3),
            (1, 2),
            "Win rates are over pairs of runs in the order of their seeds, where one row has fewer these again, "
            "without an interval.",
        ),
    ],
)
def test_it_says_how_runs_were_paired_for_win_rates(seeds: tuple[int, ...], others: tuple[int, ...], said: str) -> None:
    found = Found({1: 0}, 2000, {1: {}}, {1: {"gold": WinRate(0.6, 0.55, 0.65, 0.58, 0.5, 0.6, 100)}})
    assert method([row("lr=0", seeds), row("lr=1", others)], found).endswith(said)
