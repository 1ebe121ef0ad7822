"""The relay among faults: runs that cannot be read, more runs than a page, a database that goes and comes back."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from sqlalchemy import Engine, event, make_url, text

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.orchestration import changed_runs, relay
from stock_pipeline.orchestration.liveness import HOST
from stock_pipeline.orchestration.relay import Relay
from stock_pipeline.orchestration.relay_lock import alone
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.tasks import EventLog, TaskStore
from stock_pipeline_tests.databases import administered, cut_off, end_connections
from stock_pipeline_tests.orchestration.conftest import make_market
from stock_pipeline_tests.task_runs import SETTINGS, Runs, states_of

WHOLE = ["queued", "starting", "running", "succeeded"]


class Clock:
    """Seconds that grow when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def runs(database: Engine, tmp_path: Path) -> Iterator[Runs]:
    made = Runs(database, tmp_path, dg.DagsterInstance.ephemeral(settings=SETTINGS))
    yield made
    made.close()


def damage(runs: Runs, run_id: str) -> Callable[[], None]:
    """Make the events of a run unreadable; returns what mends them."""
    with runs.instance.event_log_storage.run_connection(run_id) as connection:
        found = connection.execute(text("SELECT id, event FROM event_logs WHERE run_id = :run"), {"run": run_id})
        kept = [tuple(row) for row in found]
        connection.execute(text("UPDATE event_logs SET event = '{' WHERE run_id = :run"), {"run": run_id})

    def mend() -> None:
        with runs.instance.event_log_storage.run_connection(run_id) as again:
            for number, content in kept:
                again.execute(text("UPDATE event_logs SET event = :e WHERE id = :i"), {"e": content, "i": number})

    return mend


def done(runs: Runs) -> str:
    """A run that has succeeded."""
    run_id = runs.launch().run_id
    runs.start(run_id)
    runs.finish(run_id)
    return run_id


@pytest.mark.requirement("V5", "R5.2")
def test_a_run_that_cannot_be_copied_holds_up_none_of_the_many_that_follow(
    database: Engine, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_runs, "PAGE", 20)
    clock, store = Clock(), TaskStore(database)
    damaged = done(runs)
    mend = damage(runs, damaged)
    later = [runs.launch().run_id for _ in range(26)]
    copying = Relay(runs.instance, database, clock=clock)
    for _ in range(4):
        copying.poll()
        clock.now += 0.3
    assert {task.id for task in store.list(limit=1000)} == set(later)
    assert store.as_of() is None, "what the damaged run did is not known"
    mend()
    clock.now += 600
    copying.poll()
    events = EventLog(database).after(0, limit=1000)
    assert states_of(events, damaged) == WHOLE
    assert [found.sequence for found in events] == list(range(1, len(events) + 1))
    assert store.as_of() is not None


@pytest.mark.requirement("V5", "R5.2", "R2.5")
def test_a_run_that_cannot_be_read_and_may_have_died_holds_up_no_other(database: Engine, runs: Runs) -> None:
    damaged, lost = runs.launch().run_id, runs.launch().run_id
    for run in (damaged, lost):
        runs.instance.add_run_tags(run, {HOST: socket.gethostname()})
        runs.start(run)
    damage(runs, damaged)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = EngineEventData(metadata={"pid": str(gone.pid)})
    found = runs.instance.get_run_by_id(lost)
    assert found is not None
    runs.instance.report_engine_event("in a process", found, dead)
    Relay(runs.instance, database).poll()
    assert TaskStore(database).get(lost).state == "failed"  # type: ignore[union-attr]


@pytest.mark.requirement("V5", "R5.2")
def test_a_run_that_could_not_be_copied_is_remembered_by_the_next_relay(database: Engine, runs: Runs) -> None:
    damaged = done(runs)
    mend = damage(runs, damaged)
    with runs.instance.run_storage.connect() as connection:  # its change lies long before those that follow
        before = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
        connection.execute(
            text("UPDATE runs SET update_timestamp = :at WHERE run_id = :run"), {"at": before, "run": damaged}
        )
    other = done(runs)
    Relay(runs.instance, database).poll()
    assert {task.id for task in TaskStore(database).list()} == {other}
    mend()
    clock = Clock()
    second = Relay(runs.instance, database, clock=clock)
    second.poll()
    assert states_of(EventLog(database).after(0, limit=100), damaged) == WHOLE
    clock.now += 10
    second.poll()
    assert TaskStore(database).as_of() is not None, "nothing is left over"


