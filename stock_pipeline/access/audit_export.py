"""The audit trail as JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stock_pipeline.access.audit_entry import COLUMNS, AuditEntry
from stock_pipeline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from stock_pipeline.access.audit import Audit

FORMATS = ("jsonl", "csv")

_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def export(audit: Audit, format: str, since: datetime | None = None, until: datetime | None = None) -> Iterator[str]:
    """Entries of a period, oldest first, each as a text that ends with a line break; CSV begins with its headings.

    Cells of CSV that a spreadsheet would take for a formula get an apostrophe in front.

    Raises
    ------
    ConfigurationError
        No such format.
    """
    from stock_pipeline.access.audit import AuditFilter

    if format not in FORMATS:
        raise ConfigurationError("no such format of the audit trail", value=format, allowed=", ".join(FORMATS))
    write = _json if format == "jsonl" else _csv
    return _lines(audit, format, AuditFilter(since=since, until=until), write)


def _lines(audit: Audit, format: str, filters: Any, write: Any) -> Iterator[str]:
    if format == "csv":
        yield _row(COLUMNS)
    for entry in audit.stream(filters):
        yield write(entry)


def plain(entry: AuditEntry) -> dict[str, Any]:
    """An entry as JSON carries it."""
    return asdict(entry) | {"at": entry.at.isoformat(timespec="microseconds")}


def _json(entry: AuditEntry) -> str:
    return json.dumps(plain(entry), ensure_ascii=False, separators=(",", ":")) + "\n"


def _csv(entry: AuditEntry) -> str:
    return _row(plain(entry).values())


def _row(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, dict) else str(value)
    return f"'{text}" if text.startswith(_STARTS_FORMULA) else text
