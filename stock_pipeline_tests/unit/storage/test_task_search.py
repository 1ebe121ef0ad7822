"""Tasks found by text, in new and in older databases; retention that holds up nobody; on SQLite and Postgres."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.event import listen
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.database.migrate import MIGRATIONS
from stock_pipeline.storage.database.tables.tasks import CounterRow, EventRow, TaskRow, TaskSearchRow
from stock_pipeline.storage.tasks import EventFilter, EventLog, Launched, TaskFilter, TaskStore

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
MADE = (
    Launched("0f6a1c7e-0000-4000-8000-000000000001", "backtest", "backtest_on_request", START, "Zoë",
             parameters={"strategy": "sma_cross", "parameters": {"fast": 5}, "symbols": ["AAPL", "ÄTNA"]}),
    Launched("1f6a1c7e-0000-4000-8000-000000000002", "predict", "predict_on_request", START, "bob",
             parameters={"symbols": ["AAPL", "META"], "note": "100% _sure_ \ud800"}),
    Launched("2f6a1c7e-0000-4000-8000-000000000003", "nightly", "nightly", START, origin="schedule"),
)  # fmt: skip


def found(store: TaskStore, words: str, **more: object) -> list[str]:
    return [task.id[0] for task in store.list(TaskFilter(text=words, **more))]  # type: ignore[arg-type]


@pytest.mark.requirement("R2.1")
def test_a_task_is_found_by_any_piece_of_what_is_known_of_it(database: Engine) -> None:
    store = TaskStore(database)
    for launched in MADE:
        store.enter(launched)
    for words, ids in {
        "0F6A": ["0"], "f6a1c7e": ["2", "1", "0"], "AAPL": ["1", "0"], "aapl": ["1", "0"], "cross": ["0"],
        '"fast": 5': ["0"], "ätna": ["0"], "ZOË": ["0"], "_on_request": ["1", "0"], "NIGHTLY": ["2"], "%": ["1"],
        "a%l": [], "_sure_": ["1"], "sure__": [], "predict": ["1"], "queued": [], "' OR 1": [],
    }.items():  # fmt: skip
        assert found(store, words) == ids, words
    assert found(store, "f6a1", kinds=("nightly", "backtest")) == ["2", "0"]
    assert found(store, "aapl", owner="bob") == ["1"]
    first = store.list(TaskFilter(text="f6a1"), limit=2)
    assert [task.id[0] for task in store.list(TaskFilter(text="f6a1"), after=first[-1].number)] == ["0"]
    with Session(database) as session, session.begin():
        session.execute(update(TaskRow).values(state="failed"))
    assert store.forget(MADE[0].run_id)
    assert found(store, "aapl") == ["1"]
    with Session(database) as session:
        assert session.scalar(select(func.count()).select_from(TaskSearchRow)) == 2


@pytest.mark.requirement("R2.1")
def test_tasks_of_an_older_database_are_found(database_address: str) -> None:
    from alembic import command
    from alembic.config import Config

    engine = open_database(database_address)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
    with engine.begin() as connection:
        for number, launched in enumerate(MADE, 1):
            values = {
                "id": launched.run_id, "number": number, "kind": launched.kind, "job": launched.job, "state": "queued",
                "priority": "normal", "owner": launched.owner, "origin": launched.origin,
                "parameters": json.dumps(launched.parameters), "created_at": START, "run_id": launched.run_id,
                "attempts": 1, "steps_done": 0,
            }  # fmt: skip
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO task ({', '.join(values)}) VALUES ({marks})"), values)
    engine.dispose()
    engine = open_database(database_address)
    assert [found(TaskStore(engine), words) for words in ("aapl", "ätna", "zoë", "night")] == [
        ["1", "0"],
        ["0"],
        ["0"],
        ["2"],
    ]
    engine.dispose()


@pytest.mark.requirement("R2.1", "R5.1")
def test_searches_read_what_is_narrow_and_rare_events_are_not_looked_for_among_all(sqlite_database: Engine) -> None:
    asked: list[tuple[str, Any]] = []
    listen(sqlite_database, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    store, log = TaskStore(sqlite_database), EventLog(sqlite_database)
    store.list(TaskFilter(text="aapl"))
    log.after(0, limit=10, filters=EventFilter(owner="ann"))
    log.after(0, limit=10, filters=EventFilter(severities=("critical",)))
    with sqlite_database.connect() as connection:
        plans = [
            [line.detail for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
            for statement, values in [one for one in asked if one[0].startswith("SELECT")]
        ]
    (search, task), (owner,), (severity,) = plans
    assert search == "SCAN task_search"
    assert task.startswith("SEARCH task USING INDEX")
    assert "ix_task_event_owner" in owner
    assert "ix_task_event_severity" in severity


@pytest.mark.requirement("R5.1")
def test_many_old_events_are_forgotten_in_small_pieces(database: Engine) -> None:
    count, old = 4_500, (START - timedelta(days=1)).timestamp()
    event = {"kind": "alert", "severity": "info", "at": START, "data": {}}
    with Session(database) as session, session.begin():
        session.execute(
            insert(EventRow),
            [{**event, "sequence": n, "source_key": str(n), "recorded_at": old} for n in range(1, count + 1)],
        )
        session.execute(insert(EventRow), [{**event, "sequence": 4_501, "source_key": "new", "recorded_at": old + 1e5}])
        session.execute(insert(CounterRow), [{"name": "event", "value": "4501"}])
    pieces: list[int] = []

    def note(connection, cursor, statement, *_) -> None:
        if statement.startswith("DELETE"):
            pieces.append(cursor.rowcount)

    listen(database, "after_cursor_execute", note)
    log = EventLog(database)
    assert log.purge(START) == count
    assert pieces == [2_000, 2_000, 500]
    assert (log.oldest(), log.newest()) == (4_501, 4_501)
