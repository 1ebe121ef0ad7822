"""The Postgres of Dagster's runs goes away: what reads them says so, and takes no run for damaged or alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster_postgres.utils import DagsterPostgresException

from stock_pipeline.config import load_settings
from stock_pipeline.orchestration import liveness, sensors
from stock_pipeline.orchestration.liveness import HOST
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline_tests.commands import command, small_market
from stock_pipeline_tests.databases import cut_off
from stock_pipeline_tests.orchestration.conftest import make_market
from stock_pipeline_tests.services import free_port

pytestmark = pytest.mark.requirement("P3", "R1.5")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster tries five times again, but at once."""
    monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda **_: 0.0)


@pytest.fixture
def instance(postgres_address: str, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance of Dagster on a real Postgres."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    storage = {"storage": {"postgres": {"postgres_url": postgres_address}}}
    with dg.instance_for_test(temp_dir=str(folder), overrides=storage) as made:
        yield made


@dg.job(tags={HOST: socket.gethostname()})
def failing() -> None:
    @dg.op
    def fails() -> None:
        raise OSError("the vendor closed the connection")

    fails()


def test_no_alert_calls_a_run_damaged_whose_database_is_away(
    instance: dg.DagsterInstance, postgres_address: str, postgres_server: str, tmp_path: Path
) -> None:
    platform = Platform(load_settings(make_market(tmp_path, until="2016-01-05"), environment={}))
    failing.execute_in_process(instance=instance, raise_on_error=False)
    records = instance.get_run_records()
    with cut_off(postgres_server, postgres_address), pytest.raises(DagsterPostgresException):
        sensors.collect_all(platform, records, instance)
    assert platform.alert_outbox.open_alerts() == []
    assert sensors.collect_all(platform, records, instance) == 1
    assert [alert.title for alert in platform.alert_outbox.open_alerts()] == ["failing failed at fails"]


def test_nothing_is_said_of_processes_whose_runs_cannot_be_read(
    instance: dg.DagsterInstance, postgres_address: str, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.create_run_for_job(failing, tags={HOST: socket.gethostname()})
    instance.report_engine_event("started", run, EngineEventData(metadata={"pid": str(os.getpid())}))
    instance.report_run_canceling(run)
    assert list(liveness.lost_runs(instance)) == []
    found = instance.get_runs()
    monkeypatch.setattr(instance, "get_runs", lambda *_args, **_more: found)  # they are read, then it goes away
    with cut_off(postgres_server, postgres_address), pytest.raises(DagsterPostgresException):
        list(liveness.lost_runs(instance))


@pytest.mark.requirement("R8.1")
def test_the_command_line_names_the_database_that_is_away(tmp_path: Path) -> None:
    away = f"postgresql+psycopg2://me:hunter2@127.0.0.1:{free_port()}/runs"
    config = small_market(tmp_path, storage={"dagster": "env:RUNS"})
    said = command("-c", config, "run", variables={"RUNS": away})
    assert said.code == 1
    assert "a database cannot be used: connection to server" in said.all
    assert "under storage" in said.all
    assert "hunter2" not in said.all
