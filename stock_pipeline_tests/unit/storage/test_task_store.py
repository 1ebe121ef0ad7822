"""The store of tasks: pages, requests that are made twice, wishes, deletion; on SQLite and Postgres."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.event import listen
from sqlalchemy.orm import Session

from stock_pipeline.core.errors import NotFoundError
from stock_pipeline.orchestration.estimates import durations
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.database.tables.tasks import TaskRow
from stock_pipeline.storage.tasks import (
    EventFilter,
    EventLog,
    KeyReusedError,
    Launched,
    NotNowError,
    TaskFilter,
    TaskStore,
)

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def launched(number: int, **values: object) -> Launched:
    at = START + timedelta(minutes=number)
    return Launched(**{"run_id": f"run-{number}", "kind": "predict", "job": "predict_on_request", "at": at, **values})  # type: ignore[arg-type]


@pytest.mark.requirement("R2.1")
def test_tasks_are_listed_newest_first_filtered_and_in_pages(database: Engine) -> None:
    store = TaskStore(database)
    for number in range(7):
        store.enter(launched(number, owner="ann" if number % 2 else "bob", kind="train" if number > 4 else "predict"))
    store.enter(launched(3))  # entered twice by two who saw it
    every = store.list()
    assert [task.id for task in every] == [f"run-{number}" for number in reversed(range(7))]
    pages, after = [], None
    while page := store.list(after=after, limit=3):
        pages += page
        after = page[-1].number
    assert pages == every
    assert [t.id for t in store.list(TaskFilter(owner="ann"))] == ["run-5", "run-3", "run-1"]
    assert [t.id for t in store.list(TaskFilter(kinds=("train",)))] == ["run-6", "run-5"]
    late = TaskFilter(created_from=START + timedelta(minutes=2), created_before=START + timedelta(minutes=4))
    assert [t.id for t in store.list(late)] == ["run-3", "run-2"]
    assert store.list(TaskFilter(states=("running",))) == store.list(TaskFilter(origins=("schedule",))) == []
    assert len(store.list(TaskFilter(states=("queued", "running"), origins=("api",), priorities=("normal",)))) == 7
    assert (store.queued(), store.queued("ann"), store.queued("eve")) == (7, 3, 0)
    assert store.get("run-9") is None
    assert [run.run_id for run in store.runs("run-2")] == ["run-2"]


@pytest.mark.requirement("R2.1")
def test_a_request_that_is_made_again_is_the_same_request(database: Engine) -> None:
    store = TaskStore(database)
    first = store.reserve("ann", "key", "hash")
    assert first.new
    again = store.reserve("ann", "key", "hash")
    assert (again.id, again.task_id, again.new) == (first.id, None, False)
    store.attach(first, "run-1")
    assert store.reserve("ann", "key", "hash").task_id == "run-1"
    with pytest.raises(KeyReusedError, match="key"):
        store.reserve("ann", "key", "other")
    assert store.reserve("bob", "key", "other").new, "keys are of an account"
    assert store.reserve("ann", None, "hash").new
    assert store.reserve("ann", None, "hash").new
    store.release(first)
    assert store.reserve("ann", "key", "hash").task_id == "run-1", "what has become a task is not given back"
    unused = store.reserve("ann", "other", "hash")
    store.release(unused)
    assert store.reserve("ann", "other", "different").new


@pytest.mark.requirement("R2.1")
def test_of_many_who_reserve_the_same_key_at_once_one_is_new(database: Engine) -> None:
    found = []
    barrier = threading.Barrier(6)

    def reserve() -> None:
        barrier.wait()
        found.append(TaskStore(database).reserve("ann", "key", "hash"))

    threads = [threading.Thread(target=reserve) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.new for one in found) == 1
    assert len({one.id for one in found}) == 1


@pytest.mark.requirement("R2.3", "R2.4")
def test_wishes_change_the_state_at_once_and_are_heard_by_the_run(database: Engine) -> None:
    store = TaskStore(database)
    store.enter(launched(1))
    assert store.asked("run-1") is None
    assert store.ask("run-1", "pause", "ann").state == "pausing"
    assert store.asked("run-1") == "pause"
    with pytest.raises(NotNowError, match="pausing"):
        store.ask("run-1", "pause", "ann")
    with pytest.raises(NotNowError, match="allowed: paused"):
        store.ask("run-1", "resume", "ann")
    task = store.ask("run-1", "cancel", "bob")
    assert (task.state, task.asked_by) == ("canceling", "bob")
    assert store.asked("run-1") == "cancel"
    with pytest.raises(NotFoundError, match="run-2"):
        store.ask("run-2", "cancel", "ann")
    told = EventLog(database).after(0, limit=10)
    assert [(event.state, event.data.get("by")) for event in told] == [
        ("queued", None),
        ("pausing", "ann"),
        ("canceling", "bob"),
    ]


@pytest.mark.requirement("R2.3")
def test_what_the_command_line_runs_is_stopped_there(database: Engine) -> None:
    store = TaskStore(database)
    store.enter(launched(1, origin="command line"))
    with pytest.raises(NotNowError, match="Ctrl-C"):
        store.ask("run-1", "cancel", "ann")


@pytest.mark.requirement("R2.1")
def test_only_what_has_ended_can_be_forgotten(database: Engine) -> None:
    store = TaskStore(database)
    store.enter(launched(1))
    with pytest.raises(NotNowError, match="queued"):
        store.forget("run-1")
    assert not store.forget("run-2")
    assert store.get("run-1") is not None


@pytest.mark.requirement("R2.1")
def test_requests_are_kept_as_long_as_their_task_and_then_forgotten(database: Engine) -> None:
    store = TaskStore(database, clock=lambda: START)
    for number, key in enumerate(("kept", "deleted", "nothing", None)):
        request = store.reserve("ann", key, "hash")
        if key != "nothing":
            store.attach(request, store.enter(launched(number, owner="ann")).id)
    with Session(database) as session, session.begin():
        session.execute(update(TaskRow).where(TaskRow.id == "run-1").values(state="failed"))
    assert store.forget("run-1")
    assert store.forget_requests(START) == 0, "none is old enough"
    assert not store.reserve("ann", "deleted", "hash").new
    assert store.forget_requests(START + timedelta(days=1)) == 2
    assert store.reserve("ann", "kept", "hash").task_id == "run-0"
    assert store.reserve("ann", "deleted", "another hash").new


@pytest.mark.requirement("R2.1", "R5.1")
def test_no_list_reads_all_that_is_kept(sqlite_address: str) -> None:
    engine = open_database(sqlite_address)
    store, log = TaskStore(engine), EventLog(engine)
    asked: list[tuple[str, object]] = []
    listen(engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    for chosen in (TaskFilter(owner="ann"), TaskFilter(kinds=("train",)), TaskFilter(states=("queued",)), None):
        store.list(chosen, after=9)
    for filters in (None, EventFilter(kinds=("alert",)), EventFilter(tasks=("run-1",))):
        log.after(9, limit=10, filters=filters)
        log.latest(limit=10, filters=filters)
    store.queued(), store.queued("ann"), store.asked("run-1"), log.oldest()
    with Session(engine) as session:
        durations(session, "nightly")
    plans = []
    with engine.connect() as connection:
        for statement, values in asked:
            if statement.startswith("SELECT"):
                found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                plans += [(line.detail, statement) for line in found]
    engine.dispose()
    assert len(plans) >= 12
    for detail, statement in plans:
        assert "TEMP B-TREE" not in detail, statement
        assert "USING" in detail or "SUBQUERY" in detail, statement
