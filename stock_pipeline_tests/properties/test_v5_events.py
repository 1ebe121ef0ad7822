"""V5: every event is in the stream once and in order, whenever the relay dies, whoever reads or writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event
from sqlalchemy.orm import Session

from stock_pipeline.observability.alerts import Alert
from stock_pipeline.orchestration.relay import Relay
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.database.tables.alerts import AlertRow
from stock_pipeline.storage.database.tables.tasks import CounterRow, EventRow, TaskRequestRow, TaskRow, TaskRunRow
from stock_pipeline.storage.outbox import AlertOutbox
from stock_pipeline.storage.tasks import Event, EventFilter, EventLog, NewEvent, TaskStore
from stock_pipeline_tests.task_runs import SETTINGS, Runs, states_of

TABLES = (TaskRunRow, TaskRow, EventRow, TaskRequestRow, CounterRow)


class Crash(BaseException):
    """The relay is killed."""


@contextlib.contextmanager
def killed_at(engine: Engine, number: int, *, committed: bool) -> Iterator[None]:
    """Kill whoever makes the commit with this number: before it takes effect, or after."""
    left = [number]

    def at_commit(connection: Any) -> None:
        left[0] -= 1
        if left[0] == -1:
            if committed:
                connection.connection.driver_connection.commit()
            raise Crash

    event.listen(engine, "commit", at_commit)
    try:
        yield
    finally:
        event.remove(engine, "commit", at_commit)


def empty(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        for table in (*TABLES, AlertRow):
            session.execute(delete(table))


def told(engine: Engine) -> list[Event]:
    return EventLog(engine).after(0, limit=100_000)


def content(events: list[Event]) -> list[tuple[Any, ...]]:
    return [(e.kind, e.run_id, e.state, e.at, e.severity, e.data.get("from"), e.data.get("step")) for e in events]


@pytest.fixture
def runs(database: Engine, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(database, tmp_path, dg.DagsterInstance.ephemeral(settings=SETTINGS))
    yield made
    made.close()


def some_history(runs: Runs, engine: Engine) -> None:
    """Runs that succeed, fail and are repeated, die and are repeated, wait; two alerts and the end of one."""
    good, bad, killed = runs.launch("ann"), runs.launch("bob"), runs.launch(retries=1)
    for run in (good, bad, killed):
        runs.start(run.run_id)
    runs.step(good.run_id)
    runs.broken.add(bad.run_id)
    runs.finish(bad.run_id)
    runs.step(killed.run_id)
    runs.kill(killed.run_id)
    runs.finish(good.run_id)
    for again in (runs.repeat(bad.run_id), runs.repeat(killed.run_id)):
        runs.start(again.run_id)
        runs.finish(again.run_id)
    runs.launch("ann")
    outbox, now = AlertOutbox(engine), datetime.now(UTC)
    outbox.enqueue(alert("stale", now))
    outbox.enqueue(alert("full", now))
    outbox.resolve("stale", now)


def alert(name: str, now: datetime) -> Alert:
    return Alert(
        kind="test", severity="warning", title=name, body=name, fingerprint=name, source_key=name, created_at=now,
        labels={},
    )  # fmt: skip


@pytest.mark.requirement("V5", "R5.2", "R5.3", "R5.4", "R5.5", "R2.4")
def test_a_relay_that_dies_at_any_commit_tells_everything_once_and_in_order(database: Engine, runs: Runs) -> None:
    some_history(runs, database)
    commits = []
    event.listen(database, "commit", lambda connection: commits.append(1))
    Relay(runs.instance, database).poll()
    expected, count = content(told(database)), len(commits)
    assert count >= 8
    assert len(expected) >= 40
    for number in range(count):
        for committed in (False, True):
            with Session(database) as session, session.begin():
                for table in TABLES:
                    session.execute(delete(table))
            with killed_at(database, number, committed=committed), contextlib.suppress(Crash):
                Relay(runs.instance, database).poll()
            assert content(told(database)) == expected[: len(told(database))], "a prefix, nothing else"
            Relay(runs.instance, database).poll()
            assert content(told(database)) == expected
            assert [e.sequence for e in told(database)] == list(range(1, len(expected) + 1))


@pytest.mark.requirement("V5")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_runs_that_go_on_while_relays_come_and_go(database: Engine, tmp_path: Path, data: st.DataObject) -> None:
    empty(database)
    runs = _shared(database, tmp_path)
    try:
        run = runs.launch("ann").run_id
        first, second = Relay(runs.instance, database), Relay(runs.instance, database)
        runs.start(run)
        while runs.executing():
            runs.step(run)
            who = data.draw(st.sampled_from(["first", "second", "nobody", "dies"]))
            if who == "dies":
                number, committed = data.draw(st.integers(0, 2)), data.draw(st.booleans())
                with killed_at(database, number, committed=committed), contextlib.suppress(Crash):
                    first.poll()
                first = Relay(runs.instance, database)
            elif who != "nobody":
                (first if who == "first" else second).poll()
        Relay(runs.instance, database).poll()
        events = told(database)
        assert [e.sequence for e in events] == list(range(1, len(events) + 1))
        assert states_of(events, run) == ["queued", "starting", "running", "succeeded"]
        steps = [e.data["step"] for e in events if e.kind == "task.progress"]
        assert steps == ["one", "one", "two", "two", "three", "three"]
        moments = [e.at for e in events]
        assert moments == sorted(moments)
    finally:
        runs.close()


_RUNS: dict[int, dg.DagsterInstance] = {}


def _shared(engine: Engine, home: Path) -> Runs:
    """Runs on one instance for all examples of a test."""
    instance = _RUNS.setdefault(id(engine), dg.DagsterInstance.ephemeral(settings=SETTINGS))
    return Runs(engine, home, instance)


@pytest.mark.requirement("V5", "R5.1")
def test_readers_that_come_back_by_number_get_each_event_once_while_many_write(database_address: str) -> None:
    """Writers as of two relays, and readers with pages of all sizes that come back on new connections."""
    writers, each = 4, 60
    start = datetime(2026, 1, 5, tzinfo=UTC)

    def write(number: int) -> None:
        engine = open_database(database_address, migrate=False)
        log = EventLog(engine)
        for count in range(each):
            with Session(engine) as session, session.begin():
                # every happening is offered by two writers, as by two relays
                key = f"{number // 2}:{count}"
                moment = start + timedelta(seconds=count)
                log.append(session, NewEvent(key, "task.progress", moment, owner=str(number // 2), data={"n": count}))
        engine.dispose()

    found: list[list[Event]] = [[], [], []]
    finished = threading.Event()

    def read(place: int) -> None:
        while True:
            over = finished.is_set()
            engine = open_database(database_address, migrate=False)  # a reader that comes back is a new connection
            last = found[place][-1].sequence if found[place] else 0
            page = EventLog(engine).after(last, limit=1 + 7 * place)
            engine.dispose()
            found[place] += page
            if over and not page:
                return

    writing = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    reading = [threading.Thread(target=read, args=(place,)) for place in range(3)]
    for thread in (*writing, *reading):
        thread.start()
    for thread in writing:
        thread.join()
    finished.set()
    for thread in reading:
        thread.join()
    for events in found:
        assert [e.sequence for e in events] == list(range(1, each * writers // 2 + 1))
        for owner in ("0", "1"):
            assert [e.data["n"] for e in events if e.owner == owner] == list(range(each))


@pytest.mark.requirement("V5", "R5.1")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    made=st.lists(
        st.tuples(
            st.sampled_from(["task.state", "alert", "publication"]),
            st.sampled_from(["info", "warning", "error"]),
            st.sampled_from([None, "t1", "t2"]),
            st.sampled_from([None, "ann", "bob"]),
            st.sampled_from([None, "predict", "train"]),
            st.integers(0, 30),
        ),
        max_size=20,
    ),
    chosen=st.builds(
        EventFilter,
        tasks=st.sampled_from([(), ("t1",), ("t1", "t2")]),
        kinds=st.sampled_from([(), ("alert",), ("alert", "task.state")]),
        severities=st.sampled_from([(), ("error",)]),
        owner=st.sampled_from([None, "ann"]),
        task_kinds=st.sampled_from([(), ("train",)]),
    ),
    since=st.integers(0, 25),
    limit=st.integers(1, 30),
)
def test_the_database_and_the_memory_filter_alike(
    database: Engine, made: list[Any], chosen: EventFilter, since: int, limit: int
) -> None:
    empty(database)
    log, keys = EventLog(database), []
    for kind, severity, task, owner, task_kind, key in made:
        with Session(database) as session, session.begin():
            new = NewEvent(f"k{key}", kind, datetime.now(UTC), severity, task_id=task, owner=owner, task_kind=task_kind)
            assert (log.append(session, new) is None) == (key in keys)
            keys.append(key)
    every = told(database)
    assert len(every) == len(set(keys)) == log.newest()
    wanted = [e for e in every if e.sequence > since and chosen.matches(e)][:limit]
    assert log.after(since, limit=limit, filters=chosen) == wanted


@pytest.mark.requirement("V5")
def test_a_happening_that_is_rolled_back_leaves_no_gap(database: Engine) -> None:
    log, now = EventLog(database), datetime.now(UTC)
    with contextlib.suppress(Crash), Session(database) as session, session.begin():
        assert log.append(session, NewEvent("a", "alert", now)) == 1
        raise Crash
    with Session(database) as session, session.begin():
        assert log.append(session, NewEvent("b", "alert", now)) == 1
        assert log.append(session, NewEvent("b", "alert", now)) is None
        assert log.append(session, NewEvent("a", "alert", now)) == 2
    assert [e.sequence for e in told(database)] == [1, 2]


@pytest.mark.requirement("V5")
def test_old_events_go_from_the_beginning_and_numbers_go_on(database: Engine) -> None:
    log, now = EventLog(database), datetime.now(UTC)
    assert (log.oldest(), log.newest()) == (1, 0)
    for key in "abc":
        with Session(database) as session, session.begin():
            log.append(session, NewEvent(key, "alert", now))
    with Session(database) as session, session.begin():
        session.get_one(EventRow, 2).recorded_at -= 90_000
        session.get_one(EventRow, 1).recorded_at -= 10
    assert log.purge(now - timedelta(days=1)) == 0, "none goes before an earlier number has gone"
    with Session(database) as session, session.begin():
        session.get_one(EventRow, 1).recorded_at -= 90_000
    assert log.purge(now - timedelta(days=1)) == 2
    assert (log.oldest(), log.newest()) == (3, 3)
    assert log.purge(now + timedelta(days=1)) == 1
    assert (log.oldest(), log.newest()) == (4, 3)
    assert TaskStore(database).list() == []
