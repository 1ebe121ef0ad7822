"""One relay at a time: a second one waits until the first has ended, however it ended.

Two at once would do no harm (see `relay_runs`), only twice the work.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.storage.locks import file_lock

WAIT_SECONDS = 1.0
_KEY = int.from_bytes(hashlib.sha256(b"stock_pipeline relay").digest()[:8], "big", signed=True)


@contextmanager
def alone(
    engine: Engine, home: Path, stop: threading.Event, waiting: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], bool]]:
    """Be the only relay of a metadata database for the length of a ``with`` block.

    Parameters
    ----------
    engine
        The metadata database. Relays of several machines share a Postgres, so the lock is there; an SQLite file is of
        one machine, so it is a file in the home folder.
    stop
        Ends the waiting.
    waiting
        Called once when another relay is there.

    Yields
    ------
    Callable
        Tells whether the lock is still held; never where `stop` was set before it was got.
    """
    if engine.dialect.name == "postgresql":
        with _in_postgres(engine, stop, waiting) as held:
            yield held
    else:
        with _in_file(home / "locks" / "relay.lock", stop, waiting) as held:
            yield held


@contextmanager
def _in_file(path: Path, stop: threading.Event, waiting: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    first = True
    while not stop.is_set():
        lock = file_lock(path, timeout=0.0)
        try:
            lock.__enter__()
        except PipelineError:
            if first:
                waiting()
            first = False
            stop.wait(WAIT_SECONDS)
            continue
        try:
            yield lambda: True
        finally:
            lock.__exit__(None, None, None)
        return
    yield lambda: False


@contextmanager
def _in_postgres(engine: Engine, stop: threading.Event, waiting: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    first = True
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not stop.is_set():
            if connection.scalar(select(func.pg_try_advisory_lock(_KEY))):
                try:
                    yield lambda: _answers(connection)
                finally:
                    if _answers(connection):
                        connection.execute(select(func.pg_advisory_unlock(_KEY)))
                return
            if first:
                waiting()
            first = False
            stop.wait(WAIT_SECONDS)
        yield lambda: False


def _answers(connection: Connection) -> bool:
    """Whether the session that holds the lock is still there."""
    try:
        return connection.scalar(select(1)) == 1
    except SQLAlchemyError:
        return False
