"""Where the services of a configuration answer: for other processes, and for people with a browser."""

from __future__ import annotations

from stock_pipeline.config.settings import Settings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Who listens everywhere can be reached on this machine."""


def console(settings: Settings) -> str:
    """Address of console and API for people: as configured, else that of this machine."""
    return (settings.access.public_url or on_this_machine(settings, settings.services.api_port)).rstrip("/")


def dagster(settings: Settings) -> str:
    """Address of Dagster's web server for other processes, without ``/graphql``."""
    if settings.tasks.dagster_url is not None:
        return settings.tasks.dagster_url.rstrip("/")
    return on_this_machine(settings, settings.services.dagster_port) + settings.services.dagster_path


def dagster_page(settings: Settings, below: str = "") -> str:
    """Page of Dagster's web UI for people; `below` is a path without a leading slash."""
    services = settings.services
    return f"{_seen(settings, services.dagster_port, services.dagster_path)}/{below}"


def mlflow_page(settings: Settings, below: str = "") -> str:
    """Page of MLflow's web UI for people; `below` is a path without a leading slash."""
    services = settings.services
    return f"{_seen(settings, services.mlflow_port, services.mlflow_path)}/{below}"


def on_this_machine(settings: Settings, port: int) -> str:
    """Address of a port of the services."""
    host = settings.services.host.strip("[]")
    host = _EVERYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _seen(settings: Settings, port: int, path: str) -> str:
    """A UI with a path of its own stands behind the same name as the console."""
    if path and settings.access.public_url is not None:
        return console(settings) + path
    return on_this_machine(settings, port) + path
