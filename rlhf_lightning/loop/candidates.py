"""Answers of a policy, and the questions made of them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
from pydantic import ValidationError

from rlhf_lightning.callbacks import Progress
from rlhf_lightning.callbacks.samples import of_all_ranks
from rlhf_lightning.data.files import shown
from rlhf_lightning.data.modules import PromptDataModule
from rlhf_lightning.data.rows import Prompt, PromptRow, Text
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Message, explain
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.text import whole_text
from rlhf_lightning.hydra_support import instantiate
from rlhf_lightning.models import Classifier, Policy, Sampling
from rlhf_lightning.rollout import Engine
from rlhf_lightning.stages import EvaluateModule, Evaluator

REFERENCES = "references"
"""The column of a question in which the references of its prompt travel along."""


def prompts_of_round(n: int, count: int, start: int, seed: int) -> list[int]:
    """Which of n prompts a round asks about, after ``start`` have had their turn: none twice until all have."""
    count = min(count, n)
    found: list[int] = []
    while len(found) < count:
        lap, place = divmod(start + len(found), n)
        order = random.Random(f"{seed}|{lap}").sample(range(n), n)
        new = [i for i in order[place : place + count - len(found)] if i not in found]
        found += new or [i for i in order if i not in found][: count - len(found)]
    return found


def draw_answers(
    cfg: dict[str, Any],
    policy: Policy | Classifier,
    rows: Sequence[PromptRow],
    each: int,
    sampling: Sampling,
    engine: Engine,
    folder: str,
) -> list[list[str]]:
    """Answers to prompts, the same on every rank: for each row ``each`` of them, in the order they were drawn."""
    repeated = [row for row in rows for _ in range(each)]
    callbacks: list[L.Callback] = [Progress()] if cfg["trainer"]["enable_progress_bar"] else []
    trainer = instantiate({**cfg["trainer"], "default_root_dir": folder}, callbacks=callbacks, logger=False)
    data = PromptDataModule([], repeated, policy.codec, 0, cfg["evaluate"]["batch_size"])
    batches = trainer.predict(EvaluateModule(policy, Evaluator(sampling=sampling, engine=engine)), datamodule=data)
    samples = of_all_ranks([sample for batch in batches or [] for sample in batch], trainer)
    texts = {sample.id: sample.completion for sample in samples}
    return [[texts[i * each + k] for k in range(each)] for i in range(len(rows))]


def question(
    project: str,
    row: PromptRow,
    texts: Sequence[str],
    models: Sequence[str],
    settings: dict[str, Any],
    task: str,
    **more: Any,
) -> Item:
    """The question which of some answers is better, or in which order they are.

    Args:
        project: whose question it is: another run that asks the same in the same store gets answers of its own.
        row: the prompt; its references and columns travel along.
        texts: two and more, all different.
        models: that wrote them.
        settings: how they were drawn.
        task: its name.
        more: further fields of `Item`.

    Raises:
        UserError: if a column of the row holds what no question can.
    """
    candidates = [
        Candidate(text=whole_text(text), model=model, settings=settings)
        for text, model in zip(texts, models, strict=True)
    ]
    try:
        asked = Asked(text=_asked(row.prompt.text), meta={**row.meta, REFERENCES: row.references})
    except ValidationError as error:
        raise UserError(f"the row of the prompt {shown(row.prompt.text)} is no question: {explain(error)}") from error
    kind: Literal["pairwise", "ranking"] = "pairwise" if len(candidates) == 2 else "ranking"
    told = json.dumps([project, asked.plain, settings, [[c.model, c.text] for c in candidates]], default=str)
    name = hashlib.sha256(told.encode()).hexdigest()[:20]
    return Item(id=name, kind=kind, task=task, asked=asked, candidates=tuple(candidates), **more)


def _asked(text: Text) -> str | tuple[Message, ...]:
    return text if isinstance(text, str) else tuple(Message.model_validate(turn) for turn in text)


def prompt_of(asked: Asked) -> Prompt:
    """The prompt of a question, as models take it."""
    if isinstance(asked.text, str):
        return Prompt(asked.text)
    return Prompt([{"role": turn.role, "content": turn.content} for turn in asked.text])


def different(texts: Sequence[str], wanted: int) -> list[str] | None:
    """The first different ones of some answers; None where there are not two."""
    found = list(dict.fromkeys(texts))[:wanted]
    return found if len(found) > 1 else None
