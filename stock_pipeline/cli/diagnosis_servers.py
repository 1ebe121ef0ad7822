"""What `doctor` says of the servers that the configuration names: databases, Redis, and the broker of workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

from stock_pipeline.cli.findings import Finding
from stock_pipeline.config import Settings
from stock_pipeline.config.storage import from_variable
from stock_pipeline.observability.redaction import redact_text

_PATIENCE = 5
"""Seconds that a server may take to answer."""


def look_at_databases(settings: Settings) -> Iterator[Finding]:
    """The metadata database, and that of Dagster where it has one of its own."""
    yield _database("metadata", settings.storage.metadata_url)
    if settings.storage.dagster is not None:
        address = from_variable(settings.storage.dagster, "storage.dagster", os.environ)
        yield _database("Dagster's runs", address)


def look_at_redis(settings: Settings) -> Iterator[Finding]:
    """The Redis of shared limits, where one is configured."""
    if settings.access.redis is None:
        return
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with Redis.from_url(
            settings.access.redis, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE
        ) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        yield Finding(False, "Redis", f"access.redis does not answer: {redact_text(str(error))}")
    else:
        yield Finding(True, "Redis", "answers")


def look_at_workers(settings: Settings) -> Iterator[Finding]:
    """The broker, and who takes work from it."""
    if settings.tasks.workers is None:
        return
    if find_spec("dagster_celery") is None:
        yield Finding(False, "workers", "dagster-celery is not installed: pip install 'stock-pipeline[celery]'")
        return
    from celery import Celery
    from kombu.exceptions import OperationalError

    from stock_pipeline.orchestration.instance_file import queue
    from stock_pipeline.orchestration.worker_launcher import CELERY, answering

    options = CELERY["broker_transport_options"] | {"max_retries": 1}
    app = Celery(broker=settings.tasks.workers.address(os.environ), broker_transport_options=options)
    try:
        names = answering(app, queue(settings))
    except OperationalError as error:
        yield Finding(False, "workers", f"the broker cannot be reached: {redact_text(str(error))}")
        return
    if names:
        yield Finding(True, "workers", ", ".join(name.rpartition("@")[2] for name in names))
    else:
        yield Finding(False, "workers", "none answers; start `stock-pipeline worker`")


def _database(what: str, address: str) -> Finding:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from stock_pipeline.storage.database import parse

    url = parse(address)
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite and not os.path.exists(url.database or ""):
        return Finding(None, what, f"{url.database}: not made yet")
    engine = create_engine(url, connect_args={"timeout" if sqlite else "connect_timeout": _PATIENCE})
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master" if sqlite else "SELECT 1")
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        return Finding(False, what, f"does not answer: {redact_text(why)}")
    finally:
        engine.dispose()
    server = url.host or url.query.get("host", "a local socket")
    where = url.database if sqlite else f"{server}:{url.port or 5432}/{url.database}"
    return Finding(True, what, f"{where} ({'SQLite' if sqlite else 'Postgres'} {version})")
