"""Rewards that two rows can't be compared by, because other models gave them: each run may have trained its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rlhf_lightning.comparison.rows import Row
from rlhf_lightning.report.runs import Run

TOLERANCE = 1e-4
"""How far one judge's scores of the same text may be apart, relatively where they are above 1."""


def other_judges(baseline: Row, row: Row) -> dict[str, str]:
    """Rewards that do not judge both rows alike, and why.

    A reward is another one where it scores the same answer to the same prompt differently. Where no text is shared, a
    learned reward counts as the same only if it is one reward model by where it came from. Rows with the same seeds are
    held against each other seed by seed, so that each seed may have a judge of its own.
    """
    from rlhf_lightning.comparison.significance import pairs, same_seeds

    paired = same_seeds(baseline.seeds, row.seeds)
    groups = [list(pair) for pair in pairs(baseline, row)] if paired else [[*baseline.runs, *row.runs]]
    names = dict.fromkeys(name for run in row.runs for name in run.results.columns.get("reward", []))
    found = {}
    for name in names:
        same = [_alike(name, runs) for runs in groups]
        if any(alike is False for alike in same):
            what = "another reward model" if _is_learned(name, row.runs[0]) else "another judge"
            found[name] = f"is {what} in these runs: not compared"
        elif _is_learned(name, row.runs[0]) and any(
            alike is None and len({reward_model(name, run) for run in runs}) > 1
            for alike, runs in zip(same, groups, strict=True)
        ):
            found[name] = "is another reward model in these runs: not compared"
    return found


def _alike(name: str, runs: list[Run]) -> bool | None:
    """Whether a reward gives each text one score in all of the runs; None where no two of them share a text."""
    known: dict[tuple[str, tuple[str, ...], str], tuple[Run, float]] = {}
    shared = False
    for run in runs:
        for text, score in _scored(name, run):
            first, other = known.setdefault(text, (run, score))
            if first is run:
                continue
            shared = True
            if abs(score - other) > TOLERANCE * max(1.0, abs(other)):
                return False
    return True if shared else None


def _scored(name: str, run: Run) -> Iterator[tuple[tuple[str, tuple[str, ...], str], float]]:
    """Every text that the run's policies answered, with its score."""
    for sample in run.samples():
        for policy, completion in sample.completions.items():
            score = sample.scores.get(policy, {}).get(name)
            if score is not None and math.isfinite(score):
                yield (sample.prompt, tuple(sample.references), completion), score


def _is_learned(name: str, run: Run) -> bool:
    """Whether a reward is a model's; one that is only measured, and not optimised, is called ``learned``."""
    config = _config(name, run)
    return str(config["_target_"]).endswith("LearnedReward") if config.get("_target_") else name == "learned"


def _config(name: str, run: Run) -> dict[str, Any]:
    return ((run.config.get("ppo") or {}).get("rewards") or {}).get(name) or {}


def reward_model(name: str, run: Run) -> str:
    """Where the model of a learned reward came from: what the options name, or a job of the run's sweep."""
    given = _config(name, run).get("model")
    results = run.results
    if not given and "reward" in results.stages:
        return str(run.path.parent / results.reused.get("reward", run.path.name))
    return str(given or run.config.get("reward_model") or run.path)
