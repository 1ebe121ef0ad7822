"""The errors that users see, each saying what was wrong, the value, what is allowed and what to do."""

from __future__ import annotations

from typing import Any


class PipelineError(Exception):
    """Base of every error that the platform raises on purpose.

    Parameters
    ----------
    what
        What was wrong, in one sentence without a full stop.
    value
        The offending value, shown as it is; ``None`` where there is none.
    allowed
        What would have been accepted.
    fix
        What the user can do now.
    """

    def __init__(self, what: str, *, value: Any = None, allowed: str | None = None, fix: str | None = None) -> None:
        self.what, self.value, self.allowed, self.fix = what, value, allowed, fix
        parts = [what if value is None else f"{what}: {value!r}"]
        if allowed:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(f"to fix it: {fix}")
        super().__init__("; ".join(parts))


class ConfigurationError(PipelineError):
    """A setting, a strategy parameter, a feature or a strategy name is not acceptable."""


class DataError(PipelineError):
    """Input data cannot be used: unreadable, wrong columns, unparsable values, wrong order."""


class IntegrityError(PipelineError):
    """Something stored is not what was stored: a checksum, version or signature does not match."""


class NotFoundError(PipelineError):
    """The thing asked for does not exist."""


class LookAheadError(PipelineError):
    """A computation would use something that was not known at its date."""
