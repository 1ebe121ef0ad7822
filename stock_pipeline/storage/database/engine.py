"""Opens the metadata database and brings it to the newest migration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.storage.database.migrate import upgrade

_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 40, "pool_timeout": 10}
"""More connections than the service has threads (40 for requests, and those in the background), so that a thread waits
for the database and not for another thread; beyond the first ten they are closed after use."""

_POSTGRES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # ms
    "options": "-c statement_timeout=60s",
}
"""So that no thread waits for ever: for a server behind a broken network, or for a lock that is not given back."""


def open_database(address: str | Path, *, migrate: bool = True) -> Engine:
    """Open the metadata database, made where absent.

    Parameters
    ----------
    address
        SQLAlchemy address (``sqlite:///...`` or ``postgresql+psycopg2://...``), or the path of an SQLite file.
    migrate
        Bring the tables to the newest version first; safe when several processes start at once.

    Returns
    -------
    sqlalchemy.Engine
        SQLite uses write-ahead logging and waits 30 s for a lock. Postgres connections are tested before use, their
        statements end after 60 s, and a server that is gone is noticed after 30 s; where the address says otherwise,
        that counts.

    Raises
    ------
    ConfigurationError
        Neither SQLite nor Postgres, or not an address.
    """
    url = parse(address)
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigurationError("the metadata database needs a file", value="sqlite in memory")
        file = Path(url.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():  # it will hold hashes of passwords; SQLite's other files get the mode of this one
            file.touch(mode=0o600)
        engine = create_engine(url, connect_args={"timeout": 30}, **_POOL)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        said = {name: value for name, value in _POSTGRES.items() if name not in url.query}
        engine = create_engine(url, pool_pre_ping=True, connect_args=said, **_POOL)
    if migrate:
        upgrade(engine)
    return engine


def reading(engine: Engine) -> Engine:
    """The same database for transactions that only read: on SQLite they wait for no writer and hold none up."""
    return engine.execution_options(reads=True)


@contextmanager
def transaction(engine: Engine, session: Session | None = None) -> Iterator[Session]:
    """A transaction of its own, or the part of a given one that somebody else ends."""
    if session is not None:
        yield session
        return
    with Session(engine) as own, own.begin():
        yield own


def parse(address: str | Path) -> URL:
    """Read the address of a metadata database.

    Raises
    ------
    ConfigurationError
        Neither SQLite nor Postgres, or not an address.
    """
    text = str(address)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError("not a database address (it is not shown, it may hold a password)") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg2")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(
            "no such kind of metadata database", value=url.drivername, allowed="sqlite, postgresql+psycopg2"
        )
    return url


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, so that writers take their lock at once
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
