"""The tools that the generators of the sample tasks share."""

import random
import subprocess
import sys
from collections import Counter

import pytest
from rlhf_lightning.tasks import generate


def test_judgements_follow_bradley_terry():
    rng = random.Random(0)
    chosen = Counter()
    for _ in range(4000):
        row = generate.judge(rng, ("good", 0.6), ("bad", 0.4), noise=1.0)
        assert {row["chosen"], row["rejected"]} == {"good", "bad"}
        chosen[row["annotator"], row["chosen"]] += 1
    for annotator, temperature in generate.ANNOTATORS.items():
        good, bad = chosen[annotator, "good"], chosen[annotator, "bad"]
        expected = 1 / (1 + 2.718281828 ** (-0.2 / temperature))
        assert good / (good + bad) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("longer", [True, False])
def test_comparison_goes_the_wanted_way_in_length(longer):
    rng = random.Random(1)
    gold = {"a": 0.0, "b": 1.0, "cc": 0.0, "dd": 1.0}
    for _ in range(50):
        row = generate.compare(rng, lambda: generate.pick(rng, list(gold)), gold.get, longer, noise=0.01)
        assert gold[row["chosen"]] > gold[row["rejected"]]
        assert (len(row["chosen"]) > len(row["rejected"])) == longer


def test_candidates_that_never_differ_are_an_error():
    with pytest.raises(ValueError, match="never differ"):
        generate.compare(random.Random(0), lambda: "same", lambda _: 0.5, None, noise=1.0)


def test_slips_change_the_text_and_invent_no_word():
    rng = random.Random(2)
    words = ["Norvik", "cuts", "300", "jobs", "in", "Oslo"]
    slips = [generate.spoil_words(rng, words) for _ in range(200)]
    assert all(slip != words and set(slip) <= set(words) for slip in slips)


def test_about_one_combination_in_eight_is_held_out():
    held = [generate.is_held_out(str(first), str(second)) for first in range(40) for second in range(40)]
    assert sum(held) / len(held) == pytest.approx(1 / generate.HELD_OUT_ONE_IN, abs=0.02)


def test_generator_runs_as_a_script(tmp_path):
    command = [sys.executable, "-m", "rlhf_lightning.tasks.classification.make_data", "--out", str(tmp_path)]
    subprocess.run(command, check=True)
    assert {path.stem for path in tmp_path.iterdir()} == set(generate.FILES)


def test_importing_a_gold_reward_imports_no_generator():
    code = "import sys, rlhf_lightning.tasks.qa.gold as gold; print([name for name in sys.modules if 'tasks.' in name])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "generate" not in out
    assert "make_data" not in out
