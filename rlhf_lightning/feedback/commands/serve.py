"""`rlhf-feedback serve`: the web page on which people judge."""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lightning.data.files import count_of, home
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.commands.scrubbing import add_scrubbing, placeholders, scrubber_of, tell_replaced

if TYPE_CHECKING:
    from rlhf_lightning.feedback.items import Item
    from rlhf_lightning.feedback.server.project import Project
    from rlhf_lightning.feedback.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        dest="folder",
        help="of a run: the answers of its last two policies to held-out prompts",
    )
    source.add_argument("--items", type=Path, metavar="FILE", help="questions: rows with a prompt and its candidates")
    parser.add_argument("--project", default="default", help="name of the project in the store (default: %(default)s)")
    parser.add_argument("--guidelines", type=Path, metavar="FILE", help="shown beside the questions (Markdown)")
    parser.add_argument(
        "--consent", type=Path, metavar="FILE", help="what people agree to before they begin (Markdown)"
    )
    parser.add_argument("--raters", type=_count, default=1, metavar="N", help="people for a question (default: 1)")
    parser.add_argument(
        "--gold-share",
        type=_share,
        default=0.05,
        metavar="P",
        help="of a person's questions, those whose answer is known, where there are any (default: %(default)s)",
    )
    parser.add_argument(
        "--repeat-share",
        type=_share,
        default=0.05,
        metavar="P",
        help="of a person's questions, those that ask an earlier one again (default: %(default)s)",
    )
    parser.add_argument("--annotators", type=_number, default=0, metavar="N", help="print links for so many people")
    parser.add_argument("--adjudicators", type=_number, default=0, metavar="N", help="who settle disagreements")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8321, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--url", metavar="URL", help="at which people reach it, where a proxy stands in front")
    parser.add_argument("--show-models", action="store_true", help="show who wrote what; else people judge blind")
    add_scrubbing(parser)
    parser.add_argument("--keep-names", action="store_true", help="store the names of people who are invited")


def run(args: argparse.Namespace) -> int:
    """Serve until it is interrupted."""
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as missing:
        raise UserError(
            f"the page needs the package {missing.name}: pip install 'rlhf-lightning[feedback]'"
        ) from missing
    from rlhf_lightning.feedback.server.app import create_app
    from rlhf_lightning.feedback.store import Store

    found = questions(args)
    # The store comes last: nothing is made, or changed, where anything before it is refused.
    with (
        contextlib.closing(_listen(args.host, args.port)) as listening,
        Store(args.store, scrubber=scrubber_of(args)) as store,
    ):
        store.note_texts()
        project = prepare(store, args, found)
        called = reached_at(args.host)
        shown = f"[{called}]" if ":" in called else called
        port = listening.getsockname()[1]
        address = args.url or f"http://{shown}:{port}"
        for role, token in links(project, args.annotators, args.adjudicators):
            print(f"{role:12} {address.rstrip('/')}/#token={token}")
        print("Each link works once, within 7 days. Ctrl-C ends the server; what was judged is kept.", flush=True)
        if not args.url and called != args.host:
            print(
                f"{args.host} is every address of this machine; the links name one of them, {called}. If people reach "
                f"the machine by another, or by a name, name that: --url http://NAME:{port}",
                flush=True,
            )
        if not _loopback(args.host) and not (args.url or "").startswith("https:"):
            print(
                f"Warning: at {args.host} others can listen in, as this is plain HTTP. Put a proxy with TLS in front "
                "and name its address with --url https://...",
                flush=True,
            )
        config = uvicorn.Config(
            create_app(project, host=called),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            ws="none",  # there are no web sockets here
        )
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it is meant to end
            uvicorn.Server(config).run(sockets=[listening])
    return 0


