"""Alerts as people look at them: by state, severity and kind, newest first. Sending is in ``storage.outbox``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.alerts import AlertRow
from stock_pipeline.storage.outbox import RECOVERY

State = Literal["open", "resolved", "all"]


@dataclass(frozen=True)
class StoredAlert:
    """One alert in the outbox; the fields are those of the table.

    Attributes
    ----------
    resolved_at
        ``None`` while nobody has resolved it.
    """

    id: int
    kind: str
    severity: str
    title: str
    body: str
    remedy: str | None
    fingerprint: str
    labels: Mapping[str, str]
    created_at: datetime
    resolved_at: datetime | None


def list_alerts(
    engine: Engine,
    *,
    state: State = "open",
    severity: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[StoredAlert]:
    """Alerts, newest first; notices of recovery are not alerts.

    Parameters
    ----------
    engine
        The metadata database.
    state, severity, kind
        Which ones.
    before
        Only older ones than this id.
    limit
        How many at most.
    """
    statement = select(AlertRow).where(AlertRow.kind != RECOVERY).order_by(AlertRow.id.desc()).limit(limit)
    if state != "all":
        over = AlertRow.resolved_at.is_not(None)
        statement = statement.where(over if state == "resolved" else ~over)
    for column, value in ((AlertRow.severity, severity), (AlertRow.kind, kind)):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(AlertRow.id < before)
    with Session(reading(engine)) as session:
        return [_stored(row) for row in session.scalars(statement)]


def get_alert(engine: Engine, alert_id: int) -> StoredAlert | None:
    """One alert; ``None`` where there is none."""
    with Session(reading(engine)) as session:
        row = session.get(AlertRow, alert_id)
        return None if row is None or row.kind == RECOVERY else _stored(row)


def _stored(row: AlertRow) -> StoredAlert:
    return StoredAlert(
        row.id, row.kind, row.severity, row.title, row.body, row.remedy, row.fingerprint, dict(row.labels),
        row.created_at, row.resolved_at,
    )  # fmt: skip
