"""The access policy as casbin sees it: which role inherits from which, and what each holds.

Rows of ``casbin_rule``; roles are ``role:<name>`` and accounts ``account:<id>``, so that none is taken for another:

=====  ===================  ====================  =================================================
ptype  v0                   v1                    meaning
=====  ===================  ====================  =================================================
``p``  role                 permission            the role holds the permission
``g``  role                 role                  the first inherits from the second
``g``  account              role                  the account was given the role
``r``  role                                       the role exists
``d``  role                 permission            the permission was entered once as a default
=====  ===================  ====================  =================================================

casbin loads ``p`` and ``g``; ``r`` and ``d`` are the platform's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.storage.database.tables.accounts import PolicyRow

ROLE, ACCOUNT = "role:", "account:"

_MODEL = """
[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj
"""

DEEPEST = 8
"""Roles in a chain of inheritance at most; casbin follows ten links."""

Lines = frozenset[tuple[str, str, str]]


@dataclass(frozen=True)
class Policy:
    """The roles at one moment.

    Attributes
    ----------
    lines
        What it was made of.
    parents
        Role by role, the one that it inherits from.
    own
        What each holds itself.
    permissions
        What each holds with all that it inherits.
    """

    lines: Lines
    parents: dict[str, str | None]
    own: dict[str, frozenset[str]]
    permissions: dict[str, frozenset[str]]

    def of(self, roles: Iterable[str]) -> frozenset[str]:
        """What roles hold together; unknown ones hold nothing."""
        return frozenset().union(*(self.permissions.get(role, frozenset()) for role in roles))

    def chain(self, role: str | None) -> list[str]:
        """A role and those that it inherits from, the nearest first; ends where it would go round."""
        found: list[str] = []
        while role is not None and role not in found:
            found.append(role)
            role = self.parents.get(role)
        return found


def lines_of(session: Session) -> Lines:
    """Lines of the policy that are about roles."""
    rows = session.execute(select(PolicyRow.ptype, PolicyRow.v0, PolicyRow.v1).where(PolicyRow.v0.startswith(ROLE)))
    return frozenset((row.ptype, row.v0, row.v1) for row in rows)


@lru_cache(maxsize=32)
def build(lines: Lines) -> Policy:
    """Work out what each role holds; the result is shared and must not be changed.

    Permissions that this version does not know, left by another one, are not given to anybody.
    """
    enforcer = _enforcer(lines)
    names = sorted(v0.removeprefix(ROLE) for ptype, v0, _ in lines if ptype == "r")
    parents: dict[str, str | None] = dict.fromkeys(names)
    for ptype, v0, v1 in lines:
        if ptype == "g":
            parents[v0.removeprefix(ROLE)] = v1.removeprefix(ROLE)
    return Policy(
        lines=lines,
        parents={name: parents[name] for name in names},
        own={name: _known(enforcer.get_permissions_for_user(ROLE + name)) for name in names},
        permissions={name: _known(enforcer.get_implicit_permissions_for_user(ROLE + name)) for name in names},
    )


def _known(found: list[list[str]]) -> frozenset[str]:
    return frozenset(line[1] for line in found if line[1] in PERMISSIONS)


def _enforcer(lines: Lines) -> Any:
    import casbin
    from casbin import persist

    class Adapter(persist.Adapter):
        """Gives casbin the lines that were read."""

        def load_policy(self, model: Any) -> None:
            for ptype, v0, v1 in sorted(lines):
                if ptype in ("p", "g"):
                    persist.load_policy_line(f"{ptype}, {v0}, {v1}", model)

    model = casbin.Enforcer.new_model(text=_MODEL)
    return casbin.Enforcer(model, Adapter())
