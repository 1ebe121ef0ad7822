"""Starts the services of one machine together, waits until they answer, and stops them all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stock_pipeline.cli.console import err, out
from stock_pipeline.config import Settings
from stock_pipeline.core.errors import ConfigurationError, PipelineError

START_SECONDS = 120
STOP_SECONDS = 20


@dataclass(frozen=True)
class Service:
    """A process, and where it answers (``None`` for one without an address)."""

    name: str
    command: Sequence[str]
    port: int | None
    url: str | None


def services(settings: Settings) -> list[Service]:
    """The services of one machine: Dagster's web server and daemon, MLflow's UI, the API."""
    s, python = settings.services, sys.executable
    binaries = Path(python).parent
    workspace = settings.home / "dagster" / "workspace.yaml"
    base = f"http://{s.host}"
    return [
        Service("api", [python, "-m", "stock_pipeline", "serve"], s.api_port, f"{base}:{s.api_port}/"),
        Service(
            "dagster",
            [str(binaries / "dagster-webserver"), "-w", str(workspace), "-h", s.host, "-p", str(s.dagster_port)],
            s.dagster_port,
            f"{base}:{s.dagster_port}/",
        ),
        Service("dagster-daemon", [str(binaries / "dagster-daemon"), "run", "-w", str(workspace)], None, None),
        Service(
            "mlflow",
            [
                python, "-m", "mlflow", "server", "--host", s.host, "--port", str(s.mlflow_port), "--workers", "1",
                "--backend-store-uri", settings.storage.mlflow_uri,
                "--default-artifact-root", settings.storage.artifacts_uri,
            ],
            s.mlflow_port,
            f"{base}:{s.mlflow_port}/",
        ),
    ]  # fmt: skip


def write_workspace(settings: Settings) -> None:
    """Write a workspace file that does not depend on the folder from which the services are started."""
    root = Path(__file__).resolve().parents[2]
    text = (
        "load_from:\n  - python_module:\n      module_name: stock_pipeline.orchestration.definitions\n"
        f"      working_directory: {root}\n      location_name: stock_pipeline\n"
    )
    (settings.home / "dagster" / "workspace.yaml").write_text(text, encoding="utf-8")


def serve_all(settings: Settings) -> None:
    """Start everything, print the addresses, and stop everything on Ctrl-C or when one of them dies.

    Raises
    ------
    ConfigurationError
        A port is taken.
    PipelineError
        A service ended by itself; its log is named.
    """
    from stock_pipeline.orchestration.bootstrap import prepare_home

    prepare_home(settings)
    write_workspace(settings)
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    wanted = services(settings)
    for service in wanted:
        if service.port is not None and _answers(settings.services.host, service.port):
            raise ConfigurationError(
                f"the port of {service.name} is taken",
                value=service.port,
                fix=f"stop what uses it, or set services.{service.name}_port (STOCK_PIPELINE__SERVICES__...)",
            )
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONUNBUFFERED": "1"}
    running: list[tuple[Service, subprocess.Popen[bytes], Path]] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        for service in wanted:
            log = logs / f"{service.name}.log"
            with log.open("ab") as handle:
                process = subprocess.Popen(
                    service.command, stdout=handle, stderr=handle, env=environment, start_new_session=True
                )
            running.append((service, process, log))
        _wait(settings, running)
        for service, _, _ in running:
            if service.url:
                out.print(f"  {service.name:<10} {service.url}")
        out.print("Ctrl-C stops them all.")
        while True:
            _all_alive(running)
            time.sleep(1)
    except KeyboardInterrupt:
        err.print("stopping ...")
    finally:
        signal.signal(signal.SIGTERM, previous)
        _stop([process for _, process, _ in running])


def serve_api(settings: Settings) -> None:
    """Serve the API in this process."""
    from stock_pipeline.api.server import serve
    from stock_pipeline.orchestration.bootstrap import prepare_home
    from stock_pipeline.orchestration.resources import Platform

    prepare_home(settings)
    serve(Platform(settings).lake, host=settings.services.host, port=settings.services.api_port, home=settings.home)


def _wait(settings: Settings, running: list[tuple[Service, subprocess.Popen[bytes], Path]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for service, _, log in running:
        while service.port is not None and not _answers(settings.services.host, service.port):
            _all_alive(running)
            if time.monotonic() > deadline:
                raise PipelineError(f"{service.name} does not answer", value=service.url, fix=f"see {log}")
            time.sleep(0.3)


def _all_alive(running: list[tuple[Service, subprocess.Popen[bytes], Path]]) -> None:
    for service, process, log in running:
        code = process.poll()
        if code is not None:
            raise PipelineError(f"{service.name} ended by itself", value=f"exit code {code}", fix=f"see {log}")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _signal(process, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        # whatever the service has started itself is in its group and ends with it
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0
