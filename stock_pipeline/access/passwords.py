"""What a password must be like, and its hash (Argon2id)."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from importlib.resources import files

from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError
from argon2.low_level import error_to_str, lib
from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from stock_pipeline.access.principal import AccessError
from stock_pipeline.config.access import PasswordSettings

_AT_ONCE = 4
"""Hashes computed at the same time: each takes much memory, and a flood of log-ins must not take it all."""

_LEET = str.maketrans("@4301!$57+", "aaeoiisstt")
_TAIL = re.compile(r"[\W\d_]+$")
_HEAD = re.compile(r"^[\W\d_]+")
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz", "1234567890", "qwertyuiopasdfghjklzxcvbnm", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
)  # fmt: skip


_LACKING = {error_to_str(lib.ARGON2_MEMORY_ALLOCATION_ERROR), error_to_str(lib.ARGON2_THREAD_FAIL)}


class _Hasher(Argon2Hasher):
    """Tells a wrong password, which a damaged hash makes of every one, from a want of memory or threads."""

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:
        try:
            return self._hasher.verify(hash, password)
        except (VerifyMismatchError, InvalidHashError):
            return False
        except VerificationError as error:
            if str(error) in _LACKING:
                raise
            return False


class Passwords:
    """Judges, hashes and verifies passwords.

    Parameters
    ----------
    settings
        Length of a password, and what its hash costs.
    """

    def __init__(self, settings: PasswordSettings) -> None:
        self._settings = settings
        self._hasher = PasswordHash(
            (_Hasher(time_cost=settings.passes, memory_cost=settings.memory_kib, parallelism=settings.lanes),)
        )
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def check(self, password: str, name: str) -> None:
        """Refuse a password that breaks a rule.

        Raises
        ------
        AccessError
            422 ``weak-password``; ``detail["rule"]`` is ``too-short``, ``too-long``, ``control-characters``,
            ``contains-name``, ``too-simple`` or ``common``. The password is in no part of it.
        """
        text = _normal(password)
        settings = self._settings
        if len(text) < settings.min_length:
            raise _weak("too-short", "the password is too short", f"at least {settings.min_length} characters")
        if len(text) > settings.max_length:
            raise _weak("too-long", "the password is too long", f"at most {settings.max_length} characters")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise _weak("control-characters", "the password holds control characters", "printable characters")
        folded = text.casefold()
        if _holds_name(folded, name.casefold()):
            raise _weak("contains-name", "the password is built on the account's name", "words that are not the name")
        if len(set(folded)) < 5 or _is_row(folded):
            raise _weak("too-simple", "the password is a repetition or a row of keys", "several unrelated words")
        if _is_common(folded):
            raise _weak("common", "the password is on the list of common ones", "several unrelated words")

    def hash(self, password: str) -> str:
        """Hash of a password.

        Raises
        ------
        AccessError
            503 ``password-unverified``: the machine lacks the memory or the threads to compute it.
        """
        with self._turn():
            return self._hasher.hash(_bytes(_normal(password)))

    def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Compare a password with a stored hash.

        Without a stored hash the same work is done, so that the time does not tell whether there is an account.

        Returns
        -------
        tuple
            Whether it is the password, and a new hash to store where the configured cost has changed.

        Raises
        ------
        AccessError
            503 ``password-unverified``: the machine lacks the memory or the threads to find out.
        """
        text = _normal(password)
        if len(text) > self._settings.max_length:
            text = text[: self._settings.max_length]
            stored = None
        with self._turn():
            try:
                right, renewed = self._hasher.verify_and_update(_bytes(text), stored or self._nobody)
            except UnknownHashError:
                right, renewed = False, None
        return (right, renewed) if stored else (False, None)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One of the few hashes that are computed at the same time."""
        try:
            with self._turns:
                yield
        except (VerificationError, HashingError) as error:
            raise AccessError(
                503, "password-unverified", f"passwords cannot be verified at the moment: {error}",
                fix="try again soon", retry_after=5.0,
            ) from error  # fmt: skip

    @cached_property
    def _nobody(self) -> str:
        """A hash of today's cost that belongs to no account."""
        return self._hasher.hash("the password of nobody")


def _normal(password: str) -> str:
    """One form of texts that look the same, whatever keyboard they come from."""
    return unicodedata.normalize("NFKC", password)


def _bytes(text: str) -> bytes:
    """A password as it is hashed; half characters are in no stored one."""
    return text.encode("utf-8", "replace")


def _weak(rule: str, what: str, allowed: str) -> AccessError:
    return AccessError(
        422, "weak-password", what, allowed=allowed, fix="choose another password", detail={"rule": rule}
    )


def _holds_name(password: str, name: str) -> bool:
    """Whether a name, or the part before its @, is in a password; a short one only where little else is there."""
    parts = {part for part in (name, name.split("@")[0]) if len(part) >= 3}
    return any(
        (part in password or part[::-1] in password) and (len(part) >= 5 or 2 * len(part) >= len(password) - 6)
        for part in parts
    )


def _is_row(password: str) -> bool:
    """Whether a password is one short piece again and again, or keys in their order."""
    if any(len(password) % size == 0 and password == password[:size] * (len(password) // size) for size in (1, 2, 3)):
        return True
    rows = [row * (len(password) // len(row) + 2) for row in _ROWS]
    return any(password in row or password in row[::-1] for row in rows)


def _is_common(password: str) -> bool:
    """Whether a password is a common one, also with digits around it, letters exchanged for signs, or said twice."""
    known, tailless = _common(), _TAIL.sub("", password)
    forms = {password, tailless, _HEAD.sub("", password), _HEAD.sub("", tailless)}
    forms |= {form.translate(_LEET) for form in forms}
    forms |= {form[: len(form) // 2] for form in forms if form == form[: len(form) // 2] * 2}
    forms |= {form.replace(" ", "") for form in forms}
    return any(form in known for form in forms)


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    text = files("stock_pipeline.access").joinpath("data/common_passwords.txt").read_text(encoding="utf-8")
    entries = text.split("\n\n", 1)[1].split()
    words = {_TAIL.sub("", entry) for entry in entries}
    return frozenset(entries) | {word for word in words if len(word) >= 6}
