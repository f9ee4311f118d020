"""How far a person is, foretold so that nobody sees which questions are known or asked again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rlhf_lightning.feedback.server.people import Person
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.queue import REPEAT_AFTER
from rlhf_lightning.feedback.server.tables import POOLS, Task, assignments, queue

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

FORESEEN = 200
"""So many draws are looked up to say how much is left."""


def progress(project: Project, connection: Connection, person: Person, task: Task = "judge") -> dict[str, int]:
    """How many questions a person has done and skipped, and how many are left that they have not seen or not done.

    What is left foresees the known and the repeated ones: if the total grew with each of them, it would give them away.
    """
    places = sa.and_(assignments.c.person == person.id, assignments.c.project == project.name)
    mine = sa.and_(places, assignments.c.task == task)
    count = sa.func.count()
    finished = sa.select(assignments.c.status, count).where(mine, assignments.c.status.is_not(None))
    by_status: dict[str, int] = dict(connection.execute(finished.group_by(assignments.c.status)).tuples().all())
    own = sa.select(assignments.c.pool, assignments.c.open, count).where(places)
    rows = connection.execute(own.group_by(assignments.c.pool, assignments.c.open)).tuples()
    seen = Counter({(pool, bool(wanted)): number for pool, wanted, number in rows})
    in_pool = sa.select(count).where(queue.c.project == project.name, queue.c.open)
    unseen = (connection.scalar(in_pool.where(queue.c.pool == task)) or 0) - seen[task, True]
    begun = sa.select(count).where(mine, assignments.c.status.is_(None))
    left = connection.scalar(begun.where(assignments.c.pool.in_(POOLS[task]), assignments.c.open)) or 0
    if task == "judge":
        gold = (connection.scalar(in_pool.where(queue.c.pool == "gold")) or 0) - seen["gold", True]
        left += _ahead(project, person, seen.total(), unseen, gold)
    else:
        left += unseen
    done, skipped = by_status.get("submitted", 0), by_status.get("skipped", 0)
    return {"done": done, "skipped": skipped, "left": left, "total": done + skipped + left}


def _ahead(project: Project, person: Person, number: int, ordinary: int, gold: int) -> int:
    """How many questions a person is asked from now on until so many ordinary ones have come (`_drawn`).

    The next `FORESEEN` draws are looked up and the others estimated. Repeats are taken to be had once there can be any.

    Args:
        project, person: whose draws they are.
        number: questions that the person has been given.
        ordinary, gold: those that they have not seen.
    """
    share = project.gold_share + project.repeat_share
    if not ordinary or not share:
        return ordinary
    asked = 0
    while ordinary and asked < FORESEEN:
        chance = project.chance("draw", person.id, number + asked)
        if chance < project.gold_share and gold:
            gold -= 1
        elif not (project.gold_share <= chance < share and number + asked > REPEAT_AFTER):
            ordinary -= 1
        asked += 1
    each = 1 / (1 - share) if share < 1 else 1.0  # questions to an ordinary one
    return (
        asked
        + ordinary
        + round(min(gold, ordinary * each * project.gold_share) + ordinary * each * project.repeat_share)
    )
