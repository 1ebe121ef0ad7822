"""Alerts: what is collected from runs, that nothing is lost while something is down, and that people hear of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.observability.alerts import Alert
from stock_pipeline.orchestration import changed_runs, liveness, sensors, watching
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.outbox import AlertOutbox
from stock_pipeline_tests.orchestration.conftest import make_market
from stock_pipeline_tests.services import free_port

pytestmark = pytest.mark.requirement("P3", "R1.5")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.instance_for_test(temp_dir=str(folder)) as made:
        yield made


def make(folder: Path, **changes: Any) -> Platform:
    market = {"name": "small", "calendar": "XNYS", "history": {"first": 2016}}
    config = make_market(folder, until="2016-01-05", changes={"market": market, **changes})
    return Platform(load_settings(config, environment={}))


def sensor(platform: Platform, name: str) -> dg.SensorDefinition:
    return next(found for found in sensors.build(platform) if found.name == name)


class Daemon:
    """Evaluates a sensor again and again and keeps its cursor only when it returned, as Dagster's daemon does."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance, name: str = "collect_alerts") -> None:
        self.platform, self.instance, self.name = platform, instance, name
        self.cursor: str | None = None

    def tick(self) -> str:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        data = sensor(self.platform, self.name).evaluate_tick(context)
        self.cursor = data.cursor
        return data.skip_message or ""


def run(instance: dg.DagsterInstance, passed: bool, *, fails: bool = False, name: str = "nightly") -> str:
    """A real run of a job with one checked asset; returns its id."""

    @dg.asset(
        name="bars",
        key_prefix="market",
        check_specs=[dg.AssetCheckSpec("bars_have_no_gaps", asset=dg.AssetKey(["market", "bars"]))],
    )
    def bars() -> dg.MaterializeResult:
        if fails:
            try:
                raise OSError("the vendor closed the connection")
            except OSError as error:
                raise RuntimeError("no prices") from error
        result = dg.AssetCheckResult(
            passed=passed,
            check_name="bars_have_no_gaps",
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"missing": 3, "remedy": "ask the vendor for the missing sessions"},
        )
        return dg.MaterializeResult(check_results=[result])

    job = dg.Definitions(assets=[bars], jobs=[dg.define_asset_job(name, "*")]).resolve_job_def(name)
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert result.success is not fails
    return result.run_id


def titles(platform: Platform) -> list[str]:
    return [alert.title for alert in platform.alert_outbox.open_alerts()]


