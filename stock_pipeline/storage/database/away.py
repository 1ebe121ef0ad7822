"""What it looks like when a database does not answer."""

from __future__ import annotations

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""The database is busy, cannot be reached, or has no connection left."""


def away(error: BaseException) -> BaseException | None:
    """The error among an error and its causes that says that a database does not answer, if there is one.

    Dagster wraps those of its own Postgres, after it has tried again itself.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, AWAY):
        found = found.__cause__
    return found
