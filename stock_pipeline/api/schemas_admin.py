"""What administrators send and get: accounts of everybody, roles, the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.api.instants import Instant
from stock_pipeline.api.paging import PageQuery
from stock_pipeline.api.schemas_accounts import AccountInfo, AccountName, Input, Password

RoleName = Annotated[
    str,
    Field(
        min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_-]*$", description="name of a role", examples=["analyst"]
    ),
]
Permission = Annotated[str, Field(max_length=64, json_schema_extra={"enum": sorted(PERMISSIONS)})]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class NoQuery(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")


class UserQuery(PageQuery):
    """Which accounts."""

    search: Text | None = Field(None, description="part of the name", examples=["an"])


class NewUser(Input):
    """An account for somebody else."""

    name: AccountName
    password: Password | None = Field(None, description="absent: a one-time link is made, to set one")
    roles: list[RoleName] = Field(["viewer"], max_length=20, examples=[["analyst"]])


class CreatedUser(AccountInfo):
    """The new account, with the link that sets its password where none was given."""

    link: str | None = Field(
        description="one-time link, shown this once; null where a password was given",
        examples=["http://127.0.0.1:8000/reset#Zm9yZ2V0LW1lLW5vdA"],
    )


class UserChange(Input):
    """What shall be different; what is absent stays."""

    disabled: bool | None = Field(None, description="whether the account may not log in", examples=[True])
    locked: Literal[False] | None = Field(None, description="false: end a lock after wrong passwords", examples=[False])
    roles: list[RoleName] | None = Field(
        None, max_length=20, description="all roles that it shall have", examples=[["operator"]]
    )


class ResetWanted(Input):
    """What the new password shall end besides the sessions."""

    revoke_keys: bool = Field(True, description="whether the account's API keys end too", examples=[True])


class ResetLink(BaseModel):
    """A link that sets a new password, once, while the account and who made the link stay as they are."""

    link: str = Field(description="shown this once", examples=["http://127.0.0.1:8000/reset#Zm9yZ2V0LW1lLW5vdA"])
    expires_at: datetime = Field(examples=["2026-01-07T07:31:00Z"])
    revoke_keys: bool = Field(description="whether its use ends the account's API keys", examples=[True])


class RoleInfo(BaseModel):
    """A role and what it lets one do."""

    name: str = Field(examples=["analyst"])
    parent: str | None = Field(description="role whose permissions it has as well", examples=["viewer"])
    own: list[str] = Field(description="what it adds", examples=[["backtests:create"]])
    permissions: list[str] = Field(description="all that it holds", examples=[["backtests:create", "predictions:read"]])
    built_in: bool = Field(description="whether it came with the platform and cannot be deleted", examples=[True])


class NewRole(Input):
    """A role of one's own."""

    name: RoleName
    parent: RoleName | None = Field(None, description="role whose permissions it has as well", examples=["viewer"])
    permissions: list[Permission] = Field([], max_length=len(PERMISSIONS), examples=[["backtests:create"]])


class RoleChange(Input):
    """What shall be different; what is absent stays."""

    parent: RoleName | None = Field(None, description="null: none", examples=["viewer"])
    permissions: list[Permission] | None = Field(
        None, max_length=len(PERMISSIONS), description="all that it shall add", examples=[["backtests:create"]]
    )


class PermissionInfo(BaseModel):
    """Something that can be permitted."""

    name: str = Field(examples=["predictions:read"])
    description: str = Field(examples=["read published predictions and who has none"])


class AuditQuery(PageQuery):
    """Which entries; newest first."""

    actor: Text | None = Field(None, description="account name", examples=["ana"])
    action: Text | None = Field(
        None, description="such as role.change, or role.* for all of a noun", examples=["role.*"]
    )
    result: Literal["done", "refused", "failed"] | None = None
    object_kind: Text | None = Field(None, examples=["role"])
    object_id: Text | None = Field(None, examples=["analyst"])
    address: Text | None = Field(None, examples=["203.0.113.7"])
    session_id: Text | None = None
    request_id: Text | None = None
    run_id: Text | None = None
    since: Instant | None = Field(None, description="from this instant on")
    until: Instant | None = Field(None, description="before this instant")


class PeriodQuery(BaseModel):
    """Which period."""

    model_config = ConfigDict(extra="forbid")

    since: Instant | None = Field(None, description="from this instant on; the beginning where absent")
    until: Instant | None = Field(None, description="before this instant; now where absent")


class ExportQuery(PeriodQuery):
    """Which period, in which form."""

    format: Literal["jsonl", "csv"] = Field("jsonl", description="JSON Lines or CSV")


class AuditEntryInfo(BaseModel):
    """Who did what, on what, from where, with which result."""

    sequence: int = Field(description="place in the trail; none is left out", examples=[42])
    at: datetime = Field(examples=["2026-01-06T07:31:00Z"])
    actor: str = Field(examples=["ana"])
    actor_kind: str = Field(examples=["token"])
    action: str = Field(examples=["role.change"])
    object_kind: str | None = Field(examples=["role"])
    object_id: str | None = Field(examples=["analyst"])
    result: str = Field(examples=["done"])
    address: str | None = Field(examples=["203.0.113.7"])
    user_agent: str | None = Field(examples=["curl/8.5.0"])
    session_id: str | None = Field(examples=["6f1c0e0e-6a5b-4f0e-9d0c-0d7d3a0f3b1a"])
    request_id: str | None = Field(examples=["5f0c7a3e9d1b4c2f8a6e0d4b7c9f1a23"])
    run_id: str | None = Field(examples=[None])
    detail: dict[str, Any] | None = Field(examples=[None])
    before: dict[str, Any] | None = Field(examples=[{"permissions": ["backtests:create"]}])
    after: dict[str, Any] | None = Field(examples=[{"permissions": ["backtests:create", "models:promote"]}])


class VerificationInfo(BaseModel):
    """Whether the audit trail is as it was written."""

    intact: bool = Field(examples=[True])
    entries: int = Field(description="entries that were checked", examples=[4711])
    faults: list[str] = Field(description="edits, deletions and reorderings that were found", examples=[[]])
