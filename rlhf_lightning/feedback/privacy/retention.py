"""Which of the things that were stored have been kept long enough."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from rlhf_lightning.errors import UserError


def retention(times: Iterable[datetime], days: float, now: datetime) -> list[bool]:
    """Which of the times are past their retention: more than ``days`` days, of 24 hours each, before ``now``.

    A time exactly that old is kept still, and so is one in the future (a wrong clock must erase nothing). Time zones
    are minded: times compare as moments, not as what the clocks on the wall showed.

    Args:
        times: when each event was recorded, with a time zone.
        days: of the retention period; 0 keeps nothing that is older than now.
        now: with a time zone.

    Returns:
        True for each time that is past it, in the order given.

    Raises:
        UserError: if the days are negative, not a number, or more than a date can hold.
        ValueError: if a time has no time zone.
    """
    if not days >= 0:
        raise UserError(f"a retention period of {days} days: it must be 0 or more")
    try:
        limit = _zoned(now) - timedelta(days=days)
    except OverflowError as error:
        raise UserError(f"a retention period of {days} days reaches back to before the first year: lower it") from error
    return [_zoned(time) < limit for time in times]


def _zoned(time: datetime) -> datetime:
    if time.utcoffset() is None:
        raise ValueError(f"{time.isoformat()} has no time zone: which moment it is can't be told")
    return time
