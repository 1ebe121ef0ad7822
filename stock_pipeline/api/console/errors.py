"""Errors as pages: a browser that asks for a page gets one to read, programs get the problem document as before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from stock_pipeline.access.principal import AccessError
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.problems import HANDLERS
from stock_pipeline.storage.database import AWAY

Handler = Callable[[Request, Exception], Awaitable[Response]]

_FOR_PROGRAMS = ("/api/", "/ws/", "/static/", "/reference/", "/healthz", "/readyz", "/openapi.json", "/metrics")
_FOR_BROWSERS = ("/api/auth/oidc/",)
"""Addresses below those of programs that only browsers come to: the ways to an identity provider and back."""

_LOGGED_OUT = {"token-missing", "token-invalid", "token-expired", "session-revoked", "account-disabled"}
_HEADINGS = {
    400: "The request was not understood",
    401: "The log-in did not succeed",
    403: "You may not do this",
    404: "There is nothing here",
    409: "This is not possible at the moment",
    422: "Something in the form is not right",
    423: "The account is locked",
    429: "Too many requests",
    500: "Something went wrong here",
    503: "Not available at the moment",
}


def wants_page(request: Request) -> bool:
    """Whether a request is of a browser that shows a page."""
    path: str = request.scope["path"]
    for_people = path.startswith(_FOR_BROWSERS) or not path.startswith(_FOR_PROGRAMS)
    return for_people and "text/html" in request.headers.get("accept", "")


def install(app: FastAPI) -> None:
    """Put pages before the error answers that the application has already."""
    for kind, answer in HANDLERS.items():
        app.add_exception_handler(kind, _paged(answer))


def _paged(answer: Any) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        problem: Response = await answer(request, error)
        if not wants_page(request):
            return problem
        if isinstance(error, AccessError) and error.kind in _LOGGED_OUT:
            return to_login(request, expired=error.kind != "token-missing")
        if isinstance(error, AccessError) and error.kind == "step-up-required":
            return RedirectResponse("/account/step-up?" + urlencode({"next": _back(request)}), status_code=303)
        # the navigation would ask the database once more
        return await run_in_threadpool(error_page, request, problem, bare=isinstance(error, AWAY))

    return handle


def to_login(request: Request, *, expired: bool) -> Response:
    """Send somebody to the log-in, and afterwards back to where they wanted to go."""
    asked = {"next": _back(request)} if _back(request) != "/" else {}
    if expired:
        asked["done"] = "expired"
    return RedirectResponse("/login" + (f"?{urlencode(asked)}" if asked else ""), status_code=303)


def error_page(request: Request, problem: Response, *, bare: bool = False) -> Response:
    """Say a problem document in a page, with ``bare`` without the navigation."""
    body: dict[str, Any] = orjson.loads(bytes(problem.body))
    status = problem.status_code
    answer = page(
        request,
        "error.html",
        title=_HEADINGS.get(status, HTTPStatus(status).phrase),
        crumbs=[("Console", "/"), (f"Error {status}", None)],
        bare=bare,
        status=status,
        problem=body,
    )
    for name in ("retry-after", "www-authenticate"):
        if name in problem.headers:
            answer.headers[name] = problem.headers[name]
    return answer


def _back(request: Request) -> str:
    if request.method not in ("GET", "HEAD"):
        return "/"
    query = request.url.query
    return request.scope["path"] + (f"?{query}" if query else "")
