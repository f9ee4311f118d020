"""The options of the commands through which texts come into a store."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from rlhf_lightning.data.files import count_of
from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from rlhf_lightning.feedback.privacy.storing import Scrubber
    from rlhf_lightning.feedback.store import Store


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


def placeholders(store: Store) -> Counter[str]:
    """How many placeholders stand in a store's texts, by kind."""
    import sqlalchemy as sa

    from rlhf_lightning.feedback.database import replaced

    with store.engine.connect() as connection:
        query = sa.select(replaced.c.kind, sa.func.count()).group_by(replaced.c.kind)
        return Counter(dict(connection.execute(query).tuples().all()))


def tell_replaced(new: Counter[str]) -> None:
    """Print, where personal data was replaced in what came in, how much of what kind; nothing where none was."""
    if new:
        kinds = ", ".join(f"{count} {kind}" for kind, count in new.most_common())
        told = count_of(new.total(), "placeholders")
        print(f"{told} in place of personal data ({kinds}): `rlhf-feedback review --all` lists them")
