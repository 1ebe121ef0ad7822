"""``stock-pipeline dev``: everything starts, work is done by the daemon, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from stock_pipeline.cli import services
from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import ConfigurationError, PipelineError
from stock_pipeline.orchestration.exclusive import BACKTESTS, sole_writer
from stock_pipeline_tests.running import Running, get, services_running
from stock_pipeline_tests.services import free_port

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status stepStats { status } } } }"
LOCATION = {
    "repositoryLocationName": "stock_pipeline",
    "repositoryName": "__repository__",
}


def run_of(running: Running, run_id: str) -> dict[str, Any]:
    return dict(running.graphql(STATUS, {"id": run_id})["runOrError"])


def wait_for(running: Running, run_id: str, wanted: str, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while (status := run_of(running, run_id)["status"]) != wanted:
        assert status not in ("SUCCESS", "FAILURE", "CANCELED"), status
        assert time.monotonic() < deadline, status
        time.sleep(0.4)


def command_lines(processes: list[psutil.Process]) -> Iterator[str]:
    """What processes were started as; one that has ended since they were listed is left out."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            yield " ".join(process.cmdline())


def code_servers(running: Running) -> list[int]:
    """Processes that others ask for the code: the one that is meant, and any that a web server or daemon starts itself.

    What one of them starts is a part of it, and has its command line until it becomes something else.
    """
    found: dict[int, int] = {}
    for process in running.family():
        with suppress(psutil.NoSuchProcess):
            if {"code-server", "grpc"} & set(process.cmdline()):
                found[process.pid] = process.ppid()
    return [number for number, parent in found.items() if parent not in found]


@pytest.mark.requirement("P8", "P1", "P2", "P5", "R1.2")
@pytest.mark.slow
def test_services_start_work_and_stop_without_a_trace(copy_of_finished: Callable[[], Settings], tmp_path: Path) -> None:
    settings = copy_of_finished()
    with settings.config_file.open("a", encoding="utf-8") as config:
        config.write("access: {anonymous_role: viewer}\n")
    with services_running(settings.config_file, tmp_path / "dev.log") as running:
        assert get(f"{running.dagster}server_info") == 200
        assert get(running.mlflow) == 200
        assert get(f"{running.api}readyz") == 200
        with urllib.request.urlopen(f"{running.api}api/predictions", timeout=120) as answer:
            assert json.load(answer)["predictions"]
        located = running.graphql(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        )
        assert located["repositoriesOrError"]["nodes"], "the web server knows the code at once"
        assert len(code_servers(running)) == 1, "web server and daemon share it"

        tags = {
            "dagster/asset_partition_range_start": "buy_and_hold", "dagster/asset_partition_range_end": "buy_and_hold",
            "stock_pipeline/rebuild": "true",
        }  # fmt: skip
        params = {
            "selector": {**LOCATION, "jobName": "backtest"},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        with sole_writer(settings.home, [BACKTESTS], print):  # as a run from the command line does
            launched = running.graphql(LAUNCH, {"params": params})["launchRun"]
            assert launched["__typename"] == "LaunchRunSuccess", launched
            run_id = launched["run"]["runId"]
            wait_for(running, run_id, "STARTED")
            time.sleep(1.5)
            assert run_of(running, run_id) == {"status": "STARTED", "stepStats": []}, "it waits for the other writer"
        wait_for(running, run_id, "SUCCESS")
        ticks = running.graphql(
            """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor)
               { ... on Sensor { sensorState { status ticks(limit: 5) { status } } } } }""",
            {"sensor": {**LOCATION, "sensorName": "collect_alerts"}},
        )["sensorOrError"]["sensorState"]
        assert ticks["status"] == "RUNNING", "alerts are collected without anybody switching that on"

        family = running.family()
        assert len(family) >= 6
        assert running.stop() == 0
        alive = psutil.wait_procs(family, timeout=60)[1]
        assert not alive, list(command_lines(alive))
        for address in (running.dagster, running.mlflow, running.api):
            port = int(address.rsplit(":", 1)[1].strip("/"))
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not services.code_socket(load_settings(settings.config_file, environment={})).exists()


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    from stock_pipeline_tests.orchestration.conftest import make_market

    return load_settings(make_market(tmp_path, until="2016-01-05"), environment={})


@pytest.mark.requirement("P8")
def test_a_port_in_use_is_named_with_its_setting(local: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        others = {"api_port": free_port(), "dagster_port": free_port()}
        ports = local.services.model_copy(update={**others, "mlflow_port": port})
        wanted = services.services(local.model_copy(update={"services": ports}))
        with pytest.raises(ConfigurationError, match="mlflow") as caught:
            services.check_ports("127.0.0.1", wanted)
        assert "services.mlflow_port" in str(caught.value)
    same = local.services.model_copy(update=dict.fromkeys(("mlflow_port", "api_port"), free_port()))
    with pytest.raises(ConfigurationError, match="same port"):
        services.check_ports("127.0.0.1", services.services(local.model_copy(update={"services": same})))


@pytest.mark.requirement("P8")
def test_a_large_log_is_put_aside_while_its_service_goes_on(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LOG_BYTES", 1_000)
    logs = local.home / "logs"
    chatter = """
import os, sys, time
written, end = 0, time.monotonic() + 120
while os.fstat(1).st_size >= written and time.monotonic() < end:
    written += sys.stdout.write(f"line {written:05d}\\n")
    sys.stdout.flush()
    time.sleep(0.005)
print("still writing")
"""
    command = [sys.executable, "-c", chatter]
    monkeypatch.setattr(services, "services", lambda settings: [services.Service("chatter", command, None, None)])
    with pytest.raises(PipelineError, match="chatter ended by itself: 'exit code 0'"):
        services.serve_all(local)
    assert (logs / "chatter.log.1").read_text().startswith("line 00000\n")
    kept = (logs / "chatter.log").read_text()
    assert kept.endswith("still writing\n")
    assert len(kept) < 1_000, "it began anew"


@pytest.mark.requirement("P8")
def test_the_log_before_the_last_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LOG_BYTES", 10)
    log = tmp_path / "api.log"
    for text in ("the first of them\n", "the second of them\n", "short\n"):
        with log.open("a") as lines:
            lines.write(text)
        services.put_aside(log)
    assert (tmp_path / "api.log.1").read_text() == "the second of them\n"
    assert log.read_text() == "short\n"
