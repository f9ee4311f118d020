"""The routes: what the page asks of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from rlhf_lightning.feedback.payloads import Value
from rlhf_lightning.feedback.server import judging, leases, people, queue
from rlhf_lightning.feedback.server.judging import Secret, Sent, Words
from rlhf_lightning.feedback.server.people import Person, PersonRole
from rlhf_lightning.feedback.server.project import Project
from rlhf_lightning.feedback.server.security import Guard, Refused, csrf_of
from rlhf_lightning.feedback.server.site import (
    LEADS,
    TYPES,
    Anyone,
    Here,
    Judge,
    Lead,
    Owner,
    Site,
    body,
    read_static,
    same_origin,
)
from rlhf_lightning.feedback.server.tables import Task, turn

ROUTES = APIRouter()


def create_app(project: Project, static: dict[str, bytes] | None = None, host: str | None = None) -> FastAPI:
    """The server of a project, whose questions are in its store.

    Args:
        project: see there; its `standing.catch_up` must have been run.
        static: the page's files; by default those of the package.
        host: a name by which the server may be called, beside localhost, numbers, and that of the project's address.
    """
    app = FastAPI(title="rlhf-feedback", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = Site(project, read_static() if static is None else static)
    app.include_router(ROUTES)
    app.add_middleware(Guard, hosts=app.state.site.hosts + ((host.lower(),) if host else ()))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    return app


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, {"retry-after": "1"} if error.status == 429 else None)


def _not_found(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    code, text = {405: ("method", "That can't be done here.")}.get(status, ("not_found", "There is nothing here."))
    return JSONResponse({"error": code, "message": text}, status)


# --- what is sent ----------------------------------------------------------------------------------------------------


class Entering(Value):
    """What a person comes in with."""

    token: Secret
    consent: Secret | None = None


class Consenting(Value):
    """The text that a person agrees to."""

    version: Secret


class Wanted(Value):
    """Which question is wanted, and where it is shown."""

    tab: Secret
    queue: Task = "judge"


class Tab(Value):
    """Where a question is shown."""

    tab: Secret


class Beat(Value):
    """That a question is still being worked at, or no longer."""

    lease: Secret


class Invitation(Value):
    """Whom to let in."""

    role: PersonRole
    count: Annotated[int, Field(ge=1, le=100)] = 1
    name: Annotated[Words, Field(min_length=1, max_length=200)] | None = None


class Change(Value):
    """What becomes of a person; ``link`` asks for a new way in."""

    role: PersonRole | None = None
    active: bool | None = None
    link: Literal[True] | None = None


# --- the page --------------------------------------------------------------------------------------------------------


def _file(site: Site, name: str) -> Response:
    content = site.files.get(name)
    if content is None:
        raise Refused(404, "not_found", "There is nothing here.")
    return Response(content, media_type=TYPES[Path(name).suffix], headers={"cache-control": "no-cache"})


@ROUTES.get("/")
def page(site: Here) -> Response:
    """The page."""
    return _file(site, "page.html")


@ROUTES.get("/static/{name:path}")
def static_file(site: Here, name: str) -> Response:
    """A file of the page's."""
    return _file(site, name)


# --- people ----------------------------------------------------------------------------------------------------------


@ROUTES.post("/api/session", dependencies=[Depends(same_origin)])
def enter(request: Request, site: Here, sent: Annotated[Entering, Depends(body(Entering))]) -> Response:
    """Come in with a one-time token."""
    site.entries.take(request.client.host if request.client else "")
    with turn(site.project.store) as connection:
        secret = people.enter(site.project, connection, sent.token)
        person, _ = people.who(site.project, connection, secret)
        if sent.consent is not None and sent.consent == site.project.consent_version:
            people.agree(site.project, connection, person, sent.consent)
            person, _ = people.who(site.project, connection, secret)
    answer = JSONResponse(_me(site, person, csrf_of(secret)))
    answer.set_cookie(
        site.cookie,
        secret,
        max_age=int(people.LONGEST.total_seconds()),
        path="/api",
        secure=request.url.scheme == "https" or (site.project.address or "").startswith("https:"),
        httponly=True,
        samesite="strict",
    )
    return answer


@ROUTES.delete("/api/session")
def leave(site: Here, person: Anyone) -> Response:
    """Log out."""
    with turn(site.project.store) as connection:
        people.leave(connection, person)
    answer = JSONResponse({"left": True})
    answer.delete_cookie(site.cookie, path="/api", httponly=True, samesite="strict")
    return answer


@ROUTES.get("/api/me")
def me(request: Request, site: Here, person: Anyone) -> dict[str, Any]:
    """Who is in, and what the page needs to begin."""
    return _me(site, person, csrf_of(request.cookies[site.cookie]))


