"""Log-in, tokens, passwords and the second factor."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from stock_pipeline.access.logins import TokenPair
from stock_pipeline.access.principal import Principal
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import no_repeats, principal, public, require, service
from stock_pipeline.api.limits import log_in_limit, password_turn
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.routes.account import person, secrets_of
from stock_pipeline.api.routes.users import account_fields
from stock_pipeline.api.schemas_accounts import (
    AccountInfo,
    KeySet,
    LogInRequest,
    Me,
    PasswordByLink,
    PasswordChange,
    PasswordSet,
    Proof,
    Registration,
    SecondFactorBegun,
    SecondFactorCode,
    SetupRequest,
    TokenRefresh,
    Tokens,
)
from stock_pipeline.api.schemas_admin import NoQuery

router = APIRouter(tags=["authentication"], dependencies=[Depends(no_repeats)])

COUNTED = [Depends(public), Depends(log_in_limit)]
OPEN = [*COUNTED, Depends(password_turn)]
OWN = [Depends(require("account:use", while_step_up=True))]
CHANGE = [Depends(require("account:use"))]
HASHES = [Depends(password_turn)]

_REFUSALS = problem_responses(401, 423, 429)
_PROOF_REFUSALS = problem_responses(401, 409, 422, 423, 429)


@router.post(
    "/api/auth/register",
    summary="Make an account",
    status_code=201,
    dependencies=OPEN,
    responses=problem_responses(403, 409, 429),
)
def register(request: Request, wanted: Registration) -> AccountInfo:
    """Make an account of one's own, where registration is open or an invitation is at hand."""
    access = service(request).access
    invitation = None if wanted.invitation is None else wanted.invitation.get_secret_value()
    account = access.logins.register(
        wanted.name, wanted.password.get_secret_value(), invitation=invitation, origin=origin(request)
    )
    return AccountInfo(**account_fields(account))


@router.post(
    "/api/auth/setup",
    summary="Make the first administrator",
    status_code=201,
    dependencies=OPEN,
    responses=problem_responses(401, 409, 429),
)
def set_up(request: Request, wanted: SetupRequest) -> AccountInfo:
    """Redeem the link that the service printed when it was first started."""
    account = service(request).access.logins.set_up(
        wanted.name, wanted.password.get_secret_value(), wanted.link.get_secret_value(), origin(request)
    )
    return AccountInfo(**account_fields(account))


@router.post("/api/auth/login", summary="Log in", dependencies=OPEN, responses=_REFUSALS)
def log_in(request: Request, given: LogInRequest) -> Tokens:
    """Get an access token and a refresh token for name and password, and the code of the second factor if there is one.

    A wrong password and a name that does not exist get the same answer.
    """
    done = service(request).access.logins.log_in(
        given.name,
        given.password.get_secret_value(),
        code=None if given.code is None else given.code.get_secret_value(),
        kind="token",
        origin=origin(request),
    )
    return _tokens(done.tokens)


@router.post("/api/auth/refresh", summary="Get new tokens", dependencies=COUNTED, responses=problem_responses(401, 429))
def refresh(request: Request, given: TokenRefresh) -> Tokens:
    """Exchange the newest refresh token of a session for new tokens; using one twice ends the session."""
    pair = service(request).access.logins.refresh(given.refresh_token.get_secret_value(), origin(request))
    return _tokens(pair)


@router.post("/api/auth/logout", summary="Log out", status_code=204, dependencies=OWN)
def log_out(request: Request) -> Response:
    """End the session of this request: its tokens are refused from now on."""
    service(request).access.logins.log_out(person(request), origin(request))
    return Response(status_code=204)


@router.get("/api/auth/me", summary="Who is asking", dependencies=OWN)
def get_me(request: Request, query: Annotated[NoQuery, Query()]) -> Me:
    """Name, roles and permissions of whoever sends this request."""
    who: Principal = principal(request)
    csrf = service(request).access.gate.csrf_token(who) if who.kind == "console" else None
    return Me(
        name=who.name,
        kind=who.kind,
        roles=sorted(who.roles),
        permissions=sorted(who.permissions),
        session_id=who.session_id,
        second_factor=who.second_factor,
        step_up=who.step_up,
        csrf_token=csrf,
    )


