"""What the service does by the clock while it answers: new publications, changed rights, odd use, sums of reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stock_pipeline.api.auditing import ReadCounter
from stock_pipeline.api.service import Service
from stock_pipeline.observability.logging import get_logger

REVIEW_SECONDS = 30.0
"""How often the audit trail is looked through for odd behaviour."""

FLUSH_SECONDS = 60.0
"""How long a sum of reads waits at most."""

_log = get_logger(__name__)


@contextmanager
def background(service: Service, reads: ReadCounter, *, poll_seconds: float) -> Iterator[None]:
    """Run the threads for the length of a ``with`` block.

    Parameters
    ----------
    service
        The parts of the service.
    reads
        Sums of what was read; written at the end once more.
    poll_seconds
        How often a new publication is looked for.
    """
    access = service.access
    service.publications.refresh()
    access.gate.start()
    stopped = threading.Event()
    threads = [
        _every(poll_seconds, stopped, service.publications.refresh, "publication-watch"),
        _every(REVIEW_SECONDS, stopped, lambda: access.watch.review(access.clock()), "abuse-review"),
        _every(FLUSH_SECONDS, stopped, lambda: reads.flush(access.audit), "read-audit"),
    ]
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join(timeout=5)
        reads.flush(access.audit)
        access.gate.stop()


def _every(seconds: float, stopped: threading.Event, work: Callable[[], object], name: str) -> threading.Thread:
    def run() -> None:
        failing = False
        while not stopped.wait(seconds):
            try:
                work()
                failing = False
            except Exception:
                if not failing:  # one line when it begins, not one a second
                    _log.exception("work in the background failed", work=name)
                failing = True

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
