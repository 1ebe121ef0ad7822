"""Log-in of browsers with a company's identity provider; there only where one is configured."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from stock_pipeline.api import cookies
from stock_pipeline.api.client import origin
from stock_pipeline.api.console.forms import local_path
from stock_pipeline.api.dependencies import public, service
from stock_pipeline.api.limits import log_in_limit
from stock_pipeline.api.service import Service
from stock_pipeline.config import addresses

router = APIRouter(
    prefix="/api/auth/oidc", include_in_schema=False, dependencies=[Depends(public), Depends(log_in_limit)]
)

_BACK = "/api/auth/oidc/callback"


@router.get("/login")
def begin(request: Request, next: str = "/") -> Response:
    """Send the browser to the identity provider; afterwards it goes on to a page of this service."""
    parts = service(request)
    start = parts.access.oidc.begin(_redirect_uri(parts), local_path(next))
    response = RedirectResponse(start.address, status_code=303)
    cookies.set_journey(response, parts.settings, start.cookie)
    return response


@router.get("/callback")
def finish(request: Request) -> Response:
    """Open a session of the console for whoever comes back from the identity provider."""
    parts = service(request)
    brought = request.cookies.get(cookies.name(parts.settings, cookies.JOURNEY), "")
    opened, after = parts.access.oidc.finish(dict(request.query_params), brought, _redirect_uri(parts), origin(request))
    assert opened.cookie is not None
    response = RedirectResponse(local_path(after), status_code=303)
    cookies.set_session(response, parts.settings, opened.cookie)
    cookies.clear_journey(response, parts.settings)
    return response


def _redirect_uri(parts: Service) -> str:
    return addresses.console(parts.settings) + _BACK
