"""The two files of the audit trail in ``<home>/keys``: the key of its seals, and the anchor that remembers its end.

Without the key nobody can make a valid entry; with the anchor it is seen when the newest entries are cut off.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from stock_pipeline.access.key_files import KeyFolder
from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.locks import file_lock

KEY, ANCHOR = "audit.key", "audit.anchor"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the file remembers: the newest entry, and which key sealed it."""

    sequence: int
    seal: str
    key: str


class AuditFiles:
    """Key and anchor of one home folder.

    Parameters
    ----------
    home
        The home folder; ``keys`` is made in it, readable by its owner alone.
    """

    def __init__(self, home: Path) -> None:
        self._folder = KeyFolder(Path(home) / "keys")
        self.key_path = self._folder.path / KEY
        self.anchor_path = self._folder.path / ANCHOR
        self._key: bytes | None = None

    def __repr__(self) -> str:
        return f"AuditFiles({str(self._folder.path)!r})"

    def key(self, *, may_make: Callable[[], bool] = lambda: True) -> bytes:
        """The key, made when first asked for.

        Parameters
        ----------
        may_make
            Says whether a new key may be made where there is none: not when there are entries already. Another
            process may make the key and an entry in the meantime, so the file is looked for once more.

        Raises
        ------
        IntegrityError
            There is no key but there are entries, or the file holds no key.
        """
        if self._key is None:
            if not self.key_path.exists() and not may_make() and not self.key_path.exists():
                raise IntegrityError(
                    "the key of the audit trail is missing, and there are entries that were sealed with it",
                    value=str(self.key_path),
                    fix="put the file back from the backup of the home folder",
                )
            self._key = self._parse(self._folder.obtain(KEY, lambda: secrets.token_hex(32).encode()))
        return self._key

    def _parse(self, content: bytes) -> bytes:
        try:
            key = bytes.fromhex(content.decode("ascii").strip())
        except ValueError:
            key = b""
        if len(key) < 32:
            raise IntegrityError(
                "the key file of the audit trail holds no key",
                value=str(self.key_path),
                allowed="at least 64 hexadecimal digits",
                fix="put the file back from the backup of the home folder",
            )
        return key

    def fingerprint(self) -> str:
        """Tells keys apart without giving one away."""
        return hmac.new(self.key(), b"fingerprint", hashlib.sha256).hexdigest()[:16]

    def genesis(self) -> str:
        """What stands for the seal before the first entry."""
        return hmac.new(self.key(), b"genesis", hashlib.sha256).hexdigest()

    def anchor(self) -> Anchor | None:
        """What the file remembers; ``None`` where there is no file.

        Raises
        ------
        IntegrityError
            The file is not as it was written.
        """
        try:
            fields = json.loads(self.anchor_path.read_text())
            anchor = Anchor(**fields)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise IntegrityError("the anchor of the audit trail is unreadable", value=str(self.anchor_path)) from None
        if type(anchor.sequence) is not int or type(anchor.seal) is not str or type(anchor.key) is not str:
            raise IntegrityError("the anchor of the audit trail is unreadable", value=str(self.anchor_path))
        return anchor

    def advance(self, end: Callable[[], tuple[int, str]]) -> None:
        """Remember a new end unless a later one is remembered already; never raises.

        Parameters
        ----------
        end
            Gives number and seal of the newest entry.
        """
        try:
            with self._turn():
                sequence, seal = end()
                known = self.anchor()
                if known is None or known.sequence < sequence:
                    self._write_anchor(sequence, seal)
        except Exception as error:  # the entry is committed: the work that it tells of must go on
            _log.error("the anchor of the audit trail was not written", error=error)

    def set_anchor(self, sequence: int, seal: str) -> None:
        """Remember an end whatever was remembered before."""
        with self._turn():
            self._write_anchor(sequence, seal)

    def _turn(self) -> AbstractContextManager[None]:
        return file_lock(self._folder.path / ".audit.lock")

    def _write_anchor(self, sequence: int, seal: str) -> None:
        """Replace the file at one stroke. It is not forced to the disk: every entry would wait for that."""
        descriptor, draft = tempfile.mkstemp(dir=self._folder.path, prefix=f".{ANCHOR}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(Anchor(sequence, seal, self.fingerprint())), file)
            os.replace(draft, self.anchor_path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
