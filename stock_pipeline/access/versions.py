"""One number that grows with every change of who may do what, so that every process notices it.

The process that makes the change notices without asking the database: `changes` grows when its transaction commits.
"""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import Engine, event, func, insert, select, update
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccessVersionRow

_counter = itertools.count(1)
changes = 0
"""Changes that were committed by this process; read it as ``versions.changes``."""


def bump(session: Session) -> None:
    """Say inside a transaction that it changes accounts, sessions, keys, roles or what roles hold."""
    grown = session.execute(update(AccessVersionRow).values(value=AccessVersionRow.value + 1))
    if grown.rowcount == 0:  # type: ignore[attr-defined]
        session.execute(insert(AccessVersionRow).values(id=1, value=1))
    if not event.contains(session, "after_commit", _committed):
        event.listen(session, "after_commit", _committed)


NUMBER = func.coalesce(select(AccessVersionRow.value).scalar_subquery(), 0)
"""The number as it stands, as part of a statement; 0 before the first change."""


def current(engine: Engine) -> int:
    """The number as it stands."""
    with Session(reading(engine)) as session:
        return session.scalar(select(NUMBER)) or 0


def _committed(_session: Any) -> None:
    global changes
    changes = next(_counter)
