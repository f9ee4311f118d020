"""The options of a loop over people's feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.selection import LEAST_RANDOM, STRATEGIES, Strategy
from rlhf_lightning.feedback.simulated import Simulated

PEOPLE, SIMULATED = "people", "simulated"


@dataclass(frozen=True)
class Loop:
    """Rounds of asking people, learning a reward from all they have said, and optimising the policy against it.

    Attributes:
        rounds: how many.
        prompts: prompts about whose answers people are asked in a round.
        candidates: answers to each; two are compared, more are ranked.
        temperature: at which they are drawn.
        ask: which of the drawn answers people are asked about: ``random``, or those that the last reward model is least
            sure of (``margin``), finds farthest apart (``gap``), or on which an ensemble of its heads differs most
            (``variance``); see `rlhf_lightning.feedback.selection`.
        random_share: of the questions that is drawn at random all the same.
        raters: people that judge each question.
        verdict: held-out prompts to which people compare the answers of each round's policy with those of the one
            before: what they say is never trained on, and gives the win rates in the report. 0 is none.
        annotators: ``simulated``, ``people`` (a page is served until they are done), or a file of judgements as
            `rlhf-feedback export --format log` writes it.
        simulated: who the simulated ones are.
        people: how many links to the page are shown, for that many people.
        port: of the page, the same in all rounds; 0 is any that is free, another one each time.
        store: where judgements are kept, as `rlhf-feedback --store` takes it; None is feedback.db in the run folder.
        keep_raw: store questions and judgements as they are; else personal data in them is replaced, as by
            `rlhf-feedback serve`. The data's own rows are the user's, and are trained on as they are.
    """

    rounds: int = 3
    prompts: int = 64
    candidates: int = 2
    temperature: float = 1.0
    ask: Strategy = "random"
    random_share: float = LEAST_RANDOM
    raters: int = 1
    verdict: int = 32
    annotators: str = SIMULATED
    simulated: Simulated = field(default_factory=Simulated)
    people: int = 1
    port: int = 8321
    store: str | None = None
    keep_raw: bool = False

    def __post_init__(self) -> None:
        for name, least in {"rounds": 1, "prompts": 2, "candidates": 2, "raters": 1, "verdict": 0, "people": 1}.items():
            if getattr(self, name) < least:
                raise UserError(f"loop.{name} must be at least {least}, not {getattr(self, name)}")
        if self.candidates > 9:
            raise UserError(f"loop.candidates must be at most 9, not {self.candidates}: nobody ranks more")
        if not self.temperature > 0:
            raise UserError(f"loop.temperature must be above 0, not {self.temperature}: all candidates would be equal")
        if self.ask not in STRATEGIES:
            raise UserError(f"loop.ask must be {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}, not {self.ask!r}")
        if not LEAST_RANDOM <= self.random_share <= 1:
            raise UserError(f"loop.random_share must be from {LEAST_RANDOM} to 1, not {self.random_share}")
        if self.ask != "random" and self.candidates != 2:
            raise UserError(f"loop.ask={self.ask} chooses pairs: give loop.candidates=2")
        if self.annotators == SIMULATED and self.raters > len(self.simulated.noise):
            raise UserError(
                f"loop.raters={self.raters} is more than the {len(self.simulated.noise)} simulated annotators: "
                "loop.simulated.noise has a number for each of them"
            )
        if self.annotators == PEOPLE and self.raters > self.people:
            raise UserError(f"loop.raters={self.raters} needs as many people: give loop.people={self.raters} or more")


def is_learned_here(reward: dict[str, Any]) -> bool:
    """Whether a reward of PPO's is the reward model that each round trains."""
    return str(reward.get("_target_")).endswith("LearnedReward") and reward.get("model") is None


def check_loop(cfg: dict[str, Any]) -> None:
    """Refuse a loop that can't be, before anything heavy is loaded.

    Raises:
        UserError: naming the option and the remedy.
    """
    loop = cfg["loop"]
    stages: Sequence[str] = cfg["stages"]
    if list(stages) not in (["sft", "reward", "ppo"], ["reward", "ppo"]):
        raise UserError(
            f"loop=feedback runs sft once, and reward and ppo in each round: stages={list(stages)} can't be; give "
            "stages=[sft,reward,ppo], or stages=[reward,ppo] to begin with policy=FOLDER or a pre-trained model"
        )
    if cfg["dry_run"]:
        raise UserError("dry_run=true shows the stages of one run: leave loop=feedback out to see those of a round")
    if cfg["profile"]:
        raise UserError("profile=true is for a run without loop=feedback: its rounds are all alike")
    rewards = cfg["ppo"]["rewards"]
    if not any(map(is_learned_here, rewards.values())):
        raise UserError("loop=feedback learns a reward from people: have PPO optimise it, with rewards=learned")
    annotators = loop.get("annotators")
    if annotators not in (PEOPLE, SIMULATED, None) and not Path(str(annotators)).expanduser().exists():
        raise UserError(
            f"loop.annotators={annotators}: there is no such file; it is {SIMULATED}, {PEOPLE}, or a file of judgements"
        )
