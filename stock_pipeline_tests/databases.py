"""Fixtures of tests with a metadata database: each test runs on SQLite and on a real Postgres, with fresh tables.

One Postgres server serves a whole session. The migrations run once for each kind of database; every test gets a copy.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from stock_pipeline.storage.database import open_database
from stock_pipeline_tests.services import postgres

KINDS = ("sqlite", "postgres")
_numbers = itertools.count(1)


class _Shared:
    """The one server of this process, ended when its last user is done."""

    def __init__(self) -> None:
        self.users, self.running, self.address, self.migrated = 0, None, "", False

    @contextmanager
    def use(self) -> Iterator[str]:
        if self.users == 0:
            self.running = postgres()
            self.address = self.running.__enter__()
        self.users += 1
        try:
            if not self.migrated:
                with administered(self.address) as run:
                    run("CREATE DATABASE migrated")
                open_database(_database_of(self.address, "migrated")).dispose()
                self.migrated = True
            yield self.address
        finally:
            self.users -= 1
            if self.users == 0:
                self.migrated = False
                self.running.__exit__(None, None, None)


_SHARED = _Shared()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a private Postgres server that lives as long as the session; skips where Postgres is missing."""
    with _SHARED.use() as address:
        yield address


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with all tables and no rows, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "metadata.db"
    engine = open_database(path)
    with engine.connect() as connection:
        connection.commit()
        connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    engine.dispose()
    return path


@pytest.fixture
def sqlite_address(migrated_file: Path, tmp_path: Path) -> str:
    """Address of a fresh SQLite database with all tables."""
    path = tmp_path / "metadata.db"
    shutil.copyfile(migrated_file, path)
    return f"sqlite:///{path}"


@contextmanager
def fresh_postgres(server: str) -> Iterator[str]:
    """Address of a fresh database with all tables on the shared server, for the length of a ``with`` block."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with administered(server) as run:
        run(f"CREATE DATABASE {name} TEMPLATE migrated")
    try:
        yield _database_of(server, name)
    finally:
        with administered(server) as run:
            run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def cut_off(server: str, address: str) -> Iterator[None]:
    """Close all connections to a database, and refuse new ones for the length of a ``with`` block."""
    name = make_url(address).database
    with administered(server) as run:
        try:
            run(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
            end_connections(run, name)
            yield
        finally:
            run(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')


def end_connections(run: Callable[[str], None], name: str | None) -> None:
    """Close all connections to a database of a server; see `administered`."""
    run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


@pytest.fixture
def postgres_address(postgres_server: str) -> Iterator[str]:
    """Address of a fresh Postgres database with all tables."""
    with fresh_postgres(postgres_server) as address:
        yield address


@pytest.fixture(params=KINDS)
def database_address(request: pytest.FixtureRequest) -> str:
    """Address of a fresh database with all tables: the test runs once on SQLite and once on Postgres."""
    return request.getfixturevalue(f"{request.param}_address")


@pytest.fixture
def database(database_address: str) -> Iterator[Engine]:
    """A fresh database with all tables, opened."""
    engine = open_database(database_address, migrate=False)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_database(sqlite_address: str) -> Iterator[Engine]:
    """The same on SQLite only."""
    engine = open_database(sqlite_address, migrate=False)
    yield engine
    engine.dispose()


def _database_of(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@contextmanager
def administered(server: str) -> Iterator[Callable[[str], None]]:
    """What runs a statement on a server, each in a connection of its own."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    deadline = time.monotonic() + 180

    def run(statement: str) -> None:
        while True:
            try:
                with engine.connect() as connection:
                    connection.execute(text(statement))
            except OperationalError as error:
                # connections that were closed are over when the server has seen it, for which it waits 5 s itself
                if "is being accessed by other users" not in str(error) or time.monotonic() > deadline:
                    raise
            else:
                return

    try:
        yield run
    finally:
        engine.dispose()
