"""What made a step fail, in one text for people: the platform's own message where there is one."""

from __future__ import annotations

from typing import Any

_OWN = "stock_pipeline.core.errors."


def cause(error: Any) -> str:
    """Text of a Dagster ``SerializableErrorInfo``: of the first own error in the chain, else of the innermost one.

    An own error says what, value, allowed and fix; what it was raised from is a library's wording of the same thing.
    """
    if error is None:
        return "unknown cause"
    link = error
    while link is not None:
        text = link.message.strip()
        if text.startswith(_OWN):
            return str(text.partition(": ")[2])
        error, link = link, link.cause
    return str(error.message.strip())
