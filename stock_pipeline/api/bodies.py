"""Looks at request bodies before anything parses them: size, media type, nesting, characters that no table holds."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stock_pipeline.api.problems import problem_response

MAX_BYTES = 1_000_000
"""Bytes of a request body."""

MAX_DEPTH = 64
"""Objects and lists within each other in a JSON body."""

MOST_SECONDS = 30.0
"""Time that a body may take to arrive."""

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
"""Media types that the console's pages send."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1

_Refusal = tuple[int, str, str]


class BodyGuard:
    """Refuses bodies that are too large, of another kind, nested too deeply, or hold what no table can hold.

    Parameters
    ----------
    app
        The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; those without a body cost nothing."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _address(scope)
        headers = Headers(scope=scope)
        if refusal is None and ("content-length" in headers or "transfer-encoding" in headers):
            refusal, receive = await _body(scope, headers, receive)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, kind, detail = refusal
        request_id = scope.get("state", {}).get("request_id")
        # the rest of an oversized body is not read: the connection ends with the answer
        more = {"Connection": "close"} if status in (408, 413) else None
        response = problem_response(status, kind, detail, instance=scope["path"], request_id=request_id, headers=more)
        await response(scope, receive, send)


def _address(scope: Scope) -> _Refusal | None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
        return 400, "invalid-characters", "the address holds a NUL character"
    return None


async def _body(scope: Scope, headers: Headers, receive: Receive) -> tuple[_Refusal | None, Receive]:
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BYTES:
        return _too_large(), receive
    try:
        async with asyncio.timeout(MOST_SECONDS):
            body, gone = await _read(receive)
    except TimeoutError:
        return (408, "body-too-slow", f"a body has at most {MOST_SECONDS:g} s to arrive"), receive
    if gone is not None:
        return None, _replay(gone, receive)
    if body is None:
        return _too_large(), receive
    refusal = _content(scope, headers, body) if body else None
    return refusal, _replay({"type": "http.request", "body": body, "more_body": False}, receive)


async def _read(receive: Receive) -> tuple[bytes | None, Message | None]:
    """Read a body: ``None`` where it is too large; beside it the message that says that the client has gone."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"", message
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BYTES:
            return None, None
        more = message.get("more_body", False)
    return b"".join(chunks), None


def _content(scope: Scope, headers: Headers, body: bytes) -> _Refusal | None:
    if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
        return 415, "unsupported-media-type", "compressed bodies are not read; send the body as it is"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS and not scope["path"].startswith("/api/"):
        return None
    if kind != "application/json":
        return 415, "unsupported-media-type", "the body must be JSON: send `Content-Type: application/json`"
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return 400, "invalid-json", f"the body is not JSON: {error.msg} at character {error.pos}"
    if _depth(body) > MAX_DEPTH:
        return 400, "invalid-json", f"the body is nested more than {MAX_DEPTH} levels deep"
    if b"\\u0000" in body and _holds_nul(content):
        return 400, "invalid-characters", "the body holds a NUL character"
    return None


def _depth(body: bytes) -> int:
    """How deep valid JSON is nested; without a walk in Python, which a large body would make long."""
    outside = _STRINGS.sub(b"", body)
    return int(_STEPS[np.frombuffer(outside, np.uint8)].cumsum(dtype=np.int32).max(initial=0))


def _holds_nul(content: Any) -> bool:
    if isinstance(content, str):
        return "\0" in content
    if isinstance(content, dict):
        return any("\0" in key or _holds_nul(value) for key, value in content.items())
    return isinstance(content, list) and any(_holds_nul(value) for value in content)


def _too_large() -> _Refusal:
    return 413, "body-too-large", f"a body has at most {MAX_BYTES} bytes"


def _replay(first: Message, receive: Receive) -> Receive:
    """Give what was read again, then whatever comes."""
    waiting = [first]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
