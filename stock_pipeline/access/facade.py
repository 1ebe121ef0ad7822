"""Everything about access in one place: `Access` makes the parts, which know one another through it.

Every change is written to the audit trail by the part that makes it; callers hand over who asks (``by``, a `Principal`,
or a name for a part of the platform) and where from (``origin``), and write nothing themselves.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.abuse import Watch
from stock_pipeline.access.accounts import Accounts
from stock_pipeline.access.api_keys import ApiKeys
from stock_pipeline.access.audit import Audit
from stock_pipeline.access.clock import Clock, utc_now
from stock_pipeline.access.gate import Gate
from stock_pipeline.access.key_files import KeyFolder
from stock_pipeline.access.limits import Limits
from stock_pipeline.access.links import Links
from stock_pipeline.access.logins import Logins
from stock_pipeline.access.oidc import Oidc
from stock_pipeline.access.passwords import Passwords
from stock_pipeline.access.principal import AccessError, Origin, Principal
from stock_pipeline.access.roles import Roles
from stock_pipeline.access.seals import Seals
from stock_pipeline.access.sessions import Sessions
from stock_pipeline.access.tickets import Tickets
from stock_pipeline.access.tokens import ISSUER, Tokens
from stock_pipeline.access.totp import SecondFactor
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.storage.outbox import AlertOutbox


class Access:
    """Who may come in and what they may do.

    Parameters
    ----------
    engine
        The metadata database, at its newest migration.
    settings
        What stands under ``access``.
    home
        Home folder; keys are in its ``keys``.
    environment
        ``dev``, ``test`` or ``prod``.
    outbox
        Where alerts go; to the log only where ``None``.
    timezone
        Of the exchange, for office hours.
    clock
        The present instant.
    """

    def __init__(
        self,
        engine: Engine,
        settings: AccessSettings,
        home: Path,
        *,
        environment: str = "dev",
        outbox: AlertOutbox | None = None,
        timezone: str = "UTC",
        clock: Clock = utc_now,
    ) -> None:
        self.engine, self.settings, self.home, self.environment = engine, settings, Path(home), environment
        self.outbox, self.timezone, self.clock = outbox, timezone, clock

    @property
    def secure_cookies(self) -> bool:
        """Whether cookies are sent over HTTPS only."""
        chosen = self.settings.secure_cookies
        return self.environment == "prod" if chosen is None else chosen

    @cached_property
    def key_files(self) -> KeyFolder:
        """Keys in the home folder."""
        return KeyFolder(self.home / "keys")

    @cached_property
    def seals(self) -> Seals:
        """Seals of cookies, keys and tickets."""
        return Seals(self.key_files)

    @cached_property
    def passwords(self) -> Passwords:
        """Rules and hashes of passwords."""
        return Passwords(self.settings.passwords)

    @cached_property
    def tokens(self) -> Tokens:
        """Access tokens."""
        return Tokens(
            self.key_files,
            timedelta(minutes=self.settings.access_minutes),
            issuer=self.settings.public_url or ISSUER,
            clock=self.clock,
        )

    @cached_property
    def audit(self) -> Audit:
        """The audit trail."""
        return Audit(self.engine, self.home, clock=self.clock)

    @cached_property
    def roles(self) -> Roles:
        """Roles; those of a new installation are there."""
        roles = Roles(self.engine, self.audit, self.settings)
        roles.ensure_defaults()
        return roles

    @cached_property
    def watch(self) -> Watch:
        """What counts as abuse."""
        return Watch(
            self.engine,
            self.settings,
            self.audit,
            outbox=self.outbox,
            timezone=self.timezone,
            clock=self.clock,
        )

    @cached_property
    def limits(self) -> Limits:
        """Requests per account and class of routes."""
        return Limits(self.settings)

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts."""
        return Accounts(self)

    @cached_property
    def sessions(self) -> Sessions:
        """Sessions."""
        return Sessions(self)

    @cached_property
    def links(self) -> Links:
        """One-time links."""
        return Links(self)

    @cached_property
    def logins(self) -> Logins:
        """Log-in, log-out, renewal."""
        return Logins(self)

    @cached_property
    def keys(self) -> ApiKeys:
        """Keys of programs."""
        return ApiKeys(self)

    @cached_property
    def second_factor(self) -> SecondFactor:
        """Codes of authenticator apps."""
        return SecondFactor(self)

    @cached_property
    def tickets(self) -> Tickets:
        """Tickets for connections to the stream."""
        return Tickets(self)

    @cached_property
    def oidc(self) -> Oidc:
        """Log-in with the company's identity provider; `AccessError` 404 where none is configured."""
        if self.settings.oidc is None:
            raise AccessError(404, "no-identity-provider", "no identity provider is configured", fix="log in by name")
        return Oidc(self, self.settings.oidc)

    @cached_property
    def gate(self) -> Gate:
        """Who is behind a token, key or cookie."""
        return Gate(self)

    def rotate_keys(self, by: Principal | str, *, drop_old: bool = False, origin: Origin | None = None) -> str:
        """Sign tokens with a new key from now on; see `Tokens.rotate`. Returns the id of the key."""
        kid = self.tokens.rotate(drop_old=drop_old)
        with Session(self.engine) as session, session.begin():
            versions.bump(session)
            self.audit.record(
                "signing_key.rotate",
                actor=by,
                origin=origin,
                object=("signing_key", kid),
                detail={"old_keys": "dropped" if drop_old else "kept until their tokens run out"},
                session=session,
            )
        return kid

    def purge(self) -> None:
        """Forget sessions, links and tickets that have been over for long."""
        self.sessions.purge()
        self.links.purge()
