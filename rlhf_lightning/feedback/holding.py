"""Which events of a log hold: nothing that was superseded, taken back or never submitted."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rlhf_lightning.feedback.events import Event, Status


def current(events: Iterable[Event], drafts: bool = False) -> list[Event]:
    """The events that hold: no drafts, nothing superseded or taken back, what was skipped or erased left out.

    An event is superseded by any other of the same annotator that names it, also where it comes earlier in the log
    (a log may be put together from several). What a superseding draft is about to replace still holds. A skip that
    replaces a judgement takes it away.

    Args:
        events: of any number of people and items.
        drafts: whether what is not submitted yet counts too.

    Returns:
        Those with a payload, in their order in the log.
    """
    wanted: tuple[Status, ...] = ("submitted", "draft") if drafts else ("submitted",)
    return [event for event in holding(events, wanted) if event.payload is not None]


def holding(events: Iterable[Event], statuses: Collection[Status]) -> list[Event]:
    """The events of these statuses that nothing supersedes or takes back; drafts do so only where they are among them.

    See `current`; those without a payload are among them here.
    """
    log = list(events)
    told = ((event.id, event.annotator.id, event.status, event.supersedes) for event in log)
    gone = superseded(told, drafts="draft" in statuses)
    return [event for event in log if event.id not in gone and event.status in statuses]


def superseded(log: Iterable[tuple[str, str, str, str | None]], drafts: bool = False) -> set[str]:
    """The ids of events that another one of the same annotator, which is in the log too, replaces or takes back.

    Args:
        log: of each event its id, its annotator's, its status, and the id of the event that it supersedes.
        drafts: whether drafts replace anything.
    """
    rows = list(log)
    by = {name: annotator for name, annotator, _, _ in rows}
    return {
        old
        for _, annotator, status, old in rows
        if old is not None and (drafts or status != "draft") and by.get(old) == annotator
    }
