import json
import math

import numpy as np
import pytest
import torch
from helpers.judged import ask

from rlhf_lightning.data.rows import PreferenceRow, Prompt
from rlhf_lightning.feedback.holding import current
from rlhf_lightning.feedback.report.reward_check import check, checked, trained_on
from rlhf_lightning.feedback.simulated import Simulated
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.report import PolicyResult, RunResults


class Knows:
    """Scores "ppo" texts 1, others 0."""

    def score(self, prompts, completions):
        return torch.tensor([float(text.startswith("ppo")) for text in completions])


def row(i: int, chosen: str = "long answer", rejected: str = "short") -> PreferenceRow:
    return PreferenceRow(Prompt(f"prompt {i}"), chosen, rejected, 1.0, 0.0, 1.0, None, {"events": [f"e{i}"]})


def test_calibration_is_the_mean_distance_in_bins():
    sure = math.log(0.8 / 0.2)
    gaps = np.array([sure] * 6 + [-sure] * 4 + [0.1] * 10)
    found = checked([row(i) for i in range(20)], gaps, "m", "all")
    assert found.accuracy.value == pytest.approx(16 / 20)
    assert found.longer.value == 1.0
    low = 1 / (1 + math.exp(-0.1))
    assert found.calibration_error.value == pytest.approx((10 * abs(0.8 - 0.6) + 10 * (1 - low)) / 20)
    assert found.bins[0].pairs == 10
    assert found.bins[5].pairs + found.bins[6].pairs == 10  # 0.8 is where they meet
    assert [c.events for c in found.contradictions] == [["e6"], ["e7"], ["e8"], ["e9"]]
    assert found.contradictions[0].gap == pytest.approx(sure)
    assert found.by_length["chosen much longer (over 3/2)"].n == 20


def test_few_and_no_pairs_are_said_in_words():
    assert checked([], np.array([]), "m", "all").accuracy.why == "no pairs that people judged"
    few = checked([row(1), row(2)], np.array([1.0, -1.0]), "m", "all")
    assert few.accuracy.why == "1 of 2 pairs that people judged: too few for a share"
    assert few.calibration_error.value is None


def test_pairs_that_a_model_was_trained_on_are_left_out_with_their_prompts(tmp_path):
    events = ask(Simulated(noise=[0.0]), 40)
    with Store(tmp_path / "s.db") as store:
        store.add(events)
        first = [event.id for event in events if event.annotator.id == "simulated-0"][:20]
        store.note_export("m", "model", str(tmp_path / "run"), first)
        known, words = trained_on(str(tmp_path / "run" / "reward" / "model"), store)
        assert known == set(first)
        assert "the store notes" in words
        found = check(Knows(), "m", current(events), known, words)  # type: ignore[arg-type]
        assert (found.pairs, found.left_out) == (60, 60)  # what others said of the same prompts, too
        assert found.accuracy.value == 1.0
        unknown, words = trained_on(str(tmp_path / "elsewhere"), store)
        assert unknown is None
        assert "may know them" in words


def test_what_a_run_was_trained_on_is_read_from_its_rows(tmp_path):
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    RunResults("qa", policies=[PolicyResult("sft", None, {})]).write(run / "metrics.json")
    rows = tmp_path / "preferences.jsonl"
    rows.write_text(json.dumps({"prompt": "p", "events": ["a", "b"]}) + "\n" + json.dumps({"events": ["c"]}) + "\n")
    (run / ".hydra" / "config.yaml").write_text(f"data:\n  preferences: {rows}\n")
    assert trained_on(str(run / "reward" / "model"), None)[0] == {"a", "b", "c"}
    rows.unlink()
    assert trained_on(str(run / "reward" / "model"), None)[0] is None
