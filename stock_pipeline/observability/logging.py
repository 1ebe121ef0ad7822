"""Structured logs: one JSON object a line in ``<home>/logs``, and a readable console.

`get_logger` works before `configure_logging`; nothing is configured at import. Only the logger ``stock_pipeline`` and
its children are touched, never the root logger. Searching and keeping logs does not belong here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog

from stock_pipeline.observability.logfiles import SharedRotatingFileHandler
from stock_pipeline.observability.redaction import redact

ROOT = "stock_pipeline"
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_FIELDS = "structured_fields"


def get_logger(name: str = ROOT) -> Any:
    """Return a structured logger: ``get_logger(__name__).info("bars written", rows=10, symbol="IBM")``.

    Parameters
    ----------
    name
        Dotted name; names outside the package are put below ``stock_pipeline``.
    """
    if name != ROOT and not name.startswith(ROOT + "."):
        name = f"{ROOT}.{name}"
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _redacted,
            _to_standard_library,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def log_context(**values: Any) -> AbstractContextManager[None]:
    """Add fields (``run_id``, ``asset``, ``request_id``, ``symbol``) to every line within a ``with`` block.

    The fields follow the context of a thread or an asynchronous task.
    """
    return structlog.contextvars.bound_contextvars(**{key: value for key, value in values.items() if value is not None})


def configure_logging(
    home: Path | str | None = None,
    *,
    component: str = "pipeline",
    level: Level = "INFO",
    console: bool | None = None,
    max_bytes: int = 20_000_000,
    backups: int = 10,
) -> Path | None:
    """Send the package's logs to a file and to standard error; may be called again, the newest call holds.

    Parameters
    ----------
    home
        State folder; lines go to ``home/logs/<component>.jsonl``. No file where ``None``.
    component
        Which program this is (``api``, ``pipeline``, ``cli``).
    level
        Least level that is written.
    console
        Whether lines also go to standard error, in readable form. Where ``None``: if somebody looks at it, or there is
        no file; whatever collects the output of a service would keep every line a second time, and for ever.
    max_bytes, backups
        Size of one file and number of old ones.

    Returns
    -------
    pathlib.Path or None
        The log file.
    """
    logger = logging.getLogger(ROOT)
    for handler in [handler for handler in logger.handlers if getattr(handler, "_by_configure_logging", False)]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logger.propagate = False
    handlers: list[logging.Handler] = []
    path = None
    if home is not None:
        path = Path(home) / "logs" / f"{component}.jsonl"
        file = SharedRotatingFileHandler(path, max_bytes, backups)
        file.setFormatter(JsonFormatter(component))
        handlers.append(file)
    if console or (console is None and (home is None or sys.stderr.isatty())):
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(ConsoleFormatter())
        handlers.append(stream)
    for handler in handlers:
        handler._by_configure_logging = True  # type: ignore[attr-defined]
        logger.addHandler(handler)
    return path


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``component``, ``event`` and the fields."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; values that JSON does not know become text."""
        event, fields = _parts(record)
        line = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "component": self._component,
            "event": event,
            **{key: value for key, value in fields.items() if key not in ("time", "level", "logger", "component")},
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()


class ConsoleFormatter(logging.Formatter):
    """``09:30:00 INFO  event  key=value``, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record on one line, with the traceback below where there is one."""
        event, fields = _parts(record)
        rendered = " ".join(f"{key}={_short(value)}" for key, value in fields.items())
        line = f"{_instant(record)[11:19]} {record.levelname:<8} {event}" + (f"  {rendered}" if rendered else "")
        if record.exc_info:
            line += "\n" + redact(self.formatException(record.exc_info))
        return line


def _redacted(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    hidden: Mapping[str, Any] = redact(dict(event))
    return hidden


def _to_standard_library(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    fields = dict(event)
    message = str(fields.pop("event", ""))
    passed: dict[str, Any] = {key: fields.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in fields}
    # other handlers (Dagster's) see only the message, so it is whole
    whole = message + "".join(f" {key}={_short(value)}" for key, value in fields.items())
    return {"msg": whole, "extra": {_FIELDS: (message, fields)}, **passed}


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    structured: tuple[str, dict[str, Any]] | None = getattr(record, _FIELDS, None)
    if structured is not None:
        return structured
    return redact(record.getMessage()), redact(dict(structlog.contextvars.get_contextvars()))


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(value: Any) -> str:
    text = str(value)
    return repr(text) if " " in text else text
