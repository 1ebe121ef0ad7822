"""Runs the service in this process."""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI

from stock_pipeline.api.app import create_app
from stock_pipeline.api.service import Service
from stock_pipeline.config import Settings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.observability.logging import configure_logging, get_logger

if TYPE_CHECKING:
    import uvicorn

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
STOP_SECONDS = 5
PING_SECONDS = 20.0
"""How often a WebSocket is asked whether it is still there, and how long it may take to answer."""
KEEP_SECONDS = 5
"""How long an idle connection is kept; a proxy must close its own before that."""
LARGEST_MESSAGE = 65_536
"""Bytes of a WebSocket message that are read at all; larger ones end the connection unread."""


def serve(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    home: Path | str | None = None,
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    service
        What the routes work with.
    host, port
        Address; loopback by default, and then requests may address loopback names and the public one only.
    home
        State folder for the log file; none where ``None``.

    Raises
    ------
    ConfigurationError
        The address is in use or not of this machine.
    """
    configure_logging(home, component="api")
    app = create_app(service, allowed_hosts=names(service.settings) if is_loopback(host) else None)
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        get_logger(__name__).info("serving", address=f"http://{shown}:{listening.getsockname()[1]}")
        server_of(app).run(sockets=[listening])


def names(settings: Settings) -> tuple[str, ...]:
    """Names under which a service on loopback may be asked: a page of another name that leads here is refused."""
    public = urlsplit(settings.access.public_url or "").hostname
    return LOOPBACK_NAMES if public is None else (*LOOPBACK_NAMES, public)


def server_of(app: FastAPI) -> uvicorn.Server:
    """The server of an application.

    Messages of WebSockets are small and many: they are not compressed, which would cost more than it saves. Live
    connections end with the service, it does not wait for them.
    """
    import uvicorn

    from stock_pipeline.api.patience import LiveServer, PatientHttp, PatientWebSocket

    # its lines about WebSockets hold the address with its query, in which somebody may have put a token
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        http=PatientHttp,
        ws=PatientWebSocket,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return LiveServer(config)


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; raises `ConfigurationError` where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen there ({error.strerror or error})",
            value=f"{host}:{port}",
            fix="choose another port, or end the program that uses this one",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
