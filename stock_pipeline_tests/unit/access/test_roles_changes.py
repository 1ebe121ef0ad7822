"""Roles: defaults, inheritance, changes at run time and what is refused."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from stock_pipeline.access import permissions as defaults
from stock_pipeline.access import versions
from stock_pipeline.access.audit import Audit, AuditFilter
from stock_pipeline.access.permissions import PERMISSIONS
from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.access.roles import KEEP, Roles
from stock_pipeline.config.access import AccessSettings
from stock_pipeline.storage.database.tables.accounts import AccountRow, LinkRow, PolicyRow

pytestmark = pytest.mark.requirement("R8.3")
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def audit(database: Engine, tmp_path: Path) -> Audit:
    return Audit(database, tmp_path / "home")


@pytest.fixture
def roles(database: Engine, audit: Audit) -> Roles:
    made = Roles(database, audit, AccessSettings(anonymous_role="guest"))
    made.ensure_defaults()
    return made


def account(engine: Engine, roles: Roles, name: str, *given: str) -> int:
    with Session(engine) as session, session.begin():
        row = AccountRow(name=name, name_key=name.casefold(), created_at=NOW, created_by="test")
        session.add(row)
        session.flush()
        roles.give(session, row.id, given)
        return row.id


def principal(roles: Roles, name: str, *given: str) -> Principal:
    return Principal(name, "token", roles=given, permissions=roles.permissions_of(given))


def refused(call, *arguments, **options) -> tuple[int, str]:
    with pytest.raises(AccessError) as caught:
        call(*arguments, **options)
    return caught.value.status, caught.value.kind


def test_the_built_in_roles_inherit_one_from_another(roles: Roles) -> None:
    held = [roles.permissions_of([name]) for name in ("viewer", "analyst", "operator", "administrator")]
    assert all(less < more for less, more in itertools.pairwise(held))
    assert held[-1] == frozenset(PERMISSIONS)
    assert [role.name for role in roles.list()] == ["viewer", "analyst", "operator", "administrator"]
    assert roles.get("analyst").parent == "viewer"
    assert roles.get("analyst").own == tuple(sorted(defaults.ROLES["analyst"][1]))
    assert roles.permissions_of(["nobody"]) == frozenset()


def test_defaults_are_entered_once_and_undo_no_change(database: Engine, roles: Roles, audit: Audit) -> None:
    own = set(roles.get("viewer").own) - {"risk:read"}
    roles.change("viewer", permissions=own, by="root")
    roles.change("operator", parent="viewer", by="root")
    before = versions.current(database)
    Roles(database, audit).ensure_defaults()
    assert versions.current(database) == before
    assert "risk:read" not in roles.permissions_of(["administrator"])
    assert roles.get("operator").parent == "viewer"


def test_a_permission_of_a_newer_version_is_added(
    database: Engine, roles: Roles, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles.change("viewer", permissions=set(roles.get("viewer").own) - {"risk:read"}, by="root")
    monkeypatch.setitem(PERMISSIONS, "news:read", "read news")
    parent, held = defaults.ROLES["viewer"]
    monkeypatch.setitem(defaults.ROLES, "viewer", (parent, (*held, "news:read")))
    Roles(database, audit).ensure_defaults()
    assert "news:read" in roles.permissions_of(["analyst"])
    assert "risk:read" not in roles.permissions_of(["analyst"])


def test_many_start_at_once_and_enter_the_defaults_once(database: Engine, audit: Audit) -> None:
    starters = [threading.Thread(target=Roles(database, audit).ensure_defaults) for _ in range(6)]
    for thread in starters:
        thread.start()
    for thread in starters:
        thread.join()
    with Session(database) as session:
        lines = [tuple(row) for row in session.execute(select(PolicyRow.ptype, PolicyRow.v0, PolicyRow.v1))]
    assert len(lines) == len(set(lines))
    assert len(audit.entries(AuditFilter(action="role.defaults"))) == 1


def test_a_change_is_effective_at_once_everywhere_and_written_down(
    database: Engine, roles: Roles, audit: Audit
) -> None:
    elsewhere = Roles(database, audit)
    roles.create("quant", "viewer", ["backtests:create"], "root")
    assert "backtests:create" in elsewhere.permissions_of(["quant"])
    version = versions.current(database)
    roles.change("quant", permissions=["predictions:request"], by=principal(roles, "ann", "administrator"))
    assert versions.current(database) > version
    assert elsewhere.permissions_of(["quant"]) == roles.permissions_of(["viewer"]) | {"predictions:request"}
    (entry,) = audit.entries(AuditFilter(action="role.change"))
    assert (entry.actor, entry.object_kind, entry.object_id) == ("ann", "role", "quant")
    assert entry.before == {"parent": "viewer", "permissions": ["backtests:create"]}
    assert entry.after == {"parent": "viewer", "permissions": ["predictions:request"]}
    roles.change("viewer", permissions=["risk:read"], by="root")
    assert elsewhere.permissions_of(["quant"]) == {"risk:read", "predictions:request"}


def test_an_account_named_like_a_role_is_not_that_role(database: Engine, roles: Roles) -> None:
    account(database, roles, "administrator", "viewer")
    assert roles.of("Administrator") == ("viewer",)
    roles.assign("administrator", "analyst", "root")
    assert roles.of("administrator") == ("analyst", "viewer")
    assert roles.permissions_of(["viewer"]) == frozenset(defaults.ROLES["viewer"][1])


@pytest.mark.parametrize("name", ["", "Big", "1st", "a b", "x" * 41, "a:b", "a,b", "röle", "role\n", "'; drop table--"])
def test_a_bad_name_is_refused(roles: Roles, name: str) -> None:
    assert refused(roles.create, name, None, [], "root") == (422, "invalid-role-name")


def test_unknown_permissions_are_refused_with_the_list(roles: Roles) -> None:
    with pytest.raises(AccessError, match="predictions:read") as caught:
        roles.create("odd", None, ["risk:read", "moon:land", "x"], "root")
    assert (caught.value.status, caught.value.kind) == (422, "unknown-permission")
    assert caught.value.detail == {"unknown": ["moon:land", "x"]}
    assert refused(roles.get, "odd") == (404, "role-not-found")


def test_cycles_deep_chains_and_unknown_parents_are_refused(roles: Roles) -> None:
    assert refused(roles.change, "viewer", parent="administrator", by="root") == (409, "role-cycle")
    assert refused(roles.change, "viewer", parent="viewer", by="root") == (409, "role-cycle")
    assert refused(roles.change, "viewer", parent="moon", by="root") == (422, "unknown-role")
    for level in range(4):
        roles.create(f"level{level}", None if level == 0 else f"level{level - 1}", [], "root")
    roles.change("level0", parent="administrator", by="root")
    assert roles.permissions_of(["level3"]) == frozenset(PERMISSIONS)
    assert refused(roles.create, "level4", "level3", [], "root") == (422, "role-too-deep")
    roles.create("base", None, [], "root")
    assert refused(roles.change, "viewer", parent="base", by="root") == (422, "role-too-deep")
    assert roles.permissions_of(["level3"]) == frozenset(PERMISSIONS)


def test_a_role_that_is_used_or_built_in_stays(database: Engine, roles: Roles) -> None:
    assert refused(roles.delete, "viewer", "root") == (409, "built-in-role")
    assert refused(roles.delete, "moon", "root") == (404, "role-not-found")
    roles.create("guest", None, [], "root")
    assert refused(roles.delete, "guest", "root") == (409, "role-in-use")  # the settings name it
    roles.create("a", None, [], "root")
    roles.create("b", "a", [], "root")
    roles.create("c", None, [], "root")
    account(database, roles, "bob", "b")
    with Session(database) as session, session.begin():
        session.execute(
            insert(LinkRow).values(
                hash="0", purpose="invitation", role="c", created_at=NOW, created_by="x", expires_at=NOW
            )
        )
    for name in "abc":
        assert refused(roles.delete, name, "root") == (409, "role-in-use")
    roles.withdraw("bob", "b", "root")
    roles.delete("b", "root")
    roles.delete("a", "root")
    assert "a" not in [role.name for role in roles.list()]


def test_nobody_gives_what_he_does_not_hold(database: Engine, roles: Roles, audit: Audit) -> None:
    account(database, roles, "bob", "viewer")
    roles.create("clerk", "viewer", ["users:manage"], "root")
    clerk, analyst = principal(roles, "clerk", "clerk"), principal(roles, "ann", "analyst")
    assert refused(roles.assign, "bob", "administrator", clerk) == (403, "forbidden")
    assert refused(roles.assign, "bob", "analyst", clerk) == (403, "forbidden")
    assert refused(roles.assign, "bob", "viewer", analyst) == (403, "forbidden")
    assert refused(roles.create, "mine", None, [], clerk) == (403, "forbidden")
    assert refused(roles.change, "viewer", permissions=[], by=clerk) == (403, "forbidden")
    assert refused(roles.delete, "clerk", clerk) == (403, "forbidden")
    assert len(audit.entries(AuditFilter(result="refused", action="role.*"))) == 6
    roles.withdraw("bob", "viewer", clerk)
    roles.assign("bob", "clerk", clerk)
    assert roles.of("bob") == ("clerk",)
    roles.assign("bob", "administrator", principal(roles, "root", "administrator"))
    assert refused(roles.withdraw, "bob", "administrator", clerk) == (403, "forbidden")


def test_the_last_administrator_stays(database: Engine, roles: Roles) -> None:
    first = account(database, roles, "first", "administrator")
    account(database, roles, "second", "administrator")
    roles.withdraw("second", "administrator", "root")
    assert refused(roles.withdraw, "first", "administrator", "root") == (409, "last-administrator")
    assert refused(roles.change, "administrator", permissions=["roles:manage"], by="root") == (
        409,
        "last-administrator",
    )
    assert roles.of("first") == ("administrator",)
    with (
        pytest.raises(AccessError, match="nobody would be left"),
        Session(database) as session,
        session.begin(),
        roles.administrator_remains(session),
    ):
        session.get(AccountRow, first).disabled_at = NOW
    with Session(database) as session:
        assert roles.administrators(session) == {first}
    # another role with the same rights keeps the platform governed
    roles.create("chief", None, ["users:manage", "roles:manage"], "root")
    roles.assign("second", "chief", "root")
    roles.withdraw("first", "administrator", "root")


def test_two_who_withdraw_the_last_two_at_once_leave_one(database: Engine, roles: Roles, audit: Audit) -> None:
    for name in ("one", "two"):
        account(database, roles, name, "administrator")
    barrier, outcomes = threading.Barrier(2), []

    def withdraw(name: str) -> None:
        mine = Roles(database, audit)
        barrier.wait()
        try:
            mine.withdraw(name, "administrator", "root")
            outcomes.append("done")
        except AccessError as error:
            outcomes.append(error.kind)

    threads = [threading.Thread(target=withdraw, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", "last-administrator"]
    with Session(database) as session:
        assert len(roles.administrators(session)) == 1


def test_a_refused_change_leaves_nothing_behind(database: Engine, roles: Roles, audit: Audit) -> None:
    account(database, roles, "only", "administrator")
    version, entries = versions.current(database), len(audit.entries())
    assert refused(roles.withdraw, "only", "administrator", "root")[0] == 409
    assert refused(roles.create, "x", "moon", [], "root")[0] == 422
    assert (versions.current(database), len(audit.entries())) == (version, entries)
    roles.assign("only", "administrator", "root")  # has it already
    assert (versions.current(database), len(audit.entries())) == (version, entries)


def test_a_permission_left_by_another_version_is_given_to_nobody(database: Engine, roles: Roles) -> None:
    with Session(database) as session, session.begin():
        session.execute(insert(PolicyRow).values(ptype="p", v0="role:viewer", v1="moon:land"))
        versions.bump(session)
    assert "moon:land" not in roles.permissions_of(["administrator"])
    roles.change("viewer", parent=KEEP, permissions=["risk:read"], by="root")
    assert roles.get("viewer").own == ("risk:read",)
