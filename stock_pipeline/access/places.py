"""Where somebody is: the network of an address, the device of a user agent, and how far known places are apart."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections.abc import Sequence

from stock_pipeline.config.access import Place

EARTH_KM = 6371.0088

_NUMBERS = re.compile(r"[\d._]+")


def network_of(address: str) -> str:
    """The /24 (IPv4) or /48 (IPv6) around an address; a text that is no address stands for itself."""
    parsed = _parsed(address)
    if parsed is None:
        return address[:64]
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


def source_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 subscriber has at the least."""
    parsed = _parsed(address)
    if parsed is None:
        return address[:64]
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))


def device_of(user_agent: str) -> str:
    """A short digest of a user agent; versions are left out, so that an update makes no new device."""
    return hashlib.sha256(_NUMBERS.sub("", user_agent).encode("utf-8", "replace")).hexdigest()[:32]


def place_of(address: str | None, places: Sequence[Place]) -> Place | None:
    """The place of an address by the smallest network of the settings that holds it."""
    parsed = _parsed(address or "")
    if parsed is None:
        return None
    holding = [place for place in places if parsed in ipaddress.ip_network(place.network)]
    return max(holding, key=lambda place: ipaddress.ip_network(place.network).prefixlen, default=None)


def distance_km(one: Place, other: Place) -> float:
    """Great-circle distance (haversine)."""
    lat1, lat2 = math.radians(one.latitude), math.radians(other.latitude)
    across = math.radians(other.longitude - one.longitude)
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin(across / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
