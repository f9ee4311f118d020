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
from rlhf_lightning.comparison.significance import (
    Difference,
    Sampled,
    compare_rows,
    correct,
    difference,
    holm,
    pairs,
    student_tail,
    win_rates,
)
from rlhf_lightning.errors import UserError
from rlhf_lightning.metrics import BLEU, ROUGE, TER, ChrF, LabelF1, TokenF1
from rlhf_lightning.report import RunResults, read_samples, write_samples
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
        sides.append(Sampled(score, metric.resampled(states, weights)[""][None], [0], HELD_OUT))
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
    return Sampled(np.array(values), np.array(values)[:, None] + noise, seeds, 10_000)


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


@pytest.mark.parametrize("seeds", [([1, 2], [1, 2]), ([1, 2], [3, 4]), ([1], [3, 4])])
def test_mirrored_sides_give_the_mirrored_interval(seeds: tuple[list[int], list[int]]) -> None:
    a = sampled([0.50, 0.56][: len(seeds[0])], seeds[0], 0.01)
    b = Sampled(np.array([0.57, 0.55]), 0.56 + 0.02 * np.random.default_rng(1).normal(size=(2, 4000)), seeds[1], 10_000)
    there, back = difference(a, b, "max"), difference(b, a, "max")
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p == pytest.approx(back.p)


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
    loud = Sampled(np.array([0.6]), 0.6 + 0.06 * noise, [1], 10_000)
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
            sides.append(Sampled(scores.mean(1), scores @ weights.T, names, 250))
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

    rows = {1: {"gold": at(0.01), "a": at(0.02), "b": at(0.9)}, 2: {"gold": at(0.03), "a": at(0.9)}}
    found = correct(rows, lambda row: "gold")
    corrected = {row: {name: test.corrected for name, test in tests.items()} for row, tests in found.items()}
    assert corrected == {1: {"gold": 0.02, "a": 0.04, "b": 0.9}, 2: {"gold": 0.03, "a": 0.9}}


@pytest.mark.parametrize("free", [1, 2, 3, 4, 7, 30, 999])
def test_the_tail_of_students_t_is_scipys(free: int) -> None:
    from scipy.stats import t

    for x in (0.0, 0.5, 2.0, 6.0):
        assert student_tail(x, free) == pytest.approx(2 * t.sf(x, free), abs=1e-12)


def test_a_clear_change_is_certain_among_any_number_of_tests() -> None:
    """The bootstrap alone can't tell p values below 1 / 2001: by Holm none of 500 rows would ever be certain."""
    from scipy.stats import norm

    found = difference(sampled([0.5], [1], error=0.0), sampled([0.56], [1], error=0.01), "max")
    assert found.p == pytest.approx(2 * norm.sf(6), rel=0.5)
    rows = {i: {"gold": found} for i in range(500)}
    assert all(tests["gold"].certain for tests in correct(rows, lambda row: "gold").values())
    seeds = difference(sampled([0.5, 0.51, 0.49], [1, 2, 3]), sampled([0.9, 0.95, 0.85], [1, 2, 3]), "max")
    assert 1e-4 < seeds.p < 0.05, "the tail over few seeds is that of Student's t"


def test_few_rows_can_not_be_as_certain_as_many() -> None:
    few, many = (Sampled(np.array([1.0]), np.ones((1, 500)), [1], rows) for rows in (10, 10_000))
    nothing = Sampled(np.array([0.0]), np.zeros((1, 500)), [1], 10_000)
    assert difference(nothing, few, "max").p == pytest.approx(2**-9)  # one of the 2 ** 10 ways to flip signs, twice
    assert difference(nothing, many, "max").p < 1e-12


def test_the_error_of_few_rows_is_that_of_the_unbiased_variance() -> None:
    values = np.random.default_rng(0).normal(size=12)
    drawn = (Answers(20_000).weights(12) @ values / 12)[None]
    nothing = Sampled(np.zeros(1), np.zeros((1, 20_000)), [1], 12)
    found = difference(nothing, Sampled(values.mean(keepdims=True), drawn, [1], 12), None)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(12), rel=0.03)


def shortened(folder: Path, rows: int) -> Path:
    """The run with so few held-out rows."""
    samples = read_samples(folder / "samples.jsonl")[:rows]
    write_samples(folder / "samples.jsonl", samples)
    results = RunResults.read(folder / "metrics.json")
    gold = sum(sample.scores["ppo"]["gold"] for sample in samples) / rows
    results.policies[-1].metrics["gold"] = gold
    results.write(folder / "metrics.json")
    return folder


@pytest.mark.parametrize(("rows", "tested"), [(1, False), (9, False), (10, True)])
def test_a_few_held_out_rows_are_not_tested(tmp_path: Path, rows: int, tested: bool) -> None:
    shortened(write_run(tmp_path / "a", quality=0.1), rows)
    shortened(write_run(tmp_path / "b", "0.1", quality=0.9), rows)
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows, only=["gold"])
    if tested:
        assert list(tests.differences[1]) == ["gold"]
    else:
        assert tests.untested[1].startswith(f"only {rows} held-out row")


