"""Alerts: what is wrong now, what was, and who says that it is over."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.api import paging
from stock_pipeline.api.answers import json_answer
from stock_pipeline.api.auditing import audit
from stock_pipeline.api.dependencies import no_repeats, require, service
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.schemas import NoQuery
from stock_pipeline.api.schemas_market import Alert, AlertQuery, ResolveAlert
from stock_pipeline.api.table_answers import NOT_MODIFIED
from stock_pipeline.storage.database import transaction
from stock_pipeline.storage.outbox_reading import StoredAlert, get_alert, list_alerts

router = APIRouter(prefix="/api/alerts", tags=["alerts"], dependencies=[Depends(no_repeats)])

READ = [Depends(require("alerts:read"))]
RESOLVE = [Depends(require("alerts:resolve"))]

NONE = NoQuery()

AlertId = Annotated[int, Path(ge=1, le=2**31 - 1, description="number of the alert", examples=[17])]


@router.get(
    "",
    summary="Alerts, newest first",
    operation_id="list_alerts",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": paging.Page[Alert]}, **NOT_MODIFIED, **problem_responses(400, 422)},
)
def list_all_alerts(request: Request, query: Annotated[AlertQuery, Query()]) -> Response:
    """Alerts that nobody has resolved, or all."""
    question = query.question()
    before = None if query.cursor is None else paging.decode(query.cursor, question, int)
    found = list_alerts(
        service(request).database,
        state=query.state,
        severity=query.severity,
        kind=query.kind,
        before=before,
        limit=query.limit + 1,
    )
    page, following = paging.cut(found, query.limit, question, lambda alert: alert.id)
    return json_answer({"items": [asdict(alert) for alert in page], "next_cursor": following}).respond(request)


@router.get(
    "/{alert_id}",
    summary="One alert",
    operation_id="get_alert",
    response_class=Response,
    dependencies=READ,
    responses={200: {"model": Alert}, **NOT_MODIFIED, **problem_responses(404, 422)},
)
def get_one_alert(request: Request, alert_id: AlertId, query: Annotated[NoQuery, Query()]) -> Response:
    """One alert with what to do about it."""
    return json_answer(asdict(_found(request, alert_id))).respond(request)


@router.post(
    "/{alert_id}/resolve", summary="Say that an alert is over", dependencies=RESOLVE, responses=problem_responses(404)
)
def resolve_alert(
    request: Request, alert_id: AlertId, wanted: ResolveAlert | None = None, query: Annotated[NoQuery, Query()] = NONE
) -> Alert:
    """Resolve all alerts of the problem; whoever was told of it is told that it is over.

    An alert that is over already stays as it is.
    """
    alert = _found(request, alert_id)
    if alert.resolved_at is None:
        parts = service(request)
        with transaction(parts.database) as session:
            if parts.alert_outbox.resolve(alert.fingerprint, datetime.now(UTC), within=session):
                detail: dict[str, Any] = {"fingerprint": alert.fingerprint, "title": alert.title}
                reason = wanted.reason if wanted else None
                audit(
                    request,
                    "alert.resolve",
                    object=("alert", str(alert_id)),
                    detail={**detail, "reason": reason} if reason else detail,
                    session=session,
                )
        alert = _found(request, alert_id)
    return Alert.model_validate(asdict(alert))


def _found(request: Request, alert_id: int) -> StoredAlert:
    alert = get_alert(service(request).database, alert_id)
    if alert is None:
        raise ProblemError(404, "alert-not-found", f"there is no alert {alert_id}")
    return alert
