"""A run's answers as pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.run_folders import write_run

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.from_run import items_of_run
from rlhf_lightning.feedback.store import Store
from rlhf_lightning.report import PolicyResult, RunResults, Sample, write_samples


def write(folder: Path, samples: list[Sample], policies: tuple[str, ...] = ("base", "sft", "ppo")) -> Path:
    folder.mkdir(parents=True)
    results = RunResults("qa", policies=[PolicyResult(name, f"{name}/model", {"f1": 0.5}) for name in policies])
    results.write(folder / "metrics.json")
    write_samples(folder / "samples.jsonl", samples)
    return folder


def sample(number: int, **completions: str) -> Sample:
    return Sample(f"row{number}", f"Question {number}?", [f"reference {number}"], completions)


def test_the_last_two_policies_answers_are_compared(tmp_path: Path) -> None:
    samples = [
        sample(0, base="x", sft="yes", ppo="no"),
        sample(1, base="x", sft="same", ppo="same"),
        sample(2, base="x", sft="", ppo="half a character \ud83d"),
    ]
    found = items_of_run(write(tmp_path / "run", samples))
    assert [item.asked.text for item in found] == ["Question 0?", "Question 2?"]
    first, last = found
    assert (first.kind, first.task) == ("pairwise", "qa")
    assert [(c.text, c.model) for c in first.candidates] == [("yes", "sft"), ("no", "ppo")]
    assert first.candidates[1].settings == {"folder": "ppo/model"}
    assert first.asked.meta == {"run": "run", "row": "row0", "references": ["reference 0"], "equal": 1}
    assert [c.text for c in last.candidates] == ["", "half a character ?"]
    with Store(tmp_path / "x.db") as store:
        assert store.add_items(found) == 2
        assert store.add_items(items_of_run(tmp_path / "run")) == 0  # read again, they are the same questions


def test_a_run_of_the_real_form(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    found = items_of_run(tmp_path)
    assert found
    assert all(a.text != b.text for item in found for a, b in [item.candidates])
    assert len({item.candidates[0].model for item in found}) == 1


@pytest.mark.parametrize(
    ("samples", "policies", "told"),
    [
        ([], ("base", "sft"), "no answers"),
        ([sample(0, sft="a")], ("sft",), "those of sft"),
        ([sample(0, base="a", sft="a")], ("base", "sft"), "the same answer to all of 1"),
    ],
)
def test_a_run_with_nothing_to_compare(
    tmp_path: Path, samples: list[Sample], policies: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        items_of_run(write(tmp_path / "run", samples, policies))


def test_several_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [sample(0, base="a", sft="b")])
    with pytest.raises(UserError, match="holds 2 runs"):
        items_of_run(tmp_path)
