"""`stock-pipeline users`: accounts, their roles, sessions and keys, from the machine that the service runs on."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import AsJson, err, number_of, out, print_json, table
from stock_pipeline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from stock_pipeline.access.accounts import Account
    from stock_pipeline.access.facade import Access
    from stock_pipeline.access.principal import Principal

users = typer.Typer(
    help="Accounts of the service: who may log in, their roles, sessions and keys.", no_args_is_help=True
)
app.add_typer(users, name="users")

Name = Annotated[str, typer.Argument(help="Name of the account.")]


@users.command()
def create(
    context: typer.Context,
    name: Name,
    role: Annotated[list[str] | None, typer.Option("--role", help="Role; may be given several times.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Print a one-time link instead of asking.")] = False,
) -> None:
    """Make an account: asks for its password, or prints a one-time link with which its owner sets one."""
    access, by = open_access(context)
    password = None if link else _password(password_stdin)
    account = access.accounts.create(name, password=password, roles=tuple(role or ("viewer",)), by=by)
    err.print(f"account {account.name} with {_and(account.roles)} is made", markup=False)
    if password is None:
        _print_link(context, access, "reset", account.name, by)


@users.command(name="list")
def list_(
    context: typer.Context,
    search: Annotated[str | None, typer.Option("--search", help="Part of the name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print all accounts."""
    from stock_pipeline.api.routes.users import account_fields

    access, _ = open_access(context)
    found: list[Account] = []
    while page := access.accounts.list(found[-1].id if found else None, 500, search):
        found += page
    if as_json:
        print_json([account_fields(account) for account in found])
        return
    columns = [("name", "left"), ("roles", "left"), ("state", "left"), ("last log-in", "left"), ("factors", "left")]
    rows = [
        [account.name, ", ".join(account.roles) or "-", _state(account), _when(account.last_login_at), _proofs(account)]
        for account in found
    ]
    out.print(table("Accounts", columns, rows, None if rows else "none yet: stock-pipeline users create NAME"))


@users.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Print one account, what it may do, and its open sessions and keys."""
    from stock_pipeline.api.routes.account import key_fields
    from stock_pipeline.api.routes.users import account_fields

    access, _ = open_access(context)
    account = access.accounts.get(name)
    permissions = sorted(access.roles.permissions_of(account.roles))
    keys = [key for key in access.keys.list(name) if key.revoked_at is None]
    if as_json:
        more = {"permissions": permissions, "keys": [key_fields(key) for key in keys]}
        print_json({**account_fields(account), **more, "open_sessions": len(access.sessions.list(account.id))})
        return
    rows = [
        ["name", account.name],
        ["roles", ", ".join(account.roles) or "-"],
        ["may", ", ".join(permissions) or "nothing"],
        ["state", _state(account)],
        ["logs in with", _proofs(account)],
        ["made", _when(account.created_at)],
        ["password changed", _when(account.password_changed_at)],
        ["last log-in", _when(account.last_login_at)],
        ["open sessions", str(len(access.sessions.list(account.id)))],
        ["keys in force", str(len(keys))],
    ]
    out.print(table(f"Account {account.name}", [("", "left"), ("", "left")], rows))


@users.command()
def disable(context: typer.Context, name: Name) -> None:
    """Let an account in no more; its sessions end at once."""
    access, by = open_access(context)
    err.print(f"account {access.accounts.disable(name, by).name} is disabled", markup=False)


@users.command()
def enable(context: typer.Context, name: Name) -> None:
    """Let a disabled account in again."""
    access, by = open_access(context)
    err.print(f"account {access.accounts.enable(name, by).name} is enabled", markup=False)


@users.command()
def unlock(context: typer.Context, name: Name) -> None:
    """Forget the wrong passwords of an account, so that it can log in at once."""
    access, by = open_access(context)
    err.print(f"account {access.accounts.unlock(name, by).name} is unlocked", markup=False)


@users.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove an account with its sessions and keys; the audit trail keeps its name."""
    access, by = open_access(context)
    account = access.accounts.get(name)
    if not yes:
        typer.confirm(f"delete the account {account.name}?", abort=True)
    access.accounts.delete(name, by)
    err.print(f"account {account.name} is deleted", markup=False)


@users.command()
def reset(
    context: typer.Context,
    name: Name,
    second_factor: Annotated[
        bool, typer.Option("--second-factor", help="The link also removes the second factor, for a lost device.")
    ] = False,
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="The new password leaves the account's API keys in force.")
    ] = False,
) -> None:
    """Print a one-time link that sets a new password; using it ends all sessions and API keys of the account."""
    access, by = open_access(context)
    purpose = "recovery" if second_factor else "reset"
    _print_link(context, access, purpose, access.accounts.get(name).name, by, revoke_keys=not keep_keys)


@users.command()
def invite(
    context: typer.Context,
    role: Annotated[str | None, typer.Option("--role", help="Role of the new account.")] = None,
) -> None:
    """Print a one-time link with which somebody makes an account; needs access.registration: invitation or open."""
    access, by = open_access(context)
    if access.settings.registration == "closed":
        raise ConfigurationError(
            "invitations are off",
            value="access.registration: closed",
            allowed="invitation, open",
            fix="change it, or: stock-pipeline users create NAME --link",
        )
    _print_link(context, access, "invitation", None, by, role=role)


