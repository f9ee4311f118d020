"""Who may come in, and as what: people under salted ids, one-time tokens, sessions.

Of tokens and of sessions the store has hashes alone. A token brings one person in once; a session ends when it has not
been used for `IDLE`, at the latest after `LONGEST`.
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from rlhf_lightning.feedback.database import stamp
from rlhf_lightning.feedback.salt import pseudonym
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Refused, hashed, new_secret
from rlhf_lightning.feedback.server.tables import assignments, people, sessions, tokens

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PersonRole = Literal["annotator", "adjudicator", "owner"]
ROLES: tuple[PersonRole, ...] = ("annotator", "adjudicator", "owner")
IDLE = timedelta(hours=12)
LONGEST = timedelta(days=30)
TOKEN_LIFE = timedelta(days=7)
TOUCH = timedelta(minutes=5)
"""How exactly the last use of a session is known."""


@dataclass(frozen=True)
class Person:
    """Someone who is in."""

    id: str
    role: PersonRole
    name: str | None
    consent: str | None
    session: str
    """Hash of the session's secret."""


def named(project: Project, name: str) -> str:
    """The id of a person of this name: the same again for the same name, and another one in any other store."""
    return pseudonym(project.salt, " ".join(unicodedata.normalize("NFKC", name).casefold().split()))


def invite(project: Project, connection: Connection, role: PersonRole, name: str | None = None) -> tuple[str, str]:
    """Make a person, or a new way in for one of this name.

    Returns:
        The person's id and the token.
    """
    person = named(project, name) if name else secrets.token_hex(10)
    found = _row(project, connection, person)
    if found is None:
        connection.execute(
            sa.insert(people).values(
                id=person,
                project=project.name,
                role=role,
                name=name if project.keep_names else None,
                active=True,
                created=stamp(project.now()),
            )
        )
    elif found.role != role:
        raise Refused(409, "known", f"This person is here already, as {found.role}: change the role there.")
    elif not found.active:
        raise Refused(409, "known", "This person is here already, and is locked out: let them in there.")
    return person, new_token(project, connection, person)


def place(project: Project, connection: Connection, role: PersonRole, number: int) -> str | None:
    """A token for the ``number``-th person of a role that the command line asks for; None for one who was shut out.

    It is the same person whenever the server is started, so that one whose cookie is lost gets back to their work. Who
    starts the server is its owner, whatever another owner made of that account: else a project could be left with none.
    """
    person = pseudonym(project.salt, f"\x00{project.name}/{role}/{number}")
    found = _row(project, connection, person)
    if found is None:
        row = {"id": person, "project": project.name, "role": role, "active": True, "created": stamp(project.now())}
        connection.execute(sa.insert(people).values(row))
    elif role == "owner":
        connection.execute(sa.update(people).where(_of(project, people, person, "id")).values(role=role, active=True))
    elif not found.active:
        return None
    return new_token(project, connection, person)


def new_token(project: Project, connection: Connection, person: str) -> str:
    """A way in for a person who is not shut out, once; it takes the place of one that was not used."""
    connection.execute(sa.delete(tokens).where(_of(project, tokens, person), tokens.c.used.is_(None)))
    token = new_secret()
    expires = stamp(project.now() + TOKEN_LIFE)
    connection.execute(
        sa.insert(tokens).values(hash=hashed(token), project=project.name, person=person, expires=expires)
    )
    return token


def enter(project: Project, connection: Connection, token: str) -> str:
    """Turn a token into a session.

    Returns:
        The session's secret, for the cookie.

    Raises:
        Refused: 401, if there is no such token, or it was used, or is too old.
    """
    now = project.now()
    used = connection.execute(
        sa.update(tokens)
        .where(
            tokens.c.hash == hashed(token),
            tokens.c.project == project.name,
            tokens.c.used.is_(None),
            tokens.c.expires > stamp(now),
        )
        .values(used=stamp(now))
        .returning(tokens.c.person)
    ).first()
    found = None if used is None else _row(project, connection, used.person)
    if used is None or found is None or not found.active:
        raise Refused(401, "token", "This link was used already, or is too old: ask for a new one.")
    secret = new_secret()
    connection.execute(
        sa.insert(sessions).values(
            hash=hashed(secret), project=project.name, person=used.person, created=stamp(now), used=stamp(now)
        )
    )
    connection.execute(sa.delete(sessions).where(_over(project)))
    return secret


