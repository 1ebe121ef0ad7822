"""What ends services leaves nothing running, whatever they start at the last moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from stock_pipeline.cli import stopping
from stock_pipeline_tests.waiting import wait_until

pytestmark = pytest.mark.requirement("P8")

LATE = """
import signal, subprocess, sys, time
from pathlib import Path

def late(*_):
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = subprocess.Popen(sleeps, start_new_session=True)
    (place := Path(sys.argv[1])).with_suffix(".new").write_text(str(started.pid))
    place.with_suffix(".new").rename(place)
    while not place.with_suffix(".seen").exists():
        time.sleep(0.05)
    sys.exit(0)

signal.signal(signal.SIGINT, late)
Path(sys.argv[1]).with_suffix(".ready").touch()
while True:
    time.sleep(1)
"""
"""A service that starts something in a group of its own when it is to end, as a code server may a run."""

DEAF = """
import signal, sys, time
from pathlib import Path

signal.signal(signal.SIGINT, signal.SIG_IGN)
Path(sys.argv[1]).with_suffix(".ready").touch()
time.sleep(600)
"""


def started(program: str, place: Path) -> subprocess.Popen[bytes]:
    """A service that is ready to be ended."""
    process = subprocess.Popen([sys.executable, "-c", program, str(place)], start_new_session=True)
    wait_until(place.with_suffix(".ready").exists)
    return process


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_a_service_starts_while_it_ends_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "pid"
    process, look = started(LATE, place), stopping._descendants

    def looked(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
        """The service goes on with its end once what it has started was seen."""
        found = look(processes)
        if place.exists() and int(place.read_text()) in {child.pid for child in found}:
            place.with_suffix(".seen").touch()
        return found

    monkeypatch.setattr(stopping, "_descendants", looked)
    stopping.stop_all([process], seconds=600)
    assert process.returncode == 0, "it had the time to end by itself"
    wait_until(lambda: has_ended(int(place.read_text())))


def test_a_service_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    process, other = started(DEAF, tmp_path / "deaf"), started(LATE, tmp_path / "pid")
    other.kill()
    other.wait()
    stopping.stop_all([other, process], seconds=0.5)
    assert process.returncode == -9
