"""What `rlhf-train` tells instead of running: ``--help``, ``--version``, ``--list`` and ``--tree``."""

from __future__ import annotations

import sys

from rlhf_lightning.errors import UserError

FLAGS = ("--list", "--tree")


def split(arguments: list[str]) -> tuple[str | None, str | None, list[str]]:
    """The flag among a command's arguments, what follows it, and the other arguments.

    >>> split(["task=qa", "--tree", "ppo", "seed=1"]), split(["--list=models"]), split(["seed=1"])
    (('--tree', 'ppo', ['task=qa', 'seed=1']), ('--list', 'models', []), (None, None, ['seed=1']))
    """
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in FLAGS:
            continue
        following = arguments[i + 1 : i + 2]
        own = not equals and following and "=" not in following[0] and not following[0].startswith("-")
        rest = arguments[:i] + arguments[i + 1 + bool(own) :]
        return flag, value or (following[0] if own else None), rest
    return None, None, arguments


def answered(arguments: list[str]) -> bool:
    """Print what was asked for, if anything was; whether it was.

    Raises:
        UserError: for a kind or part that there isn't; Hydra's errors for options that can't be composed.
    """
    if {"--help", "-h"} & set(arguments):
        from rlhf_lightning.hydra_support.listing import help_text

        print(help_text(arguments), end="")
        return True
    if "--version" in arguments:
        from importlib.metadata import version

        print(f"rlhf-lightning {version('rlhf-lightning')}")
        return True
    flag, value, others = split(arguments)
    if flag is None:
        return False
    if {"-m", "--multirun"} & set(others) and flag == "--tree":
        raise UserError("--tree shows one run, not a sweep: leave -m out, and give each option one value")
    if flag == "--list":
        from rlhf_lightning.hydra_support.listing import listing

        print(listing(value, others))
        return True
    from rich.console import Console

    from rlhf_lightning.hydra_support.tree import composed, tree

    # In a file or a pipe a line may be as long as it is.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    console.print(tree(composed(others), value or ""))
    return True
