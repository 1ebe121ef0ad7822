"""Waiting for what another thread or process is about to do: for the thing itself, with an end that says what was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

SECONDS = 180.0
"""Longer than a busy machine takes for anything that a test waits for."""

_EVERY = 0.02


def wait_until(holds: Callable[[], Any], seen: Callable[[], Any] = lambda: "", seconds: float = SECONDS) -> None:
    """Return as soon as something holds.

    Parameters
    ----------
    holds
        Whether it does.
    seen
        What is told where it never does.
    seconds
        How long to wait.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain; seen: {seen()}"
        time.sleep(_EVERY)


async def soon(holds: Callable[[], Any], seen: Callable[[], Any] = lambda: "", seconds: float = SECONDS) -> None:
    """The same, while the other tasks of the event loop go on; see `wait_until`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain; seen: {seen()}"
        await asyncio.sleep(_EVERY)
