"""Asks an application directly, without a client: fast, and for answers that do not end too."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import FastAPI

SECONDS = 300.0


@dataclass
class Asked:
    """An answer.

    Attributes
    ----------
    status, headers, body
        As sent; of an answer that does not end, what came before the reader left.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document, where it is one."""
        if self.headers.get("content-type") != "application/problem+json":
            return {}
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    @property
    def kind(self) -> str:
        """Kind of the problem, where it is one."""
        return str(self.problem.get("type", "")).rsplit(":", 1)[-1]

    @property
    def detail(self) -> str:
        """What the problem says, where it is one."""
        return str(self.problem.get("detail", ""))


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    query: dict[str, Any] | None = None,
    body: Any = None,
) -> Asked:
    """Ask once, with a body in JSON."""
    content = b"" if body is None else orjson.dumps(body)
    sent = {"host": "testserver", **(headers or {})}
    if content:
        sent = {"content-type": "application/json", "content-length": str(len(content)), **sent}
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
    return await ask_raw(app, method, path, path.encode(), urlencode(query or {}).encode(), pairs, content)


async def ask_raw(
    app: FastAPI, method: str, path: str, raw_path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> Asked:
    """Ask once; the reader leaves as soon as an endless answer has begun."""
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": raw_path, "root_path": "", "query_string": query, "headers": headers,
        "client": ("192.0.2.1", 50_000), "server": ("testserver", 80), "state": {},
    }  # fmt: skip
    answer, left, waiting = Asked(), asyncio.Event(), [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                left.set()
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")

    async with asyncio.timeout(SECONDS):
        await app(scope, receive, send)
    return answer
