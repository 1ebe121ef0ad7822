"""Everybody's accounts, for administrators. Nobody can give, or take over, more than they hold themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from stock_pipeline.access.accounts import Account
from stock_pipeline.access.principal import AccessError
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import authorise, no_repeats, principal, require, service
from stock_pipeline.api.paging import Page, cut, decode
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.routes.account import KeyId, SessionId, key_fields, session_info
from stock_pipeline.api.schemas_accounts import AccountInfo, KeyInfo, Revoked, SessionInfo
from stock_pipeline.api.schemas_admin import (
    CreatedUser,
    NewUser,
    NoQuery,
    ResetLink,
    ResetWanted,
    UserChange,
    UserQuery,
)
from stock_pipeline.config import addresses

router = APIRouter(prefix="/api/users", tags=["users"], dependencies=[Depends(no_repeats)])

READ = [Depends(require("users:read"))]
MANAGE = [Depends(require("users:manage"))]
Name = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", examples=["ana"])]


@router.get("", summary="Accounts", dependencies=READ, responses=problem_responses(400))
def list_users(request: Request, query: Annotated[UserQuery, Query()]) -> Page[AccountInfo]:
    """All accounts in the order in which they were made."""
    after = decode(query.cursor, query.question()) if query.cursor else None
    rows = service(request).access.accounts.list(after=after, limit=query.limit + 1, search=query.search)
    page, following = cut(rows, query.limit, query.question(), lambda account: account.id)
    return Page(items=[AccountInfo(**account_fields(account)) for account in page], next_cursor=following)


@router.post("", summary="Make an account", status_code=201, dependencies=MANAGE, responses=problem_responses(404, 409))
def create_user(request: Request, wanted: NewUser) -> CreatedUser:
    """Make an account; without a password the answer holds a one-time link that sets it."""
    who, access = principal(request), service(request).access
    password = None if wanted.password is None else wanted.password.get_secret_value()
    account = access.accounts.create(
        wanted.name, password=password, roles=tuple(wanted.roles), by=who, origin=origin(request)
    )
    link = None if password is not None else _reset_link(request, account)
    return CreatedUser(**account_fields(account), link=link)


@router.get("/{name}", summary="One account", dependencies=READ, responses=problem_responses(404))
def get_user(request: Request, name: Name, query: Annotated[NoQuery, Query()]) -> AccountInfo:
    """One account, without anything secret."""
    return AccountInfo(**account_fields(service(request).access.accounts.get(name)))


@router.patch("/{name}", summary="Change an account", dependencies=MANAGE, responses=problem_responses(404, 409))
async def change_user(request: Request, name: Name, change: UserChange) -> AccountInfo:
    """Disable, enable or unlock an account, or give it other roles (that needs the permission roles:manage as well).

    It counts at once, for open sessions and issued tokens too.
    """
    if change.roles is not None:
        await authorise(request, "roles:manage")
    return await run_in_threadpool(_change, request, name, change)


@router.delete(
    "/{name}", summary="Delete an account", status_code=204, dependencies=MANAGE, responses=problem_responses(404, 409)
)
def delete_user(request: Request, name: Name) -> Response:
    """Remove an account with its sessions and keys; the audit trail keeps its name."""
    account = _managed(request, name)
    service(request).access.accounts.delete(account.name, principal(request), origin(request))
    return Response(status_code=204)


@router.post(
    "/{name}/reset-link",
    summary="Make a link that sets a new password",
    status_code=201,
    dependencies=MANAGE,
    responses=problem_responses(404, 409),
)
def create_reset_link(request: Request, name: Name, wanted: ResetWanted | None = None) -> ResetLink:
    """The link is shown in this answer and never again; it works once.

    Its use ends the account's sessions, and its API keys unless `revoke_keys` is false. A change of the account or of
    who made the link ends the link.
    """
    account, revoke_keys = _managed(request, name), wanted is None or wanted.revoke_keys
    access = service(request).access
    until = access.clock() + timedelta(hours=access.settings.link_hours)
    link = _reset_link(request, account, revoke_keys=revoke_keys)
    return ResetLink(link=link, expires_at=until, revoke_keys=revoke_keys)


@router.get("/{name}/sessions", summary="Sessions of an account", dependencies=READ, responses=problem_responses(404))
def list_user_sessions(request: Request, name: Name, query: Annotated[NoQuery, Query()]) -> Page[SessionInfo]:
    """All log-ins of an account that are open."""
    access = service(request).access
    found = access.sessions.list(access.accounts.get(name).id)
    return Page(items=[session_info(one, request) for one in found], next_cursor=None)


@router.delete(
    "/{name}/sessions",
    summary="End all sessions of an account",
    dependencies=MANAGE,
    responses=problem_responses(404),
)
def revoke_user_sessions(request: Request, name: Name) -> Revoked:
    """The account is logged out everywhere."""
    account = _managed(request, name)
    ended = service(request).access.sessions.revoke_all(
        account.id, reason="revoked by an administrator", by=principal(request), origin=origin(request)
    )
    return Revoked(revoked=ended)


@router.delete(
    "/{name}/sessions/{session_id}",
    summary="End one session of an account",
    status_code=204,
    dependencies=MANAGE,
    responses=problem_responses(404),
)
def revoke_user_session(request: Request, name: Name, session_id: SessionId) -> Response:
    """Tokens and cookie of that session are refused from now on."""
    account, sessions = _managed(request, name), service(request).access.sessions
    if session_id not in {one.id for one in sessions.list(account.id)}:
        raise AccessError(404, "session-not-found", f"{account.name} has no such session")
    sessions.revoke(session_id, "revoked by an administrator", principal(request), origin(request))
    return Response(status_code=204)


@router.get("/{name}/keys", summary="API keys of an account", dependencies=READ, responses=problem_responses(404))
def list_user_keys(request: Request, name: Name, query: Annotated[NoQuery, Query()]) -> Page[KeyInfo]:
    """Keys of programs, without their secrets."""
    access = service(request).access
    found = access.keys.list(name)
    return Page(items=[KeyInfo(**key_fields(key)) for key in found], next_cursor=None)


@router.delete(
    "/{name}/keys/{key_id}",
    summary="Revoke an API key of an account",
    status_code=204,
    dependencies=MANAGE,
    responses=problem_responses(404),
)
def revoke_user_key(request: Request, name: Name, key_id: KeyId) -> Response:
    """The key is refused from now on."""
    account, keys = _managed(request, name), service(request).access.keys
    if key_id not in {key.id for key in keys.list(account.name)}:
        raise AccessError(404, "key-not-found", f"{account.name} has no such key")
    keys.revoke(key_id, principal(request), origin(request))
    return Response(status_code=204)


@router.delete(
    "/{name}/second-factor",
    summary="Take the second factor from an account",
    status_code=204,
    dependencies=MANAGE,
    responses=problem_responses(404, 409),
)
def remove_user_second_factor(request: Request, name: Name) -> Response:
    """For somebody who has lost the device: the account logs in with its password until it has a new one."""
    account, who = _managed(request, name), principal(request)
    if account.id == who.account_id:
        raise AccessError(
            409, "own-account", "one's own second factor is given up with password and code",
            fix="POST /api/auth/second-factor/remove, or the console's page of your account",
        )  # fmt: skip
    service(request).access.second_factor.remove(account.name, who, origin(request))
    return Response(status_code=204)


def account_fields(account: Account) -> dict[str, object]:
    """Fields of `AccountInfo`."""
    return {
        "name": account.name,
        "roles": sorted(account.roles),
        "created_at": account.created_at,
        "disabled": account.disabled,
        "locked_until": account.locked_until,
        "last_login_at": account.last_login_at,
        "has_password": account.has_password,
        "second_factor": account.second_factor,
    }


def _change(request: Request, name: str, change: UserChange) -> AccountInfo:
    who, where, access = principal(request), origin(request), service(request).access
    account = _managed(request, name)
    changed = access.accounts.change(
        account.name, who, where, roles=change.roles, disabled=change.disabled, unlock=change.locked is False
    )
    return AccountInfo(**account_fields(changed))


def _managed(request: Request, name: str) -> Account:
    """The account, where who asks may manage it: to take over somebody with more rights would be a way to get them.

    Raises
    ------
    AccessError
        404 ``account-not-found``; 403 ``forbidden``.
    """
    accounts = service(request).access.accounts
    account = accounts.get(name)
    accounts.may_change(principal(request), account)
    return account


def _reset_link(request: Request, account: Account, *, revoke_keys: bool = True) -> str:
    parts = service(request)
    secret = parts.access.links.create(
        "reset", account=account.name, by=principal(request), revoke_keys=revoke_keys, origin=origin(request)
    )
    return parts.access.links.address("reset", secret, addresses.console(parts.settings))
