"""The audit trail: who did what, on what, from where, with which result. Entries are only ever added.

Each entry is sealed with a key together with the seal of the entry before, so that `Audit.verify` finds every edit,
deletion, insertion and change of order. Writers take turns at the row that holds the newest seal.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Select, Text, event, func, insert, null, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, SessionTransaction

from stock_pipeline.access.audit_entry import COLUMNS, RESULTS, AuditEntry, Result, read_entry
from stock_pipeline.access.audit_key import AuditFiles
from stock_pipeline.access.clock import Clock, utc_now
from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.core.errors import ConfigurationError, IntegrityError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AuditHeadRow, AuditRow

if TYPE_CHECKING:
    from stock_pipeline.access.audit_report import ComplianceReport
    from stock_pipeline.access.audit_verify import Verification

RAW = select(
    *(
        type_coerce(column, Text).label(column.key) if column.key in ("at", "detail", "before", "after") else column
        for column in (AuditRow.__table__.c[name] for name in COLUMNS)
    )
)
"""Reads entries as the database holds them; see `audit_entry.read_entry`."""

_PENDING = "audit_anchor"
_PAGE = 1000
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; ``None`` is any.

    Attributes
    ----------
    actor, result, object_kind, object_id, address, session_id, request_id, run_id
        Exactly so.
    action
        Exactly so, or all of a noun: ``role.*``.
    since, until
        From this instant on, and before that one.
    """

    actor: str | None = None
    action: str | None = None
    result: str | None = None
    object_kind: str | None = None
    object_id: str | None = None
    address: str | None = None
    session_id: str | None = None
    request_id: str | None = None
    run_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query with its conditions."""
        for name, value in asdict(self).items():
            if value is None:
                continue
            if name == "since":
                query = query.where(AuditRow.at >= value)
            elif name == "until":
                query = query.where(AuditRow.at < value)
            elif name == "action" and value.endswith(".*"):
                query = query.where(AuditRow.action.startswith(value[:-1], autoescape=True))
            else:
                query = query.where(getattr(AuditRow, name) == value)
        return query


@dataclass(frozen=True, slots=True)
class _Pending:
    """What the anchor will be told when a transaction is committed."""

    follows: bool
    end: tuple[int, str] | None


class Audit:
    """The audit trail of one metadata database.

    Parameters
    ----------
    engine
        The metadata database.
    home
        Home folder; the key and the anchor are in its ``keys``.
    clock
        Gives the present instant.
    """

    def __init__(self, engine: Engine, home: Path, *, clock: Clock = utc_now) -> None:
        self.engine, self.files, self._clock = engine, AuditFiles(home), clock

    def record(
        self,
        action: str,
        *,
        actor: Principal | str,
        origin: Origin | None = None,
        object: tuple[str, str] | None = None,
        result: Result = "done",
        detail: Mapping[str, Any] | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        session: Session | None = None,
    ) -> int:
        """Add an entry.

        Parameters
        ----------
        action
            ``noun.verb``.
        actor
            Who did it; a name alone is a part of the platform (kind ``system``).
        origin
            Where the request came from.
        object
            Kind and identity of what it was done to.
        result
            ``done``, ``refused`` or ``failed``.
        detail, before, after
            Further facts; secrets in them are hidden and long values cut.
        run_id
            Dagster run.
        session
            Transaction that the entry belongs to: it is kept if, and only if, that one is committed. Record as late in
            it as possible, for other writers wait until its end. A transaction of its own where ``None``.

        Returns
        -------
        int
            Place in the trail.

        Raises
        ------
        ConfigurationError
            The action is not ``noun.verb``, or no such result.
        """
        noun, dot, verb = action.partition(".")
        if not (noun and dot and verb) or result not in RESULTS:
            raise ConfigurationError(
                "not an audit entry", value=(action, result), allowed=f"noun.verb with one of {', '.join(RESULTS)}"
            )
        who = actor if isinstance(actor, Principal) else Principal(actor, "system")
        where = origin or Origin()
        kind, identity = object or (None, None)
        entry = AuditEntry(
            sequence=0, at=self._clock(), actor=who.name, actor_kind=who.kind, action=action, object_kind=kind,
            object_id=identity, result=result, address=where.address or None, user_agent=where.user_agent or None,
            session_id=who.session_id, request_id=where.request_id, run_id=run_id,
            detail=None if detail is None else dict(detail),
            before=None if before is None else dict(before), after=None if after is None else dict(after),
        ).cleaned()  # fmt: skip
        if session is not None:
            return self._append(session, entry)
        with Session(self.engine) as own, own.begin():
            return self._append(own, entry)

    def wait_for_turn(self, session: Session) -> None:
        """Let no other transaction add an entry before this one ends, so that what it reads of the trail stays so."""
        self.files.key(may_make=lambda: not session.scalar(select(func.count()).select_from(AuditRow)))
        self._head(session)

    def entries(
        self, filters: AuditFilter | None = None, after: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Entries, newest first.

        Parameters
        ----------
        filters
            Which.
        after
            Sequence of the last entry of the page before.
        limit
            Most entries.
        """
        query = (filters or AuditFilter()).apply(RAW).order_by(AuditRow.sequence.desc()).limit(limit)
        if after is not None:
            query = query.where(AuditRow.sequence < after)
        with Session(reading(self.engine)) as session:
            return [read_entry(row) for row in session.execute(query)]

    def stream(self, filters: AuditFilter | None = None) -> Iterator[AuditEntry]:
        """Entries, oldest first, in short reads: however slow the reader is, no transaction stays open."""
        query = (filters or AuditFilter()).apply(RAW).order_by(AuditRow.sequence).limit(_PAGE)
        last: int | None = None
        while True:
            with Session(reading(self.engine)) as session:
                rows = session.execute(query if last is None else query.where(AuditRow.sequence > last)).all()
            yield from map(read_entry, rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1].sequence

    def verify(self) -> Verification:
        """Check every seal and the links between them; see `audit_verify.verify`."""
        from stock_pipeline.access.audit_verify import verify

        return verify(self)

    def export(self, format: str, since: datetime | None = None, until: datetime | None = None) -> Iterator[str]:
        """The entries of a period as lines of text; see `audit_export.export`."""
        from stock_pipeline.access.audit_export import export

        return export(self, format, since, until)

    def report(self, since: datetime, until: datetime) -> ComplianceReport:
        """What happened in a period, in numbers and lists; see `audit_report.report`."""
        from stock_pipeline.access.audit_report import report

        return report(self, since, until)

    def renew_anchor(self, by: Principal | str, reason: str) -> int:
        """Remember the present end of the trail, after a restored backup for example; the trail itself says so.

        Returns
        -------
        int
            Place of the entry that tells of it.
        """
        faults = [str(fault) for fault in self.verify().faults]
        sequence = self.record("audit.anchor", actor=by, detail={"reason": reason, "faults_before": faults})
        self.files.set_anchor(*self._end())
        return sequence

    # ---------------------------------------------------------------- parts
    def _append(self, session: Session, entry: AuditEntry) -> int:
        key = self.files.key(may_make=lambda: not session.scalar(select(func.count()).select_from(AuditRow)))
        last, previous_seal = self._head(session)
        entry = entry.at_place(last + 1)
        seal = entry.sealed(key, previous_seal)
        values = asdict(entry) | {"previous_seal": previous_seal, "seal": seal}
        for name in ("detail", "before", "after"):
            values[name] = null() if values[name] is None else values[name]
        session.execute(insert(AuditRow).values(**values))
        session.execute(update(AuditHeadRow).values(sequence=entry.sequence, seal=seal))
        self._remember_after_commit(session, entry.sequence, seal)
        return entry.sequence

    def _head(self, session: Session) -> tuple[int, str]:
        """The newest entry, locked until the transaction ends."""
        locked = select(AuditHeadRow.sequence, AuditHeadRow.seal).where(AuditHeadRow.id == 1).with_for_update()
        found = session.execute(locked).one_or_none()
        if found is None:
            newest = session.execute(
                select(AuditRow.sequence, AuditRow.seal).order_by(AuditRow.sequence.desc()).limit(1)
            ).one_or_none()
            sequence, seal = (0, self.files.genesis()) if newest is None else newest
            dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
            session.execute(
                dialect.insert(AuditHeadRow).values(id=1, sequence=sequence, seal=seal).on_conflict_do_nothing()
            )
            found = session.execute(locked).one()
        return found.sequence, found.seal

    def _remember_after_commit(self, session: Session, sequence: int, seal: str) -> None:
        """Let the anchor follow once this is committed, if the trail still holds what the anchor remembers now.

        That is looked up here, in the transaction: a second connection for it could be one too many.
        """
        if _PENDING not in session.info:
            event.listen(session, "after_commit", self._committed)
            event.listen(session, "after_soft_rollback", _rolled_back)
        pending: _Pending | None = session.info.get(_PENDING)
        follows = self._continues_anchor(session, sequence - 1) if pending is None else pending.follows
        session.info[_PENDING] = _Pending(follows, (sequence, seal))

    def _continues_anchor(self, session: Session, last: int) -> bool:
        try:
            anchor = self.files.anchor()
        except (IntegrityError, OSError):
            return False
        if anchor is None:
            return last == 0  # one that was removed does not come back by itself
        seal = session.scalar(select(AuditRow.seal).where(AuditRow.sequence == anchor.sequence))
        if anchor.sequence <= last and hmac.compare_digest(anchor.seal, seal or ""):
            return True
        _log.error("the audit trail does not continue what its anchor remembers", anchor=anchor.sequence, last=last)
        return False

    def _committed(self, session: Session) -> None:
        pending: _Pending | None = session.info.get(_PENDING)
        if pending is None or session.in_nested_transaction():
            return
        session.info[_PENDING] = None
        if pending.follows:
            self.files.advance(lambda: pending.end or self._end())

    def _end(self) -> tuple[int, str]:
        with Session(reading(self.engine)) as session:
            found = session.execute(select(AuditHeadRow.sequence, AuditHeadRow.seal)).one()
        return found.sequence, found.seal


def _rolled_back(session: Session, transaction: SessionTransaction) -> None:
    pending: _Pending | None = session.info.get(_PENDING)
    if pending is not None:
        # after a savepoint that was rolled back, what is the newest entry is read again
        session.info[_PENDING] = _Pending(pending.follows, None) if transaction.nested else None
