"""Roles and what they hold."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.principal import AccessError
from stock_pipeline.access.roles import Role
from stock_pipeline.api.console.forms import REFUSALS, Fields, apart, go, model, refused, text, texts
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import service
from stock_pipeline.api.routes import roles
from stock_pipeline.api.schemas_admin import NewRole, RoleChange

router = APIRouter(include_in_schema=False)


@router.get("/roles", dependencies=roles.READ)
def role_list(request: Request) -> Response:
    """Show all roles beside each other."""
    return _list(request)


@router.post("/roles", dependencies=roles.MANAGE)
async def create_role(request: Request, form: Fields) -> Response:
    """Make a role."""
    try:
        wanted = model(
            NewRole,
            name=text(form, "name"),
            parent=text(form, "parent") or None,
            permissions=texts(form, "permissions"),
        )
        made = await apart(roles.create_role, request, wanted)
    except REFUSALS as error:
        return await refused(error, _list, request)
    return go(f"/roles/{made.name}", done="role-changed")


@router.get("/roles/{name}", dependencies=roles.READ)
def role_page(request: Request, name: roles.Name) -> Response:
    """Show one role, to be changed by those who may."""
    return _role(request, name)


@router.post("/roles/{name}", dependencies=roles.MANAGE)
async def change_role(request: Request, name: roles.Name, form: Fields) -> Response:
    """Change what a role holds."""
    try:
        change = RoleChange.model_validate(
            {"parent": text(form, "parent") or None, "permissions": texts(form, "permissions")}
        )
        await apart(roles.change_role, request, name, change)
    except REFUSALS as error:
        return await refused(error, _role, request, name)
    return go(f"/roles/{name}", done="role-changed")


@router.post("/roles/{name}/delete", dependencies=roles.MANAGE)
async def delete_role(request: Request, name: roles.Name) -> Response:
    """Delete a role."""
    try:
        await apart(roles.delete_role, request, name)
    except REFUSALS as error:
        return await refused(error, _role, request, name)
    return go("/roles", done="role-deleted")


def _list(request: Request, notices: list[Notice] | None = None, status: int = 200) -> Response:
    return page(
        request,
        "admin/roles.html",
        title="Roles",
        section="roles",
        notices=notices or [],
        status=status,
        roles=_ordered(service(request).access.roles.list()),
        permissions=PERMISSIONS,
    )


def _role(request: Request, name: str, notices: list[Notice] | None = None, status: int = 200) -> Response:
    known = _ordered(service(request).access.roles.list())
    role = next((one for one in known if one.name == name), None)
    if role is None:
        raise AccessError(404, "role-not-found", "there is no such role", value=name)
    return page(
        request,
        "admin/role.html",
        title=role.name,
        section="roles",
        crumbs=[("Roles", "/roles"), (role.name, None)],
        notices=notices or [],
        status=status,
        role=role,
        others=[one.name for one in known if one.name != role.name],
        permissions=PERMISSIONS,
    )


def _ordered(known: Iterable[Role]) -> list[Role]:
    """The ones that hold least first, so that each stands after those it inherits from."""
    return sorted(known, key=lambda role: (len(role.permissions), role.name))
