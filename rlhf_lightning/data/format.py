"""What a task's rows look like: which columns make the prompt, the completion, the references."""

from __future__ import annotations

import difflib
import json
import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_lightning.data.files import Record, listed, shown
from rlhf_lightning.data.rows import Message, PreferenceRow, Prompt, PromptRow, SFTRow, UnpairedRow
from rlhf_lightning.errors import UserError


class SameCompletions(UserError):
    """A preference between two equal completions: it says nothing, and is dropped and counted."""


class EmptyAnswer(UserError):
    """A preference between two dialogues of which one ends without an answer: public sets have some; dropped too."""


_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class RowFormat:
    """Turns a file's records into typed rows.

    A record with a column ``prompt`` (text or chat messages) and without all the template's columns is taken as TRL
    writes it: ``prompt`` as it is, and the columns ``completion``, ``references``, ``chosen``, ``rejected``, ``label``.
    Preferences may also be two whole chats, or two transcripts, that begin with the prompt; where demonstrations are
    wanted, such a row is one of the chosen one's last answer.

    Attributes:
        prompt: template over columns, such as ``"{document}\\nHeadline:"``; a literal brace is doubled.
        completion: column of the demonstration's completion; of a list of alternatives, the first is imitated.
        references: column with the reference or the list of them; where a record lacks it, ``completion`` has them.
        cut: the column of the template that is shortened when the prompt is too long.
        chosen, rejected: columns of a preference.
        weight, margin, probability, group: columns of its weight, margin, probability and ranking, if there are any
            (`PreferenceRow`); an empty cell of ``group`` is a pair by itself. Thumbs may have a weight, too.
        labels: the closed set of labels that completions and references are of; a preference may be between others.
        no_answer: text that stands for an empty list of references.
    """

    prompt: str
    completion: str = "completion"
    references: str = "references"
    cut: str | None = None
    chosen: str = "chosen"
    rejected: str = "rejected"
    weight: str | None = None
    margin: str | None = None
    probability: str | None = None
    group: str | None = None
    labels: Sequence[str] | None = None
    no_answer: str | None = None

    def __post_init__(self) -> None:
        for label in self.labels or ():
            if not isinstance(label, str) or not label or label != label.strip():
                raise UserError(
                    f"labels: {label!r} must be a text without space around it. YAML takes numbers and words such as "
                    "yes and no for something else: write them in quotes."
                )
        try:
            names = self.template_columns
        except ValueError as error:
            raise UserError(f"the prompt template {self.prompt!r} is malformed: {error}") from error
        if not names or "" in names:
            raise UserError(f"the prompt template {self.prompt!r} must name columns, as in '{{document}}'")
        for _, name, spec, conversion in string.Formatter().parse(self.prompt):
            if spec or conversion:
                raise UserError(
                    f"the prompt template {self.prompt!r} may hold only column names in braces; see {name!r}"
                )
        if self.cut is not None and names.count(self.cut) != 1:
            raise UserError(f"cut={self.cut!r} must be a column that the template {self.prompt!r} has exactly once")

    @property
    def template_columns(self) -> list[str]:
        """The columns that the template uses, in its order."""
        return [name for _, name, _, _ in string.Formatter().parse(self.prompt) if name is not None]

    # --- rows --------------------------------------------------------------------------------------------------------

    def prompt_row(self, record: Record, need_references: bool = True) -> PromptRow:
        """A prompt to answer, with its references.

        Raises:
            UserError: naming place, field and remedy.
        """
        name = self._reference_column(record)
        if name is None:
            if (said := self._dialogue(record)) is not None:
                return PromptRow(said[0], [said[1]], record.values)
            if need_references:
                raise self._missing(record, *self._asked(record), self.references)
            return PromptRow(self._prompt(record), [], record.values)
        return PromptRow(self._prompt(record), self._answers(record, name), record.values)

    def sft_row(self, record: Record) -> SFTRow:
        """A demonstration; where there is no completion column, the first reference is the one to imitate.

        Raises:
            UserError: naming place, field and remedy.
        """
        # Beside a prompt of its own, `completion` is the demonstration also where the task's own column came along.
        names = ("completion", self.completion) if "prompt" in record.values else (self.completion, "completion")
        for name in names:
            if name in record.values:
                return SFTRow(self._prompt(record), self._answers(record, name)[0], record.values)
        if self._reference_column(record) is None and self._dialogue(record) is None:
            raise self._missing(record, *self._asked(record), self.completion)
        row = self.prompt_row(record)
        return SFTRow(row.prompt, row.references[0], record.values)

    def preference_row(self, record: Record) -> PreferenceRow:
        """A preference; two dialogue transcripts without a prompt are split where they part.

        Raises:
            SameCompletions: if chosen and rejected are equal.
            UserError: naming place, field and remedy.
        """
        values = record.values
        if self.chosen not in values or self.rejected not in values:
            raise self._missing(record, self.chosen, self.rejected)
        first, second = values[self.chosen], values[self.rejected]
        if _is_chat(first) and _is_chat(second):
            prompt, chosen, rejected = split_chats(record.place, first, second)
        elif not self._has_prompt(record) and _is_transcript(first) and _is_transcript(second):
            prompt, chosen, rejected = split_transcripts(record.place, first, second)
        else:
            prompt = self._prompt(record)
            # Answers that were judged may be anything a model wrote, also what is no label.
            chosen = self._answer(record, self.chosen, first, closed=False)
            rejected = self._answer(record, self.rejected, second, closed=False)
        if chosen == rejected:
            raise SameCompletions(f"{record.place}: chosen and rejected are equal")
        weight, margin = self._number(record, self.weight, 1.0), self._number(record, self.margin, 0.0)
        probability = self._number(record, self.probability, 1.0)
        if not 0.5 <= probability <= 1:
            raise UserError(
                f"{record.place}: the field {self.probability!r} is {shown(values[self.probability])}; expected the "  # type: ignore[index]
                f"probability that {self.chosen!r} is preferred, 0.5 to 1: below that, swap the two texts"
            )
        return PreferenceRow(prompt, chosen, rejected, weight, margin, probability, self._group(record), values)

    def unpaired_row(self, record: Record) -> UnpairedRow:
        """A completion with a thumb up or down.

        Raises:
            UserError: naming place, field and remedy.
        """
        # The text that was judged may stand beside the reference; it may be anything a model wrote, also no label.
        name = next((name for name in ("completion", self.completion) if name in record.values), None)
        if name is None or "label" not in record.values:
            raise self._missing(record, *self._asked(record), name or self.completion, "label")
        prompt, completion = self._prompt(record), self._answer(record, name, record.values[name], closed=False)
        label = record.values["label"]
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        if str(label).strip().lower() not in known:
            raise UserError(f"{record.place}: the field 'label' is {shown(label)}; expected true or false")
        weight = self._number(record, self.weight, 1.0)
        return UnpairedRow(prompt, completion, known[str(label).strip().lower()], weight, record.values)

    # --- fields ------------------------------------------------------------------------------------------------------

    def _missing(self, record: Record, *names: str) -> UserError:
        """Of the columns that a row needs those that it lacks, with a guess at which of its own are meant."""
        lacking = [name for name in dict.fromkeys(names) if name not in record.values]
        free = [str(k) for k in record.values if k not in names]
        hints, mapping = [], dict(record.renamed)
        for name in lacking:
            close = difflib.get_close_matches(name, free, n=1, cutoff=0.5)
            if close:
                if close[0] not in record.renamed:  # else it is the user's own word, and what it stands for is below
                    hints.append(repr(close[0]))
                free.remove(close[0])
            mapping[name] = mapping.pop(close[0], close[0]) if close else "YOUR_COLUMN"
        none = (
            f"is no column {lacking[0]!r}" if len(lacking) == 1 else f"are no columns {', '.join(map(repr, lacking))}"
        )
        hint = f" Did you mean {', '.join(hints)}?" if hints else ""
        option = ", ".join(f"{ours}: {theirs}" for ours, theirs in mapping.items())
        columns = dict.fromkeys(record.renamed.get(name, name) for name in record.values)
        return UserError(
            f"{record.place}: there {none}; the columns are {listed(columns)}.{hint} "
            f"Map it with data.columns={{{option}}}, or name a headerless file's columns in a list."
        )

    def _has_prompt(self, record: Record) -> bool:
        return "prompt" in record.values or all(c in record.values for c in self.template_columns)

    def _dialogue(self, record: Record) -> tuple[Prompt, str] | None:
        """Prompt and last answer of a preference that begins with its prompt; None for another kind of row."""
        value: Any = record.values.get(self.chosen)
        if self._has_prompt(record):
            return None
        if _is_transcript(value):
            return split_dialogue(record.place, value)
        if _is_chat(value):
            return split_chat(record.place, value)
        return None

    def _asked(self, record: Record) -> list[str]:
        """The columns that the prompt is made of; none where the row brings its prompt as it is."""
        return [] if "prompt" in record.values else self.template_columns

    def _reference_column(self, record: Record) -> str | None:
        names = (self.references, "references", self.completion, "completion")
        return next((name for name in names if name in record.values), None)

    def _text(self, record: Record, name: str, value: Any) -> str:
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            value = " ".join(value)  # a text given as a list of its sentences
        if not isinstance(value, str) or not value.strip():
            found = "empty" if value in ("", None, []) or isinstance(value, str) else f"of type {type(value).__name__}"
            remedy = (
                f": write it in quotes, {json.dumps(str(value)[:40])}" if isinstance(value, (bool, int, float)) else ""
            )
            raise UserError(f"{record.place}: the field {name!r} is {found}; expected a text{remedy}")
        return value

    def _answers(self, record: Record, name: str) -> list[str]:
        """The answers in a column: one, or a list of alternatives."""
        value = record.values[name]
        if isinstance(value, dict) and isinstance(value.get("text"), list):
            value = value["text"]  # SQuAD as the hub has it: {"text": [...], "answer_start": [...]}
        # A list of objects is one answer, in TRL's conversational form.
        several = isinstance(value, list) and not any(isinstance(part, dict) for part in value)
        texts = value if several else [value]
        if texts in ([], [""], [None]):
            if self.no_answer is None:
                raise UserError(f"{record.place}: the field {name!r} is empty; expected a text, or a list of texts")
            texts = [self.no_answer]
        return [self._answer(record, name, text) for text in texts]

    def _answer(self, record: Record, name: str, value: Any, closed: bool = True) -> str:
        if isinstance(value, list) and len(value) > 1 and all(isinstance(part, str) for part in value):
            raise UserError(
                f"{record.place}: the field {name!r} has a list of {len(value)} texts where one text is expected: keep "
                "one of them, or join them"
            )
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            if value[0].get("role") != "assistant":
                raise UserError(
                    f"{record.place}: the field {name!r} must hold one assistant message; found {shown(value[0])}"
                )
            value = value[0].get("content")  # TRL's conversational form: one assistant message
        if value == "" and self.no_answer is not None:
            value = self.no_answer
        text = self._text(record, name, value).strip()
        if closed and self.labels is not None and text not in self.labels:
            close = difflib.get_close_matches(text, list(self.labels), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"{record.place}: the label {shown(text)} in {name!r} is not one of {', '.join(self.labels)}.{hint} "
                "Mend the row, or set task.format.labels."
            )
        return text

    def _number(self, record: Record, name: str | None, default: float) -> float:
        if name is None:
            return default
        if name not in record.values:
            raise self._missing(record, name)
        try:
            number = float(record.values[name])
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise UserError(
                f"{record.place}: the field {name!r} is {shown(record.values[name])}; expected a number that is not "
                "negative"
            )
        return number

    def _group(self, record: Record) -> str | None:
        if self.group is None:
            return None
        if self.group not in record.values:
            raise self._missing(record, self.group)
        value = record.values[self.group]
        if isinstance(value, (dict, list)):
            raise UserError(f"{record.place}: the field {self.group!r} is {shown(value)}; expected a ranking's name")
        return None if value is None or value == "" else str(value)

    def _prompt(self, record: Record) -> Prompt:
        columns, values = self.template_columns, record.values
        as_it_is = columns == ["prompt"] and isinstance(values.get("prompt"), list)
        if "prompt" in values and (as_it_is or not all(c in values for c in columns)):
            return Prompt(_messages(record.place, values["prompt"]) or self._text(record, "prompt", values["prompt"]))
        if any(column not in values for column in columns):
            raise self._missing(record, *columns)
        text, cut = "", None
        for literal, name, _, _ in string.Formatter().parse(self.prompt):
            text += literal
            if name is not None:
                filled = self._text(record, name, values[name]).strip()
                if name == self.cut:
                    cut = (len(text), len(text) + len(filled))
                text += filled
        return Prompt(text, cut)


