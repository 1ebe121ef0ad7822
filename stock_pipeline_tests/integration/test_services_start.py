"""The private servers that other tests rely on start, answer and are gone afterwards."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine, text

from stock_pipeline_tests import services


def test_postgres_answers_and_is_gone_afterwards() -> None:
    with services.postgres() as address:
        engine = create_engine(address)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()
        port = engine.url.port
    assert not _listens(port)


def test_redis_answers_and_is_gone_afterwards() -> None:
    with services.redis() as address:
        port = urlsplit(address).port
        with socket.create_connection(("127.0.0.1", port or 0), timeout=60) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(16) == b"+PONG\r\n"
    assert not _listens(port)


def test_a_port_that_another_program_takes_meanwhile_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    free = services.free_port
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = iter([taken])
        monkeypatch.setattr(services, "free_port", lambda: next(ports, 0) or free())
        with services.redis() as address:
            port = urlsplit(address).port
            assert port != taken
            assert _listens(port)


@pytest.mark.parametrize("server", [services.postgres, services.redis])
def test_a_missing_program_is_named_with_the_command_that_installs_it(
    server: Callable[[], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.shutil, "which", lambda name, path=None: None)
    with pytest.raises(pytest.skip.Exception, match="sudo apt-get install"), server():
        raise AssertionError("the server should not have started")


def test_ports_are_not_given_twice_nor_to_outgoing_connections() -> None:
    ports = [services.free_port() for _ in range(100)]
    assert len(set(ports)) == 100
    assert max(ports) < 32_768  # where Linux begins to take those of outgoing connections


def _listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0
