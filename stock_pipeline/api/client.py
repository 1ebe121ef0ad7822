"""Where a request comes from, as far as that can be believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from stock_pipeline.access.principal import Origin

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

_LONGEST_AGENT = 300


def origin(request: HTTPConnection) -> Origin:
    """Address, program and id of a request; made once a request."""
    known: Origin | None = getattr(request.state, "origin", None)
    if known is None:
        agent = request.headers.get("user-agent", "")
        known = Origin(
            address=client_address(request, request.app.state.trusted_proxies),
            user_agent="".join(character if character.isprintable() else " " for character in agent)[:_LONGEST_AGENT],
            request_id=getattr(request.state, "request_id", None),
        )
        request.state.origin = known
    return known


def of_own_page(request: HTTPConnection, source: str) -> bool:
    """Whether an ``Origin`` is that of a page of this service, under the name that was asked or the public one."""
    try:
        page = urlsplit(source)
        public = request.app.state.service.settings.access.public_url
        allowed = {request.headers.get("host", "").lower()} | ({urlsplit(public).netloc.lower()} if public else set())
    except ValueError:
        return False
    return page.scheme in ("http", "https") and page.netloc.lower() in allowed


def networks(names: Sequence[str]) -> Networks:
    """Parse the networks of ``access.trusted_proxies``."""
    return tuple(ipaddress.ip_network(name) for name in names)


def client_address(request: HTTPConnection, trusted: Networks) -> str:
    """Address of the client: of the connection, or what a proxy of one's own says about it.

    ``X-Forwarded-For`` is read from its end, where the nearest proxy wrote, and believed only as far as each address
    is that of a trusted proxy: what a client writes into it itself counts for nothing.
    """
    address = request.client.host if request.client else ""
    if not trusted or not _within(address, trusted):
        return address
    hops = [hop.strip() for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
    for hop in reversed(hops):
        parsed = _parse(hop)
        if parsed is None:
            break
        address = str(parsed)
        if not _within(address, trusted):
            break
    return address


@lru_cache(maxsize=4096)
def _within(address: str, trusted: Networks) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
