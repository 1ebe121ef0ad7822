"""The metadata database and the alert outbox, on SQLite and on a real Postgres."""

from __future__ import annotations

import multiprocessing
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.orm import Session

from stock_pipeline.core.errors import ConfigurationError, IntegrityError
from stock_pipeline.observability.alerts import Alert, Notice
from stock_pipeline.storage import outbox as storage_outbox
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.database.migrate import VERSION_TABLE
from stock_pipeline.storage.database.tables import Base
from stock_pipeline.storage.database.tables.alerts import AlertRow
from stock_pipeline.storage.outbox import AlertOutbox, DeliveryPolicy
from stock_pipeline_tests.services import postgres

NOW = datetime(2024, 3, 1, 22, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Recorder:
    """A sink that keeps what it is given and can be down."""

    def __init__(self, name: str = "recorder") -> None:
        self.name, self.down, self.notices = name, False, []

    def send(self, notice: Notice) -> None:
        if self.down:
            raise ConnectionError("https://user:secret@hooks.example is unreachable")
        self.notices.append(notice)


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'metadata.db'}"
    server = request.getfixturevalue("postgres_address")
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return server


@pytest.fixture
def engine(address: str) -> Iterator[Engine]:
    made = open_database(address)
    yield made
    made.dispose()


def alert(key: str, *, fingerprint: str = "check:bars", severity: str = "error", at: datetime = NOW, **more) -> Alert:
    fields = {"kind": "check_failure", "title": "bars have gaps", "body": f"body of {key}", **more}
    return Alert(severity=severity, fingerprint=fingerprint, source_key=key, created_at=at, **fields)  # type: ignore[arg-type]


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
    assert {"alert_outbox", "alert_delivery", "alert_state"} <= set(inspect(engine).get_table_names())


def _open(address: str, results) -> None:
    try:
        engine = open_database(address)
        with Session(engine) as session:
            session.scalars(select(AlertRow)).all()
        results.put("ok")
    except Exception as error:
        results.put(repr(error))


def test_several_processes_may_migrate_at_once(address: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_open, args=(address, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=300) for _ in workers] == ["ok"] * 3
    for worker in workers:
        worker.join()


