"""The service really serving on a free port: in a thread of the test, or in a process of its own that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from stock_pipeline.api.server import listen, server_of
from stock_pipeline_tests.api_service import PASSWORD, add_account
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.patience import be_patient
from stock_pipeline_tests.services import free_port


@contextmanager
def served(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve an application from a thread for the length of a ``with`` block; gives its address, on a free port."""
    server = server_of(app)
    with listen("127.0.0.1", port) as socket:
        thread = threading.Thread(target=lambda: server.run(sockets=[socket]), daemon=True)
        thread.start()
        deadline = time.monotonic() + 180
        while not server.started:
            assert thread.is_alive(), "the server ended by itself"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(120)
            assert not thread.is_alive(), "the server did not stop"


@dataclass
class ServedProcess:
    """The service of a configuration in a process of its own, always at the same address."""

    config: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("STOCK_PIPELINE_HOME", "STOCK_PIPELINE_CONFIG", "DAGSTER_HOME")
        }
        with (self.config.parent / "served.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stock_pipeline_tests.serving", str(self.config), str(self.port)],
                env=environment, cwd=REPOSITORY, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 180
        while True:
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < deadline, self.printed()
            try:
                httpx.get(f"{self.address}/healthz", timeout=5)
                return
            except httpx.TransportError:
                time.sleep(0.05)

    def printed(self) -> str:
        """What it has written until now."""
        return (self.config.parent / "served.log").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it without a word."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(120)
            self.process = None


@contextmanager
def served_process(config: Path) -> Iterator[ServedProcess]:
    """Serve a configuration from a process of its own for the length of a ``with`` block."""
    served = ServedProcess(config, free_port())
    try:
        served.start()
        yield served
    finally:
        served.kill()


def log_in(address: str, app: FastAPI, role: str, name: str | None = None) -> str:
    """An access token of an account, made where it is not there yet."""
    name = name or f"the-{role}"
    add_account(app, name, role)
    return log_in_to(address, name)


def log_in_to(address: str, name: str) -> str:
    """An access token of an account that is there, with the password of the tests."""
    answer = httpx.post(f"{address}/api/auth/login", json={"name": name, "password": PASSWORD}, timeout=120)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def main() -> None:
    """Serve the configuration that the command line names."""
    from stock_pipeline.api.server import serve
    from stock_pipeline.api.service import Service
    from stock_pipeline.config import load_settings

    be_patient(pytest.MonkeyPatch())  # as this is for a test, like all else
    settings = load_settings(Path(sys.argv[1]), environment={})
    serve(Service(settings), port=int(sys.argv[2]), home=settings.home)


if __name__ == "__main__":
    main()
