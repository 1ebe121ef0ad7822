"""Alerts on their way to people."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from stock_pipeline.storage.database.tables.base import Base, UtcDateTime


class AlertRow(Base):
    """One alert, kept until it is delivered and old."""

    __tablename__ = "alert_outbox"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    source_key: Mapped[str] = mapped_column(String(300), unique=True)
    fingerprint: Mapped[str] = mapped_column(String(300), index=True)
    kind: Mapped[str] = mapped_column(String(60))
    severity: Mapped[str] = mapped_column(String(10))
    title: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    remedy: Mapped[str | None] = mapped_column(Text)
    labels: Mapped[dict[str, str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    addressed: Mapped[bool] = mapped_column(default=False, index=True)
    """Whether a delivery exists for each sink."""
    resolved_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DeliveryRow(Base):
    """One alert on its way to one sink."""

    __tablename__ = "alert_delivery"
    __table_args__ = (Index("ix_alert_delivery_due", "sink", "sent_at", "next_attempt_at"),)

    alert_id: Mapped[int] = mapped_column(ForeignKey("alert_outbox.id", ondelete="CASCADE"), primary_key=True)
    sink: Mapped[str] = mapped_column(String(100), primary_key=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_error: Mapped[str | None] = mapped_column(Text)


class AlertStateRow(Base):
    """What one sink last heard about one fingerprint, and who is sending now."""

    __tablename__ = "alert_state"

    fingerprint: Mapped[str] = mapped_column(String(300), primary_key=True)
    sink: Mapped[str] = mapped_column(String(100), primary_key=True)
    suppressed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    severity: Mapped[str | None] = mapped_column(String(10))
    last_sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
