"""What a round brought, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rlhf_lightning.data.rows import PreferenceRow
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import Pairwise
from rlhf_lightning.feedback.statistics.intervals import wilson_interval
from rlhf_lightning.models import RewardModel

Figures = dict[str, float | None]
"""Figures of one round by name; see `rlhf_lightning.report.rounds.COLUMNS`."""


def wins_of(model: str, before: str, events: Sequence[Event]) -> Figures:
    """How often a model's answers were preferred to another's, a tie counting one half; empty without comparisons.

    Several people's judgements of one question count as their mean: it is over questions that the interval is.
    """
    scores: dict[str, list[float]] = {}
    for event in events:
        said = event.payload
        models = [candidate.model for candidate in event.candidates]
        if isinstance(said, Pairwise) and sorted(map(str, models)) == sorted([model, before]):
            score = 0.5 if said.winner is None else float(models[said.winner] == model)
            scores.setdefault(event.question, []).append(score)
    if not scores:
        return {}
    found = wilson_interval(sum(fmean(given) for given in scores.values()), len(scores))
    return {"win_rate": found.value, "win_low": found.low, "win_high": found.high, "compared": len(scores)}


def foretold(model: RewardModel, rows: Sequence[PreferenceRow]) -> float | None:
    """Share of preferences that a reward model foretells, equal scores counting one half; None without any."""
    if not rows:
        return None
    prompts = [row.prompt for row in rows]
    better = model.score(prompts, [row.chosen for row in rows])
    worse = model.score(prompts, [row.rejected for row in rows])
    return float(((better > worse).float() + 0.5 * (better == worse).float()).mean())


def gains(
    before: dict[str, float], after: dict[str, float], objective: str | None, learned: str = "learned"
) -> Figures:
    """What PPO gained in the reward that the round learnt (by the name of its column), and in the objective."""

    def gain(name: str | None) -> float | None:
        if name is None or name not in before or name not in after:
            return None
        return after[name] - before[name]

    return {"learned": gain(learned), "objective": gain(objective), "kl": after.get("kl")}


def said_of(now: Figures, before: Figures, direction: str | None) -> list[str]:
    """What a round's figures warn of, in sentences.

    Args:
        now: its figures.
        before: those of the round before.
        direction: which way the objective is better; None is ``max``.
    """
    told = []
    number = f"{now['round']:.0f}"
    learned, objective = now.get("learned"), now.get("objective")
    if learned is not None and objective is not None:
        better = -objective if direction == "min" else objective
        if learned > 0 and better < 0:
            told.append(
                f"round {number}: the learned reward rose by {learned:.3g} while the objective got worse by "
                f"{abs(objective):.3g}: PPO optimised the reward model beyond what people want"
            )
    share, accuracy = now.get("foretold"), before.get("accuracy")
    n, held = now.get("new_pairs") or 0, before.get("held_out") or 0
    if share is not None and accuracy is not None and _lower(share, n, accuracy, held):
        told.append(
            f"round {number}: the last reward model foretold {share:.0%} of the new judgements, and {accuracy:.0%} of "
            "those held out in its own round: the answers have moved away from what it has learnt"
        )
    low, high = now.get("win_low"), now.get("win_high")
    if high is not None and high < 0.5:
        told.append(f"round {number}: people prefer the answers before it (it won {now['win_rate']:.0%})")
    if low is not None and low > 0.5:
        told.append(f"round {number}: people prefer its answers to those before it (it won {now['win_rate']:.0%})")
    return told


def _lower(share: float, n: float, other: float, m: float) -> bool:
    """Whether one share is below another by more than chance does in 1 of 40 cases (normal approximation)."""
    if min(n, m) < 10:
        return False
    pooled = (n * share + m * other) / (n + m)
    return other - share > 1.96 * (pooled * (1 - pooled) * (1 / n + 1 / m)) ** 0.5
