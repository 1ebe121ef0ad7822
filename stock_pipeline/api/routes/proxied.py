"""What a proxy asks before it lets a request pass to the web UIs of Dagster and MLflow, which know no accounts.

Made for ``auth_request`` of nginx and its like (``forward_auth``, ``ForwardAuth``): the proxy sends the headers of a
request here and looks at the status only.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from stock_pipeline.access.principal import AccessError
from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.client import of_own_page
from stock_pipeline.api.dependencies import principal, require
from stock_pipeline.api.problems import problem_responses

router = APIRouter(prefix="/api/proxied", tags=["authentication"])

DAGSTER = [Depends(require("dagster:use"))]
MLFLOW = [Depends(require("mlflow:use"))]

_ANSWERS = {204: {"description": "It may pass"}, **problem_responses(401, 403)}


@router.get(
    "/dagster",
    summary="May a request pass to Dagster's web UI",
    status_code=204,
    dependencies=DAGSTER,
    responses=_ANSWERS,
)
async def pass_to_dagster(request: Request) -> Response:
    """Answer 204 where who asks may use Dagster's web UI, in which any run can be started and stopped."""
    return _passed(request)


@router.get(
    "/mlflow",
    summary="May a request pass to MLflow's web UI",
    status_code=204,
    dependencies=MLFLOW,
    responses=_ANSWERS,
)
async def pass_to_mlflow(request: Request) -> Response:
    """Answer 204 where who asks may use MLflow's web UI, in which models and runs can be changed."""
    return _passed(request)


def _passed(request: Request) -> Response:
    """Name who asks, for the log of the proxy; the sums of reads in the audit trail tell that somebody was there.

    Raises
    ------
    AccessError
        403 where a browser sent the cookie along because another site asked for something.
    """
    who = principal(request)
    if who.kind == "console" and _of_another_site(request):
        raise AccessError(403, "csrf", "another site asked for this")
    count_rows(request, 0)
    return Response(status_code=204, headers={"X-Account": who.name, "Cache-Control": "no-store"})


def _of_another_site(request: Request) -> bool:
    """Whether a page that is not of this service asks; following a link from elsewhere is allowed."""
    headers = request.headers
    given = headers.get("origin")
    if given is not None and not of_own_page(request, given):
        return True
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not link
