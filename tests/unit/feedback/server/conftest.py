"""Servers of a project to test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.judges import Clock, Server, pairs

from rlhf_lightning.feedback.database import facts
from rlhf_lightning.feedback.store import Store

SALT = "33" * 32


def fix_salt(store: Store) -> None:
    """What people are asked follows from the salt: the same in each run of the tests."""
    with store.writing() as connection:
        connection.execute(sa.insert(facts).values(name="salt", value=SALT))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_server(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Server]]:
    """A server on SQLite."""
    with Store(tmp_path / "feedback.db") as store:
        fix_salt(store)
        yield lambda items=(), **options: Server(store, items or pairs(5), clock, **options)


@pytest.fixture
def make_server_on(store_place: str, clock: Clock) -> Iterator[Callable[..., Server]]:
    """A server on each of the two databases."""
    with Store(store_place) as store:
        fix_salt(store)
        yield lambda items=(), **options: Server(store, items or pairs(5), clock, **options)
