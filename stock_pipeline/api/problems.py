"""Errors as RFC 9457 problem documents, and the translation of every error into one."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from stock_pipeline.access.principal import AccessError
from stock_pipeline.core.errors import IntegrityError, NotFoundError, PipelineError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.database import AWAY

MEDIA_TYPE = "application/problem+json"

_BAD_TOKEN = frozenset({"token-invalid", "token-expired", "session-revoked", "account-disabled"})
_LIMIT_HEADERS = {"limit": "RateLimit-Limit", "remaining": "RateLimit-Remaining", "reset": "RateLimit-Reset"}
_SECRET = re.compile(r"pass|secret|token|code|ticket|key|link|cookie", re.IGNORECASE)

_UNCHANGED = "nothing was changed, try again soon"
_UNCERTAIN = (
    "what was asked may have been done all the same: look before you ask again, "
    "or ask again with the same Idempotency-Key where one was sent"
)

_log = get_logger(__name__)


class InvalidParameter(BaseModel):
    """One parameter that was not accepted."""

    parameter: str = Field(description="its name", examples=["limit"])
    message: str = Field(description="what is wrong with it", examples=["Input should be less than or equal to 1000"])
    value: Any = Field(None, description="what was sent", examples=["5000"])


class Problem(BaseModel):
    """What went wrong, in the form of RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:stock-pipeline:problem:invalid-parameters",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "limit: Input should be less than or equal to 1000",
                    "instance": "/api/predictions",
                    "request_id": "5f0c7a3e9d1b4c2f8a6e0d4b7c9f1a23",
                    "errors": [
                        {
                            "parameter": "limit",
                            "message": "Input should be less than or equal to 1000",
                            "value": "5000",
                        }
                    ],
                }
            ]
        }
    )

    type: str = Field(description="kind of problem; equal problems have equal types")
    title: str = Field(description="short text of the status")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what happened here and what to do about it")
    instance: str = Field(description="path of the request")
    request_id: str | None = Field(None, description="finds the request in the logs")
    errors: list[InvalidParameter] | None = Field(None, description="parameters that were not accepted")
    facts: dict[str, Any] | None = Field(None, description="further facts, such as how long to wait", examples=[None])


class ProblemError(Exception):
    """Raised by routes to answer with a problem.

    Parameters
    ----------
    status
        HTTP status.
    kind
        Last part of the problem's ``type``.
    detail
        What happened and what to do.
    headers
        Further response headers.
    errors
        Parameters that were not accepted.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers, self.errors = status, kind, detail, headers, errors


def problem_response(
    status: int,
    kind: str,
    detail: str,
    *,
    instance: str,
    request_id: str | None,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Response:
    """Build the answer of a problem; see `Problem` for the fields."""
    body: dict[str, Any] = {
        "type": f"urn:stock-pipeline:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = list(errors)
    if facts:
        body["facts"] = dict(facts)
    return Response(
        orjson.dumps(body, default=str),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that a route may answer with, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Answer every error of an application with a problem document."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


def _respond(request: Request, status: int, kind: str, detail: str, **more: Any) -> Response:
    request_id = getattr(request.state, "request_id", None)
    return problem_response(status, kind, detail, instance=request.scope["path"], request_id=request_id, **more)


async def _own(request: Request, error: Any) -> Response:
    return _respond(request, error.status, error.kind, error.detail, headers=error.headers, errors=error.errors)


async def _http(request: Request, error: Any) -> Response:
    kind = HTTPStatus(error.status_code).name.lower().replace("_", "-")
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is nothing at {request.scope['path']}; /docs lists all addresses"
    elif error.status_code == 405:
        detail = f"{request.method} is not possible at {request.scope['path']}"
    return _respond(request, error.status_code, kind, detail, headers=error.headers)


async def _validation(request: Request, error: Any) -> Response:
    errors = [
        {
            "parameter": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
            "message": "unknown parameter" if item["type"] == "extra_forbidden" else item["msg"],
            "value": _shown(item["loc"], item.get("input")),
        }
        for item in error.errors()
    ]
    detail = "; ".join(f"{item['parameter']}: {item['message']}" for item in errors)
    return _respond(request, 422, "invalid-parameters", detail, errors=errors)


async def _access(request: Request, error: Any) -> Response:
    return _respond(request, error.status, error.kind, str(error), headers=access_headers(error), facts=error.detail)


async def _database(request: Request, error: Any) -> Response:
    _log.warning("the metadata database gave no answer", error=type(error).__name__, path=request.url.path)
    asks = request.method in ("GET", "HEAD", "OPTIONS")
    detail = f"the metadata database is busy or cannot be reached; {_UNCHANGED if asks else _UNCERTAIN}"
    return _respond(request, 503, "database-unavailable", detail, headers={"Retry-After": "5"})


async def _pipeline(request: Request, error: Any) -> Response:
    if isinstance(error, NotFoundError):
        return _respond(request, 404, "not-found", str(error))
    _log.error("the answer could not be made", error=str(error), path=request.url.path)
    if isinstance(error, IntegrityError):
        return _respond(request, 503, "storage-unreadable", "stored data cannot be read; see the log of the service")
    return _respond(request, 500, "internal", "the answer could not be made; see the log of the service")


HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    ProblemError: _own,
    **dict.fromkeys(AWAY, _database),
    HTTPException: _http,
    RequestValidationError: _validation,
    AccessError: _access,
    PipelineError: _pipeline,
}
"""What answers each kind of error."""


def access_headers(error: AccessError) -> dict[str, str]:
    """Headers that a refusal carries: how to log in, and when to come again."""
    headers = {}
    if error.status == 401:
        said = ' error="invalid_token"' if error.kind in _BAD_TOKEN else ""
        headers["WWW-Authenticate"] = f'Bearer realm="stock_pipeline"{"," if said else ""}{said}'
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    for fact, header in _LIMIT_HEADERS.items():
        if fact in error.detail:
            headers[header] = str(error.detail[fact])
    return headers


def _shown(place: Sequence[Any], value: Any) -> Any:
    """What was sent, unless it may hold a secret: whole bodies and everything whose name sounds like one."""
    if place[0] == "body" and (isinstance(value, dict | list) or any(_SECRET.search(str(part)) for part in place)):
        return None
    text = value if isinstance(value, str) else None if value is None else str(value)
    return text if text is None or len(text) <= 200 else text[:200] + "..."
