"""Searches for text look at a narrow table; events of one account or severity are read off an index."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

AT_ONCE = 2_000
INDICES = {"ix_task_event_owner": "owner", "ix_task_event_severity": "severity"}


def upgrade() -> None:
    """Make the table and fill it from the tasks that are there."""
    op.create_table(
        "task_search",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["number"], ["task.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
    )
    for name, column in INDICES.items():
        op.create_index(name, "task_event", [column, "sequence"], unique=False)
    connection, after = op.get_bind(), 0
    search = sa.table("task_search", sa.column("number", sa.Integer), sa.column("text", sa.Text))
    task = sa.table(
        "task",
        sa.column("number", sa.Integer),
        *(sa.column(name, sa.String) for name in ("id", "kind", "job", "owner")),
        sa.column("parameters", sa.JSON),
    )
    while rows := connection.execute(
        sa.select(task).where(task.c.number > after).order_by(task.c.number).limit(AT_ONCE)
    ).all():
        connection.execute(sa.insert(search), [{"number": row.number, "text": _text(row)} for row in rows])
        after = rows[-1].number


def downgrade() -> None:
    """Remove both."""
    for name in INDICES:
        op.drop_index(name, "task_event")
    op.drop_table("task_search")


def _text(row: sa.Row) -> str:
    parameters = json.dumps(row.parameters, ensure_ascii=False).encode("utf-8", "replace").decode()
    return "\n".join((row.id, row.kind, row.job, row.owner or "", parameters)).lower()
