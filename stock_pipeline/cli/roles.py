"""`stock-pipeline roles`: what accounts may do; changes count at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stock_pipeline.cli.app import app
from stock_pipeline.cli.console import AsJson, err, number_of, out, print_json, table
from stock_pipeline.cli.users import open_access
from stock_pipeline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from stock_pipeline.access.roles import Role

roles = typer.Typer(help="Roles: what accounts may do. A change counts at once.", no_args_is_help=True)
app.add_typer(roles, name="roles")

Name = Annotated[str, typer.Argument(help="Name of the role.")]
Permissions = Annotated[list[str] | None, typer.Option("--permission", "-p", help="noun:verb; repeatable.")]


@roles.command(name="list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """Print all roles."""
    from stock_pipeline.api.routes.roles import role_info

    access, _ = open_access(context)
    if as_json:
        print_json([role_info(role).model_dump() for role in access.roles.list()])
        return
    columns = [("role", "left"), ("inherits from", "left"), ("adds", "left"), ("may", "right"), ("", "left")]
    rows = [
        [role.name, role.parent or "-", ", ".join(role.own) or "-", str(len(role.permissions)), _kind(role)]
        for role in access.roles.list()
    ]
    out.print(table("Roles", columns, rows))


@roles.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Print what a role may do, and from which role it has that."""
    from stock_pipeline.access.permissions import PERMISSIONS
    from stock_pipeline.api.routes.roles import role_info

    access, _ = open_access(context)
    role = access.roles.get(name)
    if as_json:
        print_json(role_info(role).model_dump())
        return
    sources: dict[str, str] = {}
    at: Role | None = role
    while at is not None:
        for permission in at.own:
            sources.setdefault(permission, at.name)
        at = access.roles.get(at.parent) if at.parent else None
    rows = [[name, text, sources[name]] for name, text in PERMISSIONS.items() if name in role.permissions]
    out.print(table(f"Role {role.name}", [("permission", "left"), ("lets one", "left"), ("by", "left")], rows))


@roles.command()
def create(
    context: typer.Context,
    name: Name,
    parent: Annotated[str | None, typer.Option("--parent", help="Role that it inherits from.")] = None,
    permission: Permissions = None,
) -> None:
    """Make a role."""
    access, by = open_access(context)
    role = access.roles.create(name, parent, permission or [], by)
    err.print(f"role {role.name} is made; it may do {number_of(len(role.permissions), 'thing')}", markup=False)


@roles.command()
def change(
    context: typer.Context,
    name: Name,
    parent: Annotated[str | None, typer.Option("--parent", help="Role that it inherits from.")] = None,
    no_parent: Annotated[bool, typer.Option("--no-parent", help="It inherits from none.")] = False,
    add: Annotated[list[str] | None, typer.Option("--add", help="Permission to add; repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Own permission to take; repeatable.")] = None,
) -> None:
    """Change what a role holds itself, or what it inherits from."""
    from stock_pipeline.access.roles import KEEP

    if parent is not None and no_parent:
        raise ConfigurationError("--parent and --no-parent contradict each other", value=parent, fix="give one of them")
    if parent is None and not no_parent and not add and not remove:
        raise ConfigurationError("nothing to change", allowed="--parent, --no-parent, --add, --remove")
    access, by = open_access(context)
    own = set(access.roles.get(name).own)
    absent = sorted(set(remove or []) - own)
    if absent:
        raise ConfigurationError(
            f"the role {name} does not hold this itself", value=", ".join(absent), allowed=", ".join(sorted(own)),
            fix=f"see `stock-pipeline roles show {name}` for the role that it has it from",
        )  # fmt: skip
    wanted = (own | set(add or [])) - set(remove or [])
    to = None if no_parent else KEEP if parent is None else parent
    role = access.roles.change(name, parent=to, permissions=wanted, by=by)
    err.print(f"role {role.name} may do {number_of(len(role.permissions), 'thing')}", markup=False)


@roles.command()
def delete(context: typer.Context, name: Name) -> None:
    """Remove a role that nobody has."""
    access, by = open_access(context)
    access.roles.delete(name, by)
    err.print(f"role {name} is removed", markup=False)


def _kind(role: Role) -> str:
    return "built in" if role.built_in else ""
