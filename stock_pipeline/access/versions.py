"""One number that grows with every change of who may do what, so that every process notices it."""

from __future__ import annotations

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccessVersionRow


def bump(session: Session) -> None:
    """Say inside a transaction that it changes accounts, sessions, keys, roles or what roles hold."""
    grown = session.execute(update(AccessVersionRow).values(value=AccessVersionRow.value + 1))
    if grown.rowcount == 0:  # type: ignore[attr-defined]
        session.execute(insert(AccessVersionRow).values(id=1, value=1))


def current(engine: Engine) -> int:
    """The number as it stands; 0 before the first change."""
    with Session(reading(engine)) as session:
        return session.scalar(select(AccessVersionRow.value)) or 0
