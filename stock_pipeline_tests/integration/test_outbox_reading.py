"""Whoever only looks at the outbox waits for no writer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, create_engine, text

from stock_pipeline.observability.alerts import Alert, Notice
from stock_pipeline.storage.outbox import AlertOutbox

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class Sink:
    """Takes everything."""

    name = "sink"

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def send(self, notice: Notice) -> None:
        self.notices.append(notice)


@pytest.mark.requirement("R6.5")
def test_reading_the_outbox_waits_for_no_writer(sqlite_database: Engine) -> None:
    outbox, sink = AlertOutbox(sqlite_database), Sink()
    outbox.enqueue(Alert("check", "error", "t", "b", "check:bars", "check:1", NOW))
    assert outbox.deliver_due([sink], NOW).sent == {"sink": 1}
    writer = create_engine(sqlite_database.url)
    with writer.connect() as connection:
        connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
        connection.connection.driver_connection.execute("BEGIN IMMEDIATE")  # type: ignore[union-attr]
        assert [alert.source_key for alert in outbox.open_alerts()] == ["check:1"]
        assert outbox.undelivered() == 0
        report = outbox.deliver_due([sink], NOW, budget=600)
        assert (report.sent, report.failed, report.unfinished) == ({}, {}, [])
        connection.connection.driver_connection.execute("ROLLBACK")  # type: ignore[union-attr]
    writer.dispose()
    with sqlite_database.execution_options(reads=True).connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alert_outbox")) == 1
