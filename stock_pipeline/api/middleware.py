"""What happens around every request: an id, security headers, the host check, a log line, a last resort for errors."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stock_pipeline.api.problems import problem_response
from stock_pipeline.observability.logging import get_logger, log_context

REQUEST_ID = "X-Request-ID"

_REQUEST_ID = REQUEST_ID.lower().encode()
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
)
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")
_NO_STORE = (b"cache-control", b"no-store")

_FILES = ("/static/", "/reference/")

_log = get_logger("api.access")


class RequestFrame:
    """Outermost layer of the application.

    Parameters
    ----------
    app
        The application within.
    allowed_hosts
        Names that the ``Host`` header may have, without port; any where ``None``. A service on loopback names its
        loopback names here, so that a foreign web page cannot reach it under a name of its own.
    https_only
        Whether browsers are told to come by HTTPS only.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] | None = None, *, https_only: bool = False) -> None:
        self._app = app
        self._hosts = None if allowed_hosts is None else {host.lower() for host in allowed_hosts}
        self._always = (*_SECURITY, _HTTPS_ONLY) if https_only else _SECURITY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or let a WebSocket through that addresses this service."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
            return
        if scope["type"] == "websocket":
            scope.setdefault("state", {})["request_id"] = uuid.uuid4().hex
            if not self._is_ours(Headers(scope=scope)):
                await send({"type": "websocket.close", "code": 1008})
                return
        await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "HEAD":  # every GET route answers HEAD; the server leaves the body out
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = given if _ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 0

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(message, scope["path"], request_id)
            await send(message)

        with log_context(request_id=request_id):
            try:
                if not self._is_ours(headers):
                    detail = "this service does not answer under that host name"
                    await problem_response(400, "unknown-host", detail, instance=scope["path"], request_id=request_id)(
                        scope, receive, framed
                    )
                else:
                    await self._app(scope, receive, framed)
            except Exception:
                _log.exception("a request failed", method=method, path=scope["path"])
                if status:
                    raise
                detail = "an unexpected error; the log of the service has it under this request id"
                await problem_response(500, "internal", detail, instance=scope["path"], request_id=request_id)(
                    scope, receive, framed
                )
            finally:
                milliseconds = round((time.perf_counter() - started) * 1000, 2)
                who = scope["state"].get("principal")
                _log.info(
                    "request",
                    method=method,
                    path=scope["path"],
                    status=status,
                    ms=milliseconds,
                    account=None if who is None else who.name,
                )

    def _complete(self, start: Message, path: str, request_id: str) -> None:
        """Add what every answer carries to the headers of one."""
        given = {name for name, _ in start["headers"]}
        start["headers"] = [
            *start["headers"],
            (_REQUEST_ID, request_id.encode("ascii")),
            *(pair for pair in self._always if pair[0] not in given),
        ]
        if _NO_STORE[0] not in given and not path.startswith(_FILES):
            start["headers"].append(_NO_STORE)

    def _is_ours(self, headers: Headers) -> bool:
        if len(headers.getlist("host")) > 1:
            return False
        return self._hosts is None or _host_name(headers.get("host", "")) in self._hosts


class PageCompression(GZipMiddleware):
    """Compresses pages and files; answers below ``/api/`` carry their own compressed form."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _host_name(host: str) -> str:
    host = host.lower()
    if host.startswith("["):
        return host[1:].split("]", 1)[0]
    return host.rsplit(":", 1)[0] if ":" in host else host
