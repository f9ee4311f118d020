"""`rlhf-feedback erase`: take a person, or what has been kept long enough, out of the store."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from rlhf_lightning.data.files import count_of
from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from rlhf_lightning.feedback.privacy.erasing import Chosen, Erased
    from rlhf_lightning.feedback.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--annotator", metavar="ID|NAME", help="all that this person judged; 6 or more first characters of the id do"
    )
    who.add_argument(
        "--person", metavar="ID|NAME", help="all questions that hold this person's words or data; named as above"
    )
    who.add_argument("--older-than", type=float, metavar="DAYS", help="all judgements of before, and their questions")
    parser.add_argument(
        "--how",
        choices=("remove", "anonymise"),
        default="remove",
        help="nothing stays, or what was said without person, words and hours (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what it would be, and change nothing")
    parser.add_argument("--yes", action="store_true", help="don't ask first")


def run(args: argparse.Namespace) -> int:
    """Show what goes, ask, erase it, and name what was made of it."""
    from rlhf_lightning.feedback.privacy.erasing import counted, erase
    from rlhf_lightning.feedback.store import Store

    with Store(args.store, create=False) as store:
        chosen = _chosen(store, args)
        would = counted(store, chosen)
        if chosen.annotators or chosen.persons:  # what was given may be a name, or the beginning of an id
            print(f"of {', '.join((*chosen.annotators, *chosen.persons))}")
        print("\n".join(told(would)))
        if not (would.events or would.others):
            print("nothing is left to be erased")
            return 0
        if args.dry_run:
            print("\nnothing was changed (--dry-run)")
            return 0
        if not args.yes and not _agreed(args.how):
            print("nothing was changed")
            return 1
        done = erase(store, chosen, args.how)
        what = "erased" if args.how == "remove" else "made anonymous"
        print(f"\n{what}: {count_of(sum(done.events.values()), 'events')}")
        print("\n".join(still_to_do(done, store.engine.dialect.name)))
        return 1 if done.left else 0


def _chosen(store: Store, args: argparse.Namespace) -> Chosen:
    from rlhf_lightning.feedback.privacy.erasing import annotator, older, person

    if args.annotator is not None:
        return annotator(store, args.annotator)
    if args.person is not None:
        return person(store, args.person)
    return older(store, args.older_than)


def told(what: Erased) -> list[str]:
    """What goes, a line each."""
    lines = [f"{count:>8}  {name}" for name, count in sorted(what.events.items())]
    return ["judgements:", *(lines or ["    none"]), *(f"{count:>8}  {name}" for name, count in what.others.items())]


def still_to_do(done: Erased, database: str) -> list[str]:
    """What was made of the events, and what only the store's owner can do."""
    lines = []
    if done.exports:
        lines += ["", "These were made of it before. Delete the files; train the models anew, or delete them, too:"]
        gone = {False: "  (not there now)", True: ""}
        lines += [
            f"  {export.what:<6} {export.time[:10]}  {export.path}{gone[export.there]}" for export in done.exports
        ]
    lines += ["", "Copies of those, logs of a training, and backups of the store are not known here."]
    if database == "postgresql":
        lines.append("PostgreSQL keeps old rows until VACUUM, and in its write-ahead log and backups: see to these.")
    return [*lines, *(f"Warning: {text}" for text in done.left)]


def _agreed(how: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError("erasing can't be taken back: say --yes, or --dry-run to see what it would be")
    return input(f"\n{how} all of it? This can't be taken back. [y/N] ").strip().lower() in ("y", "yes")
