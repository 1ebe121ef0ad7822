"""V5: whatever is appended, dropped, resumed and restarted, a follower gets each event that it wants once, in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from stock_pipeline.api.streams.following import Follower
from stock_pipeline.api.streams.hub import EventHub
from stock_pipeline.storage.tasks import EventFilter, EventLog
from stock_pipeline.storage.tasks.events import KINDS
from stock_pipeline_tests.loops import run_apart
from stock_pipeline_tests.streaming import append, planned

STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "append", "take", "take", "drop", "want", "restart"]), st.integers(1, 12)),
    min_size=1,
    max_size=25,
)
WANTED = st.builds(
    EventFilter,
    tasks=st.just(()) | st.just(("task-5", "task-8", "task-9")),
    kinds=st.just(()) | st.sets(st.sampled_from(KINDS), min_size=1, max_size=2),
    severities=st.just(()) | st.just(("info", "critical")),
    owner=st.none() | st.just("ada"),
)


class Scenario:
    """One log, one reader, one client that goes on from the last event that it has."""

    def __init__(self, engine: Engine, wanted: EventFilter, keep: int) -> None:
        self.engine, self.log, self.wanted, self.keep = engine, EventLog(engine), wanted, keep
        self.base = self.newest = self.log.newest()
        self.got: list[int] = []

    @property
    def expected(self) -> list[int]:
        return [
            number
            for number in range(self.base + 1, self.newest + 1)
            if (event := planned(number, ("ada", "bob"))) and self.wanted.matches(event)  # type: ignore[arg-type]
        ]

    async def begin(self) -> None:
        self.hub = EventHub(self.log, poll_seconds=0.002, keep=self.keep, keep_bytes=20_000)
        await self.hub.start()
        self.resume()

    def resume(self) -> None:
        since = self.got[-1] if self.got else self.base
        self.follower = Follower(self.hub, since, self.wanted, self._readable)

    async def _readable(self) -> frozenset[str]:
        return frozenset(KINDS)

    async def take(self, *, keep: bool = True) -> None:
        """Take what comes next, or lose it on the way."""
        if len(self.got) < len(self.expected):
            batch = await asyncio.wait_for(self.follower.next(), 300)
            assert batch.gap is None
            if keep:
                self.got += [item.sequence for item in batch.items]
                self.follower.done(batch)

    async def play(self, steps: list[tuple[str, int]]) -> None:
        await self.begin()
        for step, size in steps:
            if step == "append":
                append(self.engine, [planned(self.newest + n, ("ada", "bob")) for n in range(1, size + 1)])
                self.newest += size
                self.hub.wake()
            elif step == "take":
                await self.take()
            elif step == "drop":
                await self.take(keep=False)
                self.resume()
            elif step == "want":  # the same wish again, in the middle of a batch
                await self.take(keep=False)
                self.follower.change(replace(self.wanted), self.got[-1] if self.got else self.base)
            else:
                await self.hub.stop()
                await self.begin()
        while len(self.got) < len(self.expected):
            await self.take()
        await self.hub.stop()


@pytest.mark.requirement("R5.1", "V5")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS, wanted=WANTED, keep=st.integers(1, 40))
def test_every_event_once_and_in_order(
    sqlite_database: Engine, steps: list[tuple[str, int]], wanted: EventFilter, keep: int
) -> None:
    scenario = Scenario(sqlite_database, wanted, keep)
    run_apart(scenario.play(steps))
    assert scenario.got == scenario.expected


@pytest.mark.requirement("R5.1", "V5")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(wanted=WANTED, start=st.integers(0, 60))
def test_what_is_followed_is_what_is_read_by_number(sqlite_database: Engine, wanted: EventFilter, start: int) -> None:
    """The filter of the stream and that of the database give the same answer."""
    log = EventLog(sqlite_database)
    if log.newest() == 0:
        append(sqlite_database, [planned(number, ("ada", "bob")) for number in range(1, 61)])
    everything = log.after(start, limit=1000)
    followed = [event.sequence for event in everything if wanted.matches(event)]
    assert followed == [event.sequence for event in log.after(start, limit=1000, filters=wanted)]
