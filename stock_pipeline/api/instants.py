"""Instants as clients send them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field


def _in_utc(value: datetime) -> datetime:
    """At the edges of the calendar an offset leads beyond them: no database could compare with that."""
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("there is no such instant in UTC") from error


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc), Field(strict=False)]
"""An instant with its offset from UTC."""
