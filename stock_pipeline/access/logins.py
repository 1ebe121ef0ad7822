"""Log-in and log-out, renewal of tokens, and what a person does with a one-time link.

Whatever is wrong with a log-in, the answer and the work are the same: nobody learns which accounts there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError as DatabaseIntegrityError
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.accounts import NAME, Account, key_of, mark_of
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.secret_text import LONGEST, digest, new_secret
from stock_pipeline.access.sessions import SessionInfo, SessionKind, info
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow, RefreshTokenRow, SessionRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access


RECENT = timedelta(minutes=10)
"""How long a log-in is proof enough for accounts that have neither a password nor a second factor here."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client gets at log-in and at each renewal; neither token is in its text form.

    Attributes
    ----------
    access_token
        A JWT.
    refresh_token
        Good for one renewal.
    expires_in
        Seconds that the access token is good for.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class LogIn:
    """A log-in that succeeded.

    Attributes
    ----------
    account, session
        Whose, and its session.
    tokens
        For clients (``kind="token"``).
    cookie
        Secret of the cookie, for browsers (``kind="console"``).
    """

    account: Account
    session: SessionInfo
    tokens: TokenPair | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reset:
    """A password that was set by a link.

    Attributes
    ----------
    account
        Whose.
    sessions_ended, keys_revoked
        How many sessions and API keys that ended.
    """

    account: Account
    sessions_ended: int
    keys_revoked: int


