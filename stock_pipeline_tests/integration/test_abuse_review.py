"""The review of the trail: what it costs, and how its alerts end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, event, update
from sqlalchemy.orm import Session

from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.storage.database.tables.accounts import AuditHeadRow, AuditRow
from stock_pipeline.storage.database.tables.alerts import AlertRow
from stock_pipeline.storage.outbox import AlertOutbox
from stock_pipeline.storage.outbox_reading import list_alerts
from stock_pipeline_tests.accounts import Clock, access_for

pytestmark = pytest.mark.requirement("R8.5")

ELSEWHERE = Origin("203.0.113.9", "curl/8.1")


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 1, 6, 3, tzinfo=UTC))


@pytest.fixture
def access(database: Engine, tmp_path: Path, clock: Clock) -> Access:
    access = access_for(database, tmp_path, clock)
    access.outbox = AlertOutbox(database)
    return access


@contextmanager
def asked(engine: Engine) -> Iterator[list[str]]:
    """Statements that the database is asked meanwhile."""
    heard: list[str] = []

    def one(_connection: object, _cursor: object, text: str, *_: object) -> None:
        heard.append(" ".join(text.split()))

    event.listen(engine, "before_cursor_execute", one)
    try:
        yield heard
    finally:
        event.remove(engine, "before_cursor_execute", one)


@contextmanager
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers of the entries that are read from the trail meanwhile."""
    from stock_pipeline.access import abuse_trail

    numbers: list[int] = []
    real = abuse_trail.read_entry

    def one(row):
        numbers.append(row.sequence)
        return real(row)

    with monkeypatch.context() as changed:
        changed.setattr(abuse_trail, "read_entry", one)
        yield numbers


def reads(access: Access, count: int) -> None:
    for _ in range(count):
        access.audit.record("data.read", actor=Principal("ann", "api_key"), detail={"rows": 10_000, "route": "/x"})


def attack(access: Access, clock: Clock) -> None:
    for number in range(16):
        access.audit.record(
            "session.log_in", actor="anonymous", object=("account", f"user{number}"), result="refused", origin=ELSEWHERE
        )
    clock.forward(seconds=1)


def test_a_review_reads_only_what_has_come_since_the_one_before(
    access: Access, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads(access, 3)
    with read(monkeypatch) as numbers:
        assert access.watch.review(clock.now) == []
    assert len(numbers) == 3
    clock.forward(seconds=30)
    reads(access, 2)
    with read(monkeypatch) as numbers:
        assert [finding.rule for finding in access.watch.review(clock.now)] == ["bulk_reads"]
    assert len(numbers) == 2, "together with the three that are kept these are too many rows"
    with read(monkeypatch) as numbers:
        assert access.watch.review(clock.now) == []
    assert numbers == []


def test_an_entry_of_a_clock_that_is_ahead_counts_when_its_time_has_come(access: Access, clock: Clock) -> None:
    clock.forward(minutes=1)
    reads(access, 5)
    clock.forward(minutes=-1)
    assert access.watch.review(clock.now) == []
    clock.forward(minutes=2)
    assert [finding.rule for finding in access.watch.review(clock.now)] == ["bulk_reads"]


def test_a_trail_that_was_put_back_is_read_anew(access: Access, clock: Clock) -> None:
    reads(access, 4)
    access.watch.review(clock.now)
    with Session(access.engine) as session, session.begin():
        session.execute(delete(AuditRow))
        session.execute(update(AuditHeadRow).values(sequence=0))
    reads(access, 1)
    assert access.watch.review(clock.now) == [], "what is not in the trail any more does not count"
    reads(access, 4)
    assert [finding.rule for finding in access.watch.review(clock.now)] == ["bulk_reads"]


def test_what_is_known_takes_no_locks_again(access: Access, clock: Clock) -> None:
    attack(access, clock)
    assert sorted(finding.rule for finding in access.watch.review(clock.now)) == ["credential_stuffing"]
    with asked(access.engine) as heard:
        assert access.watch.review(clock.now) == []
    written = [text for text in heard if text.startswith(("INSERT", "UPDATE"))]
    assert written == []
    assert not [text for text in heard if "casbin_rule" in text or "audit_head" in text]


def test_an_alert_that_a_process_did_not_get_to_is_made_up_for(access: Access, clock: Clock) -> None:
    attack(access, clock)
    access.watch.review(clock.now)
    with Session(access.engine) as session, session.begin():
        session.execute(delete(AlertRow))
    assert access.watch.review(clock.now) == []
    assert access.outbox
    assert [alert.labels["rule"] for alert in access.outbox.open_alerts()] == ["credential_stuffing"]


def test_alerts_of_what_is_over_end_by_themselves_and_say_so(access: Access, clock: Clock) -> None:
    attack(access, clock)
    access.watch.review(clock.now)
    access.watch.token_reused("ann", "s1", ELSEWHERE)
    outbox = access.outbox
    assert outbox
    clock.forward(hours=2, minutes=59)
    access.watch.review(clock.now)
    assert len(outbox.open_alerts()) == 2
    clock.forward(minutes=1)
    access.watch.review(clock.now)
    assert [alert.labels["rule"] for alert in outbox.open_alerts()] == ["token_reuse"]
    with Session(access.engine) as session:
        over = session.query(AlertRow).filter(AlertRow.kind == "recovery").one()
        assert "was seen for 3 hours" in over.body
        assert "nobody has looked into it" in over.body
    clock.forward(hours=21)
    access.watch.review(clock.now)
    assert outbox.open_alerts() == []
    access.watch.review(clock.now)
    assert len(list_alerts(access.engine, state="resolved")) == 2
    outbox.deliver_due([], clock.now)
    outbox.purge(clock.now + timedelta(days=1))
    assert list_alerts(access.engine, state="all") == []


def test_an_attack_that_goes_on_stays_open(access: Access, clock: Clock) -> None:
    outbox = access.outbox
    assert outbox
    for _ in range(24):  # six hours
        attack(access, clock)
        access.watch.review(clock.now)
        assert "credential_stuffing" in {alert.labels["rule"] for alert in outbox.open_alerts()}
        clock.forward(minutes=15)
    assert list_alerts(access.engine, state="resolved") == []
