"""Rates are kept, waits grow, and one bad symbol does not stop the rest."""

from __future__ import annotations

import pytest

from stock_pipeline.core.errors import DataError
from stock_pipeline.sources.network import Caller, TemporaryFailure, Throttle, each_symbol


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_are_spread_over_the_minute() -> None:
    time = Time()
    throttle = Throttle(30, time.clock, time.sleep)
    sent = []
    for pause in (0.0, 0.0, 0.5, 7.0, 0.0):
        time.now += pause
        throttle.wait()
        sent.append(time.now)
    assert sent == [100.0, 102.0, 104.0, 111.0, 113.0]


def test_waits_double_and_the_last_failure_is_raised() -> None:
    waits: list[float] = []
    caller = Caller(per_minute=6000, retries=3, wait_seconds=2, sleep=waits.append)
    attempts = 0

    def request() -> None:
        nonlocal attempts
        attempts += 1
        raise TemporaryFailure(f"attempt {attempts}")

    with pytest.raises(TemporaryFailure, match="attempt 4"):
        caller.call(request)
    assert [w for w in waits if w >= 1] == [2.0, 4.0, 8.0]


def test_what_cannot_pass_is_not_repeated() -> None:
    caller = Caller(per_minute=6000, retries=3, wait_seconds=0, sleep=lambda _: None)
    attempts = []

    def request() -> None:
        attempts.append(1)
        raise DataError("no such symbol")

    with pytest.raises(DataError):
        caller.call(request)
    assert len(attempts) == 1


def test_symbols_that_fail_are_listed() -> None:
    def fetch(symbol: str) -> str:
        if symbol == "B":
            raise TemporaryFailure("time-out")
        return symbol.lower()

    results, problems = each_symbol(("A", "B", "C"), fetch, "vendor")
    assert results == {"A": "a", "C": "c"}
    assert problems == ("vendor B: time-out",)
    with pytest.raises(DataError, match=r"nothing for any of 1 symbols.*time-out"):
        each_symbol(("B",), fetch, "vendor")
