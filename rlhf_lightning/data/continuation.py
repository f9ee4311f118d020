"""Texts that a model is to go on with: the first words are the prompt."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from rlhf_lightning.data.files import Record
from rlhf_lightning.data.format import RowFormat
from rlhf_lightning.data.rows import PromptRow, SFTRow
from rlhf_lightning.errors import UserError


@dataclass(frozen=True)
class ContinuationFormat(RowFormat):
    """Splits a text into its first words, which are the prompt, and the rest, which is the demonstration.

    How many words a prompt has is drawn from the text itself, so that it is the same in every run. Rows that bring a
    ``prompt``, and preferences, are taken as `RowFormat` takes them.

    Attributes:
        text: column of the text.
        least, most: words of a prompt; a text of few words keeps at least one for the rest.
    """

    prompt: str = "{opening}"
    completion: str = "rest"
    text: str = "text"
    least: int = 2
    most: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.least <= self.most:
            raise UserError(
                f"a prompt of {self.least} to {self.most} words: task.format.least must be at least 1, and no more "
                "than task.format.most"
            )

    def prompt_row(self, record: Record, need_references: bool = True) -> PromptRow:
        """An opening to go on with; its reference is how the text went on.

        Raises:
            UserError: naming place, field and remedy.
        """
        return replace(super().prompt_row(self._split(record), need_references), meta=record.values)

    def sft_row(self, record: Record) -> SFTRow:
        """An opening, and how the text went on.

        Raises:
            UserError: naming place, field and remedy.
        """
        return replace(super().sft_row(self._split(record)), meta=record.values)

    def _split(self, record: Record) -> Record:
        if "prompt" in record.values:
            return record
        if self.text not in record.values:
            raise self._missing(record, self.text)
        text = self._text(record, self.text, record.values[self.text]).strip()
        words = list(re.finditer(r"\S+", text))
        if len(words) <= self.least:
            raise UserError(
                f"{record.place}: the field {self.text!r} has {len(words)} word(s); an opening of {self.least} and "
                "something after it are needed. See task.format.least."
            )
        count = random.Random(text).randint(self.least, min(self.most, len(words) - 1))
        end = words[count - 1].end()
        return replace(record, values={**record.values, "opening": text[:end], "rest": text[end:].strip()})