def test_a_failed_check_of_a_run_that_succeeded_alerts_and_is_resolved_later(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    platform = make(tmp_path)
    daemon = Daemon(platform, instance)
    run(instance, passed=False)
    assert "1 new alerts" in daemon.tick()
    (alert,) = platform.alert_outbox.open_alerts()
    assert alert.title == "check failed: market/bars:bars_have_no_gaps"
    assert alert.severity == "warning"
    assert alert.remedy == "ask the vendor for the missing sessions", "the check itself says what to do"
    assert "missing: 3" in alert.body
    assert "0 new alerts" in daemon.tick()
    run(instance, passed=True)
    daemon.tick()
    assert titles(platform) == []


def test_looking_again_at_an_older_good_run_ends_no_newer_alert(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = make(tmp_path)
    daemon = Daemon(platform, instance)
    run(instance, passed=True)
    run(instance, passed=False)
    for _ in range(3):  # both runs lie in the overlap and are looked at each time
        daemon.tick()
        assert len(titles(platform)) == 1


def test_a_failed_run_tells_step_and_cause_until_the_job_succeeds(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = make(tmp_path)
    daemon = Daemon(platform, instance)
    run(instance, passed=True, fails=True)
    run(instance, passed=True, name="backtest")
    daemon.tick()
    (alert,) = platform.alert_outbox.open_alerts()
    assert alert.title == "nightly failed at market__bars"
    assert alert.body == "OSError: the vendor closed the connection", "the innermost cause"
    assert alert.severity == "error"
    run(instance, passed=True)
    daemon.tick()
    assert titles(platform) == [], "the success of the same job ends it, that of another one did not"


def test_a_run_that_cannot_be_read_is_told_and_silences_none_that_follow(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    platform = make(tmp_path)
    daemon = Daemon(platform, instance)
    damaged = run(instance, passed=False)
    with instance.event_log_storage.run_connection(damaged) as connection:
        connection.execute(text("UPDATE event_logs SET event = '{'"))
    run(instance, passed=False, name="weekly")
    assert "2 new alerts" in daemon.tick()
    assert titles(platform) == [
        "what a run of nightly did cannot be read", "check failed: market/bars:bars_have_no_gaps",
    ]  # fmt: skip
    assert "0 new alerts" in daemon.tick(), "it is told once"
    run(instance, passed=True)
    daemon.tick()
    assert titles(platform) == [], "a later success of the job ends it"


def test_a_run_whose_process_was_killed_is_found_and_told(tmp_path: Path) -> None:
    """A real process executes a run and is killed in the middle, as by a power cut."""
    home = tmp_path / "dagster"
    home.mkdir()
    script = tmp_path / "killed.py"
    script.write_text(
        "import time, dagster as dg\n"
        "@dg.op\n"
        "def wait():\n    print('waiting', flush=True)\n    time.sleep(600)\n"
        "@dg.job\ndef nightly():\n    wait()\n"
        f"tags = {{{liveness.HOST!r}: {socket.gethostname()!r}}}\n"
        "nightly.execute_in_process(instance=dg.DagsterInstance.get(), tags=tags)\n"
    )
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "waiting"
    platform = make(tmp_path)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        daemon = Daemon(platform, instance)
        assert "0 runs had died" in daemon.tick(), "a run that is alive is left alone"
        process.send_signal(signal.SIGKILL)
        process.wait(120)
        (started,) = instance.get_runs()
        assert started.status == dg.DagsterRunStatus.STARTED, "nobody has noticed"
        assert "1 runs had died" in daemon.tick()
        daemon.tick()
        fresh = instance.get_run_by_id(started.run_id)
        assert fresh is not None
        assert fresh.status == dg.DagsterRunStatus.FAILURE
        (alert,) = platform.alert_outbox.open_alerts()
        assert alert.title == "nightly failed at no step"
        assert liveness.MESSAGE in alert.body


def test_runs_of_other_machines_are_not_judged(instance: dg.DagsterInstance) -> None:
    @dg.job
    def nightly() -> None: ...

    run = instance.create_run_for_job(nightly, status=dg.DagsterRunStatus.STARTED, tags={liveness.HOST: "elsewhere"})
    assert liveness.fail_lost_runs(instance) == []
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]


def test_nothing_is_lost_while_the_database_is_down(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = make(tmp_path)
    daemon = Daemon(platform, instance)
    run(instance, passed=True)
    daemon.tick()
    before = daemon.cursor
    for _ in range(3):
        run(instance, passed=False)
    run(instance, passed=True, fails=True)

    class Down(AlertOutbox):
        left = 2

        def enqueue(self, alert: Alert) -> bool:
            if Down.left == 0:
                raise OperationalError("INSERT", {}, OSError("the server closed the connection"))
            Down.left -= 1
            return super().enqueue(alert)

    engine = open_database(platform.settings.storage.metadata_url)
    platform.__dict__["alert_outbox"] = Down(engine)
    for _ in range(2):
        with pytest.raises(OperationalError):
            daemon.tick()
        assert daemon.cursor == before, "a tick that failed moves nothing on"
    platform.__dict__["alert_outbox"] = AlertOutbox(engine)
    daemon.tick()
    found = sorted(alert.source_key.split(":")[0] for alert in platform.alert_outbox.open_alerts())
    assert found == ["check", "check", "check", "run_failure"]


def test_more_runs_at_once_than_a_batch_do_not_stop_the_cursor(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed_runs, "PAGE", 2)
    platform = make(tmp_path)
    daemon = Daemon(platform, instance)
    for _ in range(5):
        run(instance, passed=False)
    for _ in range(6):
        daemon.tick()
    assert len(platform.alert_outbox.open_alerts()) == 5


@pytest.mark.requirement("R6.5")
def test_a_webhook_that_is_down_hears_everything_later_and_of_the_recovery(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    port, heard = free_port(), []
    alerts = {"targets": [f"json://127.0.0.1:{port}/alerts"], "group_minutes": 0, "suppress_minutes": 0}
    platform = make(tmp_path, alerts=alerts)
    collector, deliverer = Daemon(platform, instance), Daemon(platform, instance, "deliver_alerts")
    run(instance, passed=False)
    collector.tick()
    assert "failed {'json-" in deliverer.tick(), "nobody listens yet"
    assert platform.alert_outbox.undelivered() == 1

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        _retry_now(platform)
        assert "sent" in deliverer.tick()
        assert [notice["title"] for notice in heard] == ["check failed: market/bars:bars_have_no_gaps"]
        assert "What to do: ask the vendor" in heard[0]["message"]
        run(instance, passed=True)
        collector.tick()
        deliverer.tick()
        assert heard[-1]["type"] == "success"
        assert heard[-1]["title"] == "Over: check failed: market/bars:bars_have_no_gaps"
        assert platform.alert_outbox.undelivered() == 0
    finally:
        server.shutdown()
        server.server_close()


def _retry_now(platform: Platform) -> None:
    """Let the pause after a failed attempt be over: the sensor itself takes the clock's time."""
    from sqlalchemy import update
    from sqlalchemy.orm import Session

    from stock_pipeline.storage.database.tables.alerts import DeliveryRow

    with Session(open_database(platform.settings.storage.metadata_url)) as session, session.begin():
        session.execute(update(DeliveryRow).values(next_attempt_at=datetime.now(UTC) - timedelta(seconds=1)))


@pytest.mark.requirement("R7.5")
def test_a_decline_of_quality_is_told_with_what_to_do(copy_of_finished: Callable[[], Settings]) -> None:
    """The vendor of one stock begins to deliver repeated prices: its scores fall, the alert says which rule and why."""
    from stock_pipeline.orchestration.runner import Runner

    settings = copy_of_finished()
    file = settings.config_file.parent / "prices" / "AAPL.csv"
    lines = file.read_text().splitlines()
    frozen = lines[-15].split(",")
    for place in range(-14, 0):  # three weeks of the same bar
        lines[place] = ",".join([frozen[0], lines[place].split(",")[1], *frozen[2:]])
    file.write_text("\n".join(lines) + "\n")
    runner = Runner(settings)
    outcome = runner.years("prepare", date(2021, 1, 1), None, rebuild=False)
    assert "market/validated_bars: quality_does_not_decline" in outcome.failed_checks
    for record in runner.instance.get_run_records(ascending=True):
        sensors.collect(runner.platform, record, runner.instance)
    (alert,) = [a for a in runner.platform.alert_outbox.open_alerts() if "quality_does_not_decline" in a.title]
    assert alert.severity == "warning"
    assert "stale" in alert.body
    assert alert.remedy is not None
    from stock_pipeline.core.quality.registry import all_rules

    named = [rule for rule in all_rules().values() if rule.remedy in alert.remedy]
    assert any("stale" in rule.name for rule in named), alert.remedy


@pytest.mark.requirement("R7.5")
@pytest.mark.parametrize(
    ("newest", "declines"),
    [([100.0] * 5, False), ([100.0, 100.0, 100.0, 100.0, 95.0], False), ([80.0] * 5, True), ([99.0] * 5, False)],
)
def test_a_decline_is_a_drop_below_the_usual_level(newest: list[float], declines: bool) -> None:
    from stock_pipeline.orchestration.checks.quality import decline

    usual = [100.0, 99.5, 100.0] * 20
    days = pl.date_range(date(2024, 1, 1), date(2024, 12, 31), eager=True).head(len(usual) + 5)
    found = decline(pl.DataFrame({"session": days, "score": [*usual, *newest]}))
    assert found is not None
    recent, level, allowed = found
    assert (level - recent > allowed) is declines
    assert decline(pl.DataFrame({"session": days[:6], "score": [1.0] * 6})) is None


def bars_until(platform: Platform, day: str) -> None:
    frame = pl.DataFrame({"symbol": ["A"], "session": [date.fromisoformat(day)], "close": [1.0]})
    platform.lake.replace("market/validated_bars", frame)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_stale_bars_are_told_in_sessions_and_resolved(tmp_path: Path) -> None:
    platform = make(tmp_path)
    assert watching.freshness(platform, at("2024-07-03T12:00")) == "there are no bars yet"
    bars_until(platform, "2024-07-03")
    for quiet in ("2024-07-04T23:00", "2024-07-05T15:00", "2024-07-05T23:00", "2024-07-07T12:00"):
        watching.freshness(platform, at(quiet))  # a holiday, before the close, one session behind, a Sunday
        assert titles(platform) == [], quiet
    assert watching.freshness(platform, at("2024-07-08T23:00")) == "stale: 2 sessions behind"
    watching.freshness(platform, at("2024-07-08T23:30"))
    assert titles(platform) == ["small: bars are 2 sessions old"]
    bars_until(platform, "2024-07-08")
    watching.freshness(platform, at("2024-07-09T01:00"))
    assert titles(platform) == []


def test_the_end_of_the_calendar_is_told_before_and_nothing_breaks_after_it(tmp_path: Path) -> None:
    platform = make(tmp_path)
    last = platform.calendar.last
    bars_until(platform, platform.calendar.previous(last).isoformat())
    before = datetime(last.year, last.month, last.day, 12, tzinfo=UTC)
    watching.calendar_end(platform, before - timedelta(days=400))
    assert titles(platform) == []
    watching.calendar_end(platform, before - timedelta(days=100))
    assert titles(platform) == [f"the exchange calendar XNYS ends on {last}"]
    after = before + timedelta(days=60)
    watching.calendar_end(platform, after)
    behind = int(watching.freshness(platform, after).split()[1])
    assert 40 < behind < 45, "weekdays"


def test_a_disk_that_fills_up_is_told_while_there_is_room(tmp_path: Path) -> None:
    platform = make(tmp_path)
    platform.settings.home.mkdir(parents=True, exist_ok=True)
    now = at("2024-07-03T12:00")
    watching.disk_space(platform, now, free=3 * watching.GIB)
    watching.disk_space(platform, now + timedelta(hours=1), free=watching.GIB // 2)
    assert [alert.severity for alert in platform.alert_outbox.open_alerts()] == ["warning", "error"]
    watching.disk_space(platform, now + timedelta(hours=1, minutes=30), free=watching.GIB // 2)
    assert len(titles(platform)) == 2, "once a day while it lasts"
    watching.disk_space(platform, now + timedelta(hours=2), free=50 * watching.GIB)
    assert titles(platform) == []
    watching.disk_space(platform, now + timedelta(hours=3), free=3 * watching.GIB)
    assert len(titles(platform)) == 1, "it fills up again on the same day"


def test_sensors_watch_a_living_market_and_let_an_ended_one_rest(tmp_path: Path) -> None:
    ended = {"name": "small", "calendar": "XNYS", "history": {"first": 2016, "last": 2021}}
    alive, over = make(tmp_path / "a"), make(tmp_path / "b", market=ended)
    assert sensor(alive, "watch_market").default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor(over, "watch_market").default_status == dg.DefaultSensorStatus.STOPPED
    for name in ("collect_alerts", "deliver_alerts"):
        assert sensor(over, name).default_status == dg.DefaultSensorStatus.RUNNING


def test_sensors_are_quick_enough_for_the_daemon(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = make(tmp_path)
    bars_until(platform, "2024-07-03")
    for name in ("collect_alerts", "watch_market", "deliver_alerts"):
        daemon = Daemon(platform, instance, name)
        daemon.tick()
        begun = time.process_time()
        daemon.tick()
        assert time.process_time() - begun < 2.0, name
