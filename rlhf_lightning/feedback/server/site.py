"""What all routes share: the project's parts, who asks, and what was sent."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request
from pydantic import ValidationError

from rlhf_lightning.feedback.events import explain
from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.server import people, progress
from rlhf_lightning.feedback.server.dashboard import Dashboard
from rlhf_lightning.feedback.server.people import Person, PersonRole
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Rate, Refused, check_same_origin, csrf_of, origin_of
from rlhf_lightning.feedback.server.tables import Task, turn

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
LEADS: tuple[PersonRole, ...] = ("adjudicator", "owner")


def read_static(folder: Path = STATIC) -> dict[str, bytes]:
    """The page's files by name. What is not among them can't be asked for, whatever the address says."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.suffix in TYPES}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


def version_of_page(static: dict[str, bytes]) -> str:
    """A short name of exactly these files."""
    told = hashlib.sha256()
    for name, content in static.items():
        told.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return told.hexdigest()[:12]


@dataclass(frozen=True)
class Site:
    """A project's server.

    Attributes:
        project: see there.
        files: of the page, by name.
        rate, entries: requests of a session, and tries to come in from an address.
    """

    project: Project
    files: dict[str, bytes]
    rate: Rate = field(default_factory=lambda: Rate(burst=60, each_second=10))
    entries: Rate = field(default_factory=lambda: Rate(burst=20, each_second=1))
    dashboard: Dashboard = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dashboard", Dashboard(self.project))

    @property
    def cookie(self) -> str:
        """Name of the session's cookie: of each project its own, as all ports of a host share their cookies."""
        return f"rlhf_feedback_{self.project.mark('cookie')[:8]}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The name by which a proxy is called."""
        name = urlsplit(self.project.address or "").hostname
        return () if name is None else (name,)

    def link(self, request: Request, token: str) -> str:
        """The address at which a person comes in; what follows # is sent to no server and stands in no log."""
        return f"{origin_of(self.project.address) or str(request.base_url).rstrip('/')}/#token={token}"

    def progress(self, person: Person, task: Task = "judge") -> dict[str, int]:
        """How far a person is; of who leads also ``disputes``, the questions that wait for them to be settled."""
        with self.project.store.engine.connect() as connection:
            far = progress.progress(self.project, connection, person, task)
            if person.role not in LEADS:
                return far
            settling = (
                far if task == "adjudicate" else progress.progress(self.project, connection, person, "adjudicate")
            )
        return {**far, "disputes": settling["left"]}


def site_of(request: Request) -> Site:
    """The server that a request came to."""
    return request.app.state.site


def same_origin(request: Request) -> None:
    """Refuse a change that another page asked for; see `check_same_origin`."""
    check_same_origin(request.headers, request.url.scheme, site_of(request).project.address)


def anyone(request: Request) -> Person:
    """Who asks; a change must also prove that it comes from the page."""
    site = site_of(request)
    secret = request.cookies.get(site.cookie, "")
    with site.project.store.engine.connect() as connection:
        person, old = people.who(site.project, connection, secret)
    site.rate.take(person.session)
    if request.method not in ("GET", "HEAD"):
        same_origin(request)
        given = request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(given.encode("latin-1"), csrf_of(secret).encode()):
            raise Refused(403, "csrf", "This was not sent by the page: load it again.")
    if old:
        with turn(site.project.store) as connection:
            people.touch(site.project, connection, person)
    return person


Anyone = Annotated[Person, Depends(anyone)]


def leading(person: Anyone) -> Person:
    """An adjudicator or the owner."""
    if person.role not in LEADS:
        raise Refused(403, "role", "Only an adjudicator or the owner may do that.")
    return person


def owning(person: Anyone) -> Person:
    """The owner."""
    if person.role != "owner":
        raise Refused(403, "role", "Only the owner may do that.")
    return person


def judging(request: Request, person: Anyone) -> Person:
    """Someone who may judge: who agreed to what is to be agreed to."""
    wanted = site_of(request).project.consent_version
    if wanted is not None and person.consent != wanted:
        raise Refused(403, "consent", "First read and agree to what is done with your judgements.")
    return person


Here = Annotated[Site, Depends(site_of)]
Judge = Annotated[Person, Depends(judging)]
Lead = Annotated[Person, Depends(leading)]
Owner = Annotated[Person, Depends(owning)]
Body = TypeVar("Body", bound=Value)


def body(form: type[Body]) -> Callable[[Request], Any]:
    """A dependency that reads a request's body: JSON of this form.

    pydantic's reader bounds the depth, and refuses half characters (lone surrogates).
    """

    async def read(request: Request) -> Body:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise Refused(415, "content_type", "Send application/json.")
        try:
            return form.model_validate_json(await request.body())
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] == "json_invalid":
                raise Refused(400, "json", explain(error)) from None
            raise Refused(422, "form", explain(error)) from None

    return read
