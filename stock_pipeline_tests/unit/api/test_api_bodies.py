"""How deep bodies are nested, and whose address a request has, against plain computations."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from stock_pipeline.api.bodies import _depth, _holds_nul
from stock_pipeline.api.client import client_address, networks

pytestmark = pytest.mark.requirement("R8.2")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


def plain_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((plain_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((plain_depth(item) for item in value), default=0)
    return 0


@given(values)
def test_depth_is_that_of_a_walk_whatever_texts_hold(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert _depth(text.encode("utf-8", "surrogatepass")) == plain_depth(value)


@given(values)
def test_a_nul_is_found_wherever_it_is(value: Any) -> None:
    assert _holds_nul(value) == ("\\u0000" in json.dumps(value).replace("\\\\", ""))
    assert _holds_nul([{"a": [value, "x\0"]}])
    assert _holds_nul({"x\0": 1})


addresses = st.ip_addresses().map(str)


@given(
    st.lists(addresses, max_size=5),
    addresses,
    st.lists(st.sampled_from(["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/1", "::/2"]), max_size=3),
)
def test_the_address_is_the_nearest_that_no_own_proxy_has(hops: list[str], peer: str, trusted: list[str]) -> None:
    request = Request(
        {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", ", ".join(hops).encode())]}
    )
    found = client_address(request, networks(trusted))
    own = [ipaddress.ip_network(name) for name in trusted]

    def is_own(address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed.version == network.version and parsed in network for network in own)

    chain = [*hops, peer]
    while len(chain) > 1 and is_own(chain[-1]):
        chain.pop()
    assert ipaddress.ip_address(found) in {
        ipaddress.ip_address(chain[-1]),
        getattr(ipaddress.ip_address(chain[-1]), "ipv4_mapped", None),
    }
    if not is_own(peer):
        assert found == peer


def test_the_limits_of_the_parser_are_not_met_before_ours() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(b"[" * 2000 + b"]" * 2000)
