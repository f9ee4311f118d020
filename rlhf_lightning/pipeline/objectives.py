"""What a run is judged by, and which way is better, before anything has been measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlhf_lightning.errors import UserError
from rlhf_lightning.pipeline.checks import settle_sample
from rlhf_lightning.pipeline.measure import GUARDRAILS, task_metrics

Direction = Literal["max", "min"]


def directions_of(
    cfg: dict[str, Any], objectives: str | Sequence[str] | Mapping[str, Direction] | None
) -> dict[str, Direction]:
    """The objectives of a sweep and which way is better.

    Args:
        cfg: the options of one of its runs.
        objectives: names of figures, or names with their direction; ``objective`` is the one that the run is judged
            by, which is also what None means.

    Raises:
        UserError: for no objective, or one of which it is not known which way is better.
    """
    chosen = ["objective"] if objectives is None else [objectives] if isinstance(objectives, str) else objectives
    named = dict(chosen) if isinstance(chosen, Mapping) else dict.fromkeys(chosen)
    given = {objective_of(cfg) if name == "objective" else name: direction for name, direction in named.items()}
    if not given or None in given:
        raise UserError("the sweep has no objective: give task.objective, or hydra.sweeper.objectives=[NAME]")
    known = _known(cfg)
    made: dict[str, Direction] = {}
    for name, direction in given.items():
        assert name is not None
        way = direction or known.get(name)
        if way not in ("max", "min"):
            said = "is unknown" if name not in known else "may be good high or low"
            raise UserError(
                f"hydra.sweeper.objectives: {name} {said}; say which way is better, as in "
                f"hydra.sweeper.objectives={{{name}: max}}"
            )
        made[name] = way
    return made


def objective_of(cfg: dict[str, Any]) -> str | None:
    """The figure that a run with these options is judged by."""
    settled = {**cfg, "data": dict(cfg["data"])}
    settle_sample(settled)
    return "gold" if settled["data"]["gold"] else cfg["task"]["objective"]


def _known(cfg: dict[str, Any]) -> dict[str, Direction | None]:
    """Figure to which way is better, if either is."""
    known: dict[str, Any] = {**GUARDRAILS, "kl": "min"}
    text = (cfg["task"]["format"].get("labels") or ["a text"])[0]  # metrics of labels take nothing else
    for name, metric in task_metrics(cfg).items():
        metric.update([text], [[text]])
        value = metric.compute()
        way = {True: "max", False: "min", None: None}[metric.higher_is_better]
        known |= dict.fromkeys(value if isinstance(value, dict) else [name], way)
    for name, reward in cfg["ppo"]["rewards"].items():
        known[name] = "min" if reward["weight"] < 0 else "max"
    return {**known, "gold": "max", "learned": "max"}
