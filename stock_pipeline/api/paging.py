"""Pages of lists: what every list accepts, what it answers, and the cursors that lead from page to page.

A cursor holds where the page before ended and a digest of the question. It is not a secret and not trusted: whoever
reads one back says what its position must look like.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stock_pipeline.api.problems import ProblemError

MAX_CURSOR = 1_000
"""Characters that a cursor may have."""

Item = TypeVar("Item")
Row = TypeVar("Row")

_WORDS = 500
_INTEGERS = 2**63


class PageQuery(BaseModel):
    """What every paged list accepts; lists add their filters by inheritance."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="rows of one page")
    cursor: str | None = Field(
        None, min_length=1, max_length=MAX_CURSOR, description="`next_cursor` of the page before"
    )

    def question(self) -> dict[str, Any]:
        """The filters, without the page: what must stay the same from page to page."""
        return self.model_dump(mode="json", exclude={"limit", "cursor"})


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last", examples=[None])


def encode(question: Mapping[str, Any], position: Any) -> str:
    """Write a cursor.

    Parameters
    ----------
    question
        Filters and order of the list, as JSON values.
    position
        Where the page ended: a number, a text, or a flat list of them.

    Returns
    -------
    str
        Opaque text for a query parameter.
    """
    raw = orjson.dumps([_digest(question), position], default=str)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str, question: Mapping[str, Any], kind: Any = int) -> Any:
    """Read a cursor back.

    Parameters
    ----------
    text
        What `encode` gave, as a client sent it.
    question
        Filters and order of the present request.
    kind
        Type of the position, such as ``int`` or ``tuple[date, str]``; anything else is refused.

    Returns
    -------
    Any
        Where the page before ended, of that type.

    Raises
    ------
    ProblemError
        400 ``invalid-cursor`` where it is damaged or belongs to another question.
    """
    try:
        if len(text) > MAX_CURSOR:
            raise ValueError("too long")
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        asked, found = orjson.loads(raw)
        _check(found)
        position = TypeAdapter(kind).validate_json(orjson.dumps(found), strict=True)
    except (ValueError, TypeError, ValidationError) as error:
        raise ProblemError(400, "invalid-cursor", "the cursor is damaged; begin again without a cursor") from error
    if asked != _digest(question):
        raise ProblemError(
            400,
            "invalid-cursor",
            "the cursor belongs to other filters; keep all parameters but limit the same while paging",
        )
    return position


def cut(
    rows: Sequence[Row], limit: int, question: Mapping[str, Any], position: Callable[[Row], Any]
) -> tuple[list[Row], str | None]:
    """Cut a page from rows of which one more than a page was read.

    Parameters
    ----------
    rows
        Up to ``limit + 1`` rows in the order of the list.
    limit
        Rows of the page.
    question
        See `encode`.
    position
        Gives the position of a row.

    Returns
    -------
    rows
        The page.
    next_cursor
        Cursor of the next page; ``None`` where this is the last.
    """
    page = list(rows[:limit])
    return page, encode(question, position(page[-1])) if len(rows) > limit else None


def _digest(question: Mapping[str, Any]) -> str:
    text = orjson.dumps(dict(question), default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _check(position: Any) -> None:
    """Refuse what a database could not compare with: huge numbers, long texts, texts with NUL, nested values."""
    for part in position if isinstance(position, list) else [position]:
        if isinstance(part, bool | None):
            continue
        if isinstance(part, str) and len(part) <= _WORDS and "\0" not in part:
            continue
        if isinstance(part, int) and -_INTEGERS <= part < _INTEGERS:
            continue
        if isinstance(part, float):
            continue
        raise ValueError("not a position")
