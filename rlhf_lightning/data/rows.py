"""The typed rows that everything after the readers works on.

The field names are those of TRL's dataset formats, so that data prepared for TRL fits as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]
"""One turn of a chat: ``{"role": "user" | "assistant" | "system", "content": text}``."""

Text = str | list[Message]
"""A prompt: plain text, or the turns of a chat."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked.

    Attributes:
        text: The whole prompt, plain or as chat messages.
        cut: ``(start, end)`` characters of a plain ``text`` that may be shortened from their end when the prompt is
            longer than the model's limit (the document of a summary, the passage of a question), so that the
            instruction after it is never lost. None: text is dropped from the beginning.
    """

    text: Text
    cut: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt to answer, with the references its answer is measured against (none, one or several)."""

    prompt: Prompt
    references: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SFTRow:
    """A demonstration: a prompt and the completion to imitate."""

    prompt: Prompt
    completion: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """Two completions of one prompt, the preferred one first.

    Attributes:
        prompt, chosen, rejected: the texts.
        weight: factor of the row's loss.
        margin: by how much the scores should at least differ.
        probability: that a rater prefers ``chosen``, 0.5 to 1; 0.5 is a tie.
        group: name of the ranking that the pair is of; its pairs are kept in one batch. None is a pair by itself. A
            ranking of k completions has k (k - 1) / 2 pairs; with the weight 2 / (k (k - 1)) each they count as one
            (InstructGPT, Ouyang et al., 2022, arXiv:2203.02155, 3.5).
    """

    prompt: Prompt
    chosen: str
    rejected: str
    weight: float = 1.0
    margin: float = 0.0
    probability: float = 1.0
    group: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnpairedRow:
    """One completion with a thumb up (``label`` True) or down; ``weight`` scales the row's loss."""

    prompt: Prompt
    completion: str
    label: bool
    weight: float = 1.0
    meta: dict[str, Any] = field(default_factory=dict)
