"""Seals: cookies, keys and tickets show that this service made them, as access tokens do by their signature.

A sealed proof is always looked up, however many made-up ones came from the same address. A seal says nothing about
whether a proof is still good, and a proof without one, from before there were seals, is as good as another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from functools import cached_property

from stock_pipeline.access.key_files import KeyFolder

_BYTES, _LETTERS = 9, 12
"""Length of a seal, and of its text: too long to be guessed as often as an address is heard."""


class Seals:
    """Seals secrets when they are made, and recognises them.

    Parameters
    ----------
    files
        Folder of the key.
    """

    def __init__(self, files: KeyFolder) -> None:
        self._files = files

    def seal(self, secret: str) -> str:
        """A secret with its seal, which is part of it from now on."""
        return secret + self._of(secret)

    def holds(self, text: str) -> bool:
        """Whether a secret was sealed here."""
        given = text[-_LETTERS:].encode("utf-8", "backslashreplace")
        return hmac.compare_digest(given, self._of(text[:-_LETTERS]).encode())

    def _of(self, secret: str) -> str:
        mac = hmac.new(self._key, secret.encode("utf-8", "backslashreplace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac[:_BYTES]).decode()

    @cached_property
    def _key(self) -> bytes:
        return self._files.obtain("seal.key", lambda: secrets.token_bytes(32))