@router.post(
    "/api/auth/password",
    summary="Change the password",
    status_code=204,
    dependencies=[*CHANGE, *HASHES],
    responses=_REFUSALS,
)
def change_password(request: Request, change: PasswordChange) -> Response:
    """Set a new password by the old one; all other sessions are logged out."""
    who = person(request)
    service(request).access.accounts.change_password(
        who.name,
        change.old_password.get_secret_value(),
        change.new_password.get_secret_value(),
        keep=who.session_id,
        by=who,
        origin=origin(request),
    )
    return Response(status_code=204)


@router.post(
    "/api/auth/password/reset",
    summary="Set a password by a link",
    dependencies=OPEN,
    responses=problem_responses(401, 404, 429),
)
def reset_password(request: Request, given: PasswordByLink) -> PasswordSet:
    """Redeem a link that an administrator made: the account's sessions end, and its API keys unless it keeps them."""
    done = service(request).access.logins.reset_password(
        given.link.get_secret_value(), given.password.get_secret_value(), origin(request)
    )
    return PasswordSet(sessions_ended=done.sessions_ended, keys_revoked=done.keys_revoked)


@router.post(
    "/api/auth/step-up",
    summary="Prove that it is still you",
    status_code=204,
    dependencies=[*OWN, *HASHES],
    responses=_PROOF_REFUSALS,
)
def step_up(request: Request, proof: Proof) -> Response:
    """Lift the restriction of a session in which something odd was seen, by password and second factor."""
    service(request).access.logins.step_up(person(request), *secrets_of(proof), origin(request))
    return Response(status_code=204)


@router.post(
    "/api/auth/second-factor",
    summary="Begin to set up a second factor",
    dependencies=[*CHANGE, *HASHES],
    responses=_PROOF_REFUSALS,
)
def begin_second_factor(request: Request, proof: Proof) -> SecondFactorBegun:
    """Get the secret for an authenticator; it counts once a code has confirmed it.

    The password is asked for: whoever holds a session alone cannot lock its owner out. Accounts without one, of an
    identity provider, must have logged in within the last ten minutes.
    """
    who, access = person(request), service(request).access
    access.logins.confirm(who, *secrets_of(proof), origin(request), need_code=False)
    secret, uri = access.second_factor.begin(who.name)
    return SecondFactorBegun(secret=secret, uri=uri)


@router.post(
    "/api/auth/second-factor/confirm",
    summary="Confirm the second factor",
    status_code=204,
    dependencies=CHANGE,
    responses=problem_responses(401, 409, 429),
)
def confirm_second_factor(request: Request, given: SecondFactorCode) -> Response:
    """Show that the authenticator works; from now on log-ins need its code."""
    who = person(request)
    service(request).access.second_factor.confirm(
        who.name, given.code.get_secret_value(), by=who, origin=origin(request)
    )
    return Response(status_code=204)


@router.post(
    "/api/auth/second-factor/remove",
    summary="Give up the second factor",
    status_code=204,
    dependencies=[*CHANGE, *HASHES],
    responses=_PROOF_REFUSALS,
)
def remove_second_factor(request: Request, proof: Proof) -> Response:
    """Log-ins need no code any more; password and a code prove that it is you."""
    who, access = person(request), service(request).access
    access.logins.confirm(who, *secrets_of(proof), origin(request))
    access.second_factor.remove(who.name, who, origin(request))
    return Response(status_code=204)


@router.get("/.well-known/jwks.json", summary="Keys that verify tokens", dependencies=[Depends(public)])
def get_jwks(request: Request, query: Annotated[NoQuery, Query()]) -> KeySet:
    """Public keys of the access tokens, for others that want to verify them."""
    return KeySet.model_validate(service(request).access.tokens.jwks())


def _tokens(pair: TokenPair | None) -> Tokens:
    assert pair is not None
    return Tokens(
        access_token=pair.access_token,
        refresh_token=pair.refresh_token,
        token_type="Bearer",
        expires_in=pair.expires_in,
    )
