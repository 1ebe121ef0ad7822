"""One-time links are good only as long as everything is as it was when they were made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what a link is bound to; links that were made before are bound to nothing, and are refused."""
    op.add_column("one_time_link", sa.Column("maker_id", sa.Integer(), nullable=True))
    op.add_column("one_time_link", sa.Column("stamp", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("one_time_link", sa.Column("revoke_keys", sa.Boolean(), nullable=False, server_default=sa.true()))


def downgrade() -> None:
    """Remove it."""
    with op.batch_alter_table("one_time_link") as table:
        for column in ("revoke_keys", "stamp", "maker_id"):
            table.drop_column(column)
