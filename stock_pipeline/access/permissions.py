"""What can be permitted, and the roles that exist from the start.

A permission is ``noun:verb``. Roles inherit; what they hold is kept in the database and may be changed there at run
time. Here is only what a new installation begins with.
"""

from __future__ import annotations

PERMISSIONS: dict[str, str] = {
    "predictions:read": "read published predictions and who has none",
    "predictions:request": "ask for a prediction of chosen symbols",
    "risk:read": "read risk and its history",
    "quality:read": "read data quality",
    "models:read": "read models, their figures and cards",
    "models:promote": "make a version the champion, or go back to the one before",
    "backtests:read": "read back-tests, their trades and reports",
    "backtests:create": "start a back-test",
    "tasks:read": "see tasks and their events",
    "tasks:control": "cancel, pause, resume, retry and delete own tasks",
    "tasks:control_any": "the same for everybody's tasks",
    "tasks:operate": "start training, refreshes and backfills",
    "events:read": "follow the stream of events",
    "dagster:use": "use Dagster's web UI, in which any run can be started and stopped",
    "mlflow:use": "use MLflow's web UI, in which models and runs can be changed",
    "alerts:read": "read alerts",
    "alerts:resolve": "say that an alert is over",
    "users:read": "see accounts and their sessions",
    "users:manage": "create, change, lock and delete accounts, revoke their sessions and keys",
    "roles:read": "see roles and what they hold",
    "roles:manage": "change roles and who has them",
    "audit:read": "read and export the audit trail",
    "account:use": "see and change one's own account, sessions and keys",
}
"""Every permission and what it lets one do."""

VIEWER, ANALYST, OPERATOR, ADMINISTRATOR = "viewer", "analyst", "operator", "administrator"

ROLES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    VIEWER: (
        None,
        (
            "predictions:read", "risk:read", "quality:read", "models:read", "backtests:read", "tasks:read",
            "events:read", "alerts:read", "account:use",
        ),
    ),
    ANALYST: (VIEWER, ("predictions:request", "backtests:create", "tasks:control")),
    OPERATOR: (
        ANALYST,
        ("tasks:operate", "tasks:control_any", "models:promote", "alerts:resolve", "dagster:use", "mlflow:use"),
    ),
    ADMINISTRATOR: (OPERATOR, ("users:read", "users:manage", "roles:read", "roles:manage", "audit:read")),
}  # fmt: skip
"""Roles of a new installation: the role that each inherits from, and what it adds."""

READS = frozenset(name for name in PERMISSIONS if name.endswith(":read"))
"""What a session that must prove itself again may still do."""