def test_a_database_of_a_newer_version_is_refused(engine: Engine, address: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE stock_pipeline_version SET version_num = '9999'"))
    with pytest.raises(IntegrityError, match="newer version"):
        open_database(address)


def test_a_database_of_the_first_version_is_brought_up_and_keeps_its_alerts(engine: Engine, address: str) -> None:
    AlertOutbox(engine).enqueue(alert("from before"))
    first = {"alert_outbox", "alert_delivery", "alert_state"}
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name not in first:
                table.drop(connection)
        connection.execute(text("DROP TABLE stock_pipeline_version"))
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
    again = open_database(address)
    assert {"account", "audit_entry", "task_event"} <= set(inspect(again).get_table_names())
    assert [one.source_key for one in AlertOutbox(again).open_alerts()] == ["from before"]


def test_the_revision_of_another_program_in_the_same_database_is_left_alone(engine: Engine, address: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('5e139331e376')"))
    open_database(address)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "5e139331e376"


@pytest.mark.parametrize(
    "bad", ["mysql://root:secret@host/db", "sqlite://", "not an address ://", "postgres://me:secret@host:port/db"]
)
def test_addresses_that_cannot_be_used(bad: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_database(bad)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_instants_keep_their_zone(engine: Engine) -> None:
    eastern = datetime(2024, 3, 1, 17, 0, tzinfo=timezone(timedelta(hours=-5)))
    outbox = AlertOutbox(engine)
    outbox.enqueue(alert("a", at=eastern))
    (stored,) = outbox.open_alerts()
    assert stored.created_at == NOW
    assert stored.created_at.utcoffset() == timedelta(0)


@pytest.mark.requirement("P3", "R6.5")
def test_an_alert_is_accepted_once_and_delivered_once(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    assert outbox.enqueue(alert("a", labels={"asset": "market/raw_bars"}, remedy="fetch again"))
    assert not outbox.enqueue(alert("a", title="another title"))
    assert outbox.undelivered() == 1
    assert outbox.deliver_due([sink], NOW).sent == {"recorder": 1}
    assert outbox.deliver_due([sink], NOW + 24 * HOUR).sent == {}
    (notice,) = sink.notices
    assert (notice.title, notice.count, notice.severity) == ("bars have gaps", 1, "error")
    assert "asset: market/raw_bars" in notice.body
    assert "What to do: fetch again" in notice.body
    assert outbox.undelivered() == 0


@pytest.mark.requirement("P3", "R6.5")
def test_a_sink_that_is_down_loses_nothing_and_holds_up_no_other(engine: Engine) -> None:
    outbox, broken, good = AlertOutbox(engine), Recorder("broken"), Recorder("good")
    broken.down = True
    for number in range(3):
        outbox.enqueue(alert(f"a{number}", fingerprint=f"f{number}"))
    first = outbox.deliver_due([broken, good], NOW)
    assert first.sent == {"good": 3}
    assert "unreachable" in first.failed["broken"]
    assert "secret" not in first.failed["broken"]
    now = NOW
    for _ in range(30):
        now += HOUR
        outbox.deliver_due([broken, good], now)
    assert outbox.undelivered() == 3
    broken.down = False
    again = AlertOutbox(engine)  # a restart forgets nothing
    assert again.deliver_due([broken, good], now + 2 * HOUR).sent == {"broken": 3}
    assert [notice.fingerprint for notice in broken.notices] == ["f0", "f1", "f2"]
    assert len(good.notices) == 3
    assert again.undelivered() == 0


@pytest.mark.requirement("R6.5")
def test_a_failed_post_is_tried_again_after_a_growing_pause(engine: Engine) -> None:
    policy = DeliveryPolicy(retry_first=timedelta(seconds=30), retry_longest=timedelta(minutes=2))
    outbox, sink = AlertOutbox(engine, policy), Recorder()
    sink.down = True
    outbox.enqueue(alert("a"))
    attempts = [
        second for second in range(0, 600, 5) if outbox.deliver_due([sink], NOW + timedelta(seconds=second)).failed
    ]
    assert attempts == [0, 30, 90, 210, 330, 450, 570]


@pytest.mark.requirement("R6.5")
def test_a_burst_is_one_notice(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine, DeliveryPolicy(group=timedelta(minutes=10))), Recorder()
    for number in range(8):
        outbox.enqueue(alert(f"a{number}", at=NOW + timedelta(minutes=number)))
        assert not outbox.deliver_due([sink], NOW + timedelta(minutes=number)).sent
    assert outbox.deliver_due([sink], NOW + timedelta(minutes=10)).sent == {"recorder": 8}
    (notice,) = sink.notices
    assert notice.count == 8
    assert "8 times" in notice.title
    assert "body of a7" in notice.body


@pytest.mark.requirement("R6.5")
def test_the_suppression_window_opens_only_when_a_post_was_taken(engine: Engine) -> None:
    policy = DeliveryPolicy(suppress=6 * HOUR, retry_first=timedelta(minutes=1))
    outbox, sink = AlertOutbox(engine, policy), Recorder()
    sink.down = True
    outbox.enqueue(alert("a"))
    assert outbox.deliver_due([sink], NOW).failed
    sink.down = False
    outbox.enqueue(alert("b", at=NOW + timedelta(minutes=2)))
    assert outbox.deliver_due([sink], NOW + timedelta(minutes=2)).sent == {"recorder": 2}
    for hour in range(1, 4):
        outbox.enqueue(alert(f"c{hour}", at=NOW + hour * HOUR))
        assert not outbox.deliver_due([sink], NOW + hour * HOUR).sent
    assert len(sink.notices) == 1
    assert outbox.undelivered() == 3
    assert outbox.deliver_due([sink], NOW + timedelta(hours=6, minutes=2)).sent == {"recorder": 3}
    assert sink.notices[-1].count == 3


@pytest.mark.requirement("R6.5")
def test_a_more_severe_alert_breaks_through_and_other_problems_are_not_held_back(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    outbox.enqueue(alert("a", severity="warning"))
    outbox.deliver_due([sink], NOW)
    outbox.enqueue(alert("b", severity="warning"))
    outbox.enqueue(alert("other", fingerprint="else"))
    assert outbox.deliver_due([sink], NOW + HOUR).sent == {"recorder": 1}
    assert sink.notices[-1].fingerprint == "else"
    outbox.enqueue(alert("c", severity="critical"))
    assert outbox.deliver_due([sink], NOW + HOUR).sent == {"recorder": 2}
    assert sink.notices[-1].severity == "critical"


@pytest.mark.requirement("R6.5")
def test_a_recovery_is_told_once_and_at_once(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    assert not outbox.resolve("check:bars", NOW)
    outbox.enqueue(alert("a"))
    outbox.deliver_due([sink], NOW)
    assert outbox.resolve("check:bars", NOW + HOUR)
    assert not outbox.resolve("check:bars", NOW + HOUR)
    assert outbox.open_alerts() == []
    outbox.deliver_due([sink], NOW + HOUR)
    assert [(notice.recovery, notice.severity) for notice in sink.notices] == [(False, "error"), (True, "info")]
    assert sink.notices[1].title == "Over: bars have gaps"
    outbox.enqueue(alert("b", at=NOW + 2 * HOUR))
    assert outbox.resolve("check:bars", NOW + 3 * HOUR)


@pytest.mark.requirement("R6.5")
def test_a_problem_that_comes_and_goes_while_a_sink_is_down_is_one_notice(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    sink.down = True
    outbox.enqueue(alert("a"))
    outbox.deliver_due([sink], NOW)
    outbox.resolve("check:bars", NOW + HOUR)
    sink.down = False
    outbox.deliver_due([sink], NOW + 2 * HOUR)
    (notice,) = sink.notices
    assert notice.recovery
    assert notice.severity == "error"
    assert "It is over since" in notice.body


@pytest.mark.requirement("R6.5")
def test_flapping_gives_one_pair_of_notices_per_window(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine, DeliveryPolicy(suppress=6 * HOUR, reopen=6 * HOUR)), Recorder()
    for minute in range(0, 360, 10):
        at = NOW + timedelta(minutes=minute)
        outbox.enqueue(alert(f"a{minute}", at=at))
        outbox.deliver_due([sink], at)
        outbox.resolve("check:bars", at + timedelta(minutes=5))
        outbox.deliver_due([sink], at + timedelta(minutes=5))
    assert [notice.recovery for notice in sink.notices] == [False, True]
    outbox.deliver_due([sink], NOW + 6 * HOUR)
    assert len(sink.notices) == 3
    assert sink.notices[-1].recovery
    assert "35 times" in sink.notices[-1].title
    assert outbox.undelivered() == 0


@pytest.mark.requirement("R6.5")
def test_a_problem_that_comes_back_after_its_recovery_is_told_soon(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    outbox.enqueue(alert("a"))
    outbox.deliver_due([sink], NOW)
    outbox.resolve("check:bars", NOW + timedelta(minutes=10))
    outbox.deliver_due([sink], NOW + timedelta(minutes=10))
    outbox.enqueue(alert("b", at=NOW + timedelta(minutes=20)))
    assert not outbox.deliver_due([sink], NOW + timedelta(minutes=20)).sent
    assert outbox.deliver_due([sink], NOW + timedelta(minutes=71)).sent == {"recorder": 1}
    assert [notice.recovery for notice in sink.notices] == [False, True, False]


def test_long_keys_stay_distinct(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    for end in "xy":
        assert outbox.enqueue(alert("k" * 400 + end, fingerprint="f" * 400 + end))
        assert not outbox.enqueue(alert("k" * 400 + end, fingerprint="f" * 400 + end))
    outbox.deliver_due([sink], NOW)
    assert len(sink.notices) == 2
    assert outbox.resolve("f" * 400 + "x", NOW)
    assert len(outbox.open_alerts()) == 1


@pytest.mark.requirement("R6.5")
def test_a_slow_sink_holds_up_no_other(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, released = threading.Event(), threading.Event()

    class Slow(Recorder):
        def send(self, notice: Notice) -> None:
            reached.set()
            released.wait(600)
            super().send(notice)

    def clock() -> Iterator[float]:
        """The budget of the first call is spent when one sink is at work and the other is through."""
        yield 0.0
        assert reached.wait(120)
        ended("alerts-good")
        while True:
            yield 1000.0

    outbox, slow, good = AlertOutbox(engine), Slow("slow"), Recorder("good")
    outbox.enqueue(alert("a"))
    monkeypatch.setattr(storage_outbox, "time", SimpleNamespace(monotonic=partial(next, clock())))
    report = outbox.deliver_due([slow, good], NOW, budget=3)
    assert report.unfinished == ["slow"]
    assert len(good.notices) == 1
    again = outbox.deliver_due([slow, good], NOW, budget=120)
    assert again.unfinished == [], "claimed by the call before: not posted twice"
    released.set()
    ended("alerts-slow")
    assert len(slow.notices) == 1
    assert outbox.undelivered() == 0


def ended(name: str) -> None:
    """Wait for the end of the threads of this name."""
    for thread in [one for one in threading.enumerate() if one.name == name]:
        thread.join(120)
        assert not thread.is_alive(), name


def _deliver(address: str, folder: str) -> None:
    class File:
        name = "file"

        def send(self, notice: Notice) -> None:
            with open(f"{folder}/posted", "a", encoding="utf-8") as file:
                file.write(notice.fingerprint + "\n")

    outbox = AlertOutbox(open_database(address))
    for number in range(20):
        outbox.enqueue(alert(f"shared{number}", fingerprint=f"f{number}"))
        outbox.deliver_due([File()], NOW)


@pytest.mark.requirement("R6.5")
def test_two_processes_post_each_alert_once(address: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_deliver, args=(address, str(tmp_path))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
        assert worker.exitcode == 0
    posted = (tmp_path / "posted").read_text().split()
    assert sorted(posted) == sorted(f"f{number}" for number in range(20))


def test_old_and_finished_alerts_are_purged_and_open_ones_stay(engine: Engine) -> None:
    outbox, sink = AlertOutbox(engine), Recorder()
    outbox.enqueue(alert("done", fingerprint="done"))
    outbox.enqueue(alert("open", fingerprint="open"))
    outbox.deliver_due([sink], NOW)
    outbox.resolve("done", NOW)
    assert outbox.purge(NOW + HOUR) == 1  # the recovery has not been told yet
    outbox.deliver_due([sink], NOW)
    assert outbox.purge(NOW + HOUR) == 1
    assert [row.source_key for row in outbox.open_alerts()] == ["open"]
