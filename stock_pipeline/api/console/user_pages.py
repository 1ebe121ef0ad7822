"""Everybody's accounts, for those who may see or manage them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from stock_pipeline.api.client import origin
from stock_pipeline.api.console.forms import REFUSALS, Fields, apart, go, model, refused, secret, text, texts
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import principal, service
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.routes import users
from stock_pipeline.api.schemas_admin import NewUser, NoQuery, ResetWanted, UserChange
from stock_pipeline.config import addresses

router = APIRouter(include_in_schema=False)

ROWS = 50
_CRUMBS = [("Users", "/users")]


@router.get("/users", dependencies=users.READ)
def user_list(request: Request, search: str = "", after: int | None = None) -> Response:
    """List accounts in the order in which they were made."""
    return _list(request, search.strip()[:64], after)


@router.post("/users", dependencies=users.MANAGE)
async def create_user(request: Request, form: Fields) -> Response:
    """Make an account; without a password a one-time link is shown."""
    try:
        wanted = model(
            NewUser,
            name=text(form, "name"),
            password=secret(form, "password") or None,
            roles=texts(form, "roles"),
        )
        made = await apart(users.create_user, request, wanted)
    except REFUSALS as error:
        return await refused(error, _list, request, "", None, name=text(form, "name"))
    if made.link is None:
        return go(f"/users/{made.name}", done="user-created")
    lead = "Send this link to its owner: it sets the password, once."
    return await apart(_link, request, made.link, f"Account {made.name}", lead)


@router.post("/users/invitations", dependencies=users.MANAGE)
async def invite(request: Request, form: Fields) -> Response:
    """Make a link by which somebody makes an account of a role."""
    try:
        address = await apart(_invitation, request, form)
    except REFUSALS as error:
        return await refused(error, _list, request, "", None)
    lead = "Send this link: whoever opens it chooses a name and a password, once."
    return await apart(_link, request, address, "Invitation", lead)


@router.get("/users/{name}", dependencies=users.READ)
def user_page(request: Request, name: users.Name) -> Response:
    """Show one account."""
    return _user(request, name)


@router.post("/users/{name}/roles", dependencies=users.MANAGE)
async def change_roles(request: Request, name: users.Name, form: Fields) -> Response:
    """Give an account other roles."""
    try:
        await users.change_user(request, name, model(UserChange, roles=texts(form, "roles")))
    except REFUSALS as error:
        return await refused(error, _user, request, name)
    return go(f"/users/{name}", done="user-changed")


@router.post("/users/{name}/state", dependencies=users.MANAGE)
async def change_state(request: Request, name: users.Name, form: Fields) -> Response:
    """Disable, enable or unlock an account."""
    changes: dict[str, dict[str, Any]] = {
        "disable": {"disabled": True}, "enable": {"disabled": False}, "unlock": {"locked": False},
    }  # fmt: skip
    change = changes.get(text(form, "to"))
    if change is None:
        raise ProblemError(422, "invalid-parameters", "to: one of disable, enable, unlock")
    try:
        await users.change_user(request, name, model(UserChange, **change))
    except REFUSALS as error:
        return await refused(error, _user, request, name)
    return go(f"/users/{name}", done="user-changed")


@router.post("/users/{name}/reset-link", dependencies=users.MANAGE)
async def reset_link(request: Request, name: users.Name, form: Fields) -> Response:
    """Show a link that sets a new password."""
    wanted = model(ResetWanted, revoke_keys=text(form, "revoke_keys") == "yes")
    try:
        made = await apart(users.create_reset_link, request, name, wanted)
    except REFUSALS as error:
        return await refused(error, _user, request, name)
    ends = "all sessions and API keys" if made.revoke_keys else "all sessions and keeps the API keys"
    lead = f"Send this link to the owner: it works once, while the account is not changed, and ends {ends}."
    return await apart(_link, request, made.link, f"New password for {name}", lead)


@router.post("/users/{name}/sessions/revoke", dependencies=users.MANAGE)
def revoke_sessions(request: Request, name: users.Name) -> Response:
    """Log an account out everywhere."""
    users.revoke_user_sessions(request, name)
    return go(f"/users/{name}", done="user-changed")


@router.post("/users/{name}/keys/{key_id}/revoke", dependencies=users.MANAGE)
def revoke_key(request: Request, name: users.Name, key_id: users.KeyId) -> Response:
    """Revoke a key of an account."""
    users.revoke_user_key(request, name, key_id)
    return go(f"/users/{name}", done="key-revoked")


@router.post("/users/{name}/second-factor/remove", dependencies=users.MANAGE)
def remove_second_factor(request: Request, name: users.Name) -> Response:
    """Take the second factor from an account whose owner has lost it."""
    users.remove_user_second_factor(request, name)
    return go(f"/users/{name}", done="user-changed")


@router.post("/users/{name}/delete", dependencies=users.MANAGE)
async def delete_user(request: Request, name: users.Name) -> Response:
    """Delete an account."""
    try:
        await apart(users.delete_user, request, name)
    except REFUSALS as error:
        return await refused(error, _user, request, name)
    return go("/users", done="user-deleted")


def _list(
    request: Request,
    search: str,
    after: int | None,
    notices: list[Notice] | None = None,
    status: int = 200,
    name: str = "",
) -> Response:
    found = service(request).access.accounts.list(after=after, limit=ROWS + 1, search=search or None)
    shown = found[:ROWS]
    return page(
        request,
        "admin/users.html",
        title="Users",
        section="users",
        notices=notices or [],
        status=status,
        accounts=shown,
        search=search,
        name=name,
        roles=_grantable(request),
        invitations=service(request).settings.access.registration != "closed",
        pager=Pager.after(
            "/users", {"search": search}, shown[-1].id if len(found) > ROWS else None, begun=after is not None
        ),
    )


def _user(request: Request, name: str, notices: list[Notice] | None = None, status: int = 200) -> Response:
    access = service(request).access
    account = access.accounts.get(name)
    return page(
        request,
        "admin/user.html",
        title=account.name,
        section="users",
        crumbs=[*_CRUMBS, (account.name, None)],
        notices=notices or [],
        status=status,
        account=account,
        roles=access.roles.list() if principal(request).may("roles:read") else [],
        grantable={role.name for role in _grantable(request)},
        sessions=users.list_user_sessions(request, name, NoQuery()).items,
        keys=users.list_user_keys(request, name, NoQuery()).items,
    )


def _grantable(request: Request) -> list[Any]:
    """Roles that hold no more than who asks does: others would be refused."""
    who = principal(request)
    return [role for role in service(request).access.roles.list() if role.permissions <= who.permissions]


def _invitation(request: Request, form: FormData) -> str:
    access, role = service(request).access, text(form, "role")
    if role not in {one.name for one in _grantable(request)}:
        raise ProblemError(403, "beyond-own-rights", f"you cannot give the role {role}")
    made = access.links.create("invitation", role=role, by=principal(request), origin=origin(request))
    return service(request).access.links.address("invitation", made, addresses.console(service(request).settings))


def _link(request: Request, address: str, title: str, lead: str) -> Response:
    hours = service(request).access.settings.link_hours
    return page(
        request, "admin/link.html", title=title, section="users", crumbs=[*_CRUMBS, (title, None)],
        address=address, lead=lead, hours=hours,
    )  # fmt: skip
