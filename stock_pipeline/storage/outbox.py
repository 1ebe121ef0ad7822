"""The alert outbox: an alert that was accepted is told to every sink, however long a sink is down.

Accepting (`AlertOutbox.enqueue`) is one database commit and happens once per source key. Delivering
(`AlertOutbox.deliver_due`) is called again and again by a sensor. Per fingerprint and sink: alerts that come together
are sent as one notice; after a notice *was taken*, further alerts of the fingerprint wait until the suppression window
ends and then go out together, unless they are more severe; a recovery closes the story. Delivery is at least once: a
crash between a post and its record repeats that post.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from stock_pipeline.observability.alerts import SEVERITIES, Alert, Sink, compose
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.observability.redaction import redact_text
from stock_pipeline.storage.database import reading, transaction
from stock_pipeline.storage.database.tables.alerts import AlertRow, AlertStateRow, DeliveryRow

RECOVERY = "recovery"

_AT_A_TIME = 500

_log = get_logger(__name__)


@dataclass(frozen=True)
class DeliveryPolicy:
    """When alerts go out.

    Attributes
    ----------
    group
        How long the first alert of a fingerprint waits for others before it is sent.
    suppress
        How long further alerts of a fingerprint are held back after a notice was taken.
    reopen
        How much of that is left at most once a recovery was taken: the problem is told again soon, but not each time
        that it comes and goes.
    retry_first, retry_longest
        Pause after the first failed attempt, doubled after each further one up to the longest.
    claim
        How long one process may take for a notice before another one may try.
    """

    group: timedelta = timedelta(0)
    suppress: timedelta = timedelta(hours=6)
    reopen: timedelta = timedelta(hours=1)
    retry_first: timedelta = timedelta(seconds=30)
    retry_longest: timedelta = timedelta(hours=1)
    claim: timedelta = timedelta(minutes=2)


@dataclass
class DeliveryReport:
    """What one call of `AlertOutbox.deliver_due` did.

    Attributes
    ----------
    sent
        Alerts that reached a sink, by sink.
    failed
        Reason of the failure, by sink.
    unfinished
        Sinks that took longer than the call may last; they go on in the background.
    """

    sent: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)


class AlertOutbox:
    """Durable alerts in the metadata database.

    Parameters
    ----------
    engine
        From `storage.database.open_database`.
    policy
        When alerts go out.
    """

    def __init__(self, engine: Engine, policy: DeliveryPolicy | None = None) -> None:
        self._engine = engine
        self._policy = policy or DeliveryPolicy()

    def enqueue(self, alert: Alert) -> bool:
        """Accept an alert; returns whether it was new (``False``: its source key is known)."""
        with Session(self._engine) as session, session.begin():
            return self._insert(session, alert)

    def make_up(self, alerts: Sequence[Alert]) -> int:
        """Accept those of many alerts that are not there; writes nothing where all are. Returns how many were new."""
        known: set[str] = set()
        with Session(reading(self._engine)) as session:
            for first in range(0, len(alerts), _AT_A_TIME):
                keys = [_bounded(alert.source_key) for alert in alerts[first : first + _AT_A_TIME]]
                known.update(session.scalars(select(AlertRow.source_key).where(AlertRow.source_key.in_(keys))))
        return sum(self.enqueue(alert) for alert in alerts if _bounded(alert.source_key) not in known)

    def resolve(
        self,
        fingerprint: str,
        now: datetime,
        *,
        title: str | None = None,
        body: str | None = None,
        within: Session | None = None,
    ) -> bool:
        """Say that the problem behind a fingerprint is over.

        Parameters
        ----------
        fingerprint
            Of the alerts.
        now
            Instant of the recovery.
        title, body
            Texts of the recovery notice; made from the last alert where ``None``.
        within
            Transaction that this is a part of; one of its own where ``None``.

        Returns
        -------
        bool
            Whether there was something to resolve; if not, nothing is sent.
        """
        with transaction(self._engine, within) as session:
            open_rows = session.scalars(
                select(AlertRow)
                .where(
                    AlertRow.fingerprint == _bounded(fingerprint),
                    AlertRow.kind != RECOVERY,
                    AlertRow.resolved_at.is_(None),
                )
                .order_by(AlertRow.id)
            ).all()
            if not open_rows:
                return False
            last = open_rows[-1]
            new = self._insert(
                session,
                Alert(
                    kind=RECOVERY,
                    severity="info",
                    title=title or f"Over: {last.title}",
                    body=body or f"The problem has been over since {now:%Y-%m-%d %H:%M:%S %Z}.",
                    fingerprint=fingerprint,
                    source_key=f"{RECOVERY}:{last.id}",
                    created_at=now,
                    labels=dict(last.labels),
                ),
            )
            if new:
                for row in open_rows:
                    row.resolved_at = now
            return new

    def open_alerts(self) -> list[Alert]:
        """Alerts that nobody has resolved, oldest first."""
        with Session(reading(self._engine)) as session:
            rows = session.scalars(
                select(AlertRow)
                .where(AlertRow.kind != RECOVERY, AlertRow.resolved_at.is_(None))
                .order_by(AlertRow.created_at, AlertRow.id)
            )
            return [_alert(row) for row in rows]

    def newest_open(self, kind: str) -> dict[str, datetime]:
        """When the newest alert of each fingerprint came, of those of a kind that nobody has resolved."""
        with Session(reading(self._engine)) as session:
            rows = session.execute(
                select(AlertRow.fingerprint, func.max(AlertRow.created_at).label("newest"))
                .where(AlertRow.kind == kind, AlertRow.resolved_at.is_(None))
                .group_by(AlertRow.fingerprint)
            )
            return {row.fingerprint: row.newest for row in rows}

    def undelivered(self) -> int:
        """Alerts that have not reached every sink yet."""
        with Session(reading(self._engine)) as session:
            waiting = select(DeliveryRow.alert_id).where(DeliveryRow.sent_at.is_(None))
            condition = or_(AlertRow.addressed.is_(False), AlertRow.id.in_(waiting))
            return session.scalar(select(func.count()).select_from(AlertRow).where(condition)) or 0

    def deliver_due(self, sinks: Sequence[Sink], now: datetime, *, budget: float = 40.0) -> DeliveryReport:
        """Send what is due; never raises for a sink that fails.

        Parameters
        ----------
        sinks
            Where to; each works in its own thread, so that a slow one holds up no other.
        now
            The present instant; all windows are judged by it.
        budget
            Seconds after which the call returns.

        Returns
        -------
        DeliveryReport
        """
        names = [sink.name for sink in sinks]
        if len(set(names)) != len(names):
            raise ValueError(f"two sinks have the same name: {names}")
        self._address(names, now)
        report = DeliveryReport()
        threads = [
            threading.Thread(target=self._serve, args=(sink, now, report), name=f"alerts-{sink.name}", daemon=True)
            for sink in sinks
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + budget
        for thread, name in zip(threads, names, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                report.unfinished.append(name)
                _log.warning("an alert sink is slow", sink=name, budget_seconds=budget)
        return report

    def purge(self, before: datetime) -> int:
        """Forget alerts older than ``before`` that are over and have reached every sink; returns how many."""
        with Session(self._engine) as session, session.begin():
            waiting = select(DeliveryRow.alert_id).where(DeliveryRow.sent_at.is_(None))
            old = session.scalars(
                select(AlertRow.id).where(
                    AlertRow.created_at < before,
                    AlertRow.addressed.is_(True),
                    or_(AlertRow.kind == RECOVERY, AlertRow.resolved_at.is_not(None)),
                    AlertRow.id.not_in(waiting),
                )
            ).all()
            session.execute(delete(DeliveryRow).where(DeliveryRow.alert_id.in_(old)))
            session.execute(delete(AlertRow).where(AlertRow.id.in_(old)))
            kept = select(AlertRow.fingerprint)
            session.execute(
                delete(AlertStateRow).where(AlertStateRow.last_sent_at < before, AlertStateRow.fingerprint.not_in(kept))
            )
            return len(old)

    # ---------------------------------------------------------------- parts
    def _insert(self, session: Session, alert: Alert) -> bool:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = (
            dialect.insert(AlertRow)
            .values(
                source_key=_bounded(alert.source_key),
                fingerprint=_bounded(alert.fingerprint),
                kind=alert.kind[:60],
                severity=alert.severity,
                title=redact_text(alert.title),
                body=redact_text(alert.body),
                remedy=alert.remedy,
                labels=dict(alert.labels),
                created_at=alert.created_at,
                addressed=False,
            )
            .on_conflict_do_nothing(index_elements=[AlertRow.source_key])
            .returning(AlertRow.id)
        )
        return session.execute(statement).first() is not None

    def _address(self, names: Sequence[str], now: datetime) -> None:
        with Session(reading(self._engine)) as session:
            if session.scalar(select(AlertRow.id).where(AlertRow.addressed.is_(False)).limit(1)) is None:
                return
        with Session(self._engine) as session, session.begin():
            rows = session.scalars(
                select(AlertRow).where(AlertRow.addressed.is_(False)).order_by(AlertRow.id).with_for_update()
            ).all()
            for row in rows:
                due = now if row.kind == RECOVERY else max(now, row.created_at + self._policy.group)
                session.add_all(DeliveryRow(alert_id=row.id, sink=name, next_attempt_at=due) for name in names)
                row.addressed = True

    def _serve(self, sink: Sink, now: datetime, report: DeliveryReport) -> None:
        try:
            for fingerprint in self._due(sink.name, now):
                if not self._claim(sink.name, fingerprint, now):
                    continue
                sent, error = self._send(sink, fingerprint, now)
                if error is not None:
                    report.failed[sink.name] = error
                    return  # the sink is down: its other notices stay due and are tried next time
                if sent:
                    report.sent[sink.name] = report.sent.get(sink.name, 0) + sent
        except Exception as error:
            report.failed[sink.name] = redact_text(f"{type(error).__name__}: {error}")
            _log.exception("the alert outbox failed", sink=sink.name)

    def _due(self, sink: str, now: datetime) -> list[str]:
        with Session(reading(self._engine)) as session:
            statement = (
                select(AlertRow.fingerprint)
                .join(DeliveryRow, DeliveryRow.alert_id == AlertRow.id)
                .where(DeliveryRow.sink == sink, DeliveryRow.sent_at.is_(None), DeliveryRow.next_attempt_at <= now)
                .group_by(AlertRow.fingerprint)
                .order_by(func.min(AlertRow.id))
            )
            return list(session.scalars(statement))

    def _claim(self, sink: str, fingerprint: str, now: datetime) -> bool:
        """Take the right to send for one fingerprint, so that two processes never post the same notice."""
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        with Session(self._engine) as session, session.begin():
            session.execute(
                dialect.insert(AlertStateRow)
                .values(fingerprint=fingerprint, sink=sink)
                .on_conflict_do_nothing(index_elements=[AlertStateRow.fingerprint, AlertStateRow.sink])
            )
            taken = session.execute(
                update(AlertStateRow)
                .where(
                    AlertStateRow.fingerprint == fingerprint,
                    AlertStateRow.sink == sink,
                    or_(AlertStateRow.claimed_until.is_(None), AlertStateRow.claimed_until <= now),
                )
                .values(claimed_until=now + self._policy.claim)
                .returning(AlertStateRow.fingerprint)
            )
            return taken.first() is not None

    def _send(self, sink: Sink, fingerprint: str, now: datetime) -> tuple[int, str | None]:
        with Session(self._engine) as session, session.begin():
            pairs = session.execute(
                select(AlertRow, DeliveryRow)
                .join(DeliveryRow, DeliveryRow.alert_id == AlertRow.id)
                .where(
                    AlertRow.fingerprint == fingerprint, DeliveryRow.sink == sink.name, DeliveryRow.sent_at.is_(None)
                )
                .order_by(AlertRow.id)
            ).all()
            state = session.get_one(AlertStateRow, (fingerprint, sink.name))
            alerts = [_alert(row) for row, _ in pairs]
            ids = [row.id for row, _ in pairs]
            wait = _held_back(alerts, state, now)
            if wait is not None or not alerts:
                for _, delivery in pairs:
                    delivery.next_attempt_at = wait or now
                state.claimed_until = None
                return 0, None
        notice = compose(alerts, recovered=alerts[-1].kind == RECOVERY)
        error: str | None = None
        try:
            sink.send(notice)
        except Exception as caught:
            error = redact_text(f"{type(caught).__name__}: {caught}")[:500]
        with Session(self._engine) as session, session.begin():
            state = session.get_one(AlertStateRow, (fingerprint, sink.name))
            state.claimed_until = None
            deliveries = session.scalars(
                select(DeliveryRow).where(DeliveryRow.sink == sink.name, DeliveryRow.alert_id.in_(ids))
            )
            for delivery in deliveries:
                delivery.attempts += 1
                delivery.last_error = error
                if error is None:
                    delivery.sent_at = now
                else:
                    delivery.next_attempt_at = now + self._pause(delivery.attempts)
            if error is None:
                state.last_sent_at = now
                if any(alert.kind != RECOVERY for alert in alerts):
                    state.suppressed_until = now + self._policy.suppress
                    state.severity = notice.severity
                if notice.recovery and state.suppressed_until is not None:
                    state.suppressed_until = min(state.suppressed_until, now + self._policy.reopen)
        if error is not None:
            _log.warning("an alert sink did not take a notice", sink=sink.name, fingerprint=fingerprint, error=error)
            return 0, error
        return len(ids), None

    def _pause(self, attempts: int) -> timedelta:
        doubled: timedelta = self._policy.retry_first * 2 ** min(attempts - 1, 20)
        return min(doubled, self._policy.retry_longest)


def _held_back(alerts: Sequence[Alert], state: AlertStateRow, now: datetime) -> datetime | None:
    """Instant until which alerts must wait, ``None`` where they may go out.

    A recovery that comes first ends a story that the sink has heard, so it goes out at once; anything more severe than
    what opened the window does so too.
    """
    until = state.suppressed_until
    if until is None or until <= now or not alerts or alerts[0].kind == RECOVERY:
        return None
    worst = max((SEVERITIES.index(alert.severity) for alert in alerts), default=0)
    known = SEVERITIES.index(state.severity) if state.severity in SEVERITIES else -1
    return None if worst > known else until


def _bounded(key: str) -> str:
    """Keys of any length in a column of 300 characters, still one to one."""
    return key if len(key) <= 300 else f"{key[:235]}~{hashlib.sha256(key.encode()).hexdigest()}"


def _alert(row: AlertRow) -> Alert:
    return Alert(
        kind=row.kind,
        severity=row.severity,  # type: ignore[arg-type]
        title=row.title,
        body=row.body,
        fingerprint=row.fingerprint,
        source_key=row.source_key,
        created_at=row.created_at,
        labels=dict(row.labels),
        remedy=row.remedy,
    )
