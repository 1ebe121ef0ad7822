"""Keeps secrets out of everything that is written down: logs, stored errors, alert texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"

_SECRET_KEY = re.compile(
    r"(pass(word|wd|phrase)?|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|auth(orization)?|credentials?"
    r"|cookie|signature|webhook[_-]?url|targets?_url)$",
    re.IGNORECASE,
)
_PATTERNS = (
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@'\"]*@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)\b((?:[\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|signature))['\"]?\s*[=:]\s*)"
            r"('[^']*'|\"[^\"]*\"|[^\s&,;'\"}\]]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"), HIDDEN),
    (re.compile(r"\bsp[ckrlt]_[\w-]{16,}"), HIDDEN),  # cookies, keys, refresh tokens, links and tickets of the service
)
_DEEPEST = 8


def redact_text(text: str) -> str:
    """Hide credentials in addresses, ``key=value`` pairs, bearer tokens and JSON web tokens within a text."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any, _depth: int = 0) -> Any:
    """Hide secrets in a value of any shape: by key name in mappings, by form in texts.

    Mappings, lists and tuples are copied; other objects come back as they are.
    """
    if isinstance(value, str):
        return redact_text(value)
    if _depth >= _DEEPEST:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _is_secret(key) and item not in (None, "") else redact(item, _depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item, _depth + 1) for item in value]
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    return value


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and _SECRET_KEY.search(key) is not None
