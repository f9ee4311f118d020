"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public sets: RLHF_SHARED_DATA, else shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RLHF_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not there ({folder}): set RLHF_SHARED_DATA to their folder")
    return folder
