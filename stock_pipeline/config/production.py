"""What ``environment: prod`` refuses, because it would be unsafe with other people's machines around."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from stock_pipeline.config.settings import Settings
from stock_pipeline.config.storage import ENVIRONMENT_VALUE

_SECRET_OPTION = re.compile(r"(password|secret|token|access_?key(?!_id)|account_?key|credential)", re.IGNORECASE)


def unsafe(settings: Settings) -> list[str]:
    """Find what is unsafe in production: one line each, key first; empty in other environments.

    Parameters
    ----------
    settings
        As written, before ``env:NAME`` values are looked up: what is read from a variable is not in the file.
    """
    if settings.environment != "prod":
        return []
    faults = []
    if not is_loopback(settings.services.host):
        faults.append(
            f"services.host: {settings.services.host!r} would open services that ask nobody for a password to other "
            "machines; allowed in prod: 127.0.0.1, ::1 or localhost, behind a proxy that asks for a log-in"
        )
    if any(not target.startswith(ENVIRONMENT_VALUE) for target in settings.alerts.targets):
        faults.append("alerts.targets: an address holds secrets and must not be in a file; allowed in prod: env:NAME")
    access = settings.access
    if access.secure_cookies is False:
        faults.append("access.secure_cookies: false lets a log-in travel unencrypted; allowed in prod: true or null")
    if access.anonymous_role is not None:
        faults.append("access.anonymous_role: requests without a log-in get nothing in prod; allowed: null")
    if access.public_url is not None and not access.public_url.startswith("https://"):
        faults.append(f"access.public_url: {access.public_url!r} is not encrypted; allowed in prod: https://...")
    if _has_password(access.redis):
        faults.append("access.redis: a password must not be in a file; allowed in prod: env:NAME")
    workers = settings.tasks.workers
    if workers is not None and _has_password(workers.broker):
        faults.append("tasks.workers.broker: a password must not be in a file; allowed in prod: env:NAME")
    storage = settings.storage
    for key, value in sorted(storage.options.items()):
        if _SECRET_OPTION.search(key) and not value.startswith(ENVIRONMENT_VALUE):
            faults.append(f"storage.options.{key}: a secret must not be in a file; allowed in prod: env:NAME")
    for name in ("lake", "mlflow", "artifacts", "metadata", "dagster"):
        if _has_password(getattr(storage, name)):
            faults.append(f"storage.{name}: a password must not be in a file; allowed in prod: env:NAME")
    return faults


def is_loopback(host: str) -> bool:
    """Whether a host name or address reaches this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _has_password(address: str | None) -> bool:
    if address is None or "://" not in address:
        return False
    try:
        return urlsplit(address).password is not None
    except ValueError:
        return True