def test_a_figure_that_few_rows_have_is_not_tested(tmp_path: Path) -> None:
    for name, kl_coef in (("a", "0.05"), ("b", "0.1")):
        path = write_run(tmp_path / name, kl_coef) / "samples.jsonl"
        samples = read_samples(path)
        for sample in samples[9:]:
            del sample.measures["ppo"]["eos_rate"]
        write_samples(path, samples)
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows)
    assert "eos_rate" not in tests.differences[1]
    assert "eos_rate" in tests.unknown[1]
    assert any("no test of eos_rate" in note and "only 9 held-out rows" in note for note in tests.notes)


@pytest.mark.parametrize("side", ["a", "b"])
def test_what_is_not_a_number_is_left_out(tmp_path: Path, side: str) -> None:
    for name, kl_coef in (("a", "0.05"), ("b", "0.1")):
        folder = write_run(tmp_path / name, kl_coef)
        if name == side:
            without_gold(folder)
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows)
    assert "gold" not in tests.differences[1]
    assert "chrf" in tests.differences[1]
    assert tests.unknown[1] == ["gold"]
    assert any(note.startswith("no test of gold in ppo.kl_coef=") for note in tests.notes)


def without_gold(folder: Path) -> None:
    samples = read_samples(folder / "samples.jsonl")
    for sample in samples:
        sample.scores["ppo"]["gold"] = float("nan")
    write_samples(folder / "samples.jsonl", samples)
    results = RunResults.read(folder / "metrics.json")
    results.policies[-1].metrics["gold"] = float("nan")
    results.write(folder / "metrics.json")


def test_seeds_may_have_held_out_rows_of_their_own(tmp_path: Path) -> None:
    """Where both sides have the same seeds, each pair of runs has to share its rows, and no more than that."""
    for kl_coef, quality in (("0.05", 0.5), ("0.1", 0.9)):
        for seed in (1, 2):
            folder = write_run(tmp_path / f"{kl_coef} {seed}", kl_coef, seed, quality)
            if seed == 2:
                path = folder / "samples.jsonl"
                path.write_text(path.read_text().replace("Say number", "Tell number"))
                shortened(folder, 50)
    rows = make_rows(find_runs([tmp_path])).rows
    tests = compare_rows(rows, only=["gold"])
    assert tests.differences[1]["gold"].verdict == "better"
    assert tests.wins[1]["gold"].pairs == 2
    assert tests.wins[1]["gold"].rows == HELD_OUT + 50
    rows[1].runs.reverse()
    assert "give data.test, or data.seed=0" in compare_rows(rows).untested[1]


def test_a_baseline_with_a_run_without_answers_is_not_tested(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", "0.05", seed, samples=seed == 1)
        write_run(tmp_path / f"b{seed}", "0.1", seed)
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows)
    assert tests.untested == {1: "there is no samples.jsonl to test with"}


def test_no_run_is_left_out_of_the_win_rates(tmp_path: Path) -> None:
    """Three runs against two: the third of them, which loses where the others win, counts as they do."""
    for seed in (1, 2):
        write_run(tmp_path / f"a{seed}", "0.05", seed, quality=0.5)
    for seed, quality in ((1, 1.0), (2, 1.0), (3, 0.0)):
        write_run(tmp_path / f"b{seed}", "0.1", seed, quality=quality)
    rows = make_rows(find_runs([tmp_path])).rows
    assert [(a.results.seed, b.results.seed) for a, b in pairs(*rows)] == [(1, 1), (2, 2), (1, 3)]
    (rate,) = win_rates(*rows, ["gold"]).values()
    assert (rate.rate, rate.pairs) == (pytest.approx(2 / 3, abs=0.05), 3)


def test_a_metric_of_the_users_own_that_can_not_be_resampled_is_named(tmp_path: Path) -> None:
    for name, kl_coef in (("a", "0.05"), ("b", "0.1")):
        folder = write_run(tmp_path / name, kl_coef)
        config = folder / ".hydra" / "config.yaml"
        config.write_text(
            config.read_text()
            + "    lists: {_target_: torchmetrics.CatMetric}\n    lost: {_target_: '${no.such.place}'}\n"
            + "    keeps: {_target_: helpers.run_folders.KeepsRows}\n"
        )
    tests = compare_rows(make_rows(find_runs([tmp_path])).rows)
    assert {"gold", "chrf"} <= set(tests.differences[1])
    told = " ".join(tests.notes)
    assert "no test of lost in ppo.kl_coef=0.1: its config can't be resolved" in told
    assert "no test of keeps in ppo.kl_coef=0.1: KeepsRows keeps its rows in lists" in told
    assert "no test of lists in ppo.kl_coef=0.1: " in told


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
