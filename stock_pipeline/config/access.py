"""What stands under ``access``: who may come in, how long a log-in lasts, and what counts as abuse."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stock_pipeline.config.storage import from_variable
from stock_pipeline.core.parameters import Parameters


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not a network such as 10.0.0.0/8 or 2001:db8::/32") from error


Network = Annotated[str, AfterValidator(_network)]


class Place(Parameters):
    """A network whose location is known."""

    network: Network
    name: str = Field(min_length=1, max_length=80)
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class PasswordSettings(Parameters):
    """What a password must be like, and what its hash costs (Argon2id)."""

    min_length: int = Field(12, ge=8, le=128)
    max_length: int = Field(256, ge=64, le=1024, description="longer ones are refused: hashing them is work for free")
    memory_kib: int = Field(65536, ge=8, le=4_194_304, description="memory of one hash")
    passes: int = Field(3, ge=1, le=100)
    lanes: int = Field(2, ge=1, le=64)


class LimitSettings(Parameters):
    """Requests that one account (one address before log-in) may make, per class of routes."""

    read: str = Field("6000/minute", pattern=r"^\d+/(second|minute|hour|day)$")
    write: str = Field("120/minute", pattern=r"^\d+/(second|minute|hour|day)$")
    login: str = Field("20/minute", pattern=r"^\d+/(second|minute|hour|day)$", description="per address")
    failures: str = Field(
        "60/minute",
        pattern=r"^\d+/(second|minute|hour|day)$",
        description="invalid tokens, keys, cookies and tickets of one address that are looked up",
    )
    streams: int = Field(10, ge=1, le=10_000, description="live connections of one account at a time")


class AbuseSettings(Parameters):
    """From when on behaviour is odd; each rule reads the audit trail."""

    failures_before_delay: int = Field(3, ge=1, le=100, description="wrong passwords before each further one waits")
    failures_before_lock: int = Field(10, ge=2, le=1000, description="wrong passwords in a row that lock the account")
    lock_minutes: int = Field(15, ge=1, le=10_080)
    address_failures: int = Field(50, ge=2, le=100_000, description="failures of one address in an hour that block it")
    stuffing_accounts: int = Field(8, ge=2, le=10_000, description="accounts that one address fails on in an hour")
    probing_refusals: int = Field(10, ge=2, le=10_000, description="refused requests of one account in ten minutes")
    travel_kmh: float = Field(900, ge=1, le=40_000, description="faster between two log-ins is impossible")
    bulk_rows: int = Field(50_000, ge=100, description="rows read in an hour that are bulk")
    office_hours: tuple[int, int] = Field((6, 22), description="from, to: hours of the exchange's time zone")

    @model_validator(mode="after")
    def _hours(self) -> Self:
        start, end = self.office_hours
        if not 0 <= start < end <= 24:
            raise ValueError(f"office_hours must be from < to, both from 0 to 24; they are {start} to {end}")
        return self


class OidcSettings(Parameters):
    """Log-in with a company's own identity provider."""

    issuer: str = Field(pattern=r"^https?://", description="address of the provider, as in its discovery document")
    client_id: str = Field(min_length=1)
    client_secret: str = Field(pattern=r"^env:", repr=False, description="env:NAME of the variable that holds it")
    role: str = Field("viewer", description="role of an account that logs in for the first time")
    label: str = Field("Company log-in", max_length=60, description="text of the button")


class AccessSettings(Parameters):
    """Accounts, sessions and limits."""

    registration: Literal["closed", "invitation", "open"] = Field("closed", description="who may make an account")
    registration_role: str = Field("viewer", description="role of an account that was made by open registration")
    anonymous_role: str | None = Field(
        None, description="role of requests without a log-in, such as viewer on a closed network; null: none"
    )
    access_minutes: int = Field(15, ge=1, le=60, description="life of an access token")
    refresh_days: int = Field(14, ge=1, le=365, description="life of a refresh token that is not used")
    session_days: int = Field(90, ge=1, le=365, description="life of a session however much it is used")
    console_idle_hours: int = Field(12, ge=1, le=720, description="a browser is logged out when idle for so long")
    link_hours: int = Field(24, ge=1, le=720, description="life of a one-time link")
    second_factor: Literal["optional", "administrators", "everyone"] = Field(
        "optional", description="who must have a second factor (TOTP) to do more than read"
    )
    secure_cookies: bool | None = Field(None, description="cookies over HTTPS only; null: in prod, and not elsewhere")
    public_url: str | None = Field(None, pattern=r"^https?://", description="address that people use, for links")
    trusted_proxies: list[Network] = Field([], description="whose X-Forwarded-For is believed")
    redis: str | None = Field(
        None, pattern=r"^(env:|rediss?://)", repr=False, description="shared limits and wake-up of streams"
    )
    places: list[Place] = Field([], description="networks whose location is known, for impossible travel")
    passwords: PasswordSettings = PasswordSettings()
    limits: LimitSettings = LimitSettings()
    abuse: AbuseSettings = AbuseSettings()
    oidc: OidcSettings | None = Field(default=None)

    def resolved(self, environment: Mapping[str, str]) -> AccessSettings:
        """Look up ``env:NAME`` values.

        Raises
        ------
        ConfigurationError
            There is no such variable.
        """
        update: dict[str, object] = {}
        if self.redis is not None:
            update["redis"] = from_variable(self.redis, "access.redis", environment)
        if self.oidc is not None:
            secret = from_variable(self.oidc.client_secret, "access.oidc.client_secret", environment)
            update["oidc"] = self.oidc.model_copy(update={"client_secret": secret})
        return self.model_copy(update=update)
