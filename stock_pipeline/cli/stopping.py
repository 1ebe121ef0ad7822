"""Ends services with everything that they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence

import psutil

LOOK_SECONDS = 0.2
"""How often descendants are looked for while services end."""
GRACE_SECONDS = 3.0
"""So long descendants may take to end by themselves once the services have ended."""


def stop_all(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Interrupt services, and kill what is left of them and of what they have started.

    Code servers and runs are children of services, some of them in groups of their own, and a service may still start
    one while it ends: a run whose turn it is. So they are looked for until the services have ended.

    Parameters
    ----------
    processes
        Leaders of their process groups.
    seconds
        How long they may take to end by themselves.
    """
    services: set[psutil.Process] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            services.add(psutil.Process(process.pid))
    family = _descendants(services)
    deadline = time.monotonic() + seconds
    for process in processes:
        _signal(process, signal.SIGINT)
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        family |= _descendants(services | family)
        time.sleep(LOOK_SECONDS)
    family |= _descendants(services | family)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()
    psutil.wait_procs(family, timeout=max(0.1, min(GRACE_SECONDS, deadline - time.monotonic())))
    for child in family | _descendants(family):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _descendants(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """All that processes and their children have started and that has not ended."""
    found: set[psutil.Process] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(process.children(recursive=True))
    return found


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
