"""One's own sessions and keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.access.api_keys import ApiKey
from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.access.sessions import SessionInfo as OpenSession
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import no_repeats, principal, require, service
from stock_pipeline.api.limits import password_turn
from stock_pipeline.api.paging import Page
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.schemas_accounts import KeyInfo, KeyRequest, NewKey, Proof, Revoked, SessionInfo
from stock_pipeline.api.schemas_admin import NoQuery

router = APIRouter(
    prefix="/api/account",
    tags=["account"],
    dependencies=[Depends(require("account:use")), Depends(no_repeats)],
)

SessionId = Annotated[
    str,
    Path(min_length=1, max_length=36, pattern=r"^[A-Za-z0-9-]+$", examples=["6f1c0e0e-6a5b-4f0e-9d0c-0d7d3a0f3b1a"]),
]
KeyId = Annotated[str, Path(min_length=1, max_length=16, pattern=r"^[A-Za-z0-9_-]+$", examples=["k7Qx2mBv"])]


def account_id(request: Request) -> int:
    """Return the account of who is asking.

    Raises
    ------
    AccessError
        403 ``no-account`` for those who have none.
    """
    who = principal(request)
    if who.account_id is None:
        raise AccessError(403, "no-account", f"{who.name} has no account", fix="log in")
    return who.account_id


def person(request: Request) -> Principal:
    """Return who is asking, where that is somebody who has logged in: a key of a program does not change log-ins.

    Raises
    ------
    AccessError
        403 ``session-required``.
    """
    account_id(request)
    who = principal(request)
    if who.kind not in ("token", "console"):
        raise AccessError(403, "session-required", "a key cannot do this", fix="log in with name and password")
    return who


@router.get("/sessions", summary="Own sessions")
def list_own_sessions(request: Request, query: Annotated[NoQuery, Query()]) -> Page[SessionInfo]:
    """All log-ins that are open, with device, address and last use."""
    found = service(request).access.sessions.list(account_id(request))
    return Page(items=[session_info(one, request) for one in found], next_cursor=None)


@router.delete(
    "/sessions/{session_id}",
    summary="End one of one's own sessions",
    status_code=204,
    responses=problem_responses(404),
)
def revoke_own_session(request: Request, session_id: SessionId) -> Response:
    """Tokens and cookie of that session are refused from now on."""
    who, sessions = person(request), service(request).access.sessions
    if session_id not in {one.id for one in sessions.list(account_id(request))}:
        raise AccessError(404, "session-not-found", "you have no such session")
    sessions.revoke(session_id, "revoked by its owner", who, origin(request))
    return Response(status_code=204)


@router.post("/sessions/revoke-others", summary="End all other sessions")
def revoke_other_sessions(request: Request) -> Revoked:
    """Everything but the session of this request is logged out."""
    who = person(request)
    ended = service(request).access.sessions.revoke_all(
        account_id(request), who.session_id, reason="revoked by its owner", by=who, origin=origin(request)
    )
    return Revoked(revoked=ended)


@router.get("/keys", summary="Own API keys")
def list_own_keys(request: Request, query: Annotated[NoQuery, Query()]) -> Page[KeyInfo]:
    """Keys of programs, without their secrets."""
    account_id(request)
    found = service(request).access.keys.list(principal(request).name)
    return Page(items=[KeyInfo(**key_fields(key)) for key in found], next_cursor=None)


@router.post(
    "/keys",
    summary="Make an API key",
    status_code=201,
    dependencies=[Depends(password_turn)],
    responses=problem_responses(401, 409, 422, 423, 429),
)
def create_own_key(request: Request, wanted: KeyRequest) -> NewKey:
    """The key is shown in this answer and never again; it can do what its scopes say and you may do.

    Password and second factor are asked for: a key outlives the session in which it is made.
    """
    who, access = person(request), service(request).access
    access.logins.confirm(who, *secrets_of(wanted), origin(request))
    key, secret = access.keys.create(
        who.name, wanted.name, wanted.scopes, wanted.expires_at, by=who, origin=origin(request)
    )
    return NewKey(**key_fields(key), key=secret)


@router.delete("/keys/{key_id}", summary="Revoke an API key", status_code=204, responses=problem_responses(404))
def revoke_own_key(request: Request, key_id: KeyId) -> Response:
    """The key is refused from now on."""
    who, keys = person(request), service(request).access.keys
    if key_id not in {key.id for key in keys.list(who.name)}:
        raise AccessError(404, "key-not-found", "you have no such key")
    keys.revoke(key_id, who, origin(request))
    return Response(status_code=204)


def secrets_of(proof: Proof) -> tuple[str | None, str | None]:
    """Password and code of a proof, in clear."""
    password, code = proof.password, proof.code
    return None if password is None else password.get_secret_value(), None if code is None else code.get_secret_value()


def session_info(one: OpenSession, request: Request) -> SessionInfo:
    """Describe a session as it is answered."""
    return SessionInfo(
        id=one.id,
        kind=one.kind,
        address=one.address,
        device=one.device,
        user_agent=one.user_agent,
        created_at=one.created_at,
        last_used_at=one.last_used_at,
        expires_at=one.expires_at,
        current=one.id == principal(request).session_id,
    )


def key_fields(key: ApiKey) -> dict[str, Any]:
    """Fields of `KeyInfo`."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }
