"""The tests of rows against each other: against sacrebleu's, by hand, and by rules that hold for all inputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from helpers.run_folders import HELD_OUT, answers, question, write_run
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.significance import PairedTest

from rlhf_lightning.comparison.answers import Answers, CorpusMetric, build_metric
from rlhf_lightning.comparison.rows import make_rows
from rlhf_lightning.comparison.significance import Difference, Sampled, compare_rows, correct, difference, holm
from rlhf_lightning.errors import UserError
from rlhf_lightning.metrics import BLEU, ROUGE, TER, ChrF, LabelF1, TokenF1
from rlhf_lightning.report.runs import find_runs

REFERENCES = [question(row)[1] for row in range(HELD_OUT)]
LISTS = [[reference] for reference in REFERENCES]


@pytest.mark.parametrize("ours", [BLEU(), ChrF(), TER()])
@pytest.mark.parametrize("qualities", [(0.6, 0.62), (0.6, 0.66)])
def test_it_is_sacrebleus_paired_bootstrap(ours, qualities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SACREBLEU_SEED", "7")
    texts = [answers(quality, seed=3) for quality in qualities]
    theirs = {BLEU: sacrebleu.BLEU, ChrF: sacrebleu.CHRF, TER: sacrebleu.TER}[type(ours)]
    found = {}
    for kind, n in (("bs", 4000), ("ar", 2000)):
        test = PairedTest(list(zip("ab", texts, strict=True)), {"m": theirs(references=[REFERENCES])}, None, kind, n)
        (found[kind],) = [result[1] for name, result in test()[1].items() if name != "System"]
    metric = CorpusMetric(ours)
    weights = Answers(4000).weights(HELD_OUT)
    sides = []
    for side in texts:
        states = metric.states(side, LISTS)
        score = metric.scores(states.sum(0, keepdims=True))[""]
        sides.append(Sampled(score, metric.resampled(states, weights)[""][None], [0]))
    assert sides[1].values[0] == pytest.approx(found["bs"].score)
    # Their p value counts one tail of the bootstrap (as Moses' script does), of absolute differences.
    drawn = np.abs(sides[1].resampled - sides[0].resampled)[0]
    one_tail = (1 + (drawn - drawn.mean() > abs(sides[1].values - sides[0].values)[0]).sum()) / 4001
    assert one_tail == pytest.approx(found["bs"].p_value, abs=0.035)
    # Theirs by randomisation is another test, but two-sided, as ours is. Of TER, whose edits are few whole numbers, it
    # does not count the many draws that are as far apart as the two systems.
    assert isinstance(ours, TER) or difference(*sides, "max").p == pytest.approx(found["ar"].p_value, abs=0.06)


def test_a_resample_is_scored_like_a_corpus() -> None:
    """Every kind of metric, means and formulas: by states and weights as by the rows themselves, repeated."""
    texts = answers(0.5, seed=1, empty=3)
    rng = np.random.default_rng(1)
    weights = rng.multinomial(HELD_OUT, np.full(HELD_OUT, 1 / HELD_OUT), 5).astype(float)
    cases = [(metric, texts, LISTS) for metric in (BLEU(), ChrF(), TER(), ROUGE(), TokenF1())]
    few = ["red", "green", "blue"]
    cases.append(
        (LabelF1(few), [few[row % 3] for row in range(HELD_OUT)], [[few[row * row % 3]] for row in range(HELD_OUT)])
    )
    for metric, completions, references in cases:
        corpus = CorpusMetric(metric)
        found = corpus.resampled(corpus.states(completions, references), weights)
        for draw, times in enumerate(weights.astype(int)):
            rows = [row for row, n in enumerate(times) for _ in range(n)]
            metric.reset()
            metric.update([completions[row] for row in rows], [references[row] for row in rows])
            value = metric.compute()
            for name, score in (value if isinstance(value, dict) else {"": value}).items():
                assert found[name][draw] == pytest.approx(float(score), abs=1e-6), (type(metric), name)


def test_a_metric_that_is_no_sum_over_rows_is_refused() -> None:
    from torchmetrics import MaxMetric

    class Longest(MaxMetric):
        def update(self, completions, references):
            super().update(float(max(map(len, completions))))

    with pytest.raises(ValueError, match="Longest is no formula over sums"):
        CorpusMetric(Longest()).states(["a", "bb"], [["a"], ["a"]])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "os.system", "command": "false"}, "cannot use|no metric"),
        ({"_target_": "pathlib.Path"}, "pathlib.Path is no metric"),
        ({"_target_": "no_such_module.Metric"}, "cannot use no_such_module.Metric"),
        ({"_target_": "rlhf_lightning.metrics.ChrF", "colour": 1}, "cannot use rlhf_lightning.metrics.ChrF"),
    ],
)
def test_a_config_can_name_nothing_but_metrics(config: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_metric(config)


def sampled(values: list[float], seeds: list[int], error: float = 0.0) -> Sampled:
    """Runs whose resamples lie around their values with a standard deviation, the same for all of them."""
    noise = error * np.random.default_rng(5).normal(size=(1, 4000))
    return Sampled(np.array(values), np.array(values)[:, None] + noise, seeds)


def test_over_seeds_it_is_students_t() -> None:
    """Without an error of the rows: the paired t test where the seeds are the same, else that of two samples."""
    from scipy.stats import ttest_ind, ttest_rel

    a, b = [0.50, 0.52, 0.47, 0.55], [0.56, 0.55, 0.54, 0.58]
    same, other = sampled(b, [1, 2, 3, 4]), sampled(b, [5, 6, 7, 8])
    paired, apart = (difference(sampled(a, [1, 2, 3, 4]), side, "max") for side in (same, other))
    assert paired.p == pytest.approx(ttest_rel(b, a).pvalue, abs=0.015)
    assert apart.p == pytest.approx(ttest_ind(b, a).pvalue, abs=0.015)
    interval = ttest_ind(b, a).confidence_interval()
    assert (apart.low, apart.high) == (pytest.approx(interval.low, abs=0.01), pytest.approx(interval.high, abs=0.01))


def test_one_run_against_several_is_held_against_their_spread() -> None:
    """A single run is as far off as the spread of the others says: t with m - 1 degrees of freedom."""
    several, one = sampled([0.5, 0.6, 0.7, 0.8], [1, 2, 3, 4]), sampled([0.9], [5])
    found = difference(several, one, "max")
    sd = np.std(several.values, ddof=1)
    assert found.high - found.low == pytest.approx(2 * 3.182 * sd * np.sqrt(1 + 1 / 4), rel=0.1)  # t(3, .975) = 3.182
    assert found.verdict == "unsure"


def test_rows_and_seeds_both_count() -> None:
    quiet = difference(sampled([0.5], [1]), sampled([0.6], [1]), "max")
    assert quiet.verdict == "better"
    noise = np.random.default_rng(6).normal(size=(1, 4000))
    loud = Sampled(np.array([0.6]), 0.6 + 0.06 * noise, [1])
    found = difference(sampled([0.5], [1]), loud, "max")
    assert found.p == pytest.approx(0.0956, abs=0.02)  # P(|N| > 0.1 / 0.06)
    assert (found.low, found.high) == (pytest.approx(0.1 - 1.96 * 0.06, abs=0.01), pytest.approx(0.2176, abs=0.01))


@pytest.mark.parametrize(("seeds", "others"), [((1, 2, 3), (1, 2, 3)), ((1, 2, 3), (4, 5, 6)), ((1,), (1,))])
def test_chance_alone_is_seldom_called_certain(seeds: tuple[int, ...], others: tuple[int, ...]) -> None:
    """Policies that are equally good, apart from what rows, seeds and both together do: alarms in at most 5 %."""
    rng = np.random.default_rng(8)
    weights = Answers(500).weights(250) / 250
    alarms = 0
    for _ in range(500):
        rows = rng.normal(0, 0.3, 250)
        of_seed = {seed: rng.normal(0, 0.1 * (len(seeds) > 1)) for seed in {*seeds, *others}}
        sides = []
        for names in (seeds, others):
            scores = np.stack([rows + of_seed[seed] + rng.normal(0, 0.3, 250) for seed in names])
            sides.append(Sampled(scores.mean(1), scores @ weights.T, names))
        alarms += difference(sides[0], sides[1], "max").p < 0.05
    assert alarms <= 500 * 0.08  # three standard errors above 5 %


def test_a_side_against_itself_is_no_difference() -> None:
    one = sampled([0.5, 0.6], [1, 2], error=0.1)
    found = difference(one, one, "max")
    assert (found.change, found.p, found.better, found.verdict) == (0, 1, None, "unsure")


@pytest.mark.parametrize(("direction", "verdict"), [("max", "worse"), ("min", "better"), (None, "moved")])
def test_the_verdict_follows_the_metrics_own_direction(direction: str | None, verdict: str) -> None:
    assert difference(sampled([0.5], [1]), sampled([0.4], [1]), direction).verdict == verdict


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    found = holm(p_values)
    assert all(p <= c <= 1 and c <= min(1, len(p_values) * p) for p, c in zip(p_values, found, strict=True) if p <= c)
    assert all(c >= p for p, c in zip(p_values, found, strict=True))
    pairs = sorted(zip(p_values, found, strict=True))
    assert [c for _, c in pairs] == sorted(found)
    assert min(found) == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_the_objectives_are_corrected_apart_from_all_others() -> None:
    def at(p: float) -> Difference:
        return Difference(0, 1, 1, 0, 2, p, p, True)

    found = correct({1: {"gold": at(0.01), "a": at(0.02)}, 2: {"gold": at(0.03), "a": at(0.9)}}, lambda row: "gold")
    corrected = {row: {name: test.corrected for name, test in tests.items()} for row, tests in found.items()}
    assert corrected == {1: {"gold": 0.02, "a": 0.04}, 2: {"gold": 0.03, "a": 0.9}}


def test_rows_of_runs_are_tested_on_what_they_answered(tmp_path: Path) -> None:
    for i, (kl_coef, quality, empty) in enumerate([("0.02", 0.5, 0), ("0.1", 0.9, 20)]):
        for seed in (1, 2, 3):
            write_run(tmp_path / f"{i}{seed}", kl_coef, seed, quality, empty=empty)
    rows = make_rows(find_runs([tmp_path])).rows
    tests = compare_rows(rows)
    found = tests.differences[1]
    assert list(found) == ["gold", "chrf", "kl", "empty_rate", "eos_rate"]
    for name, test in found.items():
        means = [np.mean(row.values(name)) for row in rows]
        assert (test.baseline, test.value) == (pytest.approx(means[0]), pytest.approx(means[1]))
    assert found["empty_rate"].verdict == "worse"
    assert found["empty_rate"].change == pytest.approx(20 / HELD_OUT)
    assert tests.wins[1]["gold"].rows == HELD_OUT
    assert (tests.notes, tests.untested) == ([], {})
    assert list(compare_rows(rows, baseline=1, only=["chrf"]).differences[0]) == ["chrf"]


def test_there_is_no_test_of_what_the_answers_do_not_bear_out(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    folder = write_run(tmp_path / "b", "0.1")
    text = (folder / "metrics.json").read_text()
    value = find_runs([folder])[0].value("chrf")
    (folder / "metrics.json").write_text(text.replace(str(value), "12.5"))
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows)
    assert "chrf" not in tests.differences[1]
    assert tests.notes == [
        f"no test of chrf in ppo.kl_coef=0.1: the answers in samples.jsonl give {value:.4g}, the run measured 12.5"
    ]


def test_other_held_out_rows_are_not_paired(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    folder = write_run(tmp_path / "b", "0.1")
    write_run(tmp_path / "c", "0.2", samples=False)
    write_run(tmp_path / "d", "0.3", task="translation")
    samples = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(samples.replace("Say number 3.", "Say number three."))
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows)
    assert tests.differences == {}
    assert {row: why.split(",")[0][:40] for row, why in tests.untested.items()} == {
        1: "only answers to the same prompts with th",
        2: "there is no samples.jsonl to test with",
    }
    assert tests.against == {1: 0, 2: 0}  # the other task has one row, and nothing to be held against
