"""Limits of requests, in memory and on a real Redis."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.access import limits as module
from stock_pipeline.access.limits import Limit, Limits, MemoryCounts, RedisCounts
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline_tests.services import free_port, redis

pytestmark = pytest.mark.requirement("R8.5")
ANN, BOB, NOBODY = Principal("ann", "token", 1), Principal("bob", "api_key", 2), Principal("anonymous", "anonymous")
HERE = Origin("198.51.100.7")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limits(clock: Clock | None = None, **sections: object) -> Limits:
    return Limits(AccessSettings.model_validate(sections), clock=clock or Clock())


def passes(made: Limits, who: Principal, origin: Origin = HERE, klass: str = "write") -> bool:
    try:
        made.check(who, origin, klass)  # type: ignore[arg-type]
    except AccessError as error:
        return (error.status, error.kind) != (429, "rate-limited")
    return True


def test_a_limit_holds_for_an_account_and_class_wherever_it_comes_from() -> None:
    made = limits(limits={"write": "3/minute", "read": "5/minute"})
    assert [passes(made, ANN) for _ in range(4)] == [True, True, True, False]
    assert not passes(made, Principal("ann", "api_key", 1, session_id="k"), Origin("192.0.2.1"))
    assert passes(made, BOB)
    assert [passes(made, ANN, klass="read") for _ in range(6)] == [True] * 5 + [False]


def test_without_an_account_and_for_log_ins_the_address_counts() -> None:
    made = limits(limits={"read": "2/minute", "login": "2/minute"})
    assert [passes(made, NOBODY, klass="read") for _ in range(3)] == [True, True, False]
    assert passes(made, NOBODY, Origin("192.0.2.1"), "read")
    assert [passes(made, who, klass="login") for who in (ANN, BOB, ANN)] == [True, True, False]
    subscriber = [passes(made, NOBODY, Origin(f"2001:db8::{n}"), "login") for n in range(3)]
    assert subscriber == [True, True, False]


def test_a_refusal_says_when_to_come_back_and_then_it_passes() -> None:
    clock = Clock()
    made = limits(clock, limits={"write": "3/minute"})
    for _ in range(3):
        made.check(ANN, HERE, "write")
    with pytest.raises(AccessError, match="3 in 60 s") as caught:
        made.check(ANN, HERE, "write")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 120
    clock.now += caught.value.retry_after
    assert passes(made, ANN)


@given(
    most=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=120),
)
def test_in_memory_never_more_than_twice_the_limit_and_never_fewer_than_it_allows(most: int, gaps: list[float]) -> None:
    clock = Clock()
    counts, limit = MemoryCounts(clock), Limit(most, 60)
    passed: list[float] = []
    for gap in gaps:
        clock.now += gap
        waiting = counts.hit(("write", 1), limit)
        if waiting == 0:
            passed.append(clock.now)
            assert sum(at > clock.now - 60 for at in passed) <= 2 * most - 1
        else:
            # refused only where the window and the one before hold enough
            assert sum(at > clock.now - 120 for at in passed) >= most
            clock.now += waiting + 1e-6
            assert counts.hit(("write", 1), limit) == 0
            passed.append(clock.now)


def test_memory_is_bounded_whatever_addresses_come() -> None:
    counts = MemoryCounts(Clock(), most_keys=100)
    for number in range(10_000):
        counts.hit(("login", f"192.0.{number}"), Limit(5, 60))
    assert len(counts) <= 100


def test_many_threads_get_exactly_the_limit() -> None:
    made = limits(limits={"write": "500/minute"})
    passed: list[int] = []

    def work() -> None:
        passed.append(sum(passes(made, ANN) for _ in range(200)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 500


# ------------------------------------------------------------------------------- Redis


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is not taken for one that is down because the machine is busy."""
    monkeypatch.setattr(module, "REDIS_SECONDS", 120.0)


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with redis() as address:
        yield address


def test_processes_that_share_redis_share_a_limit(redis_address: str) -> None:
    one, other = (limits(redis=redis_address, limits={"write": "10/day"}) for _ in range(2))
    who = Principal("shared", "token", 77)
    assert [passes(made, who) for made in (one, other) * 5] == [True] * 10
    assert not passes(one, who)
    assert not passes(other, who)
    assert passes(one, Principal("else", "token", 78))
    with pytest.raises(AccessError) as caught:
        one.check(who, HERE, "write")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 2 * 86_400


def test_without_redis_each_process_counts_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    made = limits(clock, redis=f"redis://:hidden-word@127.0.0.1:{free_port()}/0", limits={"write": "3/minute"})
    with caplog.at_level(logging.INFO, logger="stock_pipeline"):
        assert [passes(made, ANN) for _ in range(4)] == [True, True, True, False]
        clock.now += 11  # it is tried again, and fails again
        assert not passes(made, ANN)
    told = [record.getMessage() for record in caplog.records if "Redis" in record.getMessage()]
    assert len(told) == 1
    assert "hidden-word" not in caplog.text + repr(made._counts)


def test_requests_go_on_when_redis_ends(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, logger="stock_pipeline"):
        with redis() as address:
            made = limits(clock, redis=address, limits={"write": "1000/day"})
            assert passes(made, ANN)
        assert all(passes(made, ANN) for _ in range(20))
        assert isinstance(made._counts, RedisCounts)
    assert caplog.text.count("Redis is down") == 1


def test_redis_from_an_environment_variable(redis_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMITS_REDIS", redis_address)
    assert passes(limits(redis="env:LIMITS_REDIS"), Principal("env", "token", 500))
    monkeypatch.setenv("LIMITS_REDIS", "")
    with pytest.raises(ConfigurationError, match="LIMITS_REDIS"):
        limits(redis="env:LIMITS_REDIS")
