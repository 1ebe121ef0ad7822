"""The entries of the navigation that somebody may see."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.service import Service


@dataclass(frozen=True)
class Entry:
    """One link of the navigation; ``count`` is a number shown beside it."""

    key: str
    label: str
    path: str
    permission: str
    count: int = 0

    @property
    def icon(self) -> str:
        """Name of its drawing."""
        return self.key


_GROUPS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Market",
        (
            Entry("predictions", "Predictions", "/", "predictions:read"),
            Entry("quality", "Data quality", "/quality", "quality:read"),
        ),
    ),
    (
        "Research",
        (
            Entry("models", "Models", "/models", "models:read"),
            Entry("backtests", "Back-tests", "/backtests", "backtests:read"),
        ),
    ),
    (
        "Operation",
        (
            Entry("tasks", "Tasks", "/tasks", "tasks:read"),
            Entry("alerts", "Alerts", "/alerts", "alerts:read"),
            Entry("dagster", "Dagster", "/tools/dagster/", "dagster:use"),
            Entry("mlflow", "MLflow", "/tools/mlflow/", "mlflow:use"),
        ),
    ),
    (
        "Administration",
        (
            Entry("users", "Users", "/users", "users:read"),
            Entry("roles", "Roles", "/roles", "roles:read"),
            Entry("audit", "Audit trail", "/audit", "audit:read"),
        ),
    ),
    ("Help", (Entry("reference", "API reference", "/docs", "account:use"),)),
)


def entries(service: Service, who: Principal) -> list[tuple[str, list[Entry]]]:
    """Groups of entries that somebody may open, with the number of open alerts."""
    shown = []
    for heading, group in _GROUPS:
        allowed = [_counted(service, entry) for entry in group if who.may(entry.permission)]
        if allowed:
            shown.append((heading, allowed))
    return shown


def _counted(service: Service, entry: Entry) -> Entry:
    return replace(entry, count=len(service.alert_outbox.open_alerts())) if entry.key == "alerts" else entry
