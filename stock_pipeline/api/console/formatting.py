"""How values are written on pages: numbers, shares, instants, states. Templates use these functions as filters."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import orjson
from markupsafe import Markup

DASH = "–"
_MINUS = "−"
_TONES = {
    "good": {"succeeded", "clean", "ok", "done", "active", "champion", "sent", "inside", "passed", "enabled"},
    "bad": {"failed", "critical", "error", "quarantine", "outside", "locked", "rejected", "refused"},
    "warn": {"warning", "warn", "retrying", "paused", "pausing", "canceling", "repair", "disabled", "expired", "open"},
    "info": {"running", "starting", "challenger", "info", "queued"},
}


def missing(value: Any) -> bool:
    """Whether there is no value to write."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def number(value: float | int | None, digits: int = 2) -> str:
    """A number with thousands separated."""
    return DASH if missing(value) else f"{value:,.{digits}f}".replace("-", _MINUS)


def whole(value: float | int | None) -> str:
    """A whole number with thousands separated."""
    return number(value, 0)


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a signed percentage."""
    return DASH if value is None or missing(value) else f"{value * 100:+,.{digits}f} %".replace("-", _MINUS)


def share(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage without a sign."""
    return DASH if value is None or missing(value) else f"{value * 100:,.{digits}f} %".replace("-", _MINUS)


def figure(value: Any) -> str:
    """Any value of a table of figures: four significant digits for fractions, the words for everything else."""
    if missing(value):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, int):
        return str(value) if 1800 <= value <= 2200 else whole(value)
    if isinstance(value, float):
        return number(value, 0) if value.is_integer() else _significant(value)
    return str(value)


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def words(seconds: float) -> str:
    """An age in words."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"


def ago(then: datetime | None, now: datetime | None = None) -> str:
    """How long ago an instant was, or how far ahead it lies."""
    if then is None:
        return DASH
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    return f"in {words(-seconds)}" if seconds < -1 else f"{words(seconds)} ago"


def utc(value: datetime) -> datetime:
    """The same instant as the clocks of UTC show it."""
    return value.astimezone(UTC)


def instant(value: datetime | None) -> str:
    """An instant in UTC, to the minute."""
    return DASH if value is None else f"{utc(value):%Y-%m-%d %H:%M} UTC"


def day(value: date | None) -> str:
    """A date."""
    return DASH if value is None else value.isoformat()


def title(name: str) -> str:
    """A name of code as words: ``max_drawdown`` becomes ``Max drawdown``."""
    text = name.replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]


def tone(name: str | None) -> str:
    """Which colour a state has: good, bad, warn, info or none."""
    return next((colour for colour, names in _TONES.items() if name in names), "")


def data_block(value: Any) -> Markup:
    """JSON for a data block: nothing in it can end the block or begin markup; what JSON has no number for is null."""
    text = orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def readable(value: Any) -> str:
    """A structure as JSON for people to read."""
    return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()


def _significant(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}".replace("-", _MINUS) if abs(value) >= 1e-6 else f"{value:.1e}"


FILTERS = {
    "number": number, "whole": whole, "percent": percent, "share": share, "figure": figure, "duration": duration,
    "ago": ago, "instant": instant, "day": day, "title_words": title, "tone": tone, "data_block": data_block,
    "readable": readable, "utc": utc,
}  # fmt: skip
