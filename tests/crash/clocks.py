"""Clocks that a machine may have, by name. Each makes a function that is asked for the time again and again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count

from edi_storage.record import now_utc

Clock = Callable[[], datetime]

DAY = timedelta(days=1)


def _ahead() -> Clock:
    return lambda: now_utc() + DAY


def _behind() -> Clock:
    return lambda: now_utc() - DAY


def _jumping(by: timedelta) -> Clock:
    """Right at first, wrong from the 20th question on."""
    asked = count()
    return lambda: now_utc() + (by if next(asked) >= 20 else timedelta())


def _walking_from(start: datetime, step: timedelta) -> Clock:
    """From `start`, a step at every question."""
    asked = count()
    return lambda: start + next(asked) * step


def _leap() -> Clock:
    """The last second of 2016 comes twice, as POSIX clocks give a leap second."""
    start, asked = datetime(2016, 12, 31, 23, 59, 58, tzinfo=UTC), count()
    return lambda: start + timedelta(seconds=0.1) * ((number := next(asked)) - 10 * (number >= 20))


CLOCKS: dict[str, Callable[[], Clock]] = {
    "a day ahead": _ahead,
    "a day behind": _behind,
    "jumps a day forth": lambda: _jumping(DAY),
    "jumps a day back": lambda: _jumping(-DAY),
    # New York's clocks go forward at 07:00 UTC and back at 06:00 UTC.
    "DST begins": lambda: _walking_from(datetime(2026, 3, 8, 6, 59, 50, tzinfo=UTC), timedelta(seconds=0.5)),
    "DST ends": lambda: _walking_from(datetime(2026, 11, 1, 5, 59, 50, tzinfo=UTC), timedelta(seconds=0.5)),
    "leap second": _leap,
}
