"""What people are asked: one question about the candidates of one prompt."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from rlhf_lightning.data.files import Record, check_exists, count_of, did_you_mean, flaw, read_file, shown
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Asked, Candidate, Event, Id, check_inside, explain
from rlhf_lightning.feedback.holding import holding
from rlhf_lightning.feedback.payloads import KINDS, Payload, Spans, Value

Kind = Literal["pairwise", "ranking", "rating", "thumbs", "correction", "spans", "label"]
COUNTS: dict[str, tuple[int, int | None]] = {
    "pairwise": (2, 2),
    "ranking": (2, 9),
    "rating": (1, 9),
    "thumbs": (1, 9),
    "correction": (1, 1),
    "spans": (1, 1),
    "label": (0, 1),
}
"""How many candidates each kind of question takes: least and most (the keys 1 to 9 name them)."""

CHOSEN = ("strategy", "probability", "raters", "priority")
"""Fields that say why and of whom a question is asked, not what."""


class Item(Value):
    """One question.

    Attributes:
        id: follows from what is asked where it is left out, so that the same question read twice is one item.
        kind: of judgement that is wanted.
        asked, candidates: what it is about.
        aspects: what is rated (kind rating), or the one aspect that is judged.
        low, high: ends of the scale of a rating.
        labels: what may be chosen (kinds label and spans).
        expected: the right answer of a gold item.
        repeats: the item that this one asks again.
        adjudicates: the events whose disagreement is to be settled; only an adjudicator is asked.
        strategy, probability: how it was chosen among all that could have been asked.
        raters: how many people are asked; None is the project's number.
        priority: the highest is asked first.
    """

    id: Id = ""
    kind: Kind = "pairwise"
    task: str | None = None
    asked: Asked
    candidates: tuple[Candidate, ...]
    aspects: tuple[str, ...] = ()
    low: float = 1
    high: float = 5
    labels: tuple[str, ...] = ()
    expected: Payload | None = None
    repeats: Id | None = None
    adjudicates: tuple[Id, ...] = ()
    strategy: str = "given"
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    raters: Annotated[int, Field(ge=1)] | None = None
    priority: float = 0.0

    @model_validator(mode="before")
    @classmethod
    def _unnamed(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("id"):
            return {name: value for name, value in data.items() if name != "id"}
        return data

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, data: Any) -> Any:
        """Before the answer's form is looked at: it would complain of a field that the right kind doesn't have."""
        expected = data.get("expected") if isinstance(data, dict) else None
        if isinstance(expected, dict) and expected.get("kind") in KINDS:
            kind = data.get("kind", "pairwise")
            if kind in COUNTS and kind != expected["kind"]:
                raise ValueError(_other_kind(expected["kind"], kind))
        return data

    @model_validator(mode="after")
    def _check(self) -> Item:
        if not self.id:
            object.__setattr__(self, "id", self.derived_id)
        least, most = COUNTS[self.kind]
        n = len(self.candidates)
        if n < least or (most is not None and n > most):
            wanted = count_of(least, "candidates") if least == most else f"{least} to {most} candidates"
            raise ValueError(f"a question of kind {self.kind} takes {wanted}, not {n}")
        if self.kind == "label" and len(self.labels) < 2:
            raise ValueError("a question of kind label needs at least 2 labels")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.expected is not None:
            if self.expected.kind != self.kind:
                raise ValueError(_other_kind(self.expected.kind, self.kind))
            if lacking := self.expected.lacks(n):
                raise ValueError(f"expected.{lacking} is missing")
            if isinstance(self.expected, Spans):
                check_inside(self.expected, self.candidates)
        return self

    @property
    def derived_id(self) -> str:
        """The id that follows from what is asked, whenever and of however many people: 20 hexadecimal digits."""
        told = self.model_dump(mode="json", exclude={"id", *CHOSEN})
        plain = json.dumps(told, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()[:20]

    def to_json(self) -> str:
        """One line of JSON."""
        return self.model_dump_json(exclude_none=True)


def _other_kind(answer: str, question: str) -> str:
    return f"expected.kind {answer!r} is not the question's kind {question!r}"


def read_items(path: Path) -> Iterator[Item]:
    """Questions of a file (JSONL, JSON, CSV, ... as rows of data are read).

    A row is an item as `Item.to_json` writes it, or a prompt with its candidates: ``prompt`` (text or chat messages)
    and ``candidates`` (texts, or ``{text, model, settings}``), or columns ``a``, ``b``, ... up to ``i`` (with
    ``model_a``, ...), as a table needs them, or ``chosen`` and ``rejected`` for a pair, or ``completion`` for a single
    one. ``kind`` says what is asked: without it two candidates are compared, more are ranked, one is given a thumb. The
    fields of `Item` and ``context``, ``language``, ``document``, ``person`` and ``models`` (the candidates' models in
    their order) are taken as they are; all other columns travel along as ``meta``, but for one whose name is almost a
    field's: it is refused. So is a comparison or ranking with two equal candidates: there is nothing to choose.

    Raises:
        UserError: naming file, line and field.
    """
    check_exists(path)
    found = False
    for record in read_file(path, None, None, _refuse):
        found = True
        yield item_of(record)
    if not found:
        raise UserError(f"{path} holds no item to be judged")


def _refuse(error: UserError) -> None:
    raise error


ASKED = ("context", "language", "document", "person")
NAMES = "abcdefghi"
PLAIN = (*ASKED, "prompt", "candidates", "models", "chosen", "rejected", "completion", "meta")
"""Fields of a plain row beside those of `Item`."""

MISSPELT = 0.8
"""Likeness from which a column's name is taken for a field's: `promt` and `candidate` are, `topic` and `score` not."""


def item_of(record: Record) -> Item:
    """The question of one row; see `read_items`.

    Raises:
        UserError: naming place and field.
    """
    if (reason := flaw(record)) is not None:
        raise UserError(f"{record.place}: {reason}")
    values = {name: value for name, value in record.values.items() if value is not None and value != ""}
    plain = "asked" not in values
    if plain:
        _check_spelling(record.place, values)
        if "prompt" not in values:
            if "prompt" in record.values:
                raise UserError(f"{record.place}: the field 'prompt' is empty")
            raise UserError(
                f"{record.place}: there is no column 'prompt'; the columns are {', '.join(map(str, record.values))}"
            )
        values = _plain_row(record.place, values, [name for name in record.values if name not in values])
    try:
        item = Item.model_validate(values)
    except ValidationError as error:
        told = explain(error)
        raise UserError(f"{record.place}: {told.replace('asked.text', 'prompt') if plain else told}") from error
    _check_differing(record.place, item)
    return item


def _check_differing(place: str, item: Item) -> None:
    """Refuse equal candidates where they are compared; stored questions, and those of a log, are taken as they are."""
    seen: dict[str, int] = {}
    for number, candidate in enumerate(item.candidates, start=1):
        first = seen.setdefault(candidate.text, number)
        if first != number and item.kind in ("pairwise", "ranking"):
            raise UserError(
                f"{place}: candidates {first} and {number} are equal, so that none of them can be better: take one of "
                "them, or the row, out"
            )


def _check_spelling(place: str, values: dict[str, Any]) -> None:
    """Refuse a column that seems to be a field with a slip in its name: it would be passed over in silence."""
    labelled = values.get("kind") in ("label", "spans")  # else a `label` is a column of the task's
    known = {*PLAIN, *Item.model_fields} - {"asked", *([] if labelled else ["labels"])}
    lacking = [name for name in known - values.keys() if len(name) > 3]
    for name in values.keys() - known:
        if like := did_you_mean(str(name).strip().lower(), lacking, MISSPELT):
            raise UserError(
                f"{place}: there is no field {shown(name)}{like}; a column of your own that is called so goes into an "
                "object 'meta', or needs another name"
            )


def _plain_row(place: str, values: dict[str, Any], empty: Sequence[str]) -> dict[str, Any]:
    used = {"prompt", "models"}
    if "candidates" in values:
        candidates = values["candidates"]
        if not isinstance(candidates, list):
            raise UserError(
                f"{place}: the field 'candidates' must be a list of texts, not {shown(candidates)}; in a table, which "
                "holds no lists, give a column to each: 'a', 'b', 'c', ..."
            )
    else:
        names = _names_of_candidates(place, values, empty)
        used |= set(names)
        candidates = [values[name] for name in names]
        if names[0] == "a" and any(f"model_{name}" in values for name in names):
            used |= {f"model_{name}" for name in names}
            values = {**values, "models": [values.get(f"model_{name}") for name in names]}
    models = values.get("models")
    if models is not None and (not isinstance(models, list) or len(models) != len(candidates)):
        raise UserError(
            f"{place}: the field 'models' must name the model of each of the {count_of(len(candidates), 'candidates')}"
        )
    written = [{"text": c} if isinstance(c, str) else c for c in candidates]
    if models is not None:
        written = [{**c, "model": m} if isinstance(c, dict) else c for c, m in zip(written, models, strict=True)]
    fields = set(Item.model_fields) - {"asked"}
    asked = {"text": values["prompt"], **{name: values[name] for name in ASKED if name in values}}
    meta = {k: v for k, v in values.items() if k not in fields | used | set(ASKED) | {"meta"}}
    asked["meta"] = {**meta, **values["meta"]} if isinstance(values.get("meta"), dict) else meta
    kind = values.get("kind") or {1: "thumbs", 2: "pairwise"}.get(len(written), "ranking")
    return {**{k: v for k, v in values.items() if k in fields}, "kind": kind, "asked": asked, "candidates": written}


def _names_of_candidates(place: str, values: dict[str, Any], empty: Sequence[str]) -> Sequence[str]:
    lettered = [name for name in NAMES if name in values]
    if len(lettered) > 1:
        if gap := next((name for name, wanted in zip(lettered, NAMES, strict=False) if name != wanted), None):
            raise UserError(
                f"{place}: there is a candidate {gap!r}, and none before it: {NAMES[: NAMES.index(gap)][-1]!r}"
            )
        return lettered
    for names in (("chosen", "rejected"), ("completion",)):
        if all(name in values for name in names):
            return names
    wanted = (*NAMES[:2], "candidates", "chosen", "rejected", "completion")
    if lacking := next((name for name in empty if name in wanted), None):
        raise UserError(f"{place}: the field {lacking!r} is empty")
    raise UserError(f"{place}: there are no candidates: give a column 'candidates', 'a' and 'b', or 'completion'")


def unanswered(items: Iterable[Item], events: Iterable[Event], raters: int) -> list[Item]:
    """The questions that fewer than ``raters`` people have answered; who skipped one, and has not thought better of it,
    has answered it."""
    people: dict[str, set[str]] = defaultdict(set)
    for event in holding(events, ("submitted", "skipped")):
        people[event.item].add(event.annotator.id)
    return [item for item in items if len(people[item.id]) < raters]
