"""A value under a secret key is never written, however deep it lies."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.observability.redaction import redact

KEYS = [
    "password",
    "db_password",
    "TOKEN",
    "refresh_token",
    "apiKey",
    "client_secret",
    "authorization",
    "aws_access_key",
]


@given(
    secret=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=30),
    key=st.sampled_from(KEYS),
    depth=st.integers(0, 12),
)
def test_a_value_under_a_secret_key_is_never_written(secret: str, key: str, depth: int) -> None:
    value: object = {key: f"~{secret}~"}
    for level in range(depth):
        value = {"inner": value} if level % 2 else [value]
    assert f"~{secret}~" not in json.dumps(redact({"top": value}))
