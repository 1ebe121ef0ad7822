"""How many requests and log-ins one account or address may make, and how many invalid proofs an address may send.

Requests are counted over a window that moves: what was counted in the window before weighs as much as it still reaches
into the moving one. In memory each process counts for itself; with Redis (``access.redis``) all count together.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from stock_pipeline.access.places import source_of
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.observability.logging import get_logger

RouteClass = Literal["read", "write", "login"]

MOST_KEYS = 100_000
"""Accounts and addresses that are counted in memory at a time; the oldest are forgotten first."""

REDIS_SECONDS, REDIS_PAUSE = 0.2, 10.0
"""How long Redis may take, and how long it is left alone after it failed."""

_NOT_INVALID = frozenset({"token-missing", "token-expired"})
"""Refusals of a proof that is none at all, or was a good one until its time was over."""

_MADE_UP = frozenset({"token-invalid", "ticket-invalid"})
"""Refusals of a proof that may be anything; the others tell whoever had one that worked what became of it."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_ROUNDING = 1e-6
"""Whoever waits exactly as long as he was told is let in."""

_log = get_logger(__name__)
_source = lru_cache(maxsize=8192)(source_of)

Key = tuple[str, str | int]


@dataclass(frozen=True, slots=True)
class Limit:
    """So many in so many seconds."""

    most: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Limit:
        """From the form of the settings, such as ``120/minute``."""
        most, _, unit = text.partition("/")
        return cls(int(most), _SECONDS[unit])


