"""Alerts of the outbox, and that they are over, as events of the stream."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, and_, or_, select
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.alerts import AlertRow
from stock_pipeline.storage.database.tables.tasks import CounterRow, EventRow
from stock_pipeline.storage.outbox import RECOVERY
from stock_pipeline.storage.tasks import EventLog, NewEvent
from stock_pipeline.storage.tasks.events import SEQUENCE, take_turn

CURSOR = "relay:alerts"
WINDOW = 200
"""Ids are looked at again so far back: on Postgres a lower id may be committed after a higher one."""

FIRST_DAYS = 1
"""Older alerts are not told when the relay runs for the first time."""


def copy_alerts(engine: Engine, events: EventLog) -> int:
    """Append the alerts and recoveries that are not in the stream yet, by their ids; returns how many."""
    with Session(reading(engine)) as session:
        cursor = session.scalar(select(CounterRow.value).where(CounterRow.name == CURSOR))
        recent = datetime.now(UTC) - timedelta(days=FIRST_DAYS)
        late = and_(AlertRow.id > int(cursor or WINDOW) - WINDOW, AlertRow.created_at >= recent)
        wanted = late if cursor is None else or_(AlertRow.id > int(cursor), late)
        statement = select(AlertRow.id).where(wanted)
        ids = list(session.scalars(statement.order_by(AlertRow.id)))
        keys = [f"alert:{number}" for number in ids]
        known = set(session.scalars(select(EventRow.source_key).where(EventRow.source_key.in_(keys))))
    new = [number for number in ids if f"alert:{number}" not in known]
    if not new:
        return 0
    with Session(engine) as session, session.begin():
        take_turn(session, SEQUENCE)
        rows = session.scalars(select(AlertRow).where(AlertRow.id.in_(new)).order_by(AlertRow.id)).all()
        copied = sum(events.append(session, _event(row)) is not None for row in rows)
        session.merge(CounterRow(name=CURSOR, value=str(max(new[-1], int(cursor or 0)))))
        return copied


def _event(row: AlertRow) -> NewEvent:
    over = row.kind == RECOVERY
    return NewEvent(
        source_key=f"alert:{row.id}",
        kind="alert.resolved" if over else "alert",
        at=row.created_at,
        severity=row.severity,
        run_id=row.labels.get("run"),
        data={
            "alert": row.id,
            "kind": row.kind,
            "title": row.title,
            "body": row.body[:2000],
            "remedy": row.remedy,
            "labels": dict(row.labels),
        },
    )
