"""An identity provider that does not answer holds up nobody but the one who asks it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stock_pipeline.access import oidc as module
from stock_pipeline.access.facade import Access
from stock_pipeline.access.principal import AccessError
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline_tests.accounts import access_for, kind
from stock_pipeline_tests.identity_provider import CLIENT, SECRET, identity_provider

pytestmark = pytest.mark.requirement("R8.1")

BACK = "http://127.0.0.1:8000/api/auth/oidc/callback"
AWAY = "identity-provider-unavailable"


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the machine takes, nothing comes too late, and nothing is asked for again."""
    monkeypatch.setattr(module, "_TIMEOUT", 600.0)
    monkeypatch.setattr(module, "_LOOK_AGAIN", 3600.0)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(120)
        yield listening


def with_provider(engine: Engine, home: Path, issuer: str) -> Access:
    access = access_for(engine, home, oidc={"issuer": issuer, "client_id": CLIENT, "client_secret": "env:SECRET"})
    access.settings = access.settings.resolved({"SECRET": SECRET})
    return access


def test_while_one_asks_a_provider_that_is_silent_the_others_are_refused_at_once(
    sqlite_database: Engine, tmp_path: Path, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = with_provider(sqlite_database, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    told: list[str] = []
    first = threading.Thread(target=lambda: told.append(kind(access.oidc.begin, BACK)))
    first.start()
    asking, _ = silent.accept()
    assert kind(access.oidc.begin, BACK) == AWAY
    assert told == [], "the first one still waits"
    asking.close()
    first.join()
    assert told == [AWAY]
    assert kind(access.oidc.begin, BACK) == AWAY
    silent.settimeout(0)
    with pytest.raises(BlockingIOError):
        silent.accept()  # the failure is remembered: nobody has asked again
    silent.settimeout(120)
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)  # as if ten seconds had passed
    again = threading.Thread(target=lambda: told.append(kind(access.oidc.begin, BACK)))
    again.start()
    silent.accept()[0].close()
    again.join()


def test_what_a_provider_said_last_holds_while_it_is_away(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH", 0.0)  # as if an hour passed between two log-ins
    with identity_provider() as provider:
        access = with_provider(sqlite_database, tmp_path, provider.address)
        assert access.oidc.begin(BACK).address.startswith(provider.address)
        kept = provider.address
    assert access.oidc.begin(BACK).address.startswith(kept)
    assert access.oidc.begin(BACK).address.startswith(kept)


def test_codes_are_exchanged_by_few_at_a_time_and_a_silence_is_remembered(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    with identity_provider() as provider:
        access = with_provider(sqlite_database, tmp_path, provider.address)
        asked, go_on, exchange = threading.Event(), threading.Event(), provider.exchange
        told: list[str] = []

        def slow(form: dict[str, str], authorisation: str) -> tuple[int, dict[str, object]]:
            asked.set()
            assert go_on.wait(600)
            return exchange(form, authorisation)

        def back() -> str:
            start = access.oidc.begin(BACK)
            try:
                access.oidc.finish(provider.authorise(start.address), start.cookie, BACK)
            except AccessError as error:
                return error.kind
            return "logged in"

        monkeypatch.setattr(provider, "exchange", slow)
        first = threading.Thread(target=lambda: told.append(back()))
        first.start()
        assert asked.wait(600)
        assert back() == AWAY, "no second thread waits"
        go_on.set()
        first.join()
        assert told == ["logged in"]

        calls: list[int] = []
        monkeypatch.setattr(provider, "exchange", lambda *_: calls.append(1) or 1 / 0)  # it hangs up
        assert back() == AWAY
        assert back() == AWAY
        assert len(calls) == 1, "the failure is remembered"
        monkeypatch.setattr(provider, "exchange", exchange)
        monkeypatch.setattr(module, "_LOOK_AGAIN", 0.0)  # as if ten seconds had passed
        assert back() == "logged in"


def test_a_provider_that_is_not_set_up_rightly_is_not_asked_again_at_once(
    sqlite_database: Engine, tmp_path: Path
) -> None:
    with identity_provider() as provider:
        provider.metadata = {"issuer": "https://another.example"}
        access = with_provider(sqlite_database, tmp_path, provider.address)
        with pytest.raises(ConfigurationError, match="another address"):
            access.oidc.begin(BACK)
        assert kind(access.oidc.begin, BACK) == AWAY
        assert len(provider.asked) == 1