def who(project: Project, connection: Connection, secret: str | None) -> tuple[Person, bool]:
    """The person of a session, and whether its last use should be noted (`touch`).

    Raises:
        Refused: 401.
    """
    row = None
    if secret:
        row = connection.execute(
            sa.select(people, sessions.c.used.label("last"))
            .join(sessions, sa.and_(sessions.c.person == people.c.id, sessions.c.project == people.c.project))
            .where(sessions.c.hash == hashed(secret), people.c.project == project.name, people.c.active)
            .where(~_over(project))
        ).first()
    if row is None or not secret:
        raise Refused(401, "session", "You are not logged in, or were away for too long: ask for a new link.")
    person = Person(row.id, row.role, row.name, row.consent, hashed(secret))
    return person, row.last < stamp(project.now() - TOUCH)


def touch(project: Project, connection: Connection, person: Person) -> None:
    """Note that a session is in use."""
    connection.execute(sa.update(sessions).where(sessions.c.hash == person.session).values(used=stamp(project.now())))


def leave(connection: Connection, person: Person) -> None:
    """End a session."""
    connection.execute(sa.delete(sessions).where(sessions.c.hash == person.session))


def agree(project: Project, connection: Connection, person: Person, version: str) -> None:
    """Note a person's consent.

    Raises:
        Refused: 409, if the text is another one by now.
    """
    if version != project.consent_version:
        raise Refused(409, "consent", "The text to agree to is another one by now: read it again.")
    connection.execute(
        sa.update(people)
        .where(_of(project, people, person.id, "id"))
        .values(consent=version, consented=stamp(project.now()))
    )


def change(
    project: Project, connection: Connection, owner: Person, person: str, role: PersonRole | None, active: bool | None
) -> bool:
    """Give a person another role, or shut them out: their sessions and links end, what they were at is freed.

    Who is made an annotator is taken off the disputes that they were at.

    Returns:
        Whether they are let in.

    Raises:
        Refused: 404 for nobody; 409 for the owner's own account, lest nobody is left.
    """
    found = _row(project, connection, person)
    if found is None:
        raise Refused(404, "nobody", "There is no such person.")
    if person == owner.id:
        raise Refused(409, "yourself", "You can't change your own role.")
    new = {**({} if role is None else {"role": role}), **({} if active is None else {"active": active})}
    if new:
        connection.execute(sa.update(people).where(_of(project, people, person, "id")).values(new))
    if active is False:
        connection.execute(sa.delete(sessions).where(_of(project, sessions, person)))
        connection.execute(sa.delete(tokens).where(_of(project, tokens, person)))
    if active is False or role == "annotator":
        tasks = ("judge", "adjudicate") if active is False else ("adjudicate",)
        connection.execute(
            sa.update(assignments)
            .where(_of(project, assignments, person), assignments.c.task.in_(tasks))
            .values(lease=None, expires=None, tab=None)
        )
    return bool(found.active if active is None else active)


def everyone(project: Project, connection: Connection) -> list[dict[str, Any]]:
    """All people of a project, in the order in which they were invited."""
    last = sa.select(sa.func.max(sessions.c.used)).where(
        sessions.c.person == people.c.id, sessions.c.project == project.name
    )
    rows = connection.execute(
        sa.select(people, last.scalar_subquery().label("last"))
        .where(people.c.project == project.name)
        .order_by(people.c.created, people.c.id)
    )
    names = ("id", "role", "name", "active", "created", "last")
    return [{name: row[name] for name in names} for row in rows.mappings()]


def _of(project: Project, table: sa.Table, person: str, column: str = "person") -> sa.ColumnElement[bool]:
    return sa.and_(table.c.project == project.name, table.c[column] == person)


def _row(project: Project, connection: Connection, person: str) -> sa.Row | None:
    return connection.execute(sa.select(people).where(_of(project, people, person, "id"))).first()


def _over(project: Project) -> sa.ColumnElement[bool]:
    now = project.now()
    return sa.or_(sessions.c.used <= stamp(now - IDLE), sessions.c.created <= stamp(now - LONGEST))
