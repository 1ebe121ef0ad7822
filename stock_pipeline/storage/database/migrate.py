"""Brings a database to the newest migration, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.storage.locks import file_lock

MIGRATIONS = Path(__file__).parent / "migrations"

VERSION_TABLE = "stock_pipeline_version"
"""Where the revision is kept: a name of our own, because Dagster and MLflow keep theirs in ``alembic_version`` and may
live in the same database."""

_FIRST_HOME = "alembic_version", "0001"
"""Table and revision of databases from before it had that name."""

_POSTGRES_LOCK = 0x5_70C4_0001
"""Any fixed number: the advisory lock of this package's migrations."""


def upgrade(engine: Engine) -> str:
    """Apply the missing migrations and return the revision reached.

    Raises
    ------
    IntegrityError
        The database was made by a newer version of the package.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    assert head is not None
    with _locked(engine), engine.connect() as connection:
        _take_over(connection)
        revision = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        current = revision.get_current_revision()
        connection.rollback()
        if current == head:
            return head
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise IntegrityError(
                "the metadata database was made by a newer version of the package",
                value=current,
                allowed=f"up to {head}",
                fix="update the package, or open another database",
            )
        config.attributes["connection"] = connection
        _without_timeout(connection)
        command.upgrade(config, "head")
        connection.commit()
    return head


def _take_over(connection: Connection) -> None:
    """Bring the revision of an older database to the table that it is kept in now."""
    table, revision = _FIRST_HOME
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables and {table, "alert_outbox"} <= set(tables):
        ours = connection.execute(text(f"DELETE FROM {table} WHERE version_num = :one"), {"one": revision}).rowcount
        if ours:
            connection.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:one)"), {"one": revision})
    connection.commit()


@contextmanager
def _locked(engine: Engine) -> Iterator[None]:
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            _advisory(connection, "lock")
            try:
                yield
            finally:
                _advisory(connection, "unlock")
    else:
        with file_lock(Path(f"{engine.url.database}.migrating")):
            yield


def _without_timeout(connection: Connection) -> None:
    """Let the statements of a transaction take as long as they take: large tables are changed slowly."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


def _advisory(connection: Connection, action: str) -> None:
    _without_timeout(connection)
    connection.execute(text(f"SELECT pg_advisory_{action}(:number)"), {"number": _POSTGRES_LOCK})
    connection.commit()
