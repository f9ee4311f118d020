"""What a project's server is told when it starts, and how it draws what looks like chance to people."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from rlhf_lightning.feedback.database import facts
from rlhf_lightning.feedback.salt import salt_of
from rlhf_lightning.feedback.store import Store


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Project:
    """A project on a store.

    Attributes:
        store, name: where its questions and judgements are.
        raters: how many people judge a question that doesn't say it itself.
        gold_share, repeat_share: of a person's questions, those with a known answer, and those that ask one again.
        blind: whether models' names are hidden.
        keep_names: whether the names of people who are invited are stored; else only ids made of them.
        guidelines, consent: texts (Markdown); empty where there is none.
        interface: version of the page.
        address: at which people reach the server (``https://judge.example.org``), where that is not its own.
        now: the clock.
    """

    store: Store
    name: str = "default"
    raters: int = 1
    gold_share: float = 0.05
    repeat_share: float = 0.05
    blind: bool = True
    keep_names: bool = False
    guidelines: str = ""
    consent: str = ""
    interface: str | None = None
    address: str | None = None
    now: Callable[[], datetime] = utc_now
    salt: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "salt", salt_of(self.store))

    @property
    def guideline_version(self) -> str | None:
        """Of the guidelines' text; None where there is none."""
        return version_of(self.guidelines)

    @property
    def consent_version(self) -> str | None:
        """Of the text that people agree to; None where there is none."""
        return version_of(self.consent)

    def keep_texts(self) -> None:
        """Store the texts under their versions, so that what people read and agreed to can be looked up."""
        texts = {"guidelines": self.guidelines, "consent": self.consent}
        rows = [{"name": f"{n}/{version_of(text)}", "value": text} for n, text in texts.items() if text]
        with self.store.writing() as connection:
            self.store._insert_new(connection, facts, rows, ["name"])

    def mark(self, *parts: object) -> str:
        """A keyed hash, 64 hexadecimal digits: the same for the same parts, and nobody without the salt can tell it."""
        plain = "\x1f".join([self.name, *map(str, parts)])
        return hmac.digest(self.salt, plain.encode("utf-8", "surrogatepass"), "sha256").hex()

    def chance(self, *parts: object) -> float:
        """A number from 0 up to 1, drawn by `mark`."""
        return int(self.mark(*parts)[:13], 16) / 16**13


def version_of(text: str) -> str | None:
    """A short name of exactly this text; None of an empty one."""
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else None
