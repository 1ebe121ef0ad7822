"""The audit trail: search it, verify it, take it along."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from stock_pipeline.access.audit import AuditFilter
from stock_pipeline.api.console.forms import refusal
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import require, service
from stock_pipeline.api.routes import audit
from stock_pipeline.api.schemas_admin import AuditQuery, NoQuery

router = APIRouter(include_in_schema=False, dependencies=[Depends(require("audit:read"))])

ROWS = 50
RESULTS = ("done", "refused", "failed")


@router.get("/audit")
def audit_page(
    request: Request,
    actor: Annotated[str, Query(max_length=120)] = "",
    action: Annotated[str, Query(max_length=60)] = "",
    result: Annotated[str, Query(max_length=20)] = "",
    since: Annotated[str, Query(max_length=30)] = "",
    until: Annotated[str, Query(max_length=30)] = "",
    after: int | None = None,
) -> Response:
    """Show entries that match, newest first."""
    asked = {"actor": actor.strip(), "action": action.strip(), "result": result, "since": since, "until": until}
    return _list(request, asked, after)


@router.post("/audit/verify")
def verify(request: Request) -> Response:
    """Check every seal of the trail and say what was found."""
    found = audit.verify_audit_trail(request, NoQuery())
    if found.intact:
        notice = Notice(
            f"All {found.entries:,} entries are as they were written, and none is missing.", "good", "Intact"
        )
    else:
        notice = Notice("; ".join(found.faults[:20]), "bad", "The trail was tampered with")
    return _list(request, {}, None, [notice])


def _list(request: Request, asked: dict[str, str], after: int | None, notices: list[Notice] | None = None) -> Response:
    said = list(notices or [])
    filters: dict[str, Any] = {}
    try:
        query = AuditQuery.model_validate({name: _instant(name, value) for name, value in asked.items() if value})
        filters = query.model_dump(exclude={"limit", "cursor"})
    except ValidationError as error:
        said.append(refusal(error))
    found = service(request).access.audit.entries(AuditFilter(**filters), after, ROWS + 1)
    shown = found[:ROWS]
    return page(
        request,
        "admin/audit.html",
        title="Audit trail",
        section="audit",
        notices=said,
        entries=shown,
        asked={name: asked.get(name, "") for name in ("actor", "action", "result", "since", "until")},
        results=RESULTS,
        pager=Pager.after("/audit", asked, shown[-1].sequence if len(found) > ROWS else None, begun=after is not None),
    )


def _instant(name: str, value: str) -> str:
    """A day as the instant of its beginning, as the API takes it."""
    return f"{value}T00:00:00Z" if name in ("since", "until") and len(value) == 10 else value
