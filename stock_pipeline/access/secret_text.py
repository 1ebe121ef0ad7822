"""Secrets that are handed out once: made here, and kept as hashes only."""

from __future__ import annotations

import hashlib
import secrets

LONGEST = 4096
"""Longer texts are no secret of ours; they are refused before anything is computed."""


def new_secret(prefix: str = "") -> str:
    """A secret of 256 random bits, with a prefix by which scanners of leaked secrets know it."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret: SHA-256, enough because it is random and long."""
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()
