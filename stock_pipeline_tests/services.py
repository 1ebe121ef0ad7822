"""Private Postgres, Redis and S3 servers for tests: own data folder, free port, ended by their own process id.

Where a server program is missing, the test is skipped with the command that installs it.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

_POSTGRES = ["-h", "127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=100"]
_INITDB = ["-U", "test", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"]
"""Without the locale of whoever runs the tests: it decides about the order of texts and the language of the log."""

_FIRST_PORT, _PORTS, _RANGES = 16_000, 1_000, 16
_given = itertools.count(os.getpid() * 37)  # runs that begin together do not begin at the same port
_REDIS = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


@contextmanager
def postgres() -> Iterator[str]:
    """Run a Postgres server for the length of a ``with`` block; gives the SQLAlchemy address of its database."""
    folder = _program_folder("initdb", "postgresql")
    _program("postgres", "postgresql", folder)
    place = Path(tempfile.mkdtemp(prefix="pg-test-"))
    prefix = _other_user(place)
    data = place / "data"
    begin = [*prefix, str(folder / "initdb"), "-D", str(data), *_INITDB]
    command = [*prefix, str(folder / "postgres"), "-D", str(data), "-k", str(place), *_POSTGRES]
    try:
        subprocess.run(begin, check=True, capture_output=True, cwd=place)
        with _running([*command, "-p"], place, b"ready to accept connections", signal.SIGINT) as port:  # fast shutdown
            yield f"postgresql+psycopg2://test@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis server for the length of a ``with`` block; gives its address."""
    program = _program("redis-server", "redis-server")
    place = Path(tempfile.mkdtemp(prefix="redis-test-"))
    command = [str(program), "--dir", str(place), *_REDIS, "--port"]
    try:
        with _running(command, place, b"Ready to accept connections", signal.SIGTERM) as port:
            yield f"redis://127.0.0.1:{port}/0"
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def object_store(bucket: str = "lake") -> Iterator[dict[str, str]]:
    """Run an S3 server with one bucket for the length of a ``with`` block; gives the lake's storage options."""
    if find_spec("moto") is None:
        pytest.skip("moto is not installed; to run this test: pip install 'moto[s3]' flask flask-cors")
    place = Path(tempfile.mkdtemp(prefix="s3-test-"))
    command = [sys.executable, str(Path(__file__).with_name("object_store_server.py")), "-H", "127.0.0.1", "-p"]
    try:
        with _running(command, place, b"Running on", signal.SIGTERM) as port:
            address = f"http://127.0.0.1:{port}"
            urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT"), timeout=120).close()
            yield {
                "AWS_ENDPOINT_URL": address,
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            }
    finally:
        shutil.rmtree(place, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback address that nobody listens on and no other test gets.

    It is below those that the system gives to outgoing connections, of which one could take it before the server does;
    and each worker of pytest-xdist has a range of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = _FIRST_PORT + worker % _RANGES * _PORTS + next(_given) % _PORTS
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what has ended is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _program_folder(name: str, package: str) -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in versions:
        if (folder / name).exists():
            return folder
    return _program(name, package).resolve().parent


def _program(name: str, package: str, folder: Path | None = None) -> Path:
    found = shutil.which(name, path=None if folder is None else str(folder))
    if found is None:
        pytest.skip(f"{name} is not installed; to run this test: sudo apt-get install {package}")
    return Path(found)


def _other_user(place: Path) -> list[str]:
    """Postgres refuses to run as root: give the folder to another user and run as that one."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(place, user.pw_uid, user.pw_gid)
        switch = _program("setpriv", "util-linux")
        return [str(switch), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    pytest.skip("Postgres cannot run as root and there is no other user: sudo apt-get install postgresql")


@contextmanager
def _running(command: list[str], place: Path, sign: bytes, end: signal.Signals) -> Iterator[int]:
    """Run a server for the length of a ``with`` block; gives its port, which stands at the end of the command.

    Another program may take a port after it was found to be free: then it is another one.
    """
    log = place / "server.log"
    for tries in range(5):
        port = free_port()
        with log.open("wb") as output:
            server = subprocess.Popen([*command, str(port)], stdout=output, stderr=output, cwd=place)
        try:
            try:
                _wait_for(port, server, log, sign)
            except RuntimeError:
                if tries < 4 and b"ddress already in use" in log.read_bytes():
                    continue
                raise
            yield port
            return
        finally:
            _stop(server, end)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path, sign: bytes, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        if sign in log.read_bytes():
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
        time.sleep(0.05)
    raise RuntimeError(f"a test server did not start on port {port}:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(server: subprocess.Popen[bytes], how: signal.Signals) -> None:
    server.send_signal(how)
    try:
        server.wait(timeout=120)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
