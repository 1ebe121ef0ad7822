"""Roles: who may do what. A change counts at once, for issued tokens too."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.roles import Role
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import no_repeats, principal, require, service
from stock_pipeline.api.paging import Page
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.schemas_admin import NewRole, NoQuery, PermissionInfo, RoleChange, RoleInfo

router = APIRouter(prefix="/api", tags=["roles"], dependencies=[Depends(no_repeats)])

READ = [Depends(require("roles:read"))]
MANAGE = [Depends(require("roles:manage"))]
Name = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_-]*$", examples=["analyst"])]


@router.get("/permissions", summary="What can be permitted", dependencies=READ)
def list_permissions(request: Request, query: Annotated[NoQuery, Query()]) -> Page[PermissionInfo]:
    """Every permission and what it lets one do."""
    items = [PermissionInfo(name=name, description=text) for name, text in PERMISSIONS.items()]
    return Page(items=items, next_cursor=None)


@router.get("/roles", summary="Roles", dependencies=READ)
def list_roles(request: Request, query: Annotated[NoQuery, Query()]) -> Page[RoleInfo]:
    """All roles with what they hold."""
    return Page(items=[role_info(role) for role in service(request).access.roles.list()], next_cursor=None)


@router.get("/roles/{name}", summary="One role", dependencies=READ, responses=problem_responses(404))
def get_role(request: Request, name: Name, query: Annotated[NoQuery, Query()]) -> RoleInfo:
    """One role with what it holds."""
    return role_info(service(request).access.roles.get(name))


@router.post("/roles", summary="Make a role", status_code=201, dependencies=MANAGE, responses=problem_responses(409))
def create_role(request: Request, wanted: NewRole) -> RoleInfo:
    """Make a role of one's own."""
    role = service(request).access.roles.create(
        wanted.name, wanted.parent, wanted.permissions, principal(request), origin=origin(request)
    )
    return role_info(role)


@router.patch("/roles/{name}", summary="Change a role", dependencies=MANAGE, responses=problem_responses(404, 409))
def change_role(request: Request, name: Name, change: RoleChange) -> RoleInfo:
    """Change what a role holds; whoever has the role notices at once."""
    given = change.model_fields_set
    role = service(request).access.roles.change(
        name,
        **({"parent": change.parent} if "parent" in given else {}),
        permissions=change.permissions,
        by=principal(request),
        origin=origin(request),
    )
    return role_info(role)


@router.delete(
    "/roles/{name}",
    summary="Delete a role",
    status_code=204,
    dependencies=MANAGE,
    responses=problem_responses(404, 409),
)
def delete_role(request: Request, name: Name) -> Response:
    """Delete a role of one's own that nobody has any more."""
    service(request).access.roles.delete(name, principal(request), origin=origin(request))
    return Response(status_code=204)


def role_info(role: Role) -> RoleInfo:
    """Describe a role as it is answered."""
    return RoleInfo(
        name=role.name,
        parent=role.parent,
        own=sorted(role.own),
        permissions=sorted(role.permissions),
        built_in=role.built_in,
    )
