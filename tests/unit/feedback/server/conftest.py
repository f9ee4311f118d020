"""Servers of a project to test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.judges import Clock, Server, pairs

from rlhf_lightning.feedback.store import Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_server(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Server]]:
    """A server on SQLite."""
    with Store(tmp_path / "feedback.db") as store:
        yield lambda items=(), **options: Server(store, items or pairs(5), clock, **options)


@pytest.fixture
def make_server_on(store_place: str, clock: Clock) -> Iterator[Callable[..., Server]]:
    """A server on each of the two databases."""
    with Store(store_place) as store:
        yield lambda items=(), **options: Server(store, items or pairs(5), clock, **options)
