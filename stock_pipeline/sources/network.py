"""What all network vendors share: a request rate that is kept, retries of what may pass, and who failed for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from stock_pipeline.core.errors import ConfigurationError, DataError

T = TypeVar("T")


class TemporaryFailure(Exception):
    """A request that failed in a way that may pass: time-out, lost connection, rate limit, server error."""


class Throttle:
    """Keep requests at least a minimum time apart.

    Parameters
    ----------
    per_minute
        Upper limit of requests in a minute.
    clock, sleep
        Monotonic seconds and waiting; replaced in tests.
    """

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 60.0 / per_minute
        self._clock, self._sleep = clock, sleep
        self._next = float("-inf")

    def wait(self) -> None:
        """Return when the next request may be sent."""
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
            now = self._next
        self._next = now + self._gap


class Caller:
    """Run requests at the allowed rate and repeat those that raise `TemporaryFailure`.

    Parameters
    ----------
    per_minute, retries, wait_seconds
        As in the settings of network sources; the wait doubles with each retry, to at most five minutes.
    sleep
        Replaced in tests.
    """

    def __init__(
        self, *, per_minute: float, retries: int, wait_seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.throttle = Throttle(per_minute, sleep=sleep)
        self._retries, self._wait, self._sleep = retries, wait_seconds, sleep

    def call(self, request: Callable[[], T]) -> T:
        """Result of the request.

        Raises
        ------
        TemporaryFailure
            The last one, when every attempt failed.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        def once() -> T:
            self.throttle.wait()
            return request()

        retrying = Retrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=wait_exponential(multiplier=self._wait, max=300),
            retry=retry_if_exception_type(TemporaryFailure),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(once)


def each_symbol(
    symbols: tuple[str, ...], fetch: Callable[[str], T], vendor: str
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Fetch symbol by symbol; one that fails does not stop the others.

    Returns
    -------
    tuple
        Results by symbol, and a sentence for each symbol that could not be had.

    Raises
    ------
    DataError
        Not one symbol could be had.
    """
    results: dict[str, T] = {}
    problems: list[str] = []
    for symbol in symbols:
        try:
            results[symbol] = fetch(symbol)
        except (TemporaryFailure, DataError) as error:
            problems.append(f"{vendor} {symbol}: {error}")
    if not results:
        raise DataError(
            f"{vendor} delivered nothing for any of {len(symbols)} symbols",
            value=problems[0],
            fix="check the symbols and the connection, and try again later",
        )
    return results, tuple(problems)


def missing_extra(name: str) -> ConfigurationError:
    """The error for an optional vendor package that is not installed."""
    return ConfigurationError(
        "the package of this vendor is not installed",
        value=name,
        fix=f"pip install 'stock-pipeline[{name}]'",
    )
