"""All services of one machine, really started by the command line on free ports, for the length of a ``with`` block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.services import free_port


@dataclass(frozen=True)
class Running:
    """Addresses of running services, their parent process and what it prints."""

    process: subprocess.Popen[bytes]
    dagster: str
    mlflow: str
    api: str
    output: Path

    def family(self) -> list[psutil.Process]:
        """The parent and everything that it has started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def graphql(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask Dagster's GraphQL."""
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(
            f"{self.dagster}graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        data: dict[str, Any] = content["data"]
        return data

    def stop(self, seconds: float = 120) -> int:
        """Do what Ctrl-C does; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)


@contextmanager
def services_running(
    config: Path, output: Path, seconds: float = 660, ports: dict[str, int] | None = None
) -> Iterator[Running]:
    """Start ``stock-pipeline dev`` on a configuration and wait until it has printed its addresses."""
    ports = ports or {name: free_port() for name in ("dagster", "mlflow", "api")}
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        **{f"STOCK_PIPELINE__SERVICES__{name.upper()}_PORT": str(port) for name, port in ports.items()},
    }
    for name in ("STOCK_PIPELINE_HOME", "STOCK_PIPELINE_CONFIG", "DAGSTER_HOME"):
        environment.pop(name, None)
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stock_pipeline", "-c", str(config), "dev"],
            env=environment, cwd=output.parent, stdout=log, stderr=log,
        )  # fmt: skip
    address = {name: f"http://127.0.0.1:{port}/" for name, port in ports.items()}
    family: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + seconds
        while "Ctrl-C stops them all" not in (printed := output.read_text(encoding="utf-8", errors="replace")):
            assert process.poll() is None, printed
            assert time.monotonic() < deadline, printed
            time.sleep(0.2)
        running = Running(process, address["dagster"], address["mlflow"], address["api"], output)
        family = running.family()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(120)
        for member in psutil.wait_procs(family, timeout=5)[1]:
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                member.kill()


def get(address: str, seconds: float = 120) -> int:
    """Status of a page."""
    with urllib.request.urlopen(address, timeout=seconds) as answer:
        return int(answer.status)