def questions(args: argparse.Namespace) -> list[Item]:
    """What --run or --items gives; neither may be there where the store holds questions already.

    Raises:
        UserError: if a file or an option can't be.
    """
    from pydantic import TypeAdapter, ValidationError

    from rlhf_lightning.feedback.events import Id
    from rlhf_lightning.feedback.from_run import items_of_run
    from rlhf_lightning.feedback.items import read_items

    try:
        TypeAdapter(Id).validate_python(args.project)
    except ValidationError as error:
        raise UserError("--project is letters, digits, and . _ : - between them, at most 100") from error
    if args.gold_share + args.repeat_share > 1:
        raise UserError("--gold-share and --repeat-share are more than all questions together")
    if args.url is not None and not args.url.startswith(("http://", "https://")):
        raise UserError("--url is an address such as https://judge.example.org")
    for path in (args.guidelines, args.consent):
        _text(path)
    if args.folder is not None:
        return items_of_run(args.folder)
    if args.items is not None:
        return list(read_items(args.items))
    if "://" not in args.store and not home(Path(args.store)).exists():
        raise UserError(f"there is no feedback store {args.store} yet: give questions with --items or --run")
    return []


def prepare(store: Store, args: argparse.Namespace, found: Sequence[Item] = ()) -> Project:
    """Take the questions into the store, and make the project.

    Raises:
        UserError: if there is nothing to be asked.
    """
    from rlhf_lightning.feedback.server import standing
    from rlhf_lightning.feedback.server.project import Project
    from rlhf_lightning.feedback.server.site import read_static, version_of_page
    from rlhf_lightning.feedback.server.tables import turn

    if found:
        before = placeholders(store)
        new = store.add_items(found, args.project)
        print(f"{count_of(new, 'new questions')} of {len(found)} in {args.folder or args.items}")
        tell_replaced(placeholders(store) - before)
    if next(store.items(args.project), None) is None:
        raise UserError(
            f"{store.shown_place} holds no questions of the project {args.project}: give some with --items or --run"
        )
    project = Project(
        store,
        args.project,
        raters=args.raters,
        gold_share=args.gold_share,
        repeat_share=args.repeat_share,
        blind=not args.show_models,
        keep_names=args.keep_names,
        guidelines=_text(args.guidelines),
        consent=_text(args.consent),
        interface=version_of_page(read_static()),
        address=args.url,
    )
    project.keep_texts()
    with turn(store) as connection:
        standing.catch_up(project, connection)
    return project


def links(project: Project, annotators: int, adjudicators: int) -> list[tuple[str, str]]:
    """Role and one-time token: of the owner, and of so many other people."""
    from rlhf_lightning.feedback.server import people
    from rlhf_lightning.feedback.server.tables import turn

    wanted: list[tuple[people.PersonRole, int]] = [
        ("owner", 1),
        ("annotator", annotators),
        ("adjudicator", adjudicators),
    ]
    with turn(project.store) as connection:
        made = [(role, people.place(project, connection, role, i)) for role, count in wanted for i in range(count)]
    return [(role, token) for role, token in made if token is not None]


def _listen(host: str, port: int):  # type: ignore[no-untyped-def]
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)  # who opens a link before the server runs waits a moment
    except OSError as error:
        listening.close()
        remedy = "; --port 0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        raise UserError(f"can't listen at {host}, port {port}: {error.strerror}{remedy}") from error
    return listening


def reached_at(host: str) -> str:
    """What others call a machine that listens at this address: itself, but for 0.0.0.0 and ::, which stand for all.

    In their place comes the address from which this machine would send to the internet (nothing is sent), or else its
    name.
    """
    import socket

    try:
        if not ipaddress.ip_address(host).is_unspecified:
            return host
    except ValueError:
        return host
    # Addresses kept for documentation (RFC 5737, RFC 3849): on no network, so that the usual route leads there.
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))
        found = str(probe.getsockname()[0])
        if not _loopback(found):
            return found
    return socket.gethostname()


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _whole(text: str, least: int, most: int) -> int:
    with contextlib.suppress(ValueError):
        if least <= int(text) <= most:
            return int(text)
    raise argparse.ArgumentTypeError(f"a whole number from {least} to {most}, not {text!r}")


def _number(text: str) -> int:
    return _whole(text, 0, 1000)


def _count(text: str) -> int:
    return _whole(text, 1, 1000)


def _port(text: str) -> int:
    return _whole(text, 0, 65535)


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"a number from 0 to 1, not {text!r}")