@ROUTES.post("/api/consent")
def consent(site: Here, person: Anyone, sent: Annotated[Consenting, Depends(body(Consenting))]) -> dict[str, Any]:
    """Agree to the text that is shown."""
    with turn(site.project.store) as connection:
        people.agree(site.project, connection, person, sent.version)
    return {"given": True}


def _me(site: Site, person: Person, csrf: str) -> dict[str, Any]:
    project = site.project
    return {
        "annotator": {"id": person.id, "role": person.role, "name": person.name},
        "csrf": csrf,
        "project": {
            "name": project.name,
            "guidelines": project.guidelines,
            "guideline_version": project.guideline_version,
            "blind": project.blind,
        },
        "consent": {
            "version": project.consent_version,
            "text": project.consent,
            "given": project.consent_version is None or person.consent == project.consent_version,
        },
        "progress": site.progress(person),
    }


# --- judging ---------------------------------------------------------------------------------------------------------


@ROUTES.post("/api/next")
def next_one(site: Here, person: Judge, sent: Annotated[Wanted, Depends(body(Wanted))]) -> dict[str, Any]:
    """The question for a tab."""
    if sent.queue == "adjudicate" and person.role not in LEADS:
        raise Refused(403, "role", "Only an adjudicator or the owner may do that.")
    with turn(site.project.store) as connection:
        given = queue.next_question(site.project, connection, person, sent.tab, sent.queue)
        asked = None if given is None else judging.question(site.project, connection, person, given)
    far = site.progress(person, sent.queue)
    if asked is None:
        return {"item": None, "why": "none_now" if far["left"] else "done", "progress": far}
    return {**asked, "progress": far}


@ROUTES.post("/api/judgements")
def judge(site: Here, person: Judge, sent: Annotated[Sent, Depends(body(Sent))]) -> dict[str, Any]:
    """Store a judgement, a draft or a skip."""
    with turn(site.project.store) as connection:
        task = judging.judge(site.project, connection, person, sent)
    return {"stored": True, "progress": site.progress(person, task)}


@ROUTES.post("/api/undo")
def undo(site: Here, person: Judge, sent: Annotated[Tab, Depends(body(Tab))]) -> dict[str, Any]:
    """The last question once more."""
    with turn(site.project.store) as connection:
        given = leases.take_back(site.project, connection, person, sent.tab)
        asked = judging.question(site.project, connection, person, given)
    return {**asked, "progress": site.progress(person, given.task)}


@ROUTES.post("/api/heartbeat")
def heartbeat(site: Here, person: Judge, sent: Annotated[Beat, Depends(body(Beat))]) -> dict[str, Any]:
    """Go on being at a question."""
    with turn(site.project.store) as connection:
        return {"expires": leases.leased(site.project, connection, person, sent.lease).expires}


@ROUTES.post("/api/release")
def release(site: Here, person: Judge, sent: Annotated[Beat, Depends(body(Beat))]) -> dict[str, Any]:
    """Leave a question to others."""
    with turn(site.project.store) as connection:
        return {"released": leases.release(site.project, connection, person, sent.lease)}


# --- the owner -------------------------------------------------------------------------------------------------------


@ROUTES.get("/api/dashboard")
def counts(site: Here, person: Lead) -> dict[str, Any]:
    """How it goes."""
    with site.project.store.engine.connect() as connection:
        told = site.dashboard.read(connection, names=person.role == "owner")
    return {**told, "progress": site.progress(person)}


@ROUTES.get("/api/people")
def everyone(site: Here, _: Owner) -> dict[str, Any]:
    """Who is let in."""
    with site.project.store.engine.connect() as connection:
        return {"people": people.everyone(site.project, connection)}


@ROUTES.post("/api/invitations")
def invite(
    request: Request, site: Here, _: Owner, sent: Annotated[Invitation, Depends(body(Invitation))]
) -> dict[str, Any]:
    """Links for more people."""
    if sent.name is not None and sent.count != 1:
        raise Refused(422, "form", "A name is one person's: invite people of a name one by one.")
    with turn(site.project.store) as connection:
        made = [people.invite(site.project, connection, sent.role, sent.name) for _ in range(sent.count)]
    return {"links": [{"id": name, "role": sent.role, "url": site.link(request, token)} for name, token in made]}


@ROUTES.post("/api/people/{name}")
def change(
    request: Request, name: str, site: Here, person: Owner, sent: Annotated[Change, Depends(body(Change))]
) -> dict[str, Any]:
    """Change a person's role, shut them out, or give them a new link."""
    with turn(site.project.store) as connection:
        active = people.change(site.project, connection, person, name, sent.role, sent.active)
        if sent.link and not active:
            raise Refused(409, "known", "This person is locked out, and a link would let nobody in: let them in first.")
        token = people.new_token(site.project, connection, name) if sent.link else None
    return {"changed": True, "url": None if token is None else site.link(request, token)}
