"""What people send and get about their own log-in: tokens, passwords, the second factor, sessions and keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.api.instants import Instant

AccountName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$",
        description="name of an account",
        examples=["ana"],
    ),
]
Password = Annotated[SecretStr, Field(max_length=1024, examples=["correct-horse-battery-staple"])]
LinkSecret = Annotated[
    SecretStr,
    Field(max_length=200, description="what stands behind the # of the link", examples=["Zm9yZ2V0LW1lLW5vdA"]),
]
Code = Annotated[
    SecretStr, Field(min_length=6, max_length=6, description="what the authenticator shows", examples=["492039"])
]


class Input(BaseModel):
    """A request body: unknown fields and values of a wrong type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Registration(Input):
    """A new account of one's own."""

    name: AccountName
    password: Password
    invitation: LinkSecret | None = Field(None, description="needed where registration is by invitation")


class LogInRequest(Input):
    """Name and password, and the code of the second factor where there is one."""

    name: Annotated[str, Field(min_length=1, max_length=64, examples=["ana"])]
    password: Password
    code: Code | None = None


class TokenRefresh(Input):
    """The newest refresh token of a session."""

    refresh_token: Annotated[SecretStr, Field(max_length=500, examples=["spr_3fJ0..."])]


class Tokens(BaseModel):
    """Proof for further requests."""

    access_token: str = Field(
        description="send it as `Authorization: Bearer ...`", examples=["eyJhbGciOiJFZERTQSJ9..."]
    )
    refresh_token: str = Field(description="gives new tokens, once", examples=["spr_3fJ0..."])
    token_type: str = Field("Bearer", examples=["Bearer"])
    expires_in: int = Field(description="seconds that the access token lives", examples=[900])


class PasswordChange(Input):
    """The present password and the one that shall be."""

    old_password: Password
    new_password: Password


class PasswordByLink(Input):
    """A one-time link and the password that shall be."""

    link: LinkSecret
    password: Password


class PasswordSet(BaseModel):
    """What a new password has ended."""

    sessions_ended: int = Field(examples=[2])
    keys_revoked: int = Field(description="API keys that are refused from now on", examples=[1])


class SetupRequest(Input):
    """The setup link and the first administrator."""

    link: LinkSecret
    name: AccountName
    password: Password


class Proof(Input):
    """Proof that the session is still used by the one who logged in."""

    password: Password | None = Field(None, description="where the account has a password")
    code: Code | None = Field(None, description="where the account has a second factor")


class SecondFactorBegun(BaseModel):
    """What the authenticator needs; shown once."""

    secret: str = Field(description="to type in", examples=["JBSWY3DPEHPK3PXP"])
    uri: str = Field(
        description="to show as a QR code",
        examples=["otpauth://totp/stock_pipeline:ana?secret=JBSWY3DPEHPK3PXP&issuer=stock_pipeline"],
    )


class SecondFactorCode(Input):
    """A code that the authenticator shows now."""

    code: Code


class Me(BaseModel):
    """Who is asking."""

    name: str = Field(examples=["ana"])
    kind: str = Field(description="how you came in: token, console, api_key or anonymous", examples=["token"])
    roles: list[str] = Field(examples=[["analyst"]])
    permissions: list[str] = Field(examples=[["predictions:read", "tasks:read"]])
    session_id: str | None = Field(examples=["6f1c0e0e-6a5b-4f0e-9d0c-0d7d3a0f3b1a"])
    second_factor: bool = Field(description="whether a second factor was given in this session", examples=[False])
    step_up: bool = Field(description="whether the session must prove itself before it may change anything")
    csrf_token: str | None = Field(
        None, description="for requests of the console that change something", examples=[None]
    )


class AccountInfo(BaseModel):
    """An account, without anything secret."""

    name: str = Field(examples=["ana"])
    roles: list[str] = Field(examples=[["analyst"]])
    created_at: datetime = Field(examples=["2026-01-05T08:00:00Z"])
    disabled: bool = Field(examples=[False])
    locked_until: datetime | None = Field(description="after too many wrong passwords", examples=[None])
    last_login_at: datetime | None = Field(examples=["2026-01-06T07:31:00Z"])
    has_password: bool = Field(examples=[True])
    second_factor: bool = Field(examples=[False])


class SessionInfo(BaseModel):
    """One log-in."""

    id: str = Field(examples=["6f1c0e0e-6a5b-4f0e-9d0c-0d7d3a0f3b1a"])
    kind: str = Field(description="token or console", examples=["console"])
    address: str = Field(examples=["203.0.113.7"])
    device: str = Field(description="in words", examples=["Firefox on Linux"])
    user_agent: str = Field(description="what it calls itself", examples=["Mozilla/5.0 (X11; Linux x86_64)"])
    created_at: datetime = Field(examples=["2026-01-06T07:31:00Z"])
    last_used_at: datetime = Field(examples=["2026-01-06T09:12:44Z"])
    expires_at: datetime = Field(examples=["2026-01-20T07:31:00Z"])
    current: bool = Field(description="whether this request belongs to it", examples=[True])


class Revoked(BaseModel):
    """How many were ended."""

    revoked: int = Field(examples=[2])


class KeyRequest(Proof):
    """A key for a program, and proof that it is you who makes it."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=r"^[^\x00-\x1f\x7f<>&\"']+$",
            description="which program",
            examples=["nightly export"],
        ),
    ]
    scopes: list[Annotated[str, Field(max_length=64, json_schema_extra={"enum": sorted(PERMISSIONS)})]] = Field(
        min_length=1,
        max_length=len(PERMISSIONS),
        description="permissions; no more than your own count",
        examples=[["predictions:read"]],
    )
    expires_at: Instant | None = Field(None, description="null: never", examples=["2026-12-31T00:00:00Z"])


class KeyInfo(BaseModel):
    """A key, without its secret."""

    id: str = Field(examples=["k7Qx2mBv"])
    name: str = Field(examples=["nightly export"])
    scopes: list[str] = Field(examples=[["predictions:read"]])
    created_at: datetime = Field(examples=["2026-01-06T07:31:00Z"])
    expires_at: datetime | None = Field(examples=[None])
    last_used_at: datetime | None = Field(examples=[None])
    revoked_at: datetime | None = Field(description="since when it is refused", examples=[None])


class NewKey(KeyInfo):
    """A new key; its secret is shown this once."""

    key: str = Field(description="send it as `X-API-Key`", examples=["spk_k7Qx2mBv_..."])


class KeySet(BaseModel):
    """Public keys that verify access tokens (RFC 7517)."""

    keys: list[dict[str, Any]] = Field(
        examples=[
            [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "kid": "2026-01-05-3f9c",
                    "use": "sig",
                    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                }
            ]
        ]
    )