def _messages(place: str, value: Any) -> list[Message] | None:
    """Chat messages, if the value is a list of objects; None where it is something else."""
    if not (isinstance(value, list) and value and isinstance(value[0], dict)):
        return None
    for message in value:
        if not (isinstance(message, dict) and all(isinstance(message.get(k), str) for k in ("role", "content"))):
            raise UserError(f"{place}: a chat message needs the texts 'role' and 'content'; found {shown(message)}")
    return [{"role": m["role"], "content": m["content"]} for m in value]


def _is_chat(value: Any) -> bool:
    """A chat with its prompt: one message alone is an answer."""
    return isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict)


def split_chats(place: str, chosen: list[Any], rejected: list[Any]) -> tuple[Prompt, str, str]:
    """Split two chats that differ in the last message, as TRL has preferences without a prompt.

    Args:
        place: for errors.
        chosen, rejected: the messages; the last is the assistant's.

    Returns:
        The common beginning, and the last message of either.

    Raises:
        SameCompletions: if they are equal.
        EmptyAnswer: if an answer is empty.
        UserError: if they differ before the last message, or that is not the assistant's.
    """
    first, second = _messages(place, chosen) or [], _messages(place, rejected) or []
    if first[:-1] != second[:-1] or {first[-1]["role"], second[-1]["role"]} != {"assistant"}:
        raise UserError(f"{place}: the chats of chosen and rejected must differ in the assistant's last message alone")
    answers = first[-1]["content"].strip(), second[-1]["content"].strip()
    if answers[0] == answers[1]:
        raise SameCompletions(f"{place}: chosen and rejected are equal")
    if not all(answers):
        raise EmptyAnswer(f"{place}: the field {'chosen' if not answers[0] else 'rejected'!r} has an empty answer")
    return Prompt(first[:-1]), *answers


