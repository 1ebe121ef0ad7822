"""One entry of the audit trail: its fields, how they are made fit to be kept, and the form that is sealed."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from stock_pipeline.observability.redaction import redact

Result = Literal["done", "refused", "failed"]
RESULTS: tuple[Result, ...] = ("done", "refused", "failed")

LONGEST_TEXT = 2_000
MOST_ITEMS = 200
LARGEST = 20_000
"""Characters of a text, items of a list or mapping, and characters of a whole value; more is cut with a mark."""

_COLUMNS = {
    "actor": 120, "actor_kind": 20, "action": 60, "object_kind": 40, "object_id": 200, "result": 20, "address": 64,
    "user_agent": 300, "session_id": 36, "request_id": 64, "run_id": 36,
}  # fmt: skip
_VALUES = ("detail", "before", "after")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, on what, from where, with which result.

    Attributes
    ----------
    sequence
        Place in the trail; 1 is the first, and no number is left out.
    at
        When it was written down.
    actor, actor_kind
        Account name, and how it came in (see `Principal.kind`).
    action
        ``noun.verb`` such as ``role.change``.
    object_kind, object_id
        What it was done to.
    result
        ``done``, ``refused`` or ``failed``.
    address, user_agent, session_id, request_id, run_id
        Where it came from, and where more is found.
    detail, before, after
        Further facts; for changes the state on both sides.
    """

    sequence: int
    at: datetime
    actor: str
    actor_kind: str
    action: str
    object_kind: str | None
    object_id: str | None
    result: str
    address: str | None
    user_agent: str | None
    session_id: str | None
    request_id: str | None
    run_id: str | None
    detail: dict[str, Any] | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def canonical(self) -> bytes:
        """All fields as JSON in one certain form: sorted names, ASCII, no blanks, the instant in UTC."""
        values = {name: getattr(self, name) for name in COLUMNS}
        values["at"] = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        return _CANONICAL.encode(values).encode("ascii")

    def sealed(self, key: bytes, previous_seal: str) -> str:
        """The seal: it depends on the key, on every field and on all entries before."""
        return hmac.new(key, previous_seal.encode() + b"\n" + self.canonical(), hashlib.sha256).hexdigest()

    def at_place(self, sequence: int) -> Self:
        """The same at another place of the trail."""
        return replace(self, sequence=sequence)

    def cleaned(self) -> Self:
        """The same without secrets, with texts that every database can hold, and long values cut with a mark."""
        values: dict[str, Any] = {
            name: None if (text := getattr(self, name)) is None else cut(_clean(redact(str(text))), longest)
            for name, longest in _COLUMNS.items()
        }
        values |= {name: _mapping(getattr(self, name)) for name in _VALUES}
        return replace(self, at=self.at.astimezone(UTC), **values)


COLUMNS = tuple(field.name for field in fields(AuditEntry))
"""Fields of an entry in their order, which are the columns of its row."""


def read_entry(row: Any, *, strict: bool = False) -> AuditEntry:
    """The entry in a row as the database holds it, its instant and values not yet made into Python's.

    Parameters
    ----------
    row
        Has every field of an entry as an attribute.
    strict
        Refuse a field that is not in the form in which it was written. Otherwise what cannot be read is shown as
        text, so that one damaged entry does not keep people from all the others.

    Raises
    ------
    ValueError
        A field is not of its form; only where that is asked for.
    """
    values: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    if any(value is not None and not isinstance(value, str) for value in values.values()):
        if strict:
            raise ValueError("not a text")
        values = {name: None if value is None else str(value) for name, value in values.items()}
    try:
        at = _instant(row.at)
    except (ValueError, TypeError):
        if strict:
            raise
        at = datetime.fromtimestamp(0, UTC)
    for name in _VALUES:
        value = getattr(row, name)
        try:
            values[name] = json.loads(value) if isinstance(value, str) else value
            if not strict and not isinstance(values[name], dict | None):
                raise ValueError("not a mapping")
        except (ValueError, RecursionError):
            if strict:
                raise ValueError("not JSON") from None
            values[name] = {"unreadable": cut(str(value), LONGEST_TEXT)}
    return AuditEntry(sequence=row.sequence, at=at, **values)


def _instant(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    at = datetime.fromisoformat(value)
    if at.tzinfo is not None or at.isoformat(" ", "microseconds") != value:
        raise ValueError("not the form in which instants are stored")
    return at.replace(tzinfo=UTC)


def cut(text: str, longest: int) -> str:
    """A text of at most so many characters; where something was left out, its end says how long it was."""
    if len(text) <= longest:
        return text
    mark = f"~cut:{len(text)}"
    return text[: longest - len(mark)] + mark


def _clean(text: str) -> str:
    """No NUL, which Postgres refuses, and no half of a surrogate pair, which has no encoding."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _mapping(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    plain = _plain(redact(dict(value)))
    text = json.dumps(plain, sort_keys=True)
    return plain if len(text) <= LARGEST else {"cut": cut(text, LONGEST_TEXT)}


def _plain(value: Any) -> Any:
    """A value that is the same after a round through JSON."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        kept = list(value.items())[:MOST_ITEMS]
        plain = {cut(_clean(str(name)), 200): _plain(item) for name, item in kept}
        return plain if len(value) <= MOST_ITEMS else {**plain, "cut": f"{len(value)} items"}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        plain_items = [_plain(item) for item in items[:MOST_ITEMS]]
        return plain_items if len(items) <= MOST_ITEMS else [*plain_items, f"~cut:{len(items)} items"]
    return cut(_clean(str(value)), LONGEST_TEXT)
