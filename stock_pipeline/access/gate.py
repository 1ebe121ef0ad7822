"""The gate: who is behind a token, key or cookie, and what they may do at this moment.

What was found out once is kept in memory and thrown away as soon as anything about accounts, sessions, keys or roles
changes: at once where this process made the change, within 0.2 s where another one did (`Gate.start`). A change of
another process is seen by its number in the database (`access.versions`). Should the database not answer, nobody is let
in on old knowledge for longer than two seconds.

An event loop asks ``known_...`` first, which answers from memory at once, and only where that gives ``None`` the method
that may wait for the database, in a thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, or_, select, update
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.permissions import READS
from stock_pipeline.access.policy import ROLE
from stock_pipeline.access.principal import AccessError, Origin, Principal, PrincipalKind
from stock_pipeline.access.role_reading import GIVEN_TO_ACCOUNT
from stock_pipeline.access.secret_text import LONGEST, digest
from stock_pipeline.access.tokens import invalid
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.accounts import AccountRow, ApiKeyRow, PolicyRow, SessionRow

if TYPE_CHECKING:
    from stock_pipeline.access.facade import Access

KEY_PREFIX = "spk_"
RESTRICTED = READS | {"account:use"}
"""What is left to a session that lacks its second factor or must prove itself again."""

_EVERY = 0.08
"""Seconds between two looks at the number of changes."""
_STALE = 2.0
"""Seconds without a look after which each request looks for itself."""
_HANGS = 1.0
"""A look that takes so many seconds does not come back soon: whoever needs one is refused rather than kept waiting."""
_TOUCH = 60.0
"""Seconds between two writes of when a session was last used."""
_MOST = 20_000
"""Tokens and sessions kept in memory; beyond that the memory is emptied, and filled by use."""
_HOUSEKEEPING = 3600.0

_log = get_logger(__name__)


class _Entry:
    """One session or key: who it is, until when that holds, and when its use was last noted."""

    __slots__ = ("account_id", "id", "kind", "principal", "until", "used")

    def __init__(self, principal: Principal, until: float, used: float) -> None:
        assert principal.account_id is not None
        assert principal.session_id is not None
        self.principal, self.until, self.used = principal, until, used
        self.kind, self.account_id, self.id = principal.kind, principal.account_id, principal.session_id


class _View:
    """What is known at one state of the database; never changed into another one, only replaced."""

    __slots__ = ("anonymous", "bearers", "cookies", "entries", "local", "version")

    def __init__(self, local: int, version: int) -> None:
        self.local, self.version = local, version
        self.bearers: dict[bytes, tuple[float, _Entry]] = {}
        self.cookies: dict[str, _Entry] = {}
        self.entries: dict[str, _Entry] = {}
        self.anonymous: Principal | None = None


class Gate:
    """Lets requests in."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._view = _View(-1, -1)
        self._checked = 0.0
        self._looks: dict[int, float] = {}
        """Threads that wait for the number of changes, and since when."""
        self._uses: dict[str, tuple[PrincipalKind, float]] = {}
        self._uses_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    # ---------------------------------------------------------------- who is asking
    def authenticate(self, bearer: str, origin: Origin | None = None) -> Principal:
        """Who is behind an access token or API key.

        Parameters
        ----------
        bearer
            What was sent.
        origin
            From where: invalid ones are counted for their address, see `Limits.proof`.

        Raises
        ------
        AccessError
            401 ``token-missing``, ``token-invalid``, ``token-expired``, ``session-revoked``, ``account-disabled``;
            429 ``too-many-attempts``.
        """
        if not bearer:
            raise _missing()
        view, mark = self._current(), _mark(bearer)
        known = self._remembered(view, mark)
        if known is not None:
            return known
        # the signature of a token is verified before anything is looked up
        signed = not bearer.startswith(KEY_PREFIX)
        sealed = not signed and self._access.seals.holds(bearer[:LONGEST])
        with self._access.limits.proof(origin, sealed=sealed, signed=signed):
            return self._find(view, bearer, mark)

    def known_bearer(self, bearer: str) -> Principal | None:
        """The same from memory; ``None`` where the database must be asked.

        Raises
        ------
        AccessError
            503 ``database-unavailable``: it has not answered for so long that asking is of no use.
        """
        view = self._at_hand()
        return None if view is None else self._remembered(view, _mark(bearer))

    def authenticate_cookie(self, secret: str, origin: Origin | None = None) -> Principal:
        """Who is behind the cookie of a console session.

        Parameters
        ----------
        secret, origin
            As for `authenticate`.

        Raises
        ------
        AccessError
            401 ``token-missing``, ``token-invalid``, ``session-revoked``, ``account-disabled``;
            429 ``too-many-attempts``.
        """
        if not secret:
            raise _missing()
        view = self._current()
        hashed, now = digest(secret), self._access.clock().timestamp()
        entry = view.cookies.get(hashed)
        if entry is None or now >= entry.until:
            with self._access.limits.proof(origin, sealed=self._access.seals.holds(secret[:LONGEST])):
                if len(secret) > LONGEST:
                    raise invalid()
                entry = self._session(view, SessionRow.secret_hash == hashed, now)
            _keep(view.cookies, hashed, entry)
        return self._used(entry, now)

    def known_cookie(self, secret: str) -> Principal | None:
        """The same from memory; see `known_bearer`."""
        view = self._at_hand()
        if view is None or not secret or len(secret) > LONGEST:
            return None
        now, entry = self._access.clock().timestamp(), view.cookies.get(digest(secret))
        return None if entry is None or now >= entry.until else self._used(entry, now)

    @property
    def admits_anonymous(self) -> bool:
        """Whether the settings let anybody in without a log-in."""
        return self._access.settings.anonymous_role is not None

    def anonymous(self) -> Principal | None:
        """Who asks without a log-in, where the settings let them: with ``access.anonymous_role``."""
        role = self._access.settings.anonymous_role
        if role is None:
            return None
        view = self._current()
        if view.anonymous is None:
            permissions = self._access.roles.permissions_of((role,)) - {"account:use"}
            view.anonymous = Principal("anonymous", "anonymous", roles=(role,), permissions=permissions)
        return view.anonymous

    def known_anonymous(self) -> Principal | None:
        """The same from memory; see `known_bearer`."""
        view = self._at_hand()
        return None if view is None else view.anonymous

    def still_valid(self, principal: Principal) -> Principal:
        """The same principal with what it may do now, for connections that live long.

        Raises
        ------
        AccessError
            401 as for `authenticate`.
        """
        if principal.kind in ("command_line", "system"):
            return principal
        if principal.kind == "anonymous":
            anyone = self.anonymous()
            if anyone is None:
                raise _missing()
            return anyone
        if principal.session_id is None:
            raise invalid()
        view, now = self._current(), self._access.clock().timestamp()
        entry = view.entries.get(principal.session_id)
        if entry is None or now >= entry.until:
            if principal.kind == "api_key":
                entry = self._key(view, principal.session_id, None, now)
            else:
                entry = self._by_id(view, principal.session_id, now)
        return entry.principal

    def known_valid(self, principal: Principal) -> Principal | None:
        """The same from memory; see `known_bearer`."""
        if principal.kind in ("command_line", "system"):
            return principal
        view = self._at_hand()
        if view is None or principal.kind == "anonymous":
            return None if view is None else view.anonymous
        entry = view.entries.get(principal.session_id or "")
        return None if entry is None or self._access.clock().timestamp() >= entry.until else entry.principal

    def by_id(self, session_id: str) -> Principal:
        """The principal of a session or key of which only the id is known."""
        view, now = self._current(), self._access.clock().timestamp()
        with Session(reading(self._access.engine)) as session:
            is_key = session.scalar(select(ApiKeyRow.id).where(ApiKeyRow.id == session_id)) is not None
        return (self._key(view, session_id, None, now) if is_key else self._by_id(view, session_id, now)).principal

    # ---------------------------------------------------------------- forms of the console
    def csrf_token(self, principal: Principal) -> str:
        """What a form of this session must bring along, so that no other site can send it."""
        text = f"csrf:{principal.session_id}".encode()
        return hmac.new(self._csrf_key, text, hashlib.sha256).hexdigest()

    def check_csrf(self, principal: Principal, token: str | None) -> None:
        """Refuse a form that does not come from a page of this session.

        Raises
        ------
        AccessError
            403 ``csrf``.
        """
        given = (token or "").encode("utf-8", "backslashreplace")
        if not hmac.compare_digest(given, self.csrf_token(principal).encode()):
            raise AccessError(403, "csrf", "the form does not belong to this session", fix="load the page again")

    # ---------------------------------------------------------------- changes of other processes
    def start(self) -> None:
        """Watch for changes of other processes from a thread of its own."""
        if self._thread is None:
            self._stop.clear()
            self._look()
            self._thread = threading.Thread(target=self._watch, name="access-gate", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, and write down what was used."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join(10)
            self._flush()

    def _watch(self) -> None:
        purged = flushed = time.monotonic()
        while not self._stop.wait(_EVERY):
            try:
                self._look()
                if time.monotonic() - flushed > 1.0:
                    flushed = time.monotonic()
                    self._flush()
                if time.monotonic() - purged > _HOUSEKEEPING:
                    purged = time.monotonic()
                    self._access.purge()
            except Exception:
                _log.warning("the gate cannot look for changes", exc_info=True)
                self._stop.wait(1.0)

    def _look(self) -> _View:
        at = time.monotonic()
        self._looks[threading.get_ident()] = at
        try:
            version = versions.current(self._access.engine)
        finally:
            del self._looks[threading.get_ident()]
        view = self._view  # as it is now: another thread may have looked meanwhile
        if (version, versions.changes) != (view.version, view.local):
            view = self._renew(version)
        self._checked = at
        return view

    def _at_hand(self) -> _View | None:
        """What is known, where that is certain without asking the database."""
        view = self._view
        if self._thread is None or view.local != versions.changes:
            return None
        now = time.monotonic()
        if now - self._checked <= _STALE:
            return view
        if any(now - since > _HANGS for since in list(self._looks.values())):
            raise _unavailable()
        return None

    def _current(self) -> _View:
        view = self._at_hand()
        if view is not None:
            return view
        if self._thread is None or time.monotonic() - self._checked > _STALE:
            return self._look()
        return self._renew(self._view.version)

    def _renew(self, version: int) -> _View:
        """Forget everything. Whoever still fills the old view fills one that nobody reads any more."""
        view = _View(versions.changes, version)
        self._access.tokens.refresh()
        self._view = view
        return view

    # ---------------------------------------------------------------- finding out
    def _find(self, view: _View, bearer: str, mark: bytes) -> Principal:
        if len(bearer) > LONGEST:
            raise invalid()
        now = self._access.clock().timestamp()
        if bearer.startswith(KEY_PREFIX):
            key_id, _, secret = bearer.removeprefix(KEY_PREFIX).partition("_")
            if not (key_id.isascii() and key_id.isalnum()):
                raise invalid()
            entry, until = self._key(view, key_id, secret, now), float("inf")
        else:
            claims = self._access.tokens.verify(bearer)
            known = view.entries.get(claims.session_id)
            entry = known if known is not None and now < known.until else self._by_id(view, claims.session_id, now)
            if entry.kind != "token" or entry.account_id != claims.account_id:
                raise invalid()
            until = claims.expires_at
        _keep(view.bearers, mark, (until, entry))
        return self._used(entry, now)

    def _remembered(self, view: _View, mark: bytes) -> Principal | None:
        known = view.bearers.get(mark)
        if known is None:
            return None
        now = self._access.clock().timestamp()
        until, entry = known
        return self._used(entry, now) if now < until and now < entry.until else None

    def _by_id(self, view: _View, session_id: str, now: float) -> _Entry:
        return self._session(view, SessionRow.id == session_id, now)

    def _read(self, statement: Select[Any]) -> tuple[Any, AccountRow, tuple[str, ...], frozenset[str]] | None:
        """A session or key with its account, the roles of that, and what they hold, in one look at the database."""
        statement = statement.outerjoin(PolicyRow, GIVEN_TO_ACCOUNT).add_columns(
            AccountRow, PolicyRow.v1, versions.NUMBER
        )
        with Session(reading(self._access.engine)) as session:
            found = session.execute(statement).all()
            if not found:
                return None
            row, account, _, version = found[0]
            roles = tuple(sorted(given.removeprefix(ROLE) for _, _, given, _ in found if given is not None))
            return row, account, roles, self._access.roles.as_of(session, version).of(roles)

    def _session(self, view: _View, condition, now: float) -> _Entry:
        found = self._read(select(SessionRow).join(AccountRow, AccountRow.id == SessionRow.account_id).where(condition))
        if found is None:
            raise _revoked()
        row, account, roles, held = found
        if account.disabled_at is not None:
            raise _disabled()
        ends = self._access.sessions.ends(row).timestamp()
        if row.revoked_at is not None or now >= ends:
            raise _revoked()
        given = row.second_factor_at is not None
        restricted = row.step_up or (not given and self._access.second_factor.required(held))
        permissions = held & RESTRICTED if restricted else held
        principal = Principal(account.name, row.kind, account.id, roles, permissions, row.id, given, row.step_up)
        entry = _Entry(principal, ends, row.last_used_at.timestamp())
        _keep(view.entries, row.id, entry)
        return entry

    def _key(self, view: _View, key_id: str, secret: str | None, now: float) -> _Entry:
        """Find an API key; with ``None`` for its secret it was proved before."""
        found = self._read(
            select(ApiKeyRow).join(AccountRow, AccountRow.id == ApiKeyRow.account_id).where(ApiKeyRow.id == key_id)
        )
        if found is None:
            raise invalid()
        row, account, roles, held = found
        if secret is not None and not hmac.compare_digest(digest(secret), row.secret_hash):
            raise invalid()
        if account.disabled_at is not None:
            raise _disabled()
        if row.revoked_at is not None:
            raise _revoked()
        until = row.expires_at.timestamp() if row.expires_at else float("inf")
        if now >= until:
            raise AccessError(401, "token-expired", "the API key has run out", fix="make a new one")
        given = account.totp_confirmed_at is not None
        restricted = not given and self._access.second_factor.required(held)
        permissions = held & frozenset(row.scopes) & (RESTRICTED if restricted else held)
        principal = Principal(account.name, "api_key", account.id, roles, permissions, row.id, given)
        used = row.last_used_at.timestamp() if row.last_used_at else 0.0
        entry = _Entry(principal, until, used)
        _keep(view.entries, row.id, entry)
        return entry

    @cached_property
    def _csrf_key(self) -> bytes:
        return self._access.key_files.obtain("csrf.key", lambda: secrets.token_bytes(32))

    # ---------------------------------------------------------------- last use
    def _used(self, entry: _Entry, now: float) -> Principal:
        if now - entry.used >= _TOUCH:
            self._use(entry, now)
        return entry.principal

    def _use(self, entry: _Entry, now: float) -> None:
        """Note that a session was used; a later end follows when its row is read next."""
        entry.used = now
        with self._uses_lock:
            self._uses[entry.id] = entry.kind, now
        if self._thread is None:
            self._flush()

    def _flush(self) -> None:
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return
        with Session(self._access.engine) as session, session.begin():
            for session_id, (kind, at) in uses.items():
                table = ApiKeyRow if kind == "api_key" else SessionRow
                moment = datetime.fromtimestamp(at, UTC)
                session.execute(
                    update(table)
                    .where(table.id == session_id, or_(table.last_used_at.is_(None), table.last_used_at < moment))
                    .values(last_used_at=moment)
                    .execution_options(synchronize_session=False)
                )


def _keep(kept: dict, key, value) -> None:
    """Remember something, in bounded memory."""
    if len(kept) >= _MOST:
        kept.clear()
    kept[key] = value


def _mark(bearer: str) -> bytes:
    return hashlib.sha256(bearer.encode("utf-8", "backslashreplace")).digest()


def _missing() -> AccessError:
    return AccessError(401, "token-missing", "this needs a log-in", fix="send a token, an API key or the cookie")


def _revoked() -> AccessError:
    return AccessError(401, "session-revoked", "the session or key is over", fix="log in again")


def _disabled() -> AccessError:
    return AccessError(401, "account-disabled", "the account is disabled", fix="ask an administrator")


def _unavailable() -> AccessError:
    return AccessError(
        503,
        "database-unavailable",
        "the metadata database does not answer, so that nobody can be let in",
        fix="try again soon",
        retry_after=5,
    )
