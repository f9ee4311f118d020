"""What a round brought, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lightning.feedback.events import Event, Pairwise
from rlhf_lightning.feedback.statistics.intervals import wilson_interval
from rlhf_lightning.loop.candidates import prompt_of
from rlhf_lightning.models import RewardModel

Figures = dict[str, float | None]
"""Figures of one round by name; see `rlhf_lightning.report.rounds.COLUMNS`."""


def wins_of(model: str, before: str, events: Sequence[Event]) -> Figures:
    """How often a model's answers were preferred to another's, a tie counting one half; empty without comparisons."""
    scores: list[float] = []
    for event in events:
        said = event.payload
        models = [candidate.model for candidate in event.candidates]
        if isinstance(said, Pairwise) and sorted(map(str, models)) == sorted([model, before]):
            scores.append(0.5 if said.winner is None else float(models[said.winner] == model))
    if not scores:
        return {}
    found = wilson_interval(sum(scores), len(scores))
    return {"win_rate": found.value, "win_low": found.low, "win_high": found.high, "compared": len(scores)}


def foretold(model: RewardModel, events: Sequence[Event]) -> float | None:
    """Of comparisons of two that somebody won, the share that a reward model foretells; None where there are none."""
    won = [(event, event.payload.winner) for event in events if isinstance(event.payload, Pairwise)]
    pairs = [(event, winner) for event, winner in won if winner is not None]
    if not pairs:
        return None
    prompts = [prompt_of(event.asked) for event, _ in pairs]
    better = model.score(prompts, [event.candidates[winner].text for event, winner in pairs])
    worse = model.score(prompts, [event.candidates[1 - winner].text for event, winner in pairs])
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
    if share is not None and accuracy is not None and accuracy - share > DRIFT:
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


DRIFT = 0.1
"""Accuracy lost on new judgements from which on it is told of."""
