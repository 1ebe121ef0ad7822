"""Makes the service of a lake that a test has filled."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.config import Settings
from stock_pipeline.config.loading import load_settings
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PublicationCache


def settings_for(lake: Lake | str | None = None, home: Path | None = None, **sections: Any) -> Settings:
    """A configuration of a small market with its own home folder."""
    import yaml

    home = home or Path(tempfile.mkdtemp(prefix="service-"))
    content: dict[str, Any] = {
        "home": str(home),
        "market": {"name": "small", "calendar": "XNYS"},
        "source": {"kind": "files", "path": "prices"},
        **sections,
    }
    if lake is not None:
        content["storage"] = {"lake": lake if isinstance(lake, str) else lake.root, **content.get("storage", {})}
    home.mkdir(parents=True, exist_ok=True)
    (home / "market.yaml").write_text(yaml.safe_dump(content))
    return load_settings(home / "market.yaml", environment={})


def service_for(lake: Lake, cache: PublicationCache | None = None, **sections: Any) -> Service:
    """The service of a lake; its other state is in a fresh folder."""
    service = Service(settings_for(lake, **sections))
    service.lake = lake
    if cache is not None:
        service.publications = cache
    return service


def app_for(lake: Lake, cache: PublicationCache | None = None, **options: Any) -> FastAPI:
    """The application of a lake."""
    return create_app(service_for(lake, cache), **options)
