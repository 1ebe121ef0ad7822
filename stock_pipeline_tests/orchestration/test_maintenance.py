"""Upkeep on a real small lake: content stays, replay stays possible, and what nobody needs goes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import event

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.observability.alerts import Alert
from stock_pipeline.orchestration import maintenance, work_files
from stock_pipeline.orchestration.bootstrap import open_instance, prepare_home
from stock_pipeline.orchestration.exclusive import DATA, parts, sole_writer
from stock_pipeline.orchestration.maintenance import forget_runs, maintenance_job, named_versions
from stock_pipeline.orchestration.relay import Relay
from stock_pipeline.orchestration.replay import replay
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.runner import Runner
from stock_pipeline.storage.database.tables.alerts import AlertRow
from stock_pipeline.storage.tasks import TaskStore
from stock_pipeline_tests.commands import environment
from stock_pipeline_tests.orchestration.conftest import make_market
from stock_pipeline_tests.task_runs import Runs


def files(platform: Platform, table: str) -> set[str]:
    return {path.name for path in Path(platform.lake.uri(table)).rglob("*.parquet")}


@pytest.mark.requirement("R1.2", "R3.1", "P3")
def test_upkeep_keeps_content_and_every_prediction_replayable(
    copy_of_finished: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = copy_of_finished()
    runner = Runner(settings)
    platform = runner.platform
    first = platform.lake.version("market/validated_bars")
    old = platform.lake.read("predictions/published")["prediction_id"][0]
    make_market(settings.config_file.parent, until="2021-07-01")
    runner.years("nightly", None, None, rebuild=False)
    newest = platform.lake.read("market/validated_bars", start=date(2021, 7, 1))
    for volume in (pl.col("volume") + 1, pl.col("volume")):  # versions that no prediction names
        rows = newest.with_columns(volume)
        platform.lake.write_sessions("market/validated_bars", rows, start=date(2021, 7, 1), end=date(2021, 7, 1))
    names = ("market/validated_bars", "features/technical", "risk/symbol_risk", "predictions/published")
    before = {name: platform.lake.read(name) for name in names}
    held = {name: files(platform, name) for name in names}
    assert named_versions(platform) == [first, first + 1]
    assert replay(settings, old).identical
    monkeypatch.setattr(maintenance, "OLD_VERSIONS_DAYS", 0)
    result = maintenance_job(platform).execute_in_process(instance=runner.instance)
    assert result.success
    for name, frame in before.items():
        assert_frame_equal(platform.lake.read(name), frame, check_exact=True)
    assert len(files(platform, "features/technical")) < len(held["features/technical"]), "old versions are gone"
    assert len(files(platform, "market/validated_bars")) < len(held["market/validated_bars"])
    assert replay(settings, old).identical, "of the version that the prediction names"
    with pytest.raises(PipelineError):
        platform.lake.read("market/validated_bars", version=first + 2)
    outcome = runner.years("nightly", None, None, rebuild=False)
    assert "features/technical" not in outcome.computed, "compacting is no reason to compute anything again"


@pytest.mark.requirement("P3", "P4")
def test_old_runs_go_but_what_the_web_ui_shows_of_partitions_stays(tmp_path: Path) -> None:
    days = dg.StaticPartitionsDefinition(["2020", "2021"])

    @dg.asset(partitions_def=days)
    def bars() -> None: ...

    job = dg.Definitions(assets=[bars], jobs=[dg.define_asset_job("nightly", "*")]).resolve_job_def("nightly")
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        first = job.execute_in_process(instance=instance, partition_key="2020").run_id
        replaced = job.execute_in_process(instance=instance, partition_key="2021").run_id
        last = job.execute_in_process(instance=instance, partition_key="2021").run_id
        logs = Path(instance.compute_log_manager.get_captured_local_path([replaced, "compute_logs", "x"], "out"))
        logs.parent.mkdir(parents=True, exist_ok=True)
        logs.write_text("printed")
        assert forget_runs(instance, datetime.now(UTC) - timedelta(days=1)) == 0, "none is old"
        assert forget_runs(instance, datetime.now(UTC) + timedelta(days=1)) == 1
        assert {run.run_id for run in instance.get_runs()} == {first, last}
        assert not logs.exists()
        assert instance.get_materialized_partitions(dg.AssetKey("bars")) == {"2020", "2021"}


@pytest.mark.requirement("P3")
def test_old_reports_and_settled_alerts_go(copy_of_finished: Callable[[], Settings]) -> None:
    settings = copy_of_finished()
    platform = Platform(settings)
    folder = platform.reports / "backtests" / "on_request"
    folder.mkdir(parents=True, exist_ok=True)
    long_ago = time.time() - 400 * 86400
    for name in ("old.html", "new.html"):
        (folder / name).write_text("report")
    os.utime(folder / "old.html", (long_ago, long_ago))
    then = datetime.fromtimestamp(long_ago, UTC)
    outbox = platform.alert_outbox
    outbox.enqueue(Alert("stale_data", "error", "settled", "x", "a", "a-1", then))
    outbox.enqueue(Alert("stale_data", "error", "open", "x", "b", "b-1", then))
    outbox.resolve("a", then + timedelta(hours=1))
    outbox.deliver_due([], then + timedelta(hours=2))
    with open_instance(settings) as instance:
        job = maintenance_job(platform)
        result = job.execute_in_process(instance=instance)
    assert result.success
    assert [path.name for path in folder.iterdir()] == ["new.html"]
    assert [alert.title for alert in outbox.open_alerts()] == ["open"]


@pytest.mark.requirement("P3")
def test_one_damaged_table_does_not_keep_the_others_from_upkeep(
    copy_of_finished: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = copy_of_finished()
    platform = Platform(settings)
    for number in (1, 2):
        row = pl.DataFrame({"symbol": ["A"], "session": [date(2021, 1, number)], "x": [number]})
        platform.lake.append_new("features/other", row)
    next(Path(platform.lake.uri("features/other")).rglob("*.parquet")).unlink()
    platform.lake.replace("risk/symbol_risk", platform.lake.read("risk/symbol_risk").tail(10))
    held = len(files(platform, "risk/symbol_risk"))
    monkeypatch.setattr(maintenance, "OLD_VERSIONS_DAYS", 0)
    with open_instance(settings) as instance:
        result = maintenance_job(platform).execute_in_process(instance=instance, raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "these tables could not be tidied: features/other" in failure.step_failure_data.error.message
    assert len(files(platform, "risk/symbol_risk")) < held, "tables after the damaged one were tidied as well"
    assert not any(event.step_key == "forget_the_past" and event.is_failure for event in result.all_events)


@pytest.mark.requirement("P1")
def test_a_second_writer_waits_and_says_so(tmp_path: Path) -> None:
    import threading

    heard: list[str] = []
    order: list[str] = []
    entered, release = threading.Event(), threading.Event()

    def first() -> None:
        with sole_writer(tmp_path, [DATA], heard.append):
            entered.set()
            release.wait(120)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(120)
    with pytest.raises(PipelineError, match="has held the lock"), sole_writer(tmp_path, [DATA], heard.append, wait=0.1):
        raise AssertionError("two writers at once")
    with sole_writer(tmp_path, ["backtests"], heard.append):
        pass  # another part of the lake
    assert heard == ["waiting for another run that writes the data of this market"]
    release.set()
    with sole_writer(tmp_path, [DATA], heard.append):
        order.append("second")
    thread.join(120)
    assert order == ["first", "second"]


@pytest.mark.requirement("P1")
def test_what_a_run_writes_is_known_from_its_tag_or_its_assets() -> None:
    assert parts({"stock_pipeline/writes": "small:backtests"}) == ["backtests"]
    assert parts({}, [dg.AssetKey(["market", "raw_bars"]), dg.AssetKey(["backtests", "results"])]) == [
        "data", "backtests",
    ]  # fmt: skip
    assert parts({}, [dg.AssetKey(["backtests", "results"])]) == ["backtests"]
    assert parts({}) == []


@pytest.mark.requirement("P1")
def test_the_copy_of_the_instance_file_follows_until_somebody_edits_it(finished: Settings, tmp_path: Path) -> None:
    settings = finished.model_copy(update={"home": tmp_path / "home"})
    with environment(dict(os.environ)):
        copy = prepare_home(settings) / "dagster.yaml"
        text = copy.read_text()
        stamp = copy.with_name(".dagster.yaml.sha256")
        assert stamp.is_file()
        import hashlib

        older = text + "# an older release\n"
        copy.write_text(older)
        stamp.write_text(hashlib.sha256(older.encode()).hexdigest())
        prepare_home(settings)
        assert copy.read_text() == text, "an upgrade reaches homes that exist"
        copy.write_text(text + "# mine\n")
        prepare_home(settings)
        assert copy.read_text().endswith("# mine\n")


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """A market in which nothing was done yet."""
    return Platform(load_settings(make_market(tmp_path, until="2016-01-05"), environment={}))


@pytest.mark.requirement("P3")
def test_what_cannot_be_forgotten_does_not_keep_the_rest_and_fails_the_run(platform: Platform) -> None:
    old = platform.settings.home / "work" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    AlertRow.__table__.drop(platform.database)
    with open_instance(platform.settings) as instance:
        job = maintenance_job(platform)
        result = job.execute_in_process(instance=instance, raise_on_error=False, op_selection=["forget_the_past"])
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "could not be forgotten: alerts" in failure.step_failure_data.error.message
    assert not old.exists(), "what comes after it was done"


@pytest.mark.requirement("P3")
def test_a_task_that_removes_its_files_meanwhile_does_not_disturb_upkeep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "going", "z"):
        folder = tmp_path / "work" / name
        folder.mkdir(parents=True)
        (folder / "step.json").write_text("{}")
        for path in (folder / "step.json", folder):
            os.utime(path, (0, 0))
    (tmp_path / "work" / "note.txt").write_text("not of a task")
    listed = Path.iterdir

    def vanishing(self: Path) -> Iterator[Path]:
        found = list(listed(self))
        if self.name == "going":
            shutil.rmtree(self)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", vanishing)
    assert work_files.remove_old(tmp_path, datetime.now(UTC)) == 2
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["note.txt"]


@pytest.mark.requirement("P3", "R2.1")
def test_a_task_that_is_resumed_meanwhile_keeps_no_other_from_being_forgotten(
    platform: Platform, tmp_path: Path
) -> None:
    runs, store = Runs(platform.database, tmp_path), TaskStore(platform.database)
    paused = [runs.launch().run_id for _ in range(3)]
    Relay(runs.instance, platform.database).poll()
    for run in paused:
        store.ask(run, "pause", "ann")
        runs.terminate(run)
    Relay(runs.instance, platform.database).poll()
    store.ask(paused[1], "resume", "ann")
    for run in paused:
        runs.delete(run)
    assert maintenance.forget_tasks(platform, runs.instance) == 2
    assert [task.id for task in store.list()] == [paused[1]]


@pytest.mark.requirement("P3")
def test_the_runs_of_many_tasks_are_looked_for_together(platform: Platform, tmp_path: Path) -> None:
    runs, asked = Runs(platform.database, tmp_path), list[str]()
    for _ in range(10):
        run = runs.launch().run_id
        runs.terminate(run)
    Relay(runs.instance, platform.database).poll()
    event.listen(platform.database, "before_cursor_execute", lambda *told: asked.append(told[2]))
    assert maintenance.forget_tasks(platform, runs.instance) == 0
    assert 1 <= len([statement for statement in asked if statement.startswith("SELECT")]) <= 3
