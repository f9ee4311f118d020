"""The options of the commands through which texts come into a store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from rlhf_lightning.feedback.privacy.storing import Scrubber


def add_scrubbing(parser: argparse.ArgumentParser) -> None:
    """Options that say what becomes of personal data."""
    parser.add_argument(
        "--keep-raw",
        action="store_true",
        help="store texts as they are; else e-mail addresses, phone, card and ID numbers and the like are replaced",
    )
    parser.add_argument(
        "--replace-names", action="store_true", help="names of people and places, too (needs the extra pii)"
    )


def scrubber_of(args: argparse.Namespace) -> Scrubber | None:
    """What replaces personal data, as the options say; None where texts are kept.

    Raises:
        UserError: if both are asked for, or what finds names is not installed.
    """
    if args.keep_raw:
        if args.replace_names:
            raise UserError("--replace-names and --keep-raw exclude each other")
        return None
    from rlhf_lightning.feedback.privacy.storing import Scrubber

    if args.replace_names:
        from rlhf_lightning.feedback.privacy.pii import find

        find("Ada Lovelace", names=True)  # whether its packages are there is known before anything is stored
    return Scrubber(args.replace_names)
