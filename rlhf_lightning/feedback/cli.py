"""`rlhf-feedback`: collect people's judgements, understand them, and turn them into rows to train on."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rlhf_lightning.errors import UserError

COMMANDS = {
    "serve": "a web page on which people judge",
    "import": "events from a file: the log itself, or another tool's format",
    "export": "the log, or rows and other tools' formats, into a file",
    "rows": "judgements as rows that rlhf-train trains on",
    "report": "counts, agreement, biases and what the models are worth, as HTML and JSON",
    "review": "personal data that was replaced, to be looked at",
    "erase": "take a person's judgements or data out of the store",
}
OF_RUNS = ("serve", "report")  # the commands that take a run's folder
STORE = "feedback.db"


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage, which would hide it."""

    def error(self, message: str) -> NoReturn:
        """Print it, and end with status 2."""
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; mistakes of the user's end in one message and status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(arguments)
    except UserError as error:
        print(f"rlhf-feedback: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"rlhf-feedback: cannot use {error.filename or 'the disk'}: {error.strerror}", file=sys.stderr)
        return 2


def _main(arguments: list[str]) -> int:
    parser = Parser("rlhf-feedback", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # A command's own arguments need its module, which is loaded for that one alone.
    chosen = next((word for word in arguments if word in COMMANDS), None)
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        if name != chosen:
            continue
        module = importlib.import_module(f"rlhf_lightning.feedback.commands.{name.replace('import', 'import_')}")
        command.add_argument(
            "--store",
            metavar="PLACE",
            help="a file (SQLite), or postgresql://user@host/database; default: RLHF_FEEDBACK_STORE, or else "
            f"{STORE}{' in the folder of --run, or' if name in OF_RUNS else ''} here",
        )
        module.add_arguments(command)
        command.set_defaults(call=module.run)  # not `run`, which is an option of some commands
    args = parser.parse_args(arguments)
    if args.store is None:
        args.store = default_store(getattr(args, "folder", None))
    return int(args.call(args) or 0)


def default_store(run: Path | None) -> str:
    """The store that is meant where none is named.

    Args:
        run: folder of the run that judgements are of, if it is one's.
    """
    if place := os.environ.get("RLHF_FEEDBACK_STORE"):
        return place
    if run is None:
        return STORE
    from rlhf_lightning.feedback.from_run import run_of

    return str(run_of(run).path / STORE)


if __name__ == "__main__":
    sys.exit(main())
