"""Makes the service of a lake that a test has filled, and logs people in to it."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline.access.accounts import Account
from stock_pipeline.access.principal import AccessError
from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.config import Settings
from stock_pipeline.config.loading import load_settings
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PublicationCache
from stock_pipeline_tests.accounts import CHEAP

PASSWORD = "a quiet sentence for tests 7"


def settings_for(
    lake: Lake | str | None = None,
    home: Path | None = None,
    *,
    variables: dict[str, str] | None = None,
    **sections: Any,
) -> Settings:
    """A configuration of a small market with its own home folder, where these environment variables are set."""
    import yaml

    home = home or Path(tempfile.mkdtemp(prefix="service-"))
    content: dict[str, Any] = {
        "home": str(home),
        "market": {"name": "small", "calendar": "XNYS"},
        "source": {"kind": "files", "path": "prices"},
        **sections,
        "access": {"passwords": CHEAP, **sections.get("access", {})},
    }
    if lake is not None:
        content["storage"] = {"lake": lake if isinstance(lake, str) else lake.root, **content.get("storage", {})}
    home.mkdir(parents=True, exist_ok=True)
    (home / "market.yaml").write_text(yaml.safe_dump(content))
    return load_settings(home / "market.yaml", environment=variables or {})


def service_for(lake: Lake, cache: PublicationCache | None = None, **sections: Any) -> Service:
    """The service of a lake; its other state is in a fresh folder."""
    service = Service(settings_for(lake, **sections))
    service.lake = lake
    if cache is not None:
        service.publications = cache
    return service


def app_for(
    lake: Lake, cache: PublicationCache | None = None, *, sections: dict[str, Any] | None = None, **options: Any
) -> FastAPI:
    """The application of a lake."""
    return create_app(service_for(lake, cache, **(sections or {})), **options)


def signed_in(app: FastAPI, role: str | None = "viewer", name: str | None = None, **options: Any) -> TestClient:
    """A client of an application that has logged in with a real account, made where it is not there yet.

    Parameters
    ----------
    app
        The application; its lifespan runs only within a ``with`` block of the client.
    role
        Role of the account; none where ``None``.
    name
        Of the account; that of the role by default.
    options
        See ``TestClient``.
    """
    name = name or f"the-{role}"
    add_account(app, name, role)
    client = TestClient(app, **options)
    answer = client.post("/api/auth/login", json={"name": name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return client


def add_account(app: FastAPI, name: str, role: str | None) -> Account:
    """An account with the password of the tests."""
    accounts = app.state.service.access.accounts
    try:
        return accounts.get(name)
    except AccessError:
        return accounts.create(name, password=PASSWORD, roles=(role,) if role else (), by="system")


class Clock:
    """The present instant, as a test wants it."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **time: float) -> None:
        """Let time pass."""
        self.now += timedelta(**time)


def with_clock(app: FastAPI, clock: Clock) -> FastAPI:
    """Let an application that has not been used yet go by a test's clock."""
    app.state.service.access.clock = clock
    return app


def problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    """Check that an answer is a problem document of a status and kind, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["type"] == f"urn:stock-pipeline:problem:{kind}"
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"]
    return body
