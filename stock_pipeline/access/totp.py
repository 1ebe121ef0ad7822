"""The second factor: codes of an authenticator app (TOTP, RFC 6238), each of which counts once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyotp
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.roles import GOVERNS
from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.storage.database.tables.accounts import AccountRow, SessionRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

_KEY_FILE = "totp.key"
_STEP = 30
_WINDOW = 1
"""Steps of 30 s by which the clock of a telephone may differ."""


class SecondFactor:
    """Sets up, checks and removes the second factor of accounts."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def required(self, permissions: frozenset[str]) -> bool:
        """Whether the settings want a second factor from whoever holds these permissions."""
        policy = self._access.settings.second_factor
        return policy == "everyone" or (policy == "administrators" and not GOVERNS.isdisjoint(permissions))

    def begin(self, name: str) -> tuple[str, str]:
        """Make a secret for an account; it counts once `confirm` has seen a code of it.

        Returns
        -------
        tuple
            The secret to type in, and the ``otpauth://`` address for a QR code.

        Raises
        ------
        AccessError
            409 ``second-factor-exists``.
        """
        secret = pyotp.random_base32()
        with Session(self._access.engine) as session, session.begin():
            row = self._access.accounts.row(session, name)
            if row.totp_confirmed_at is not None:
                raise AccessError(
                    409, "second-factor-exists", "the account has a second factor", fix="remove the old one first"
                )
            row.totp_secret = self._cipher.encrypt(secret.encode())
            row.totp_last_step = None
            shown = row.name
        return secret, pyotp.TOTP(secret).provisioning_uri(name=shown, issuer_name="Stock pipeline")

    def confirm(self, name: str, code: str, *, by: Principal | str | None = None, origin: Origin | None = None) -> None:
        """Put the secret of `begin` in force by a code of it; the session in which it is given has its second factor.

        Raises
        ------
        AccessError
            409 ``second-factor-exists`` or ``second-factor-not-begun``; 422 ``invalid-code``.
        """
        with Session(self._access.engine) as session, session.begin():
            versions.bump(session)
            row = self._access.accounts.row(session, name)
            if row.totp_confirmed_at is not None:
                raise AccessError(409, "second-factor-exists", "the account has a second factor already")
            if row.totp_secret is None:
                raise AccessError(409, "second-factor-not-begun", "no second factor was begun", fix="begin one first")
            if not self.accept(session, row, code):
                raise AccessError(
                    422, "invalid-code", "the code is not right", fix="wait for the next code; check the clock"
                )
            now = self._access.clock()
            row.totp_confirmed_at = now
            if isinstance(by, Principal) and by.session_id is not None:
                session.execute(update(SessionRow).where(SessionRow.id == by.session_id).values(second_factor_at=now))
            self._access.accounts.note(session, "account.second_factor_on", row, by or name, origin)

    def remove(self, name: str, by: Principal | str, origin: Origin | None = None) -> None:
        """Do without a second factor again. The caller has made sure that it may: by a code, or as administrator."""
        with Session(self._access.engine) as session, session.begin():
            self.clear(session, self._access.accounts.row_to_change(session, name, by), by, origin)

    def clear(self, session: Session, row: AccountRow, by: Principal | str, origin: Origin | None) -> None:
        """Remove the second factor inside a transaction."""
        versions.bump(session)
        row.totp_secret = row.totp_confirmed_at = row.totp_last_step = None
        session.execute(update(SessionRow).where(SessionRow.account_id == row.id).values(second_factor_at=None))
        self._access.accounts.note(session, "account.second_factor_off", row, by, origin)

    def accept(self, session: Session, row: AccountRow, code: str | None) -> bool:
        """Whether a code is right and new; it is used up in this transaction, whoever else tries it meanwhile."""
        digits = (code or "").replace(" ", "")
        if row.totp_secret is None or len(digits) != 6 or not digits.isascii() or not digits.isdigit():
            return False
        totp = pyotp.TOTP(self._secret(row))
        present = int(self._access.clock().timestamp()) // _STEP
        steps = [
            step
            for step in range(present - _WINDOW, present + _WINDOW + 1)
            if pyotp.utils.strings_equal(totp.at(step * _STEP), digits)
        ]
        if not steps:
            return False
        used = session.execute(
            update(AccountRow)
            .where(
                AccountRow.id == row.id,
                or_(AccountRow.totp_last_step.is_(None), AccountRow.totp_last_step < steps[-1]),
            )
            .values(totp_last_step=steps[-1])
            .execution_options(synchronize_session=False)
        )
        return used.rowcount == 1  # type: ignore[attr-defined]

    def _secret(self, row: AccountRow) -> str:
        assert row.totp_secret is not None
        try:
            return self._cipher.decrypt(row.totp_secret).decode()
        except InvalidToken as error:
            raise IntegrityError(
                f"the second factor of {row.name} cannot be read with the key in the home folder",
                fix=f"restore {self._access.key_files.path / _KEY_FILE}, or: stock-pipeline users reset {row.name} "
                "--second-factor",
            ) from error

    @property
    def _cipher(self) -> Fernet:
        return Fernet(self._access.key_files.obtain(_KEY_FILE, Fernet.generate_key))