class MemoryCounts:
    """Counts of this process.

    Parameters
    ----------
    clock
        Seconds that only grow.
    most_keys
        Keys that are kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_keys: int = MOST_KEYS) -> None:
        self._clock, self._most = clock, most_keys
        self._counts: dict[Key, list[int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def hit(self, key: Key, limit: Limit) -> float:
        """Count one if the limit lets it; returns 0, or the seconds until it would."""
        place = self._clock() / limit.seconds
        window = int(place)
        with self._lock:
            count = self._counts.get(key)
            if count is None:
                if len(self._counts) >= self._most:
                    self._forget()
                count = self._counts[key] = [window, 0, 0]
            elif count[0] != window:
                # moved to the end, so that what was not used for long stands first
                del self._counts[key]
                count[2] = count[1] if count[0] == window - 1 else 0
                count[0], count[1] = window, 0
                self._counts[key] = count
            _, now, before = count
            share = place - window
            if now + before * (1.0 - share) <= limit.most - 1 + _ROUNDING:
                count[1] = now + 1
                return 0.0
        return _wait(now, before, share, limit)

    def waiting(self, key: Key, limit: Limit) -> float:
        """Seconds until one more would fit; 0 where it does. Nothing is counted."""
        place = self._clock() / limit.seconds
        window = int(place)
        with self._lock:
            counted, now, before = self._counts.get(key, (window, 0, 0))
        if counted != window:
            now, before = 0, now if counted == window - 1 else 0
        share = place - window
        if now + before * (1.0 - share) <= limit.most - 1 + _ROUNDING:
            return 0.0
        return _wait(now, before, share, limit)

    def _forget(self) -> None:
        for key in [key for key, _ in zip(self._counts, range(max(1, self._most // 10)), strict=False)]:
            del self._counts[key]


def _wait(now: int, before: int, share: float, limit: Limit) -> float:
    """Seconds until one more fits: later in this window, or in the next one."""
    room = limit.most - 1 - now
    if room >= 0:
        return max((1.0 - room / before - share) * limit.seconds, 0.001)
    return (1.0 - share + max(0.0, 1.0 - (limit.most - 1) / now)) * limit.seconds


class RedisCounts:
    """Counts that all processes share, in Redis; those of memory while Redis is down.

    Parameters
    ----------
    address
        Of Redis; it may hold a password and is not shown.
    memory
        Counts in the meantime.
    clock
        Seconds that only grow.
    """

    def __init__(self, address: str, memory: MemoryCounts, clock: Callable[[], float] = time.monotonic) -> None:
        from limits.storage import RedisStorage
        from limits.strategies import SlidingWindowCounterRateLimiter

        self._memory, self._clock, self._down_until, self._down = memory, clock, 0.0, False
        storage: Any = RedisStorage(
            address,
            key_prefix="stock_pipeline:limits",
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    def __repr__(self) -> str:
        return "RedisCounts()"

    def hit(self, key: Key, limit: Limit) -> float:
        """Count one if the limit lets it; returns 0, or the seconds until it would. Never raises."""
        if self._down and self._clock() < self._down_until:
            return self._memory.hit(key, limit)
        try:
            waiting = self._hit(key, limit)
        except Exception as error:  # whatever the client raises: requests go on
            if not self._down:
                _log.warning("Redis is down: each process counts requests for itself", error=type(error).__name__)
            self._down, self._down_until = True, self._clock() + REDIS_PAUSE
            return self._memory.hit(key, limit)
        if self._down:
            self._down = False
            _log.info("Redis is back: requests are counted together again")
        return waiting

    def _hit(self, key: Key, limit: Limit) -> float:
        item, names = _item(limit), (key[0], str(key[1]))
        if self._limiter.hit(item, *names):
            return 0.0
        stats = self._limiter.get_window_stats(item, *names)
        return max(stats.reset_time - time.time(), 0.001)


@lru_cache(maxsize=64)
def _item(limit: Limit) -> Any:
    from limits import RateLimitItemPerSecond

    return RateLimitItemPerSecond(limit.most, limit.seconds)


class Limits:
    """What one account, or one address before log-in, may do.

    Parameters
    ----------
    settings
        Limits by class of routes, and the address of Redis.
    clock
        Seconds that only grow.
    """

    def __init__(self, settings: AccessSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        limits = settings.limits
        self._limits = {
            "read": Limit.parse(limits.read),
            "write": Limit.parse(limits.write),
            "login": Limit.parse(limits.login),
        }
        self._most_failures = Limit.parse(limits.failures)
        self._failures = MemoryCounts(clock)
        memory = MemoryCounts(clock)
        self._counts: MemoryCounts | RedisCounts = memory
        if settings.redis is not None:
            self._counts = RedisCounts(_address(settings.redis), memory, clock)

    def check(self, principal: Principal, origin: Origin, klass: RouteClass) -> None:
        """Count a request.

        Parameters
        ----------
        principal
            Whose; all sessions and keys of an account count together.
        origin
            Whose address counts where there is no account, and for log-ins.
        klass
            Class of the route.

        Raises
        ------
        AccessError
            429 ``rate-limited`` with ``retry_after``.
        """
        limit = self._limits[klass]
        account = principal.account_id
        who: str | int = account if account is not None and klass != "login" else _source(origin.address)
        waiting = self._counts.hit((klass, who), limit)
        if waiting:
            raise _exceeded("rate-limited", "too many requests", limit, waiting)

    @contextmanager
    def proof(self, origin: Origin | None, *, sealed: bool, signed: bool = False) -> Iterator[None]:
        """Look a token, key, cookie or ticket up in the ``with`` block, and count it for its address where it is none.

        Each process counts for itself: nothing is asked of Redis for what may be made up.

        Parameters
        ----------
        origin
            Where it comes from; nothing is counted where ``None``.
        sealed
            Whether it was certainly made here. Such a one is looked up whatever else came from its address, and who
            brings it is told what became of it: nobody is shut out by somebody else behind the same address.
        signed
            Whether it is refused by its signature, before anything is looked up.

        Raises
        ------
        AccessError
            429 ``too-many-attempts`` with ``retry_after``, where too many of the address were none.
        """
        if origin is None:
            yield
            return
        key: Key = ("failure", _source(origin.address))
        waiting = 0.0 if sealed or signed else self._failures.waiting(key, self._most_failures)
        if waiting:
            raise self._too_many_failures(waiting)
        try:
            yield
        except AccessError as error:
            if error.status == 401 and error.kind not in _NOT_INVALID:
                waiting = self._failures.hit(key, self._most_failures)
                if waiting and not sealed and error.kind in _MADE_UP:
                    raise self._too_many_failures(waiting) from error
            raise

    def _too_many_failures(self, waiting: float) -> AccessError:
        what = "too many invalid tokens, keys or cookies from this address"
        return _exceeded("too-many-attempts", what, self._most_failures, waiting)


def _exceeded(kind: str, what: str, limit: Limit, waiting: float) -> AccessError:
    seconds = math.ceil(waiting)
    return AccessError(
        429, kind, what, allowed=f"{limit.most} in {limit.seconds} s",
        fix=f"try again in {seconds} s", retry_after=float(seconds),
        detail={"limit": limit.most, "remaining": 0, "reset": seconds},
    )  # fmt: skip


def _address(setting: str) -> str:
    if not setting.startswith("env:"):
        return setting
    variable = setting.removeprefix("env:")
    address = os.environ.get(variable, "")
    if not address.startswith(("redis://", "rediss://")):
        raise ConfigurationError(
            f"the environment variable {variable} of access.redis holds no address of Redis",
            allowed="redis://... or rediss://...",
            fix=f"set {variable}, or remove access.redis",
        )
    return address
