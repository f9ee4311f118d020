"""Personal data replaced in questions and judgements before they are stored.

Everything that people wrote or may read is looked at: prompt, context, document, the task's other columns, candidates,
the right answer, and what a judgement says in words (correction, rationale, notes, reason). Ids, models and their
settings, aspects and labels, which are of closed sets, are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from rlhf_lightning.feedback.events import Asked, Candidate, Event, Message
from rlhf_lightning.feedback.formats.common import item_id
from rlhf_lightning.feedback.items import Item
from rlhf_lightning.feedback.payloads import Correction, Payload, Spans
from rlhf_lightning.feedback.privacy.pii import Finding, find, numbered, replace

MOVED = "marks on personal data that was replaced are left out"
"""Put into the rationale of a judgement whose marks could not be kept."""


class Replaced(NamedTuple):
    """A placeholder in a text that is stored: where it stands, what it stands for, and how sure that is.

    Attributes:
        field: of the item or event, such as ``candidates.0.text``.
        kind: one of `pii.KINDS`.
        start, end: of the placeholder in the stored text (code points).
        certain: False where a person should look at it.
    """

    field: str
    kind: str
    start: int
    end: int
    certain: bool


@dataclass
class Scrubber:
    """Replaces personal data in what is to be stored; the same is found again with the same placeholders.

    Attributes:
        names: whether names of people and places are replaced too; see `pii.find`.
        renamed: items whose id followed from their content, and changed with it; judgements of them follow.
    """

    names: bool = False
    renamed: dict[str, str] = field(default_factory=dict)

    def item(self, item: Item) -> tuple[Item, list[Replaced]]:
        """The question without personal data, and what was replaced. An id that follows from the content still does."""
        question = _Texts.of_question(item.asked, item.candidates)
        told = question.scrubbed(self.names)
        own = _Texts.of_payload(item.expected, "expected")
        said = own.scrubbed(self.names, told)
        found = [*told.replaced, *said.replaced]
        repeats = None if item.repeats is None else self.renamed.get(item.repeats, item.repeats)
        if not found and repeats == item.repeats:
            return item, []
        asked, candidates = question.put_question(item.asked, item.candidates, told)
        expected = own.put_payload(item.expected, "expected", said, told)
        changed = {"asked": asked, "candidates": candidates, "expected": expected, "repeats": repeats}
        new = item.model_copy(update=changed)
        if item.id == item.derived_id:
            new = new.model_copy(update={"id": new.derived_id})
            self.renamed[item.id] = new.id
        return Item.model_validate(new.model_dump()), found

    def event(self, event: Event) -> tuple[Event, list[Replaced]]:
        """The judgement without personal data, and what was replaced.

        Placeholders of question and candidates do not depend on what was said of them: two people's judgements of one
        question hold the same question.
        """
        question = _Texts.of_question(event.asked, event.candidates)
        told = question.scrubbed(self.names)
        own = _Texts.of_payload(event.expected, "expected")
        own.add_payload(event.payload, "payload")
        if event.reason is not None:
            own.add("reason", event.reason)
        said = own.scrubbed(self.names, told)
        found = [*told.replaced, *said.replaced]
        asked, candidates = question.put_question(event.asked, event.candidates, told)
        item = self.renamed.get(event.item, event.item)
        if told.replaced and item == item_id(event.kind, event.asked, event.candidates):
            item = item_id(event.kind, asked, candidates)
        repeats = None if event.repeats is None else self.renamed.get(event.repeats, event.repeats)
        if not found and (item, repeats) == (event.item, event.repeats):
            return event, []
        new = {
            "asked": asked,
            "candidates": candidates,
            "expected": own.put_payload(event.expected, "expected", said, told),
            "payload": own.put_payload(event.payload, "payload", said, told),
            "reason": said.texts.get("reason"),
            "item": item,
            "repeats": repeats,
        }
        return Event.model_validate(event.model_copy(update=new).model_dump()), found


# --- texts and their places ------------------------------------------------------------------------------------------


@dataclass
class _Scrubbed:
    """Texts without what was found, by field; the findings, placeholders and numbers."""

    texts: dict[str, str]
    findings: dict[str, list[Finding]]
    numbers: dict[tuple[str, str], int]
    replaced: list[Replaced]


class _Texts:
    """The texts of a part of an item or event, by their fields."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, name: str, text: str) -> None:
        self.texts[name] = text

    @classmethod
    def of_question(cls, asked: Asked, candidates: Sequence[Candidate]) -> _Texts:
        found = cls()
        if isinstance(asked.text, str):
            found.add("asked.text", asked.text)
        else:
            for i, turn in enumerate(asked.text):
                found.add(f"asked.text.{i}.content", turn.content)
        for name in ("context", "document"):
            if (told := getattr(asked, name)) is not None:
                found.add(f"asked.{name}", told)
        for i, candidate in enumerate(candidates):
            found.add(f"candidates.{i}.text", candidate.text)
        for name, text in _leaves(asked.meta, "asked.meta"):
            found.add(name, text)
        return found

    @classmethod
    def of_payload(cls, payload: Payload | None, name: str) -> _Texts:
        found = cls()
        found.add_payload(payload, name)
        return found

    def add_payload(self, payload: Payload | None, name: str) -> None:
        if (rationale := getattr(payload, "rationale", None)) is not None:
            self.add(f"{name}.rationale", rationale)
        if isinstance(payload, Correction):
            self.add(f"{name}.text", payload.text)
        if isinstance(payload, Spans):
            for i, span in enumerate(payload.spans):
                if span.note is not None:
                    self.add(f"{name}.spans.{i}.note", span.note)

    def scrubbed(self, names: bool, before: _Scrubbed | None = None) -> _Scrubbed:
        """These texts without personal data; values that ``before`` has numbered keep their numbers."""
        findings = {name: _find(text, names) for name, text in self.texts.items()}
        earlier = [] if before is None else list(before.texts.values())
        numbers = numbered([*earlier, *self.texts.values()], [*[[] for _ in earlier], *findings.values()])
        numbers |= {} if before is None else before.numbers
        texts = {name: replace(text, findings[name], numbers) for name, text in self.texts.items()}
        placed = [place for name in self.texts for place in _placed(name, findings[name], numbers)]
        return _Scrubbed(texts, findings, numbers, placed)

    def put_question(
        self, asked: Asked, candidates: Sequence[Candidate], told: _Scrubbed
    ) -> tuple[Asked, tuple[Candidate, ...]]:
        texts = told.texts
        if isinstance(asked.text, str):
            text: str | tuple[Message, ...] = texts["asked.text"]
        else:
            text = tuple(
                Message(role=turn.role, content=texts[f"asked.text.{i}.content"]) for i, turn in enumerate(asked.text)
            )
        told_of = {name: texts.get(f"asked.{name}") for name in ("context", "document")}
        meta = _put(asked.meta, "asked.meta", texts)
        new = tuple(
            Candidate(text=texts[f"candidates.{i}.text"], model=c.model, settings=c.settings)
            for i, c in enumerate(candidates)
        )
        return asked.model_copy(update={"text": text, **told_of, "meta": meta}), new

    def put_payload(self, payload: Any, name: str, said: _Scrubbed, told: _Scrubbed) -> Any:
        texts = said.texts
        if payload is None:
            return None
        new: dict[str, Any] = {}
        if f"{name}.rationale" in texts:
            new["rationale"] = texts[f"{name}.rationale"]
        if isinstance(payload, Correction):
            new["text"] = texts[f"{name}.text"]
        if isinstance(payload, Spans):
            place = f"candidates.{payload.candidate}.text"
            findings = told.findings.get(place, [])
            spans = []
            for i, span in enumerate(payload.spans):
                if (place_now := moved(span.start, span.end, findings, told.numbers)) is not None:
                    note = texts.get(f"{name}.spans.{i}.note")
                    spans.append(span.model_copy(update={"start": place_now[0], "end": place_now[1], "note": note}))
            new["spans"] = tuple(spans)
            if len(spans) < len(payload.spans):
                said_before = new.get("rationale")
                new["rationale"] = MOVED if not said_before else f"{said_before}\n{MOVED}"
        return payload.model_copy(update=new)


