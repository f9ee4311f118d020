"""Ids of people that name nobody: the store's own salt, and what is made of a name with it."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from rlhf_lightning.feedback.database import facts
from rlhf_lightning.feedback.store import Store

SALT_BYTES = 32


def salt_of(store: Store) -> bytes:
    """The salt of a store's people, drawn when it is first asked for. It stays in the store: no export holds it."""
    import sqlalchemy as sa

    with store.writing() as connection:
        known = sa.select(facts.c.value).where(facts.c.name == "salt")
        found = connection.scalar(known)
        if found is None:
            # Of two processes that draw one at once, the one that is later takes the first one's (PostgreSQL).
            drawn = {"name": "salt", "value": secrets.token_hex(SALT_BYTES)}
            store._insert_new(connection, facts, [drawn], ["name"])
            found = connection.scalar(known)
    return bytes.fromhex(str(found))


def pseudonym(salt: bytes, name: str) -> str:
    """The id of a person: HMAC-SHA256 of the name under the salt, 20 hexadecimal digits (80 bits).

    The same name has the same id throughout a store and another one in every other store. Without the salt a name can't
    be found by trying all names.
    """
    return hmac.new(salt, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:20]
