"""Finished answers: bytes with an entity tag, plain and compressed, with the headers that they are sent with."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import orjson
from fastapi import Request, Response

COMPRESS_FROM = 1_000
"""Bytes from which compressing pays."""

LEVEL = 6
"""Of gzip: on predictions 2 % larger than level 9, in a third of the time."""

JSON, CSV = "application/json", "text/csv; charset=utf-8"

Headers = list[tuple[bytes, bytes]]


class Answer:
    """A finished answer that many readers may get.

    Parameters
    ----------
    body
        Bytes as sent.
    media_type
        Content type.
    etag
        Weak entity tag.
    headers
        Further headers.
    rows
        Rows of data that it holds.
    """

    __slots__ = ("_compressed", "_head", "_plain", "body", "etag", "headers", "media_type", "not_modified", "rows")

    def __init__(
        self, body: bytes, media_type: str, etag: str, headers: Mapping[str, str] | None = None, *, rows: int = 0
    ) -> None:
        self.body, self.media_type, self.etag, self.rows = body, media_type, etag, rows
        self.headers = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding", **(headers or {})}
        self.not_modified: Headers = _raw({"ETag": etag, **self.headers})
        self._head: Headers = [*self.not_modified, (b"content-type", media_type.encode("latin-1"))]
        self._plain = [*self._head, (b"content-length", b"%d" % len(body))]
        self._compressed: tuple[Headers, bytes] | None = None

    def compress(self) -> tuple[Headers, bytes]:
        """Make the compressed form, once."""
        if self._compressed is None:
            packed = gzip.compress(self.body, LEVEL, mtime=0)
            self._compressed = (
                [*self._head, (b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(packed))],
                packed,
            )
        return self._compressed

    @property
    def compressed(self) -> bool:
        """Whether the compressed form is there or not worth making."""
        return self._compressed is not None or len(self.body) < COMPRESS_FROM

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, roughly."""
        return len(self.body) + (len(self._compressed[1]) if self._compressed else len(self.body) // 4) + 1_000

    def choose(self, accept_encoding: bytes | None) -> tuple[Headers, bytes]:
        """Headers and bytes for a reader that takes these encodings."""
        if len(self.body) >= COMPRESS_FROM and takes_gzip(accept_encoding):
            return self.compress()
        return self._plain, self.body

    def respond(self, request: Request) -> Response:
        """Answer a request: 304 where the reader has it already, compressed where the reader takes that."""
        if matches(request.headers.get("if-none-match"), self.etag):
            status, (headers, body) = 304, (self.not_modified, b"")
        else:
            encodings = request.headers.get("accept-encoding")
            status, (headers, body) = 200, self.choose(None if encodings is None else encodings.encode("latin-1"))
        response = Response(body, status_code=status)
        response.raw_headers = list(headers)
        return response


class Answers:
    """Finished answers of one publication, by their question; the one that was asked for longest ago goes first.

    Parameters
    ----------
    budget
        Bytes that all of them may take together.
    """

    def __init__(self, budget: int = 64_000_000) -> None:
        self._budget, self._used = budget, 0
        self._answers: OrderedDict[Hashable, tuple[Answer, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, question: Hashable) -> Answer | None:
        """Return the answer of a question that is known."""
        with self._lock:
            found = self._answers.get(question)
            if found is None:
                return None
            self._answers.move_to_end(question)
            return found[0]

    def keep(self, question: Hashable, answer: Answer) -> None:
        """Keep an answer, and let others go where there is no room."""
        size = answer.size
        if size > self._budget:
            return
        with self._lock:
            if question in self._answers:
                return
            self._answers[question] = (answer, size)
            self._used += size
            while self._used > self._budget:
                _, (_, freed) = self._answers.popitem(last=False)
                self._used -= freed


def json_answer(value: Any, *, rows: int = 0, headers: Mapping[str, str] | None = None) -> Answer:
    """Finish an answer in JSON whose tag is that of its bytes."""
    body = orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z)
    return Answer(body, JSON, entity_tag(body), headers, rows=rows)


def entity_tag(*parts: Any) -> str:
    """Weak tag of what determines an answer."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else orjson.dumps(part, default=str))
        digest.update(b"\0")
    return f'W/"{digest.hexdigest()}"'


def matches(header: str | None, etag: str) -> bool:
    """Whether an ``If-None-Match`` header names a tag (weak comparison, RFC 9110 section 13.1.2)."""
    if not header:
        return False
    strong = etag.removeprefix("W/")
    return any(tag.strip() == "*" or tag.strip().removeprefix("W/") == strong for tag in header.split(","))


@lru_cache(maxsize=512)
def takes_gzip(header: bytes | None) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (RFC 9110 section 12.5.3)."""
    if not header:
        return False
    weights: dict[str, float] = {}
    for part in header.decode("latin-1").lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        weights[coding] = weight
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _raw(headers: Mapping[str, str]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
