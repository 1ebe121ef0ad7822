"""Runs the service in this process."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from stock_pipeline.api.app import create_app
from stock_pipeline.observability.logging import Level, configure_logging
from stock_pipeline.storage.lake import Lake

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def serve(
    lake: Lake,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    home: Path | str | None = None,
    poll_seconds: float = 1.0,
    allowed_hosts: Sequence[str] | None = None,
    log_level: Level = "INFO",
    console: bool = True,
) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    lake
        Where the publications are.
    host, port
        Address; loopback by default, because there is no log-in.
    home
        State folder for the log file; none where ``None``.
    poll_seconds
        How often a new publication is looked for.
    allowed_hosts
        Names that requests may address. Where ``None``: the loopback names on loopback, any otherwise.
    log_level, console
        See `observability.logging.configure_logging`.
    """
    import uvicorn

    configure_logging(home, component="api", level=log_level, console=console)
    if allowed_hosts is None and is_loopback(host):
        allowed_hosts = LOOPBACK_NAMES
    app = create_app(lake, poll_seconds=poll_seconds, allowed_hosts=allowed_hosts)
    uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False)


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
