"""What tests of accounts share: a clock that is set, and access of a database in a fresh home folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import AccessError, Origin
from stock_pipeline.config.access import AccessSettings

PASSWORD = "four grey herons stand"
OTHER_PASSWORD = "nine red kites circle"
CHEAP = {"memory_kib": 8, "passes": 1, "lanes": 1}
"""Hashes that cost nothing."""

HOME_ADDRESS = Origin("192.0.2.10", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")


class Clock:
    """The present instant, as a test sets it."""

    def __init__(self, now: datetime = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        """Let time pass."""
        self.now += timedelta(**span)


def access_for(engine: Engine, home: Path, clock: Clock | None = None, **settings: Any) -> Access:
    """Access of a database, with cheap hashes."""
    options: dict[str, Any] = {} if clock is None else {"clock": clock}
    return Access(engine, AccessSettings(**{"passwords": CHEAP, **settings}), home, **options)


def refusal(call, *arguments, **options) -> AccessError:
    """The error with which a call is refused."""
    with pytest.raises(AccessError) as caught:
        call(*arguments, **options)
    return caught.value


def kind(call, *arguments, **options) -> str:
    """The code of the reason for which a call is refused."""
    return refusal(call, *arguments, **options).kind


def tampered(token: str) -> str:
    """A token under a signature that is surely another one.

    Its first character is changed: all six bits of it count. The last one holds no more than two bits, and a part of it
    that is replaced may well be what was there.
    """
    head, _, signature = token.rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