class Logins:
    """Lets people in and out."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def log_in(
        self,
        name: str,
        password: str,
        *,
        code: str | None = None,
        kind: Literal["token", "console"] = "token",
        origin: Origin | None = None,
    ) -> LogIn:
        """Open a session.

        Parameters
        ----------
        name, password
            As given.
        code
            Of the authenticator app, where the account has a second factor.
        kind
            ``token`` for clients, ``console`` for browsers.
        origin
            From where.

        Raises
        ------
        AccessError
            401 ``invalid-credentials`` or ``second-factor-required``; 423 ``account-locked``;
            429 ``too-many-attempts`` with ``retry_after``.
        """
        origin = origin or Origin()
        account = self.prove(name, password, code, origin)
        return self.enter(account, kind, origin, second_factor=account.second_factor)

    def prove(self, name: str, password: str, code: str | None, origin: Origin, *, need_code: bool = True) -> Account:
        """Make sure that somebody is who they say; failures count, wherever the password is asked for.

        Raises
        ------
        AccessError
            As for `log_in`.
        """
        access = self._access
        if not NAME.fullmatch(name):
            name = f"?{digest(name)[:32]}"  # nobody's, and fit for every database
        access.watch.check(name, origin)
        with Session(reading(access.engine)) as session:
            row = session.scalar(select(AccountRow).where(AccountRow.name_key == key_of(name)))
        right, renewed = access.passwords.verify(password, None if row is None else row.password_hash)
        if row is None or not right or row.disabled_at is not None:
            raise self._refused(name, origin)
        if need_code and row.totp_confirmed_at is not None:
            if not code:
                # not a failed log-in, which browsers would have with every one; but somebody knew the password
                access.audit.record(
                    "session.code_asked",
                    actor=Principal("anonymous", "anonymous"),
                    origin=origin,
                    object=("account", row.name),
                    result="refused",
                )
                raise AccessError(
                    401, "second-factor-required", "the code of the authenticator app is missing", fix="send the code"
                )
            with Session(access.engine) as session, session.begin():
                accepted = access.second_factor.accept(session, row, code)
            if not accepted:
                raise self._refused(name, origin)
        if renewed is not None:
            with Session(access.engine) as session, session.begin():
                session.execute(
                    update(AccountRow)
                    .where(AccountRow.id == row.id, AccountRow.password_hash == row.password_hash)
                    .values(password_hash=renewed)
                )
        try:
            account = access.accounts.by_id(row.id)
        except AccessError as error:
            raise _wrong() from error  # deleted since then
        if account.password_mark not in (mark_of(row.password_hash), mark_of(renewed)):
            raise _wrong()  # changed since it was compared
        access.watch.proved(name, origin)
        return account

    def enter(self, account: Account, kind: SessionKind, origin: Origin, *, second_factor: bool) -> LogIn:
        """Open a session for somebody who is known to be who they say."""
        access = self._access
        try:
            finding = access.watch.succeeded(account, origin)
        except DatabaseIntegrityError as error:
            raise _wrong() from error  # deleted since it was proved
        with Session(access.engine) as session, session.begin():
            account_row = session.get(AccountRow, account.id, with_for_update=True)
            if account_row is None or account_row.disabled_at is not None:
                raise _wrong()
            if mark_of(account_row.password_hash) != account.password_mark:
                raise _wrong()  # changed since it was proved
            step_up = finding is not None and not second_factor
            row, secret = access.sessions.open(
                session, account.id, kind, origin, second_factor=second_factor, step_up=step_up
            )
            account_row.last_login_at = access.clock()
            opened = info(row)
            who = Principal(account.name, kind, account.id, session_id=row.id)
            access.audit.record(
                "session.log_in",
                actor=who,
                origin=origin,
                object=("account", account.name),
                detail={"kind": kind, "second_factor": second_factor, "step_up": step_up},
                session=session,
            )
        if kind == "console":
            return LogIn(account, opened, cookie=secret)
        return LogIn(account, opened, tokens=self._pair(account.id, opened.id, secret))

    def log_out(self, principal: Principal, origin: Origin | None = None) -> None:
        """End the session in which this is asked; a key is revoked elsewhere."""
        if principal.session_id is None or principal.kind not in ("token", "console"):
            raise AccessError(409, "no-session", "there is no session to end", fix="revoke the API key instead")
        access = self._access
        with Session(access.engine) as session, session.begin():
            if access.sessions.end(session, SessionRow.id == principal.session_id, "logged out"):
                access.audit.record(
                    "session.log_out",
                    actor=principal,
                    origin=origin,
                    object=("session", principal.session_id),
                    session=session,
                )

    def refresh(self, refresh_token: str, origin: Origin | None = None) -> TokenPair:
        """Give a new pair for a refresh token, which is used up.

        A token that comes a second time is in two hands: its session ends, with everything that came of it.

        Raises
        ------
        AccessError
            401 ``token-missing``, ``token-invalid``, ``token-expired``, ``token-reused``, ``session-revoked``,
            ``account-disabled``.
        """
        access, now = self._access, self._access.clock()
        if not refresh_token:
            raise AccessError(401, "token-missing", "the refresh token is missing")
        hashed, secret = digest(refresh_token[:LONGEST]), new_secret("spr_")
        with Session(access.engine, expire_on_commit=False) as session, session.begin():
            used = session.execute(
                update(RefreshTokenRow)
                .where(RefreshTokenRow.hash == hashed, RefreshTokenRow.used_at.is_(None))
                .values(used_at=now)
                .execution_options(synchronize_session=False)
            )
            found = session.execute(
                select(RefreshTokenRow, SessionRow, AccountRow)
                .join(SessionRow, SessionRow.id == RefreshTokenRow.session_id)
                .join(AccountRow, AccountRow.id == SessionRow.account_id)
                .where(RefreshTokenRow.hash == hashed)
            ).one_or_none()
            if found is None:
                raise AccessError(401, "token-invalid", "the refresh token is not valid", fix="log in again")
            token, row, account = found
            used_before = used.rowcount != 1  # type: ignore[attr-defined]
            if not used_before:
                self._may_go_on(token, row, account)
                access.sessions.add_refresh_token(session, row, secret)
                row.last_used_at = now
        if used_before:
            self._stolen(row, account, origin or Origin())
            raise AccessError(
                401, "token-reused", "the refresh token was used before; its session is over", fix="log in again"
            )
        return self._pair(account.id, row.id, secret)

    def confirm(
        self,
        principal: Principal,
        password: str | None,
        code: str | None = None,
        origin: Origin | None = None,
        *,
        need_code: bool = True,
    ) -> Account:
        """Make sure that it is the owner who changes how one comes in, and not whoever holds the session.

        Parameters
        ----------
        principal
            The session.
        password, code
            As for a log-in. An account without a password gives the code of its second factor; one with neither must
            have logged in within `RECENT`.
        origin
            From where.
        need_code
            Whether an account with a second factor gives its code besides the password.

        Raises
        ------
        AccessError
            As for `log_in`; 409 ``no-session`` or ``no-proof``; 422 ``password-missing``.
        """
        where = origin or Origin()
        try:
            return self._prove_again(principal, password, code, where, need_code=need_code)
        except AccessError as error:
            if error.kind == "no-proof" and self._just_opened(principal):
                return self._access.accounts.get(principal.name)
            raise

    def step_up(
        self, principal: Principal, password: str | None, code: str | None = None, origin: Origin | None = None
    ) -> SessionInfo:
        """Prove oneself again, so that a session that may only read may do everything again.

        Raises
        ------
        AccessError
            As for `log_in`; 409 ``no-session`` or ``no-proof``; 422 ``password-missing``.
        """
        access, account = self._access, self._prove_again(principal, password, code, origin or Origin())
        with Session(access.engine) as session, session.begin():
            versions.bump(session)
            row = session.get(SessionRow, principal.session_id)
            if row is None or row.revoked_at is not None or row.account_id != account.id:
                raise AccessError(401, "session-revoked", "the session is over", fix="log in again")
            row.step_up = False
            if account.second_factor:
                row.second_factor_at = access.clock()
            access.audit.record(
                "session.step_up", actor=principal, origin=origin, object=("session", row.id), session=session
            )
            return info(row)

    def register(
        self, name: str, password: str, invitation: str | None = None, origin: Origin | None = None
    ) -> Account:
        """Make an account for oneself, where the settings let one.

        Raises
        ------
        AccessError
            403 ``registration-closed``; 401 ``link-invalid``; 409 ``account-exists``; 422 as for an account.
        """
        policy = self._access.settings.registration
        if policy == "closed":
            raise AccessError(
                403, "registration-closed", "accounts are made by an administrator here", fix="ask for an account"
            )
        if invitation is None and policy == "invitation":
            raise AccessError(403, "registration-closed", "an account needs an invitation", fix="ask for an invitation")
        if invitation is None:
            role = self._access.settings.registration_role
            return self._make(name, password, role, origin)
        return self._by_link(name, password, invitation, "invitation", origin)

    def set_up(self, name: str, password: str, secret: str, origin: Origin | None = None) -> Account:
        """Make the first administrator by the link that was shown at the start.

        Raises
        ------
        AccessError
            409 ``set-up-done`` where there is one; else as for `register`.
        """
        if self._access.accounts.any_administrator():
            raise _set_up()
        return self._by_link(name, password, secret, "setup", origin)

    def reset_password(self, secret: str, password: str, origin: Origin | None = None) -> Reset:
        """Set a password by a link; all sessions of the account end, and its API keys unless the link keeps them.

        A link for a lost second factor removes that as well.

        Raises
        ------
        AccessError
            401 ``link-invalid``; 422 ``weak-password``: the link can still be used.
        """
        access = self._access
        link = access.links.look(secret)
        if link.account is None:
            raise AccessError(401, "link-invalid", "the link is for a new account", fix="ask for another link")
        access.passwords.check(password, link.account)
        hashed = access.passwords.hash(password)
        with Session(access.engine) as session, session.begin():
            versions.bump(session)
            used = access.links.redeem(secret, "reset", "recovery", session=session)
            row = session.get_one(AccountRow, used.account_id)
            sessions = access.accounts.replace_password(session, row, hashed)
            keys = access.keys.end(session, row.id) if used.revoke_keys else []
            if used.purpose == "recovery":
                access.second_factor.clear(session, row, _stranger(row.name), origin)
            access.accounts.note(
                session,
                "account.reset_password",
                row,
                _stranger(row.name),
                origin,
                detail={"sessions_ended": sessions, "keys_revoked": keys, "keys_kept": not used.revoke_keys},
            )
            account_id = row.id
        return Reset(access.accounts.by_id(account_id), sessions, len(keys))

    # ---------------------------------------------------------------- parts
    def _by_link(
        self, name: str, password: str, secret: str, purpose: Literal["invitation", "setup"], origin: Origin | None
    ) -> Account:
        role = self._access.links.look(secret).role or self._access.settings.registration_role
        return self._make(name, password, role, origin, purpose, secret)

    def _make(
        self,
        name: str,
        password: str,
        role: str,
        origin: Origin | None,
        purpose: Literal["invitation", "setup"] | None = None,
        secret: str = "",
    ) -> Account:
        """Make an account for somebody who is nobody yet; the link is used up together with it."""
        access = self._access
        hashed = access.accounts.prepare(name, password, (role,), "system")
        try:
            with Session(access.engine) as session, session.begin():
                versions.bump(session)
                if purpose == "setup" and access.roles.administrators(session):
                    raise _set_up()
                if purpose is not None:
                    access.links.redeem(secret, purpose, session=session)
                account_id = access.accounts.add(session, name, hashed, (role,), _stranger(name), origin).id
        except DatabaseIntegrityError as error:
            raise access.accounts.exists(name) from error
        return access.accounts.by_id(account_id)

    def _prove_again(
        self, principal: Principal, password: str | None, code: str | None, origin: Origin, *, need_code: bool = True
    ) -> Account:
        """Make sure that a session is still used by its owner."""
        if principal.session_id is None or principal.kind not in ("token", "console"):
            raise AccessError(409, "no-session", "only a session can prove itself again")
        account = self._access.accounts.get(principal.name)
        if not account.has_password:
            self._prove_by_code(account, code, origin)
            return account
        if password is None:
            raise AccessError(422, "password-missing", "the password is missing", fix="send the account's password")
        return self.prove(principal.name, password, code, origin, need_code=need_code)

    def _just_opened(self, principal: Principal) -> bool:
        with Session(reading(self._access.engine)) as session:
            row = session.get(SessionRow, principal.session_id)
        return row is not None and not row.step_up and self._access.clock() - row.created_at < RECENT

    def _prove_by_code(self, account: Account, code: str | None, origin: Origin) -> None:
        """Make sure that it is somebody whose password only the identity provider knows."""
        access = self._access
        if not account.second_factor:
            raise AccessError(
                409, "no-proof", "there is neither a password nor a second factor to prove it by", fix="log in again"
            )
        access.watch.check(account.name, origin)
        with Session(access.engine) as session, session.begin():
            accepted = access.second_factor.accept(session, session.get_one(AccountRow, account.id), code)
        if not accepted:
            raise self._refused(account.name, origin)
        access.watch.proved(account.name, origin)

    def _stolen(self, row: SessionRow, account: AccountRow, origin: Origin) -> None:
        access = self._access
        with Session(access.engine) as session, session.begin():
            ended = access.sessions.end(session, SessionRow.id == row.id, "refresh token used twice")
            access.audit.record(
                "session.token_reuse",
                actor=_stranger(account.name),
                origin=origin,
                object=("session", row.id),
                result="refused",
                detail={"session_ended": bool(ended)},
                session=session,
            )
        if ended:
            access.watch.token_reused(account.name, row.id, origin)

    def _may_go_on(self, token: RefreshTokenRow, row: SessionRow, account: AccountRow) -> None:
        now = self._access.clock()
        if account.disabled_at is not None:
            raise AccessError(401, "account-disabled", "the account is disabled", fix="ask an administrator")
        if row.revoked_at is not None:
            raise AccessError(401, "session-revoked", "the session is over", fix="log in again")
        if token.expires_at <= now or row.expires_at <= now:
            raise AccessError(401, "token-expired", "the refresh token has run out", fix="log in again")

    def _pair(self, account_id: int, session_id: str, refresh_token: str) -> TokenPair:
        return TokenPair(
            self._access.tokens.issue(account_id, session_id), refresh_token, self._access.settings.access_minutes * 60
        )

    def _refused(self, name: str, origin: Origin) -> AccessError:
        self._access.watch.failed(name, origin)
        return _wrong()


def _wrong() -> AccessError:
    return AccessError(
        401, "invalid-credentials", "name, password or code is wrong", fix="check them, or ask for a reset link"
    )


def _stranger(name: str) -> Principal:
    """Whoever acts under a name without a session; the audit trail says so."""
    return Principal(name, "anonymous")


def _set_up() -> AccessError:
    return AccessError(409, "set-up-done", "there is an administrator already", fix="log in")
