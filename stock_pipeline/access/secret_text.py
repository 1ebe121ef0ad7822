"""Secrets that are handed out once: made here, and kept as hashes only. And texts of others, made fit to be kept."""

from __future__ import annotations

import hashlib
import re
import secrets

LONGEST = 4096
"""Longer texts are no secret of ours; they are refused before anything is computed."""


def new_secret(prefix: str = "") -> str:
    """A secret of 256 random bits, with a prefix by which scanners of leaked secrets know it."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret: SHA-256, enough because it is random and long."""
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()


def printable(text: str) -> str:
    """A text of a stranger without control characters and half characters: every database can store it."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", text.encode("utf-8", "replace").decode())
