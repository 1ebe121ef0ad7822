"""Alerts: what is wrong now, what was, and who says that it is over."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from stock_pipeline.api.console.forms import Fields, apart, go, model, text
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import principal, service
from stock_pipeline.api.routes import alerts
from stock_pipeline.api.schemas_market import ResolveAlert
from stock_pipeline.storage.outbox_reading import list_alerts

router = APIRouter(include_in_schema=False)

ROWS = 30
SEVERITIES = ("info", "warning", "error", "critical")


@router.get("/alerts", dependencies=alerts.READ)
def alert_list(
    request: Request,
    state: Annotated[str, Query(max_length=10)] = "open",
    severity: Annotated[str, Query(max_length=10)] = "",
    after: int | None = None,
) -> Response:
    """List alerts, newest first."""
    parts = service(request)
    state = state if state in ("open", "all") else "open"
    chosen: Any = severity if severity in SEVERITIES else None
    newest = parts.events.newest()
    found = list_alerts(parts.database, state=state, severity=chosen, kind=None, before=after, limit=ROWS + 1)  # type: ignore[arg-type]
    rows = found[:ROWS]
    asked = {"state": state, "severity": severity}
    return page(
        request,
        "alerts/list.html",
        title="Alerts",
        section="alerts",
        rows=rows,
        asked=asked,
        severities=SEVERITIES,
        newest=newest,
        states=[
            {"label": label, "path": f"/alerts?state={key}", "current": key == state}
            for key, label in (("open", "Open"), ("all", "All"))
        ],
        pager=Pager.after("/alerts", asked, rows[-1].id if len(found) > ROWS else None, begun=after is not None),
        may_resolve=principal(request).may("alerts:resolve"),
    )


@router.post("/alerts/{alert_id}/resolve", dependencies=alerts.RESOLVE)
async def resolve(request: Request, alert_id: alerts.AlertId, form: Fields) -> Response:
    """Say that an alert is over."""
    wanted = model(ResolveAlert, reason=text(form, "reason") or None)
    await apart(alerts.resolve_alert, request, alert_id, wanted)
    return go("/alerts", done="alert-resolved")
