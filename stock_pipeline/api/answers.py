"""Finished answers: bytes with an entity tag, plain and compressed, and the cursors that page through them."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import orjson
from fastapi import Request, Response

from stock_pipeline.api.problems import ProblemError

_COMPRESS_FROM = 1_000


@dataclass
class Answer:
    """A finished answer that many readers may get.

    Attributes
    ----------
    body
        Bytes as sent.
    media_type
        Content type.
    etag
        Weak entity tag.
    headers
        Further headers.
    """

    body: bytes
    media_type: str
    etag: str
    headers: dict[str, str] = field(default_factory=dict)
    _compressed: bytes | None = None

    def respond(self, request: Request) -> Response:
        """Answer a request: 304 where the reader has it already, compressed where the reader takes that."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **self.headers}
        if matches(request.headers.get("if-none-match"), self.etag):
            return Response(status_code=304, headers=headers)
        body = self.body
        if len(body) >= _COMPRESS_FROM and "gzip" in request.headers.get("accept-encoding", ""):
            if self._compressed is None:
                self._compressed = gzip.compress(body, 5, mtime=0)
            body, headers["Content-Encoding"] = self._compressed, "gzip"
        return Response(body, media_type=self.media_type, headers=headers)


def entity_tag(*parts: Any) -> str:
    """Weak tag of what determines an answer."""
    text = orjson.dumps(parts, default=str)
    return f'W/"{hashlib.blake2b(text, digest_size=12).hexdigest()}"'


def matches(header: str | None, etag: str) -> bool:
    """Whether an ``If-None-Match`` header names a tag (weak comparison, RFC 9110 section 13.1.2)."""
    if not header:
        return False
    strong = etag.removeprefix("W/")
    return any(tag.strip() == "*" or tag.strip().removeprefix("W/") == strong for tag in header.split(","))


@dataclass(frozen=True)
class Cursor:
    """Where the next page begins, and in which publication.

    Attributes
    ----------
    version, session
        Of the publication that the first page was from; later pages are from the same, so that no row is given twice
        and none is missed when a newer one appears in between.
    question
        Digest of the filters and the order.
    offset
        Rows already given.
    """

    version: int
    session: date
    question: str
    offset: int

    def encode(self) -> str:
        """Opaque text for a query parameter."""
        raw = orjson.dumps([self.version, self.session.isoformat(), self.question, self.offset])
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, question: str) -> Cursor:
        """Read a cursor back.

        Raises
        ------
        ProblemError
            400 where it is damaged or belongs to another question.
        """
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            version, session, asked, offset = orjson.loads(raw)
            cursor = cls(int(version), date.fromisoformat(session), str(asked), int(offset))
            if cursor.version < 0 or cursor.offset < 0:
                raise ValueError("negative")
        except (ValueError, TypeError) as error:
            raise ProblemError(400, "invalid-cursor", "the cursor is damaged; begin again without a cursor") from error
        if cursor.question != question:
            raise ProblemError(
                400,
                "invalid-cursor",
                "the cursor belongs to other filters; keep all parameters but limit the same while paging",
            )
        return cursor
