"""The newest part of the audit trail as the rules of ``abuse_rules`` need it, kept in memory and read on from there."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stock_pipeline.access.abuse_rules import LOG_IN, READ, REFUSAL, TOLD, Finding
from stock_pipeline.access.audit import RAW
from stock_pipeline.access.audit_entry import AuditEntry, read_entry
from stock_pipeline.storage.database.tables.accounts import AuditRow


class NewestTrail:
    """Log-ins, refusals and sums of reads of the last hours.

    Parameters
    ----------
    length
        How far back.
    """

    def __init__(self, length: timedelta) -> None:
        self._length = length
        self._kept: deque[AuditEntry] = deque()
        self._last = 0
        self._lock = threading.Lock()

    def follow(self, session: Session, now: datetime) -> list[AuditEntry]:
        """Read what has come since the last time; returns all entries up to `now`, oldest first.

        Numbers in the trail are given in the order in which transactions end, so none comes behind one that was read.
        """
        with self._lock:
            newest = session.scalar(select(func.max(AuditRow.sequence))) or 0
            if newest < self._last:  # another database, such as one that was restored
                self._kept.clear()
                self._last = 0
            query = RAW.where(
                AuditRow.sequence > self._last,
                AuditRow.sequence <= newest,
                AuditRow.at > now - self._length,
                AuditRow.action.in_((LOG_IN, REFUSAL, READ)),
            ).order_by(AuditRow.sequence)
            self._kept.extend(read_entry(row) for row in session.execute(query))
            self._last = newest
            while self._kept and self._kept[0].at <= now - self._length:
                self._kept.popleft()
            return [entry for entry in self._kept if now - self._length < entry.at <= now]

    def told(self, session: Session, now: datetime) -> set[str]:
        """Keys of the findings that are in the trail already."""
        query = select(AuditRow.object_id).where(
            AuditRow.action.in_([f"abuse.{rule}" for rule in TOLD]), AuditRow.at > now - 2 * self._length
        )
        return {key for key in session.scalars(query) if key is not None}


def kept_key(finding: Finding) -> str:
    """The key of a finding as the trail has room for it."""
    return finding.key[:200]
