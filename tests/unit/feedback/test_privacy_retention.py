from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.privacy.retention import retention

NOW = datetime(2026, 3, 30, 12, tzinfo=timezone.utc)


def test_exactly_as_old_is_kept() -> None:
    second = timedelta(seconds=1)
    limit = NOW - timedelta(days=30)
    assert (
        retention([limit - second, limit, limit + second, NOW, NOW + timedelta(days=99)], 30, NOW)
        == [True] + [False] * 4
    )


def test_zones_are_minded() -> None:
    shanghai = timezone(timedelta(hours=8))
    assert retention(
        [datetime(2026, 3, 29, 19, 59, tzinfo=shanghai), datetime(2026, 3, 29, 20, 0, tzinfo=shanghai)], 1, NOW
    ) == [
        True,
        False,
    ]


@given(st.integers(-10_000, 10_000), st.integers(0, 300))
def test_by_hand(hours: int, days: int) -> None:
    assert retention([NOW - timedelta(hours=hours)], days, NOW) == [hours > 24 * days]


@pytest.mark.parametrize("days", [-1, float("nan")])
def test_no_negative_days(days: float) -> None:
    with pytest.raises(UserError, match="must be 0 or more"):
        retention([], days, NOW)


def test_too_many_days() -> None:
    with pytest.raises(UserError, match="first year"):
        retention([], 1e9, NOW)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        retention([datetime(2026, 1, 1)], 1, NOW)
