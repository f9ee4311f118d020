"""What a loop asked and what people said, as its folder holds it, and the rows that are made of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from rlhf_lightning.data.rows import PreferenceRow, UnpairedRow
from rlhf_lightning.data.sources import TaskData
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Event
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.rows import Rows, rows_of
from rlhf_lightning.loop.candidates import prompt_of
from rlhf_lightning.loop.questions import RANDOM, VERDICT

QUESTIONS, JUDGEMENTS = "questions.jsonl", "judgements.jsonl"
HELD_OUT = 0.1
"""Prompts on which reward models are measured and do not learn, as a share of those asked about."""

Row = TypeVar("Row", PreferenceRow, UnpairedRow)


@dataclass
class Judgements:
    """Questions and judgements of a loop, each file of them read once, when it is complete.

    Attributes:
        folder: of the run.
        data: every row of the task.
        seed: of what is held out.
        tell: is told what a reader of the results has to know.
    """

    folder: Path
    data: TaskData
    seed: int
    tell: Callable[[str], None]
    _questions: dict[str, list[Item]] = field(default_factory=dict)
    _events: dict[str, list[Event]] = field(default_factory=dict)

    def questions(self, name: str) -> list[Item]:
        """What was asked in a part of the loop, such as ``round_1``."""
        if name not in self._questions:
            self._questions[name] = read_items(self.folder / name / QUESTIONS)
        return self._questions[name]

    def events(self, name: str) -> list[Event]:
        """What people had said to all questions of the loop when those of a part of it were answered."""
        if name not in self._events:
            self._events[name] = read_events(self.folder / name / JUDGEMENTS)
        return self._events[name]

    def learnable(self, number: int) -> list[Event]:
        """Judgements up to a round's that may be learnt from: those of one policy's answers."""
        strategies = self._strategies(number)
        return [event for event in self.events(_round(number)) if strategies.get(event.item) != VERDICT]

    def rows(self, number: int) -> TaskData:
        """The task's rows, with the preferences of all judgements up to a round's, but verdicts, beside its own.

        Held out are judgements of this loop alone, as the reward model is to know the answers of the policy as it is
        now; and of these such as were asked at random: the others were chosen for being hard, or easy, to foretell.

        Raises:
            UserError: if people prefer nothing to anything.
        """
        said, strategies = self.learnable(number), self._strategies(number)
        kept_out = held_prompts([self.questions(_round(n)) for n in range(1, number + 1)], HELD_OUT, self.seed)
        learnt = rows_of([event for event in said if _prompt(event.asked) not in kept_out])
        held = rows_of([e for e in said if _prompt(e.asked) in kept_out and strategies.get(e.item) == RANDOM])
        if not learnt.preferences:
            learnt, held = rows_of(said), Rows()
            if not learnt.preferences:
                raise UserError("people's judgements give no preference: all are ties, or say the same of each answer")
            self.tell(f"round {number}: all preferences are of held-out prompts, so none is held out")
        return replace(
            self.data,
            preferences=[*self.data.preferences, *self._as_asked(learnt.preferences)],
            preferences_test=self._as_asked(held.preferences),
            unpaired=[*self.data.unpaired, *self._as_asked(learnt.unpaired)],
            unpaired_test=self._as_asked(held.unpaired),
            notes=[],
        )

    def pairs(self, number: int) -> list[PreferenceRow]:
        """The comparisons that a round's reward model learnt from, and those it was measured on."""
        data = self.rows(number)
        return [*data.preferences, *data.preferences_test]

    def asked_at_random(self, number: int) -> list[PreferenceRow]:
        """The comparisons of a round's own questions that were drawn at random: a fair sample of all it could ask."""
        drawn = {item.id for item in self.questions(_round(number)) if item.strategy == RANDOM}
        return self._as_asked(rows_of([e for e in self.events(_round(number)) if e.item in drawn]).preferences)

    def _strategies(self, number: int) -> dict[str, str]:
        asked = (item for n in range(1, number + 1) for item in self.questions(_round(n)))
        return {item.id: item.strategy for item in asked}

    def _as_asked(self, rows: Sequence[Row]) -> list[Row]:
        """Rows with the data's own prompts, which know what of them may be cut; a question holds their text alone."""
        own = {str(row.prompt.text): row.prompt for row in self.data.prompts}
        return [replace(row, prompt=own.get(str(row.prompt.text), row.prompt)) for row in rows]


def held_prompts(asked: Sequence[Sequence[Item]], share: float, seed: int) -> set[str]:
    """The prompts on which reward models are measured, drawn from the new ones of each round that it asks at random.

    A prompt that is held out stays so in all later rounds, and one that was learnt from is never held out later: each
    reward model goes on from the one before, and would be measured on what that has learnt.

    Args:
        asked: the questions of each round so far; verdicts don't count.
        share: of a round's new prompts, chosen ones among them, that is drawn; at least one where there are two and
            more, and no more than are asked at random.
        seed: of the choice.

    Returns:
        ``str`` of their texts, or of the turns of a chat.
    """
    seen: set[str] = set()
    held: set[str] = set()
    for number, items in enumerate(asked, 1):
        strategies = {_prompt(item.asked): item.strategy for item in items if item.strategy != VERDICT}
        new = [name for name in strategies if name not in seen]
        seen.update(new)
        drawn = sorted(name for name in new if strategies[name] == RANDOM)
        if len(new) > 1:
            count = min(len(drawn), max(1, round(share * len(new))))
            held.update(random.Random(seed + number).sample(drawn, count))
    return held


def read_events(path: Path) -> list[Event]:
    """The events of a file of judgements."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Event.from_json(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line]


def read_items(path: Path) -> list[Item]:
    """The questions of a file."""
    return [Item.model_validate_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _prompt(asked: Asked) -> str:
    return str(prompt_of(asked).text)


def _round(number: int) -> str:
    return f"round_{number}"
