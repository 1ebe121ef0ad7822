"""The audit trail: who did what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api.auditing import audit
from stock_pipeline.api.dependencies import no_repeats, require, service
from stock_pipeline.api.paging import Page, cut, decode
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.schemas_admin import (
    AuditEntryInfo,
    AuditQuery,
    ExportQuery,
    NoQuery,
    PeriodQuery,
    VerificationInfo,
)

router = APIRouter(
    prefix="/api/audit", tags=["audit"], dependencies=[Depends(require("audit:read")), Depends(no_repeats)]
)

_TYPES = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}
_REPORTED = timedelta(days=30)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC) + _REPORTED


@router.get("", summary="Entries of the audit trail", responses=problem_responses(400))
def list_audit_entries(request: Request, query: Annotated[AuditQuery, Query()]) -> Page[AuditEntryInfo]:
    """Entries that match, newest first."""
    after = decode(query.cursor, query.question()) if query.cursor else None
    filters = AuditFilter(**query.model_dump(exclude={"limit", "cursor"}))
    rows = service(request).access.audit.entries(filters, after, query.limit + 1)
    page, following = cut(rows, query.limit, query.question(), lambda entry: entry.sequence)
    return Page(items=[AuditEntryInfo(**asdict(entry)) for entry in page], next_cursor=following)


@router.get("/verify", summary="Whether the audit trail is as it was written")
def verify_audit_trail(request: Request, query: Annotated[NoQuery, Query()]) -> VerificationInfo:
    """Check every seal and the links between them; takes a while where the trail is long."""
    found = service(request).access.audit.verify()
    faults = [str(fault) for fault in found.faults]
    audit(request, "audit.verify", result="failed" if faults else "done", detail={"faults": len(faults)})
    return VerificationInfo(intact=not faults, entries=found.entries, faults=faults)


@router.get(
    "/export",
    summary="The audit trail as a file",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One entry a line, oldest first.",
            "content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in _TYPES.values()},
        }
    },
)
def export_audit_trail(request: Request, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
    """All entries of a period as JSON Lines or CSV, sent while they are read."""
    _check(query.since, query.until)
    audit(request, "audit.export", detail=query.model_dump(mode="json"))
    lines: Iterator[str] = service(request).access.audit.export(query.format, query.since, query.until)
    name = f"audit.{query.format}"
    return StreamingResponse(
        lines, media_type=_TYPES[query.format], headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@router.get("/report", summary="Compliance report of a period")
def get_compliance_report(request: Request, query: Annotated[PeriodQuery, Query()]) -> dict[str, Any]:
    """What happened in a period, in numbers and lists; the last 30 days where nothing is said."""
    access = service(request).access
    until = query.until or access.clock()
    since = query.since or max(until, _EARLIEST) - _REPORTED
    _check(since, until)
    audit(request, "audit.report", detail={"since": since.isoformat(), "until": until.isoformat()})
    return asdict(access.audit.report(since, until))


def _check(since: datetime | None, until: datetime | None) -> None:
    if since is not None and until is not None and since >= until:
        errors = [{"parameter": "since", "message": "must be before until", "value": since.isoformat()}]
        raise ProblemError(422, "invalid-parameters", f"since must be before until: {since}, {until}", errors=errors)
