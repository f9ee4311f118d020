"""Rewards that runs can't be compared by, as each has a reward model of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.run_folders import write_run

from rlhf_lightning.compare import main
from rlhf_lightning.comparison.judges import other_judges
from rlhf_lightning.comparison.rows import make_rows
from rlhf_lightning.comparison.significance import compare_rows
from rlhf_lightning.comparison.table import table_fields
from rlhf_lightning.report import RunResults, read_samples, write_samples
from rlhf_lightning.report.runs import find_runs

NOTE = "is another reward model in these runs: not compared"


def judged(folder: Path, offset: float = 0.0, name: str = "learned", **changes) -> Path:
    """The run with one more reward, which scores a text by its length."""
    samples = read_samples(folder / "samples.jsonl")
    for sample in samples:
        for policy, text in sample.completions.items():
            sample.scores[policy][name] = len(text) / 64 + offset
    write_samples(folder / "samples.jsonl", samples)
    results = RunResults.read(folder / "metrics.json")
    for policy in results.policies:
        scores = [sample.scores[policy.name][name] for sample in samples]
        policy.metrics[name] = sum(scores) / len(scores)
    results.columns["reward"].append(name)
    results.directions[name] = "max"
    for key, value in changes.items():
        setattr(results, key, value)
    results.write(folder / "metrics.json")
    return folder


def rows_of(folder: Path) -> list:
    return make_rows(find_runs([folder])).rows


@pytest.mark.parametrize(("offset", "other"), [(0.0, False), (5e-5, False), (0.01, True), (-0.5, True)])
def test_a_reward_that_scores_the_same_text_differently_is_another_one(
    tmp_path: Path, offset: float, other: bool
) -> None:
    judged(write_run(tmp_path / "a"))
    judged(write_run(tmp_path / "b", "0.1", quality=0.9), offset)
    tests = compare_rows(rows_of(tmp_path))
    assert ("learned" not in tests.differences[1]) == other
    assert ("learned" not in tests.wins[1]) == other
    assert (f"learned {NOTE}" in tests.notes) == other
    assert ("learned" in tests.unknown[1]) == other
    assert "gold" in tests.differences[1]
    best = {field.metric: field.best for field in table_fields(make_rows(find_runs([tmp_path])), tests=tests)}
    assert (best["learned"] == frozenset()) == other


def test_any_reward_may_be_another_one(tmp_path: Path) -> None:
    judged(write_run(tmp_path / "a"), name="length")
    judged(write_run(tmp_path / "b", "0.1"), 0.1, name="length")
    assert other_judges(*rows_of(tmp_path)) == {"length": "is another judge in these runs: not compared"}


def test_runs_with_the_same_seeds_may_have_a_judge_each_seed(tmp_path: Path) -> None:
    for kl_coef in ("0.05", "0.1"):
        for seed in (1, 2):
            judged(write_run(tmp_path / f"{kl_coef} {seed}", kl_coef, seed), offset=seed)
    a, b = rows_of(tmp_path)
    assert other_judges(a, b) == {}
    b.runs.reverse()
    assert list(other_judges(a, b)) == ["learned"]


@pytest.mark.parametrize(
    ("config", "changes", "other"),
    [
        ("", {}, False),  # no stage `reward` here: what it stands for is checked below
        ("", {"stages": ["reward", "ppo"]}, True),
        ("", {"stages": ["reward", "ppo"], "reused": {"reward": "0"}}, False),
        ("reward_model: /models/judge\n", {}, False),
        ("reward_model: /models/{}\n", {}, True),
    ],
)
@pytest.mark.parametrize("name", ["learned", "judge"])
def test_without_shared_texts_a_learned_reward_must_be_one_model(
    tmp_path: Path, config: str, changes: dict, other: bool, name: str
) -> None:
    if not config and not changes:
        config = "reward_model: /models/judge\n"
    for job, kl_coef in (("0", "0.05"), ("1", "0.1")):
        folder = write_run(
            tmp_path / job, kl_coef, texts={"ppo": [f"{job} {row}" for row in range(60)]}, policies=("ppo",)
        )
        judged(folder, name=name, **changes)
        path = folder / ".hydra" / "config.yaml"
        target = "rlhf_lightning.rewards.LearnedReward"
        text = path.read_text().replace("  lr: 1e-5\n", f"  lr: 1e-5\n  rewards:\n    {name}: {{_target_: {target}}}\n")
        path.write_text(text + config.format(job))
    assert list(other_judges(*rows_of(tmp_path))) == ([name] if other else [])


def test_without_shared_texts_other_rewards_are_compared(tmp_path: Path) -> None:
    for job, kl_coef in (("0", "0.05"), ("1", "0.1")):
        write_run(tmp_path / job, kl_coef, texts={"ppo": [f"{job} {row}" for row in range(60)]}, policies=("ppo",))
    assert other_judges(*rows_of(tmp_path)) == {}


def test_the_gate_refuses_an_objective_of_another_judge(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = judged(write_run(tmp_path / "old"), objective="learned")
    new = judged(write_run(tmp_path / "new", "0.1"), -0.5, objective="learned")
    assert main([str(new), "--against", str(old)]) == 2
    assert f"learned can't be tested: learned {NOTE}" in capsys.readouterr().err
    same = judged(write_run(tmp_path / "same", "0.1"), objective="learned")
    assert main([str(same), "--against", str(old)]) == 0