@pytest.mark.requirement("V5")
def test_a_run_that_cannot_be_copied_is_tried_again_with_growing_pauses(
    database: Engine, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = Clock(), []
    damaged = done(runs)
    damage(runs, damaged)
    read = runs.instance.get_records_for_run
    monkeypatch.setattr(
        runs.instance, "get_records_for_run", lambda run, *more, **named: tried.append(run) or read(run, *more, **named)
    )
    copying = Relay(runs.instance, database, clock=clock)
    for _ in range(400):
        copying.poll()
        clock.now += 0.3
    assert 4 <= len(tried) <= 8, "after 1, 2, 4, 8, ... seconds"
    runs.delete(damaged)
    clock.now += 60
    copying.poll()
    clock.now += 10
    copying.poll()
    assert TaskStore(database).as_of() is not None, "a run that is gone is waited for no longer"


@pytest.mark.requirement("V2", "R2.5")
@pytest.mark.parametrize("decided", [True, False])
def test_whether_a_failed_run_is_retried_is_waited_for_whatever_the_clock_of_its_process_says(
    database: Engine, runs: Runs, decided: bool
) -> None:
    clock, store = Clock(), TaskStore(database)
    run = runs.launch(retries=1)
    runs.start(run.run_id)
    failure = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, run.job_name, message="its process is gone")
    behind = (datetime.now(UTC) - timedelta(minutes=1)).timestamp()
    # Dagster records the failure first, and what it makes of it afterwards
    runs.instance.event_log_storage.store_event(
        dg.EventLogEntry(
            error_info=None, level="error", user_message="", run_id=run.run_id, timestamp=behind,
            job_name=run.job_name, dagster_event=failure,
        )
    )  # fmt: skip
    copying = Relay(runs.instance, database, clock=clock)
    copying.poll()
    assert store.get(run.run_id).state == "running"  # type: ignore[union-attr]
    if decided:
        runs.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    else:
        clock.now += 11
    copying.poll()
    assert store.get(run.run_id).state == ("retrying" if decided else "failed")  # type: ignore[union-attr]


@pytest.mark.requirement("V5", "R2.4")
def test_up_to_when_all_is_known_is_told_only_when_all_is_copied(
    database: Engine, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_runs, "PAGE", 20)
    clock, store = Clock(), TaskStore(database)
    for _ in range(25):
        runs.launch()
    copying = Relay(runs.instance, database, clock=clock)
    copying.poll()
    assert len(store.list(limit=1000)) == 20
    assert store.as_of() is None, "a page was full: there is more"
    copying.poll()
    assert len(store.list(limit=1000)) == 25
    assert store.as_of() is not None


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_address: str) -> Settings:
    file = make_market(tmp_path, until="2016-01-05")
    return load_settings(file, environment={"STOCK_PIPELINE__STORAGE__METADATA": postgres_address})


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[threading.Thread, Callable[[str], bool]]]:
    """A relay of its own; yields its thread, and what waits until it has said something."""
    stop, said, lines = threading.Event(), threading.Condition(), list[str]()

    def report(line: str) -> None:
        with said:
            lines.append(line)
            said.notify_all()

    def heard(words: str) -> bool:
        with said:
            return said.wait_for(lambda: any(words in line for line in lines), timeout=180)

    thread = threading.Thread(target=relay.serve, args=(settings, stop, report))
    thread.start()
    try:
        yield thread, heard
    finally:
        stop.set()
        thread.join(180)


@pytest.mark.requirement("V5", "R5.2")
def test_a_relay_outlives_a_database_that_is_away_while_it_asks_for_its_place(
    on_postgres: Settings, postgres_address: str, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, away = threading.Semaphore(0), ExitStack()

    def opened(address: str) -> Engine:
        engine = open_database(address)
        event.listen(engine, "do_connect", lambda *arguments: tried.release())
        away.enter_context(cut_off(postgres_server, postgres_address))
        return engine

    monkeypatch.setattr(relay, "open_database", opened)
    with away, serving(on_postgres) as (thread, heard):
        for _ in range(2):
            assert tried.acquire(timeout=180), "it tries again"
        away.close()  # it is there again
        assert heard("copying")
        assert thread.is_alive()


@pytest.mark.requirement("V5", "R5.2")
def test_a_relay_that_waits_for_its_place_outlives_the_loss_of_its_connection(
    on_postgres: Settings, postgres_address: str, postgres_server: str
) -> None:
    other = open_database(postgres_address)
    with administered(postgres_server) as run, alone(other, on_postgres.home, threading.Event()) as held:
        assert held()
        with serving(on_postgres) as (thread, heard):
            assert heard("another relay")
            end_connections(run, make_url(postgres_address).database)
            assert heard("copying"), "the other one has lost its place too"
            assert thread.is_alive()
    other.dispose()
