"""The alert outbox, its deliveries and what each sink was told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "alert_outbox",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("source_key", sa.String(300), nullable=False, unique=True),
        sa.Column("fingerprint", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(60), nullable=False),
        sa.Column("severity", sa.String(10), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text()),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("addressed", sa.Boolean(), nullable=False),
        sa.Column("resolved_at", INSTANT),
    )
    for column in ("fingerprint", "created_at", "addressed"):
        op.create_index(f"ix_alert_outbox_{column}", "alert_outbox", [column])
    op.create_table(
        "alert_delivery",
        sa.Column("alert_id", sa.Integer(), sa.ForeignKey("alert_outbox.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("sink", sa.String(100), primary_key=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", INSTANT, nullable=False),
        sa.Column("sent_at", INSTANT),
        sa.Column("last_error", sa.Text()),
    )
    op.create_index("ix_alert_delivery_due", "alert_delivery", ["sink", "sent_at", "next_attempt_at"])
    op.create_table(
        "alert_state",
        sa.Column("fingerprint", sa.String(300), primary_key=True),
        sa.Column("sink", sa.String(100), primary_key=True),
        sa.Column("suppressed_until", INSTANT),
        sa.Column("severity", sa.String(10)),
        sa.Column("last_sent_at", INSTANT),
        sa.Column("claimed_until", INSTANT),
    )


def downgrade() -> None:
    """Remove the tables."""
    for table in ("alert_state", "alert_delivery", "alert_outbox"):
        op.drop_table(table)
