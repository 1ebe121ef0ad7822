"""Starts the services of one machine together, waits until they answer, and stops them all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stock_pipeline.cli.console import err, out
from stock_pipeline.cli.first_start import tell_how_to_begin
from stock_pipeline.cli.stopping import stop_all
from stock_pipeline.config import Settings, addresses
from stock_pipeline.core.errors import ConfigurationError, PipelineError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300
"""So long the services may take to answer, on a busy machine; one that ends by itself is told at once."""
STOP_SECONDS = 20
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG_BYTES = 20_000_000
"""Size at which what a service has printed is put aside; what was put aside before is dropped."""


@dataclass(frozen=True)
class Service:
    """A process, and where it answers (``None`` for one without an address)."""

    name: str
    command: Sequence[str]
    port: int | None
    url: str | None


def services(settings: Settings) -> list[Service]:
    """The services of one machine: Dagster's code server, web server and daemon, MLflow's UI, the API, the relay.

    A worker too, where a broker hands out runs.
    """
    s, python = settings.services, sys.executable
    binaries = Path(python).parent
    workspace = settings.home / "dagster" / "workspace.yaml"
    return [
        Service(
            "code-server",
            [
                str(binaries / "dagster"), "code-server", "start", "--socket", str(code_socket(settings)),
                "--module-name", "stock_pipeline.orchestration.definitions", "--working-directory", str(ROOT),
                "--location-name", "stock_pipeline",
            ],
            None,
            None,
        ),
        Service("api", [python, "-m", "stock_pipeline", "serve"], s.api_port, f"{addresses.console(settings)}/"),
        Service(
            "mlflow",
            [
                python, "-m", "mlflow", "server", "--host", s.host, "--port", str(s.mlflow_port), "--workers", "1",
                "--backend-store-uri", settings.storage.mlflow_uri,
                "--default-artifact-root", settings.storage.artifacts_uri,
                *_behind_a_proxy(settings),
            ],
            s.mlflow_port,
            addresses.mlflow_page(settings),
        ),
        Service(
            "dagster",
            [
                str(binaries / "dagster-webserver"), "-w", str(workspace), "-h", s.host, "-p", str(s.dagster_port),
                *(["--path-prefix", s.dagster_path] if s.dagster_path else []),
            ],
            s.dagster_port,
            addresses.dagster_page(settings),
        ),
        Service("dagster-daemon", [str(binaries / "dagster-daemon"), "run", "-w", str(workspace)], None, None),
        Service("relay", [python, "-m", "stock_pipeline", "relay"], None, None),
        *(
            [Service("worker", [python, "-m", "stock_pipeline", "worker"], None, None)]
            if settings.tasks.workers is not None
            else []
        ),
    ]  # fmt: skip


def _behind_a_proxy(settings: Settings) -> list[str]:
    """What MLflow must know to answer under the public name; its own names stay allowed."""
    path, public = settings.services.mlflow_path, settings.access.public_url
    options = ["--static-prefix", path] if path else []
    if not path or public is None:
        return options
    host = urlsplit(public).netloc
    allowed = ",".join((host, "localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[[]::1]:*"))
    return [*options, "--allowed-hosts", allowed, "--cors-allowed-origins", addresses.console(settings)]


def code_socket(settings: Settings) -> Path:
    """Where the code server listens: always the same place for a home, and short enough for a socket's name."""
    digest = hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"stock_pipeline-{os.getuid()}-{digest}.sock"


