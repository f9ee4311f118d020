"""What people are asked in a round: about answers of the last policy, and how these compare with those before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.algorithms.ensemble import bootstrap_heads
from rlhf_lightning.data.rows import PreferenceRow, Prompt, PromptRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.selection import Strategy, choose
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.loop.candidates import different, draw_answers, prompt_of, prompts_of_round, question
from rlhf_lightning.loop.options import Loop
from rlhf_lightning.models import ModelSpec, RewardModel, Sampling, load_answerer
from rlhf_lightning.pipeline.run import limits_of

VERDICT = "verdict"
"""Strategy of the questions that compare two policies; what is said to them is never learnt from."""

RANDOM: Strategy = "random"
"""Strategy of the questions that are a fair sample of all that could be asked; see `feedback.selection.choose`."""

POOL = 4
"""Times as many prompts are answered as people are asked about, where the questions are chosen."""

SPARE = 2
"""Answers drawn beyond those wanted, since some are equal."""

HEADS = 8
"""Heads of the ensemble whose disagreement chooses, with ``loop.ask=variance``."""


def round_name(number: int) -> str:
    """What the policy after a round is called; 0 is the one that the loop starts with."""
    return f"round {number}" if number else "start"


@dataclass(frozen=True)
class Questions:
    """Makes the questions of each round.

    Attributes:
        cfg: the composed config.
        loop: the loop's options.
        data: every row.
        folder: of the run.
        project: of the questions.
        policy: the policy after a round, 0 being the start.
        reward: folder of a round's reward model.
        pairs: the comparisons of all judgements up to a round's.
        tell: is told what a reader of the results has to know.
    """

    cfg: dict[str, Any]
    loop: Loop
    data: TaskData
    folder: Path
    project: str
    policy: Callable[[int], ModelSpec]
    reward: Callable[[int], Path]
    pairs: Callable[[int], Sequence[PreferenceRow]]
    tell: Callable[[str], None]

    @property
    def limits(self) -> dict[str, Any]:
        """As `limits_of` has them."""
        return limits_of(self.cfg)

    def about_answers(self, number: int) -> list[Item]:
        """A round's questions about several answers of the last policy to one prompt."""
        loop, seed = self.loop, self.cfg["seed"]
        pool = 1 if loop.ask == RANDOM or number == 1 else POOL
        before = 0 if number == 1 else loop.prompts + (number - 2) * pool * loop.prompts
        places = prompts_of_round(len(self.data.prompts), pool * loop.prompts, before, seed)
        rows = [self.data.prompts[i] for i in places]
        sampling = Sampling(temperature=loop.temperature, seed=seed + number)
        settings = {"temperature": loop.temperature, "seed": sampling.seed}
        model = round_name(number - 1)
        items = []
        for row, texts in zip(rows, self._answers(number - 1, rows, loop.candidates + SPARE, sampling), strict=True):
            if (found := different(texts, loop.candidates)) is not None:
                items.append(question(self.project, row, found, [model] * len(found), settings, self._task))
        if short := len(rows) - len(items):
            self.tell(f"round {number}: {short} of {len(rows)} prompts got the same answer each time and are not asked")
        gaps = self._gaps(number - 1, items) if pool > 1 and items else None
        strategy = RANDOM if gaps is None else loop.ask
        picked = choose(len(items), loop.prompts, strategy, gaps, seed + number, loop.random_share)
        return [
            items[c.place].model_copy(update={"strategy": c.strategy, "probability": c.probability}) for c in picked
        ]

    def verdict(self, number: int) -> list[Item]:
        """Held-out prompts with the answers of a round's policy and of the one before, greedy as they are measured."""
        held, count = self.data.validation or self.data.test, self.loop.verdict
        rows = [held[i] for i in prompts_of_round(len(held), count, (number - 1) * count, self.cfg["seed"] + 1)]
        if not rows:
            return []
        new, old = (self._answers(n, rows, 1, Sampling(greedy=True)) for n in (number, number - 1))
        names = [round_name(number), round_name(number - 1)]
        pairs = [(row, a, b) for row, (a,), (b,) in zip(rows, new, old, strict=True) if a != b]
        if same := len(rows) - len(pairs):
            self.tell(
                f"round {number}: {same} of {len(rows)} held-out prompts are answered as before and are not asked"
            )
        return [
            question(self.project, row, [a, b], names, {"greedy": True}, self._task, strategy=VERDICT, priority=1.0)
            for row, a, b in pairs
        ]

    def reward_model(self, number: int) -> RewardModel:
        """A round's reward model, to be asked, where the Trainer would have it."""
        spec = ModelSpec(str(self.reward(number)), trust_remote_code=self.cfg["model"]["trust_remote_code"])
        gpu = self.cfg["trainer"]["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return RewardModel.load(spec, **self.limits).eval().to("cuda" if gpu else "cpu")

    @property
    def _task(self) -> str:
        return str(self.cfg["task"]["name"])

    def _answers(self, number: int, rows: Sequence[PromptRow], each: int, sampling: Sampling) -> list[list[str]]:
        labels = tuple(self.cfg["task"]["format"].get("labels") or ())
        policy = load_answerer(self.policy(number), **self.limits, labels=labels)
        engine = instantiate(self.cfg["rollout"])
        return draw_answers(self.cfg, policy, rows, each, sampling, engine, str(self.folder))

    def _gaps(self, number: int, items: Sequence[Item]) -> Tensor:
        """How much better a round's reward model, or each head of an ensemble on it, finds the first of two candidates.

        Returns:
            (n,), or (HEADS, n) with ``loop.ask=variance``.
        """
        model = self.reward_model(number)
        prompts = [prompt_of(item.asked) for item in items]
        first, second = ([item.candidates[k].text for item in items] for k in (0, 1))
        if self.loop.ask == "variance":
            return ensemble_gaps(model, self.pairs(number), prompts, first, second, self.cfg["seed"] + number)
        return (model.score(prompts, first) - model.score(prompts, second)).cpu()


def ensemble_gaps(
    model: RewardModel,
    pairs: Sequence[PreferenceRow],
    prompts: Sequence[Prompt],
    first: Sequence[str],
    second: Sequence[str],
    seed: int,
) -> Tensor:
    """How much better each of several heads on a reward model's frozen trunk finds the first of two texts.

    The heads are fitted to bootstrap samples of the pairs (`bootstrap_heads`). Features are scaled so that the mean
    squared length of the pairs' differences is 1: beforehand a head's gaps are then about N(0, 1). A pair of which a
    share prefers the other text counts both ways, by these shares; margins have no part in it.

    Args:
        model: the trunk.
        pairs: what people said, at least one.
        prompts, first, second: (n,) what is compared.
        seed: of what is drawn.

    Returns:
        (HEADS, n) float64, log-odds.
    """
    asked = [pair.prompt for pair in pairs]
    chosen, rejected = (
        model.features(asked, [p.chosen for p in pairs]),
        model.features(asked, [p.rejected for p in pairs]),
    )
    known = (chosen - rejected).double().cpu()
    new = (model.features(prompts, first) - model.features(prompts, second)).double().cpu()
    scale = known.square().sum(1).mean().sqrt()
    if not scale > 0:
        raise UserError(
            "the reward model finds no difference between any two answers, so no ensemble can be made of it"
        )
    weight, sure = torch.tensor([[pair.weight, pair.probability] for pair in pairs], dtype=torch.float64).unbind(1)
    both, weights = torch.cat([known, -known]) / scale, torch.cat([weight * sure, weight * (1 - sure)])
    said = weights > 0
    return bootstrap_heads(both[said], weights[said], HEADS, seed, 1.0) @ (new / scale).T
