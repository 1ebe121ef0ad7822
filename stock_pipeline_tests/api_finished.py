"""The service over a market that the pipeline has really made; what a test changes is its own copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.config import Settings, load_settings
from stock_pipeline_tests.api_service import signed_in
from stock_pipeline_tests.copies import copy_market
from stock_pipeline_tests.services import free_port

PATIENT: dict[str, Any] = {
    "passwords": {"memory_kib": 8, "passes": 1, "lanes": 1},
    "limits": {"login": "10000/minute", "write": "10000/minute", "read": "100000/minute"},
}


def copied(finished: Settings, target: Path, **changes: Any) -> Settings:
    """A copy of a finished market, home folder included, with other settings where they are given."""
    import yaml

    copy_market(finished.config_file.parent, target)
    config = target / "market.yaml"
    # nobody answers where Dagster should be, whatever else runs on this machine
    services = {"dagster_port": free_port()}
    content = {**yaml.safe_load(config.read_text()), "access": PATIENT, "services": services, **changes}
    config.write_text(yaml.safe_dump(content))
    return load_settings(config, environment={})


def app_of(settings: Settings) -> FastAPI:
    """The application of a market, with its newest publication read."""
    app = create_app(Service(settings), poll_seconds=60)
    app.state.publications.refresh()
    return app


def all_pages(client: TestClient, path: str, **parameters: Any) -> list[Any]:
    """The items of every page of a list."""
    items, cursor = [], None
    while True:
        answer = client.get(path, params={**parameters, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return items


@contextmanager
def taken_away(path: Path) -> Iterator[None]:
    """Move a file or folder aside for the length of a ``with`` block."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        aside.rename(path)


def clients(app: FastAPI, *roles: str) -> tuple[TestClient, ...]:
    """One client a role, logged in."""
    return tuple(signed_in(app, role) for role in roles)