def write_workspace(settings: Settings) -> None:
    """Write the workspace of web server and daemon: both ask one code server.

    Without it each of them would start its own, and the daemon a new one every minute.
    """
    text = f"load_from:\n  - grpc_server:\n      socket: {code_socket(settings)}\n      location_name: stock_pipeline\n"
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
    check_ports(settings.services.host, wanted)
    code_socket(settings).unlink(missing_ok=True)  # left by services that were killed
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONUNBUFFERED": "1"}
    running: list[tuple[Service, subprocess.Popen[bytes], Path]] = []
    # a service manager says TERM, a closed terminal HUP: both mean what Ctrl-C means
    previous = {number: signal.signal(number, _interrupt) for number in STOPPING}
    try:
        for service in wanted:
            if service.name == "dagster":
                _wait_for_code(settings, running)
            log = logs / f"{service.name}.log"
            put_aside(log)
            with log.open("ab") as handle:
                process = subprocess.Popen(
                    service.command, stdout=handle, stderr=handle, env=environment, start_new_session=True
                )
            running.append((service, process, log))
        _wait(settings, running)
        for service, _, _ in running:
            if service.url:
                shown = "console and API" if service.name == "api" else service.name
                out.print(f"  {shown:<15} {service.url}")
        tell_how_to_begin(settings)
        out.print("Ctrl-C stops them all.")
        while True:
            _all_alive(running)
            for _, _, log in running:
                put_aside(log)
            time.sleep(1)
    except KeyboardInterrupt:
        err.print("stopping ...")
    finally:
        # a second Ctrl-C must not leave half of them behind
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        stop_all([process for _, process, _ in running], STOP_SECONDS)
        code_socket(settings).unlink(missing_ok=True)
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_ports(host: str, wanted: Sequence[Service]) -> None:
    """Check that every port is free and meant for one service only.

    Raises
    ------
    ConfigurationError
        It is not; the message names the setting.
    """
    taken: dict[int, str] = {}
    for service in wanted:
        if service.port is None:
            continue
        fix = f"set services.{service.name}_port (STOCK_PIPELINE__SERVICES__{service.name.upper()}_PORT)"
        if service.port in taken:
            raise ConfigurationError(
                f"{service.name} and {taken[service.port]} have the same port", value=service.port, fix=fix
            )
        if _answers(host, service.port):
            raise ConfigurationError(
                f"the port of {service.name} is taken", value=service.port, fix=f"stop what uses it, or {fix}"
            )
        taken[service.port] = service.name


def put_aside(log: Path) -> None:
    """Move what a log that has grown large holds into another file, so that the services may run for years.

    The file itself stays, because whoever writes into it has it open; a line of this very moment may be lost.
    """
    if log.exists() and log.stat().st_size > LOG_BYTES:
        with contextlib.suppress(OSError):  # where the disk is full, room is worth more than old lines
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def serve_api(settings: Settings) -> None:
    """Serve the API in this process."""
    from stock_pipeline.api.server import serve
    from stock_pipeline.api.service import Service
    from stock_pipeline.orchestration.bootstrap import prepare_home

    prepare_home(settings)
    tell_how_to_begin(settings)
    serve(Service(settings), host=settings.services.host, port=settings.services.api_port, home=settings.home)


def _wait(settings: Settings, running: list[tuple[Service, subprocess.Popen[bytes], Path]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for service, _, log in running:
        while service.port is not None and not _answers(settings.services.host, service.port):
            _all_alive(running)
            if time.monotonic() > deadline:
                raise PipelineError(f"{service.name} does not answer", value=service.url, fix=f"see {log}")
            time.sleep(0.3)


def _wait_for_code(settings: Settings, running: list[tuple[Service, subprocess.Popen[bytes], Path]]) -> None:
    """The web server shows an error until somebody reloads it when it is asked before the code is loaded."""
    deadline = time.monotonic() + START_SECONDS
    while not _accepts(code_socket(settings)):
        _all_alive(running)
        if time.monotonic() > deadline:
            raise PipelineError("the code server does not answer", fix=f"see {running[0][2]}")
        time.sleep(0.2)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            return probe.connect_ex(str(path)) == 0
        except OSError:
            return False


def _all_alive(running: list[tuple[Service, subprocess.Popen[bytes], Path]]) -> None:
    for service, process, log in running:
        code = process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            raise PipelineError(f"{service.name} ended by itself", value=how, fix=f"see {log}")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0