@users.command()
def role(
    context: typer.Context,
    name: Name,
    roles: Annotated[list[str], typer.Argument(help="All roles that it has from now on.")],
) -> None:
    """Give an account other roles; effective at once, also for open sessions."""
    access, by = open_access(context)
    account = access.accounts.get(name)
    access.roles.replace(account.name, roles, by)
    now = access.accounts.get(name)
    err.print(f"account {now.name} has {_and(now.roles)}", markup=False)


@users.command()
def sessions(
    context: typer.Context,
    name: Name,
    revoke: Annotated[bool, typer.Option("--revoke", help="End them all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the open sessions of an account, or end them."""
    access, by = open_access(context)
    _only_printed(as_json, revoke, "--revoke")
    account = access.accounts.get(name)
    if revoke:
        ended = access.sessions.revoke_all(account.id, reason="revoked by an administrator", by=by)
        over = f"{number_of(ended, 'session')} of {account.name} {'is' if ended == 1 else 'are'} over"
        err.print(over, markup=False)
        return
    found = access.sessions.list(account.id)
    if as_json:
        print_json(found)
        return
    columns = [("kind", "left"), ("device", "left"), ("address", "left"), ("last use", "left"), ("begun", "left")]
    rows = [[one.kind, one.device, one.address or "-", _when(one.last_used_at), _when(one.created_at)] for one in found]
    out.print(table(f"Sessions of {account.name}", columns, rows, None if rows else "none is open"))


@users.command()
def keys(
    context: typer.Context,
    name: Name,
    create: Annotated[str | None, typer.Option("--create", help="Make a key; what it is for.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Permission of the new key; may be given several times.")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="The new key ends after so many days.")] = None,
    revoke: Annotated[str | None, typer.Option("--revoke", help="End the key with this id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the keys of an account, make one for a program, or end one."""
    from stock_pipeline.api.routes.account import key_fields

    access, by = open_access(context)
    _only_printed(as_json, revoke or create, "--create, --revoke")
    account = access.accounts.get(name)
    if revoke is not None:
        if revoke not in {key.id for key in access.keys.list(account.name)}:
            raise ConfigurationError(
                f"{account.name} has no such key", value=revoke, fix=f"stock-pipeline users keys {account.name}"
            )
        err.print(f"key {access.keys.revoke(revoke, by).name} is revoked", markup=False)
    elif create is not None:
        until = None if days is None else access.clock() + timedelta(days=days)
        key, secret = access.keys.create(account.name, create, scope or (), until, by=by)
        err.print(f"key {key.id} of {account.name}; it is shown this once:", markup=False)
        typer.echo(secret)
    elif as_json:
        print_json([key_fields(key) for key in access.keys.list(account.name)])
    else:
        columns = [("id", "left"), ("name", "left"), ("scopes", "left"), ("ends", "left"), ("last use", "left")]
        rows = [
            [
                key.id,
                key.name,
                ", ".join(key.scopes),
                "revoked" if key.revoked_at else _when(key.expires_at),
                _when(key.last_used_at),
            ]
            for key in access.keys.list(account.name)
        ]
        out.print(table(f"Keys of {account.name}", columns, rows, None if rows else "none"))


@users.command(name="rotate-keys")
def rotate_keys(
    context: typer.Context,
    drop_old: Annotated[
        bool,
        typer.Option("--drop-old", help="Refuse tokens of the old key at once: for a key that others may know."),
    ] = False,
) -> None:
    """Sign access tokens with a new key; tokens of the old one stay good until they run out."""
    access, by = open_access(context)
    err.print(f"access tokens are signed with the key {access.rotate_keys(by, drop_old=drop_old)}", markup=False)


def open_access(context: typer.Context) -> tuple[Access, Principal]:
    """Access of the configured market, and whoever sits at this machine."""
    from stock_pipeline.api.service import Service

    given: Context = context.obj
    return Service(given.settings()).access, machine_user()


def machine_user() -> Principal:
    """Whoever sits at this machine, who may do everything."""
    from stock_pipeline.access.permissions import PERMISSIONS
    from stock_pipeline.access.principal import Principal

    return Principal(getpass.getuser()[:64], "command_line", permissions=frozenset(PERMISSIONS))


def _only_printed(as_json: bool, action: object, named: str) -> None:
    if as_json and action:
        raise ConfigurationError("--json is for what is printed", value=f"with {named}", fix="leave one of them out")


def _password(stdin: bool) -> str | None:
    """The password for a new account; ``None`` where nobody can be asked."""
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        return None
    given: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return given


def _print_link(
    context: typer.Context,
    access: Access,
    purpose,
    account: str | None,
    by: Principal,
    *,
    role: str | None = None,
    revoke_keys: bool = True,
) -> None:
    from stock_pipeline.config import addresses

    given: Context = context.obj
    secret = access.links.create(purpose, account=account, role=role, by=by, revoke_keys=revoke_keys)
    hours = access.settings.link_hours
    err.print(f"this link works once, for {hours} hours; give it to its owner alone:", markup=False)
    typer.echo(access.links.address(purpose, secret, addresses.console(given.settings())))


def _state(account: Account) -> str:
    if account.disabled:
        return "disabled"
    return "in use" if account.locked_until is None else f"locked until {_when(account.locked_until)}"


def _proofs(account: Account) -> str:
    proofs = [("password", account.has_password), ("second factor", account.second_factor)]
    return ", ".join(name for name, there in proofs if there) or "-"


def _and(roles: tuple[str, ...]) -> str:
    return f"the role {roles[0]}" if len(roles) == 1 else f"the roles {', '.join(roles) or 'none'}"


def _when(instant: datetime | None) -> str:
    return "-" if instant is None else f"{instant:%Y-%m-%d %H:%M} UTC"
