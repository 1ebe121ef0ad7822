"""Watches for abuse and answers it: waiting times, locks, sessions that must prove themselves again, alerts.

What counts is decided by the rules of ``abuse_rules`` from the audit trail; the waiting times of wrong passwords are in
``throttle``. Every finding is itself an entry of the trail (``abuse.<rule>``) and an alert, once each.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

from stock_pipeline.access import abuse_rules as rules
from stock_pipeline.access import throttle, versions
from stock_pipeline.access.abuse_alerts import alert_of, end_alerts
from stock_pipeline.access.abuse_rules import LOG_IN, REFUSAL, Finding
from stock_pipeline.access.abuse_trail import NewestTrail, kept_key
from stock_pipeline.access.audit import RAW, Audit
from stock_pipeline.access.audit_entry import AuditEntry, read_entry
from stock_pipeline.access.clock import Clock, utc_now
from stock_pipeline.access.places import device_of, network_of, source_of
from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.access.roles import lock
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import (
    AccountRow,
    AuditRow,
    KnownDeviceRow,
    SessionRow,
)
from stock_pipeline.storage.outbox import AlertOutbox

LOOK_BACK = timedelta(hours=2)
"""How far `Watch.review` reads back: twice the longest window."""

MOST_DEVICES = 100
FORGET_DEVICES = timedelta(days=400)

_SYSTEM = Principal("abuse watch", "system")
_log = get_logger(__name__)


class HasName(Protocol):
    """An account, as far as it matters here."""

    @property
    def id(self) -> int:
        """Identity."""

    @property
    def name(self) -> str:
        """Name."""


@dataclass(slots=True)
class _Refusals:
    since: datetime
    count: int = 0


class Watch:
    """Watches log-ins, refusals and reads.

    Parameters
    ----------
    engine
        The metadata database.
    settings
        Thresholds and known places.
    audit
        The trail that is read and written.
    outbox
        Where alerts go; the log alone where ``None``.
    timezone
        Of the exchange, for office hours.
    clock
        Gives the present instant.
    """

    def __init__(
        self,
        engine: Engine,
        settings: AccessSettings,
        audit: Audit,
        *,
        outbox: AlertOutbox | None = None,
        timezone: str = "UTC",
        clock: Clock = utc_now,
    ) -> None:
        self._engine, self._settings, self._audit = engine, settings, audit
        self._outbox, self._timezone, self._clock = outbox, timezone, clock
        self._trail = NewestTrail(LOOK_BACK)
        self._refusals: dict[tuple[str, str | None], _Refusals] = {}
        self._lock = threading.Lock()

    # ---------------------------------------------------------------- log-ins
    def check(self, name: str, origin: Origin) -> None:
        """Let a log-in attempt pass, counted as a wrong one until `proved` says otherwise, or refuse it.

        Raises
        ------
        AccessError
            423 ``account-locked`` or 429 ``too-many-attempts``, with ``retry_after``.
        """
        with Session(self._engine) as session, session.begin():
            tried = throttle.attempt(session, name, origin.address)
            throttle.admit(session, tried, self._clock(), self._settings.abuse)

    def proved(self, name: str, origin: Origin) -> None:
        """Forget the wrong passwords before a right one."""
        with Session(self._engine) as session, session.begin():
            throttle.clear(session, throttle.attempt(session, name, origin.address))

    def failed(self, name: str, origin: Origin) -> None:
        """Write a wrong password down, and judge the address that it came from."""
        now, abuse = self._clock(), self._settings.abuse
        findings: list[Finding] = []
        with Session(self._engine) as session, session.begin():
            tried = throttle.attempt(session, name, origin.address)
            shown = self._shown(session, name, tried)
            count = throttle.failures(session, tried)
            locked = count >= abuse.failures_before_lock
            if locked and tried.account_id is not None and not tried.known_network:
                until = now + timedelta(minutes=abuse.lock_minutes)
                session.execute(update(AccountRow).where(AccountRow.id == tried.account_id).values(locked_until=until))
            self._audit.record(
                LOG_IN,
                actor=Principal("anonymous", "anonymous"),
                origin=origin,
                object=("account", shown),
                result="refused",
                detail={"failures": count, "known_network": tried.known_network, "locked": locked},
                session=session,
            )
            recent = self._recent(
                session, now - rules.HOUR, AuditRow.action == LOG_IN, AuditRow.address == (origin.address or None)
            )
            if locked:
                what = f"{count} wrong passwords in a row for {shown}, from {network_of(origin.address)}"
                findings.append(Finding("brute_force", shown, "error", what, now, labels={"account": shown}))
            findings += rules.address_failures(recent, abuse) + rules.credential_stuffing(recent, abuse)
            if any(finding.rule != "brute_force" for finding in findings):
                throttle.block_address(session, tried.source.removeprefix("address:"), now, abuse)
        for finding in findings:
            self._tell(finding)

    def succeeded(self, account: HasName, origin: Origin) -> Finding | None:
        """Remember where a good log-in came from, and say whether that is odd.

        Returns
        -------
        Finding or None
            Where there is one, the new session should only read until it has proved itself again.
        """
        now = self._clock()
        with Session(self._engine) as session, session.begin():
            throttle.clear(session, throttle.attempt(session, account.name, origin.address))
            session.execute(update(AccountRow).where(AccountRow.id == account.id).values(locked_until=None))
            new = self._remember(session, account.id, origin, now)
            earlier = self._recent(
                session, now - timedelta(days=1), AuditRow.action == LOG_IN, AuditRow.result == "done",
                AuditRow.actor == account.name,
            )  # fmt: skip
        travelled = rules.impossible_travel(
            account.name, origin.address, now, earlier, self._settings.places, self._settings.abuse
        )
        finding = travelled
        if finding is None and new:
            what = f"{account.name} logged in from a new {new}: network {network_of(origin.address)}"
            labels = {"account": account.name, "new": new}
            where = f"{device_of(origin.user_agent)[:8]}@{network_of(origin.address)}"
            finding = Finding(
                "new_device", account.name, "warning", what, now, step_up=True, labels=labels, event=where
            )
        if finding is not None:
            self._tell(finding, origin=origin)
        return finding

    def token_reused(self, account_name: str, session_id: str, origin: Origin) -> None:
        """Tell that a refresh token was used a second time."""
        what = f"a refresh token of {account_name} was used twice, the second time from {network_of(origin.address)}"
        labels = {"account": account_name, "session": session_id}
        self._tell(
            Finding("token_reuse", account_name, "error", what, self._clock(), labels=labels, event=session_id),
            origin=origin,
        )

    def forget(self, name: str) -> None:
        """Forget the wrong passwords of an account, from wherever they came."""
        with Session(self._engine) as session, session.begin():
            throttle.clear_account(session, name)

    # ---------------------------------------------------------------- refusals and the review
    def refused(self, principal: Principal, permission: str, origin: Origin) -> None:
        """Write down that somebody asked for what they may not do; who does it again and again must prove himself.

        Twice as many as make a finding are written one by one in ten minutes; of the others only the number is.
        """
        now, most = self._clock(), 2 * self._settings.abuse.probing_refusals
        with self._lock:
            key = (principal.name, principal.session_id)
            seen = self._refusals.get(key)
            if seen is None or seen.since <= now - rules.TEN_MINUTES:
                unwritten = 0 if seen is None else max(seen.count - most, 0)
                self._forget_refusals(now)
                seen = self._refusals[key] = _Refusals(now)
            else:
                unwritten = 0
            seen.count += 1
            if seen.count > most:
                return
        with Session(self._engine) as session, session.begin():
            self._audit.record(
                REFUSAL,
                actor=principal,
                origin=origin,
                object=("permission", permission),
                result="refused",
                detail={"not_written_before": unwritten} if unwritten else None,
                session=session,
            )
            recent = self._recent(
                session, now - rules.TEN_MINUTES, AuditRow.action == REFUSAL, AuditRow.actor == principal.name
            )
        for finding in rules.probing(recent, self._settings.abuse):
            self._tell(finding, origin=origin)

    def review(self, now: datetime) -> list[Finding]:
        """Apply every rule to the newest part of the trail, end alerts that are over, forget old counters and devices.

        May be called by several processes and as often as one likes: each finding is told once.

        Returns
        -------
        list of Finding
            Those that were not told before.
        """
        abuse = self._settings.abuse
        with Session(reading(self._engine)) as session:
            entries, known = self._trail.follow(session, now), self._trail.told(session, now)
        found = [
            *rules.brute_force(entries, abuse),
            *rules.address_failures(entries, abuse),
            *rules.credential_stuffing(entries, abuse),
            *rules.distributed_stuffing(entries, abuse),
            *rules.probing(entries, abuse),
            *rules.bulk_reads(entries, abuse, self._timezone),
        ]
        told = [finding for finding in found if kept_key(finding) not in known and self._tell(finding)]
        if self._outbox is not None:
            # also of what was known: a process may have ended between the trail and the alert
            self._outbox.make_up([alert_of(finding) for finding in found])
            end_alerts(self._outbox, now)
        with Session(self._engine) as session, session.begin():
            for finding in told:
                if finding.rule in ("address_failures", "credential_stuffing"):
                    throttle.block_address(session, finding.subject, now, abuse)
            throttle.purge(session, now)
            session.execute(delete(KnownDeviceRow).where(KnownDeviceRow.last_seen_at < now - FORGET_DEVICES))
        return told

    # ---------------------------------------------------------------- parts
    def _tell(self, finding: Finding, *, origin: Origin | None = None) -> bool:
        """Write a finding into the trail, answer it and alert; returns whether it was new."""
        with Session(self._engine) as session, session.begin():
            lock(session)  # before the trail, as changes of roles do: two orders would be a deadlock
            self._audit.wait_for_turn(session)  # nobody else writes the same finding meanwhile
            known = session.scalar(
                select(func.count())
                .select_from(AuditRow)
                .where(AuditRow.action == f"abuse.{finding.rule}", AuditRow.object_id == kept_key(finding))
            )
            if not known:
                suspected = self._answer(session, finding)
                self._audit.record(
                    f"abuse.{finding.rule}",
                    actor=_SYSTEM,
                    origin=origin,
                    object=("finding", kept_key(finding)),
                    detail={"what": finding.what, **finding.labels, **({"sessions": suspected} if suspected else {})},
                    session=session,
                )
        if self._outbox is not None:
            self._outbox.enqueue(alert_of(finding))
        elif not known:
            _log.warning("abuse", rule=finding.rule, subject=finding.subject, what=finding.what)
        return not known

    def _answer(self, session: Session, finding: Finding) -> list[str]:
        """Sessions that must prove themselves again: the subject's, or those that came from a stuffing address."""
        if finding.rule == "credential_stuffing":
            condition = SessionRow.created_at >= finding.at - rules.HOUR
        elif finding.rule == "probing":
            condition = SessionRow.account_id.in_(select(AccountRow.id).where(AccountRow.name == finding.subject))
        else:
            return []
        going = session.execute(
            select(SessionRow.id, SessionRow.address).where(
                condition, SessionRow.revoked_at.is_(None), SessionRow.step_up.is_(False)
            )
        )
        ids = [row.id for row in going if finding.rule == "probing" or source_of(row.address) == finding.subject]
        if ids:
            session.execute(update(SessionRow).where(SessionRow.id.in_(ids)).values(step_up=True))
            versions.bump(session)
        return ids

    def _remember(self, session: Session, account_id: int, origin: Origin, now: datetime) -> str | None:
        """Keep device and network of a good log-in; returns what of it is new, ``None`` for the very first."""
        device, network = device_of(origin.user_agent), network_of(origin.address)
        known = session.scalars(
            select(KnownDeviceRow)
            .where(KnownDeviceRow.account_id == account_id)
            .order_by(KnownDeviceRow.last_seen_at.desc())
        ).all()
        for row in known:
            if (row.device, row.network) == (device, network):
                row.last_seen_at = now
                return None
        for row in known[MOST_DEVICES - 1 :]:
            session.delete(row)
        session.execute(
            insert(KnownDeviceRow).values(
                account_id=account_id, device=device, network=network, first_seen_at=now, last_seen_at=now
            )
        )
        new_device = device not in {row.device for row in known}
        new_network = network not in {row.network for row in known}
        if not known or not (new_device or new_network):
            return None
        return " and ".join(word for word, new in (("device", new_device), ("network", new_network)) if new)

    def _shown(self, session: Session, name: str, tried: throttle.Attempt) -> str:
        """A name for the trail. Of a name of nobody only a keyed digest: it may be a password in the wrong field."""
        if tried.account_id is not None:
            return session.scalar(select(AccountRow.name).where(AccountRow.id == tried.account_id)) or ""
        digest = hmac.new(self._audit.files.key(), name.casefold().encode("utf-8", "replace"), hashlib.sha256)
        return f"unknown:{digest.hexdigest()[:16]}"

    def _recent(self, session: Session, since: datetime, *conditions) -> list[AuditEntry]:
        query = RAW.where(AuditRow.at > since, *conditions).order_by(AuditRow.sequence)
        return [read_entry(row) for row in session.execute(query)]

    def _forget_refusals(self, now: datetime) -> None:
        old: Iterable[tuple[str, str | None]] = [
            key for key, seen in self._refusals.items() if seen.since <= now - rules.TEN_MINUTES
        ]
        for key in old:
            del self._refusals[key]
