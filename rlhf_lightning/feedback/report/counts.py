"""How much was said: by kind, status, source, day; and what rows it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timezone

from rlhf_lightning.feedback.events import Event
from rlhf_lightning.feedback.payloads import KINDS, Value
from rlhf_lightning.feedback.rows import rows_of
from rlhf_lightning.feedback.rules import Rules


class KindCount(Value):
    """Of one kind of feedback.

    Attributes:
        kind: see there.
        logged: events.
        holding: those that hold: submitted, and neither replaced nor taken back.
        used: those that are in some row by the default rules (`rlhf-feedback rows`).
        pairs, unpaired, sft: rows of each kind; one of several kinds of feedback stands with the first.
    """

    kind: str
    logged: int
    holding: int
    used: int
    pairs: int
    unpaired: int
    sft: int


class Day(Value):
    """Events of one day (UTC)."""

    day: str
    count: int


class Counts(Value):
    """How much was said.

    Attributes:
        events: logged, in all but those that were erased, of which nothing is counted below.
        erased: events of which only project, kind and day are left.
        by_kind: of each kind that occurs.
        by_status, by_source, by_role, by_project: events by each; the source is explicit or implicit.
        by_day: days with events, the earliest first.
        people: who judged or used.
        questions: that something was said of.
        checks: judgements of gold questions, of repeated ones, and those that settled others' disagreement.
        unused: judgements that hold and are in no row, by reason.
        dropped: comparisons and answers within judgements that gave no row, by reason.
    """

    events: int
    erased: int = 0
    by_kind: list[KindCount]
    by_status: dict[str, int]
    by_source: dict[str, int]
    by_role: dict[str, int]
    by_project: dict[str, int]
    by_day: list[Day]
    people: int
    questions: int
    checks: dict[str, int]
    unused: dict[str, int]
    dropped: dict[str, int]


def counts_of(log: Sequence[Event], holding: Sequence[Event]) -> Counts:
    """Count a log.

    Args:
        log: all of it.
        holding: those events of it that hold.
    """
    erased = sum(event.status == "erased" for event in log)
    log = [event for event in log if event.status != "erased"]
    rows = rows_of(holding, Rules(implicit=True))
    kind: dict[str, str] = {event.id: event.kind for event in log}
    made = [
        Counter(kind[row.meta["events"][0]] for row in part) for part in (rows.preferences, rows.unpaired, rows.sft)
    ]
    logged, holds = Counter(kind.values()), Counter(str(event.kind) for event in holding)
    used = Counter(str(event.kind) for event in holding if event.id not in rows.unused)
    by_kind = [
        KindCount(
            kind=name,
            logged=logged[name],
            holding=holds[name],
            used=used[name],
            pairs=made[0][name],
            unpaired=made[1][name],
            sft=made[2][name],
        )
        for name in KINDS
        if logged[name]
    ]
    days = Counter(event.time.astimezone(timezone.utc).date().isoformat() for event in log)
    checks = {
        "gold": sum(event.gold for event in holding),
        "repeats": sum(event.repeats is not None for event in holding),
        "adjudications": sum(bool(event.adjudicates) for event in holding),
    }
    return Counts(
        events=len(kind),
        erased=erased,
        by_kind=by_kind,
        by_status=_ordered(event.status for event in log),
        by_source=_ordered("implicit" if event.kind == "implicit" else "explicit" for event in log),
        by_role=_ordered(event.annotator.role for event in log),
        by_project=_ordered(event.project for event in log),
        by_day=[Day(day=day, count=count) for day, count in sorted(days.items())],
        people=len({event.annotator.id for event in log}),
        questions=len({event.question for event in log}),
        checks=checks,
        unused=_ordered(rows.unused.values()),
        dropped=dict(rows.dropped.most_common()),
    )


def _ordered(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())
