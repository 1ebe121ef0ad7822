"""What made a step fail, in one text for people: the platform's own message where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

_OWN = "stock_pipeline.core.errors."


class Cause(NamedTuple):
    """Why something failed.

    Attributes
    ----------
    text
        For people.
    kind
        Name of the own error, such as ``ConfigurationError``; ``None`` for an error of a library.
    """

    text: str
    kind: str | None


def cause(error: Any) -> Cause:
    """Read a Dagster ``SerializableErrorInfo``: the first own error in the chain, else the innermost one.

    An own error says what, value, allowed and fix; what it was raised from is a library's wording of the same thing.
    """
    if error is None:
        return Cause("unknown cause", None)
    link = error
    while link is not None:
        text = link.message.strip()
        if text.startswith(_OWN):
            name, _, said = text.removeprefix(_OWN).partition(": ")
            return Cause(str(said), str(name))
        error, link = link, link.cause
    return Cause(str(error.message.strip()), None)
