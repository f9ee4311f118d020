"""From judgements to rows that models train on: preferences, thumbs and demonstrations."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_lightning.data.files import count_of
from rlhf_lightning.data.rows import PreferenceRow, SFTRow, UnpairedRow
from rlhf_lightning.data.split import split_by_group
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.implicit import implicit_rows
from rlhf_lightning.feedback.merging import (
    SETTLED,
    Demonstration,
    Thumb,
    demonstration_rows,
    pair_rows,
    thumb_rows,
)
from rlhf_lightning.feedback.pairs import EMPTY, Opinion, opinions, ratings, settles
from rlhf_lightning.feedback.payloads import Correction, Label, Rating, Thumbs
from rlhf_lightning.feedback.rules import Dropped, Origin, Rules

By = Literal["prompt", "document", "person"]


@dataclass(frozen=True)
class Rows:
    """Rows to train on, and what gave none.

    Attributes:
        preferences, unpaired, sft: each with `rules.OWN` in its meta.
        dropped: how many judgements, or comparisons within them, gave no row, by reason.
        unused: of each event that is in no row, why; several reasons with semicolons between.
    """

    preferences: list[PreferenceRow] = field(default_factory=list)
    unpaired: list[UnpairedRow] = field(default_factory=list)
    sft: list[SFTRow] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    unused: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.preferences) + len(self.unpaired) + len(self.sft)

    @property
    def all(self) -> list[PreferenceRow | UnpairedRow | SFTRow]:
        """One after the other."""
        return [*self.preferences, *self.unpaired, *self.sft]

    @property
    def events(self) -> list[str]:
        """Ids of the events that they were made of, each once."""
        return list(dict.fromkeys(event for row in self.all for event in row.meta["events"]))


def rows_of(events: Sequence[Event], rules: Rules | None = None) -> Rows:
    """All rows that judgements give.

    What each kind gives is said in `pairs.opinions` (pairwise, ranking, rating, thumbs, correction, spans),
    `thumbs_of`, `demonstrations_of` and `implicit.implicit_rows`; how several people's are merged in `merging`. An
    adjudicator's event takes the place of those that it settles.

    Args:
        events: that hold (`events.current`), of any kinds, people and items.
        rules: the default ones, where they are not given.
    """
    rules = rules or Rules()
    made = Rows()
    why: dict[str, list[str]] = {}
    judged: list[Event] = []
    for one in usable(events, rules.checks):
        if isinstance(one, Dropped):
            _drop(made, why, one)
        else:
            judged.append(one)

    said: list[Opinion] = []
    compared: list[Any] = []
    for opinion in opinions(judged, rules):
        if isinstance(opinion, Opinion):
            said.append(opinion)
        else:
            compared.append(opinion)
    sources: list[Iterator[Any]] = [
        iter(compared),
        pair_rows(said, rules.merge, rules.ties),
        _thumbs(judged, rules),
        _demonstrations(judged, rules),
    ]
    if rules.implicit:
        sources.append(implicit_rows(judged))
    for source in sources:
        for row in source:
            if isinstance(row, Dropped):
                _drop(made, why, row)
            elif isinstance(row, PreferenceRow):
                made.preferences.append(row)
            elif isinstance(row, UnpairedRow):
                made.unpaired.append(row)
            else:
                made.sft.append(row)
    used = set(made.events)
    for event in events:
        if event.id not in used:
            made.unused[event.id] = "; ".join(dict.fromkeys(why.get(event.id) or [_nothing(event, rules)]))
    return made


def _drop(made: Rows, why: dict[str, list[str]], one: Dropped) -> None:
    made.dropped[one.reason] += 1
    for event in one.events:
        why.setdefault(event, []).append(one.reason)


def _nothing(event: Event, rules: Rules) -> str:
    """Why an event gives no row by its kind."""
    if event.kind == "implicit":
        return "a sign of use that compares nothing" if rules.implicit else "signs of use are left out"
    if rules.aspect is not None:
        return "another aspect"
    return "its kind alone gives no row"


def usable(events: Sequence[Event], checks: bool = False) -> Iterator[Event | Dropped]:
    """The events that rows are made of.

    Args:
        events: that hold.
        checks: whether gold items and repeats are among them.

    Yields:
        The event, or why not: it is no finished judgement, checks on people, or was settled by an adjudicator.
    """
    settled = {other for event in events if settles(event) for other in event.adjudicates if other != event.id}
    for event in events:
        reason = None
        if event.status != "submitted":
            reason = f"the judgement is {event.status}"
        elif event.id in settled:
            reason = SETTLED
        elif event.gold and not checks:
            reason = "gold: the answer was known"
        elif event.repeats is not None and not checks:
            reason = "repeated: it was asked before"
        yield event if reason is None else Dropped((event.id,), reason)


def thumbs_of(events: Sequence[Event]) -> Iterator[Thumb | Dropped]:
    """Thumbs of each completion; an empty one gives none, as no row can hold it."""
    for event in events:
        if isinstance(event.payload, Thumbs):
            for candidate, up in zip(event.candidates, event.payload.up, strict=True):
                text = candidate.text.strip()
                if up is not None:
                    origin = Origin.of([event], aspect=event.payload.aspect)
                    yield Thumb(origin, text, up, settles(event)) if text else Dropped((event.id,), EMPTY)


def demonstrations_of(events: Sequence[Event], aspect: str | None = None) -> Iterator[Demonstration | Dropped]:
    """What may be imitated: corrected texts, labels of prompts, and rated completions with the mean of their aspects.

    A correction that changes nothing says that the text is good as it is. A label of a completion is no answer to the
    prompt. Of a rating `merging.demonstration_rows` takes the best.
    """
    for event in events:
        payload, origin = event.payload, Origin.of([event])
        settled = settles(event)
        if isinstance(payload, Correction):
            yield Demonstration(Origin.of([event], "correction"), payload.text.strip(), settled=settled)
        elif isinstance(payload, Label):
            if payload.candidate is None:
                yield Demonstration(origin, payload.label.strip(), closed=True, settled=settled)
            else:
                yield Dropped((event.id,), "a label of a completion")
        elif isinstance(payload, Rating):
            values: dict[str, list[float]] = defaultdict(list)
            for rated in ratings(event, payload, aspect):
                values[rated.text].append(rated.value)
            for text, numbers in values.items():
                score = statistics.fmean(numbers)
                yield Demonstration(origin, text, score, settled=settled) if text else Dropped((event.id,), EMPTY)


def _of_aspect(events: Sequence[Event], rules: Rules) -> list[Event]:
    if rules.aspect is None:
        return list(events)
    return [e for e in events if isinstance(e.payload, Rating) or getattr(e.payload, "aspect", None) == rules.aspect]


def _thumbs(events: Sequence[Event], rules: Rules) -> Iterator[UnpairedRow | Dropped]:
    given = list(thumbs_of(_of_aspect(events, rules)))
    yield from (one for one in given if isinstance(one, Dropped))
    yield from thumb_rows([one for one in given if isinstance(one, Thumb)], rules.merge)


def _demonstrations(events: Sequence[Event], rules: Rules) -> Iterator[SFTRow | Dropped]:
    given = list(demonstrations_of(_of_aspect(events, rules), rules.aspect))
    yield from (one for one in given if isinstance(one, Dropped))
    shown = [one for one in given if isinstance(one, Demonstration)]
    yield from demonstration_rows(shown, rules.merge, rules.target)


# --- splits ----------------------------------------------------------------------------------------------------------


def split_rows(rows: Rows, share: float, by: By = "prompt", seed: int = 0) -> tuple[Rows, Rows]:
    """Hold out a part of all rows together, with no prompt (document, person) on both sides.

    Args:
        rows: preferences, thumbs and demonstrations; one prompt's are all on one side.
        share: of the rows, below 1; or a number of them.
        by: ``document`` keeps together all prompts on one document, and all rows of one prompt; rows without a document
            go by prompt alone. ``person`` keeps together what is of the person whose words the prompt holds, or where
            nobody is named, of the people who judged it: those who share a row are one group. A prompt may then be on
            both sides.
        seed: of the choice.

    Returns:
        The rest, which keeps what was told of unused events, and the held-out rows.

    Raises:
        UserError: if that can't be: everything is of one group.
    """
    if by not in ("prompt", "document", "person"):
        raise UserError(f"rows are split by prompt, document or person, not by {by!r}")
    everything = rows.all
    group = _groups([_keys(row, by) for row in everything])
    try:
        rest, held = split_by_group(list(enumerate(everything)), lambda numbered: group[numbered[0]], share, seed)
    except UserError as error:
        raise UserError(
            f"no rows can be held out by {by} from {count_of(len(everything), 'rows')} of "
            f"{count_of(len(set(group)), 'groups')}"
        ) from error
    sides = []
    for side in (rest, held):
        part = [row for _, row in side]
        sides.append(
            Rows(
                [row for row in part if isinstance(row, PreferenceRow)],
                [row for row in part if isinstance(row, UnpairedRow)],
                [row for row in part if isinstance(row, SFTRow)],
            )
        )
    sides[0].dropped.update(rows.dropped)
    sides[0].unused.update(rows.unused)
    return sides[0], sides[1]


def _keys(row: PreferenceRow | UnpairedRow | SFTRow, by: By) -> list[tuple[str, str]]:
    """What ties a row to others."""
    prompt = ("prompt", str(row.prompt.text))
    if by == "document" and (document := row.meta.get("document_id")) is not None:
        return [prompt, ("document", document)]
    if by == "person":
        person = row.meta.get("person_id")
        return [("person", name) for name in ([person] if person is not None else row.meta["annotators"])]
    return [prompt]


def _groups(keys: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """A name for each row, the same for rows that share a key, be it through others (union-find)."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for row in keys:
        for key in row[1:]:
            parent[root(key)] = root(row[0])
        root(row[0])
    return [repr(root(row[0])) for row in keys]