@lru_cache(maxsize=4096)
def _found(text: str, names: bool) -> tuple[Finding, ...]:
    return tuple(find(text, names))


def _find(text: str, names: bool) -> list[Finding]:
    """As `find`; a question's texts come with each of its judgements."""
    return list(_found(text, names))


def _sizes(findings: Sequence[Finding], numbers: Mapping[Any, int]) -> list[int]:
    """How long each finding's placeholder is."""
    alone = ((f, Finding(f.kind, 0, len(f.text), f.text, f.certain)) for f in findings)
    return [len(replace(f.text, [one], numbers)) for f, one in alone]


def _placed(name: str, findings: Sequence[Finding], numbers: Mapping[Any, int]) -> Iterator[Replaced]:
    """Where the placeholders stand in the new text."""
    shift = 0
    for finding, size in zip(findings, _sizes(findings, numbers), strict=True):
        start = finding.start + shift
        yield Replaced(name, finding.kind, start, start + size, finding.certain)
        shift += size - (finding.end - finding.start)


def moved(start: int, end: int, findings: Sequence[Finding], numbers: Mapping[Any, int]) -> tuple[int, int] | None:
    """Where a mark of the old text is in the new one; None for one that begins or ends within a finding."""
    if any(f.start < at < f.end for f in findings for at in (start, end)):
        return None
    sizes = _sizes(findings, numbers)

    def place(at: int) -> int:
        return at + sum(size - (f.end - f.start) for f, size in zip(findings, sizes, strict=True) if f.end <= at)

    return place(start), place(end)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """The texts in JSON, with their places. Names of fields are the task's, and stay."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{_escaped(key)}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{name}.{i}")


def _put(value: Any, name: str, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return texts[name]
    if isinstance(value, dict):
        return {key: _put(part, f"{name}.{_escaped(key)}", texts) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_put(part, f"{name}.{i}", texts) for i, part in enumerate(value)]
    return value


def _escaped(key: str) -> str:
    """A field's name without dots, so that no two places have one name (as JSON pointers do it, RFC 6901)."""
    return key.replace("~", "~0").replace(".", "~1")
