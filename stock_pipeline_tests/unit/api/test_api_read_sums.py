"""Sums of reads: what could not be written is not lost."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.api.auditing import ReadCounter

ANA, BEN = (Principal(name, "token", number, session_id=name) for number, name in enumerate(("ana", "ben")))


class Trail:
    def __init__(self) -> None:
        self.broken, self.entries = False, []

    def record(self, action: str, *, actor: Principal, origin: Origin, object: Any, detail: dict[str, Any]) -> int:
        if self.broken:
            raise OSError("no space left")
        self.entries.append((action, actor.name, object[1], detail["rows"], detail["requests"]))
        return len(self.entries)


def request() -> Request:
    return Request({"type": "http", "state": {"origin": Origin("192.0.2.1", "test", "one-request")}, "headers": []})


@pytest.mark.requirement("R8.4", "R8.5")
def test_sums_survive_a_trail_that_cannot_be_written() -> None:
    counter, trail = ReadCounter(), Trail()
    counter.add(ANA, request(), "/api/predictions", 100)
    counter.add(ANA, request(), "/api/predictions", 20)
    counter.add(BEN, request(), "/api/risk", 7)
    trail.broken = True
    assert counter.flush(trail) == 0
    counter.add(BEN, request(), "/api/risk", 3)
    trail.broken = False
    assert counter.flush(trail) == 2
    assert sorted(trail.entries) == [
        ("data.read", "ana", "/api/predictions", 120, 2),
        ("data.read", "ben", "/api/risk", 10, 2),
    ]
    assert counter.flush(trail) == 0
