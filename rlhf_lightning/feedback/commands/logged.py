"""The judgements that a command works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf_lightning.data.files import count_of, did_you_mean
from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from rlhf_lightning.feedback.events import Event
    from rlhf_lightning.feedback.store import Store


def logged(store: Store, project: str | None) -> list[Event]:
    """The log of a store, or of one project in it.

    Raises:
        UserError: if there is nothing in it, or nothing that was not erased.
    """
    log = list(store.events(project))
    if all(event.status == "erased" for event in log):
        raise nothing_in(store, project)
    return log


def nothing_in(store: Store, project: str | None) -> UserError:
    """That there are no judgements, and what to do about it."""
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import events

    with store.engine.connect() as connection:
        others = sorted(connection.scalars(sa.select(events.c.project).where(events.c.status != "erased").distinct()))
        erased = sa.select(sa.func.count()).where(events.c.status == "erased")
        erased = erased if project is None else erased.where(events.c.project == project)
        gone = connection.scalar(erased)
    if gone:
        whose = f" of {project}" if project else ""
        return UserError(f"{store.shown_place} holds no judgements{whose}: all {count_of(gone, 'events')} were erased")
    if project is not None and others:
        like = did_you_mean(project, others)
        return UserError(
            f"{store.shown_place} holds no judgements of {project}{like}: there are those of {', '.join(others)}"
        )
    return UserError(
        f"{store.shown_place} holds no judgements{f' of {project}' if project else ''}: let people judge with "
        "`rlhf-feedback serve`, or take some in with `rlhf-feedback import`"
    )