def _is_transcript(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:") and "\n\nAssistant:" in value


def split_transcripts(place: str, chosen: str, rejected: str) -> tuple[Prompt, str, str]:
    """Split two transcripts ``\\n\\nHuman: ...\\n\\nAssistant: ...`` after the last assistant turn both begin.

    Args:
        place: for errors.
        chosen, rejected: the transcripts.

    Returns:
        The common beginning as chat messages, and what follows it in either.

    Raises:
        SameCompletions: if they are equal.
        EmptyAnswer: if one says nothing after the common beginning.
        UserError: if they have no beginning in common.
    """
    if chosen == rejected:
        raise SameCompletions(f"{place}: chosen and rejected are equal")
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    common = chosen[: min(len(chosen), len(rejected)) if same is None else same]
    marker = "\n\nAssistant:"
    end = common.rfind(marker)
    if end < 0:
        raise UserError(f"{place}: the two dialogues have no beginning in common that ends with an assistant's turn")
    end += len(marker)
    first, second = chosen[end:].strip(), rejected[end:].strip()
    if not first or not second:
        raise EmptyAnswer(f"{place}: the field {'chosen' if not first else 'rejected'!r} has an empty answer")
    return Prompt(_turns(chosen[: end - len(marker)])), first, second


def split_dialogue(place: str, dialogue: str) -> tuple[Prompt, str]:
    """Split one transcript before its last answer.

    Returns:
        What came before as chat messages, and the answer.

    Raises:
        EmptyAnswer: if there is none.
    """
    *before, last = _turns(dialogue)
    if last["role"] != "assistant" or not last["content"].strip():
        raise EmptyAnswer(f"{place}: the dialogue ends without an answer")
    return Prompt(before), last["content"].strip()


def split_chat(place: str, messages: list[Any]) -> tuple[Prompt, str]:
    """Split one chat before its last message, which must be the assistant's.

    Raises:
        EmptyAnswer: if that says nothing.
        UserError: if it is another's.
    """
    *before, last = _messages(place, messages) or []
    if last["role"] != "assistant":
        raise UserError(f"{place}: the chat must end with the assistant's message, not with one of {last['role']!r}")
    if not last["content"].strip():
        raise EmptyAnswer(f"{place}: the chat ends without an answer")
    return Prompt(before), last["content"].strip()


def _turns(dialogue: str) -> list[Message]:
    """The turns of a transcript."""
    parts = _TURN.split(dialogue)[1:]  # speaker, text, speaker, text, ...
    roles = {"Human": "user", "Assistant": "assistant"}
    turns: list[Message] = []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        if turns and turns[-1]["role"] == roles[speaker]:
            # One speaker twice over, as a few dialogues have it: chat templates insist on alternating roles.
            turns[-1]["content"] += f"\n\n{text.strip()}"
        else:
            turns.append({"role": roles[speaker], "content": text.strip()})
    return turns
