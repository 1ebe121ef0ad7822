"""`stock-pipeline users`: what an administrator types on the machine, and what comes of it."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from stock_pipeline.access.facade import Access
from stock_pipeline.api.service import Service
from stock_pipeline.config.loading import load_settings
from stock_pipeline_tests.accounts import CHEAP, HOME_ADDRESS, OTHER_PASSWORD, PASSWORD, kind
from stock_pipeline_tests.commands import Said, command

pytestmark = pytest.mark.requirement("R8.1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content = {
        "home": "home",
        "market": {"name": "small", "calendar": "XNYS"},
        "source": {"kind": "files", "path": "prices"},
        "access": {"passwords": CHEAP},
    }
    file = tmp_path / "market.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def access_of(config: Path) -> Access:
    return Service(load_settings(config, environment={})).access


def users(config: Path, *arguments: str, stdin: str = "", monkeypatch: pytest.MonkeyPatch | None = None) -> Said:
    if monkeypatch is not None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    return command("-c", config, "users", *arguments)


@pytest.fixture
def root(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with one administrator."""
    said = users(
        config,
        "create",
        "root",
        "--role",
        "administrator",
        "--password-stdin",
        stdin=f"{PASSWORD}\n",
        monkeypatch=monkeypatch,
    )
    assert said.code == 0, said.all
    assert PASSWORD not in said.all
    return config


def test_an_account_with_a_password_from_standard_input(root: Path) -> None:
    access = access_of(root)
    access.logins.log_in("root", PASSWORD, origin=HOME_ADDRESS)
    entry = next(e for e in access.audit.entries() if e.action == "account.create")
    assert entry.actor_kind == "command_line"
    assert entry.actor


def test_without_a_terminal_a_link_is_printed_that_works_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = users(root, "create", "ana", "--role", "analyst", monkeypatch=monkeypatch)
    link = re.fullmatch(r"http://127\.0\.0\.1:8000/reset#(spl_[\w-]{43})\n", said.out)
    assert link, said
    access = access_of(root)
    access.logins.reset_password(link[1], PASSWORD)
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert kind(access.logins.reset_password, link[1], OTHER_PASSWORD) == "link-invalid"


def test_at_a_terminal_the_password_is_asked_for_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter([PASSWORD, "not the same", PASSWORD, PASSWORD])
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: next(typed))
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda *_, **__: next(typed), raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal())
    said = command("-c", root, "users", "create", "ana")
    assert said.code == 0, said
    assert said.out == ""
    assert next(typed, None) is None
    access_of(root).logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)


def test_mistakes_are_explained(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, stdin, message in (
        (["create", "ROOT", "--password-stdin"], PASSWORD, "there is an account of this name"),
        (["create", "a b", "--password-stdin"], PASSWORD, "no account may have this name"),
        (
            ["create", "ana", "--password-stdin"],
            "tiny-pw",
            "too short; allowed: at least 12 characters",
        ),
        (["create", "ana", "--role", "boss", "--link"], "", "there is no such role: 'boss'"),
        (["show", "nobody"], "", "there is no such account: 'nobody'"),
        (["disable", "root"], "", "first make someone else an administrator"),
        (["delete", "root", "--yes"], "", "first make someone else an administrator"),
        (["role", "root", "viewer"], "", "first make someone else an administrator"),
        (["role", "root", "boss"], "", "there is no such role: 'boss'"),
        (["invite"], "", "invitations are off"),
        (["keys", "root", "--create", "job"], "", "a key needs scopes"),
        (["keys", "root", "--revoke", "0123", "--json"], "", "--json is for what is printed"),
        (["sessions", "root", "--revoke", "--json"], "", "--json is for what is printed"),
        (["keys", "root", "--revoke", "0123"], "", "root has no such key: '0123'"),
    ):
        said = users(root, *arguments, stdin=stdin, monkeypatch=monkeypatch)
        assert said.code == 1, said
        assert message in said.all, said
        assert not stdin or stdin not in said.all
    assert [account.name for account in access_of(root).accounts.list()] == ["root"]


def test_the_life_of_an_account(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = access_of(root)
    users(root, "create", "ana", "--password-stdin", stdin=PASSWORD, monkeypatch=monkeypatch)
    done = access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    assert done.tokens
    assert "Firefox on Linux" in users(root, "sessions", "ana").all
    assert "account ana has the roles analyst, viewer" in users(root, "role", "ana", "viewer", "analyst").all
    assert "account ana has the role operator" in users(root, "role", "ANA", "operator").all
    shown = users(root, "show", "ana").all
    assert "tasks:operate" in shown
    listed = users(root, "list").all
    assert "root" in listed
    as_json = json.loads(users(root, "list", "--json").out)
    assert {one["name"]: one["roles"] for one in as_json} == {"ana": ["operator"], "root": ["administrator"]}
    one = json.loads(users(root, "show", "ana", "--json").out)
    assert ("tasks:operate" in one["permissions"], one["open_sessions"], one["keys"]) == (True, 1, [])
    assert "operator" in listed
    assert access.gate.authenticate(done.tokens.access_token).may("tasks:operate")
    (session,) = json.loads(users(root, "sessions", "ana", "--json").out)
    assert (session["device"], session["kind"]) == ("Firefox on Linux", "token")
    assert "1 session of ana is over" in users(root, "sessions", "ana", "--revoke").all
    assert kind(access.gate.authenticate, done.tokens.access_token) == "session-revoked"
    assert users(root, "disable", "ana").code == 0
    assert "disabled" in users(root, "list", "--search", "AN").all
    assert kind(access.logins.log_in, "ana", PASSWORD, origin=HOME_ADDRESS) == "invalid-credentials"
    assert users(root, "enable", "ana").code == 0
    assert users(root, "unlock", "ana").code == 0
    access.logins.log_in("ana", PASSWORD, origin=HOME_ADDRESS)
    link = users(root, "reset", "ana").out.strip()
    access.logins.reset_password(link.partition("#")[2], OTHER_PASSWORD)
    assert users(root, "delete", "ana", "--yes").code == 0
    assert kind(access.accounts.get, "ana") == "account-not-found"


def test_a_key_is_printed_once_and_ends_when_it_is_revoked(root: Path) -> None:
    said = users(root, "keys", "root", "--create", "nightly job", "--scope", "predictions:read", "--days", "30")
    key = said.out.strip()
    access = access_of(root)
    who = access.gate.authenticate(key)
    assert who.permissions == {"predictions:read"}
    listed = users(root, "keys", "root").all
    assert "nightly job" in listed
    assert key not in listed
    (described,) = json.loads(users(root, "keys", "root", "--json").out)
    assert (described["name"], described["scopes"], described["revoked_at"]) == (
        "nightly job",
        ["predictions:read"],
        None,
    )
    assert key not in json.dumps(described)
    assert users(root, "keys", "root", "--revoke", who.session_id or "").code == 0
    assert kind(access.gate.authenticate, key) == "session-revoked"
    assert "revoked" in users(root, "keys", "root").all


def test_signing_keys_are_rotated(root: Path) -> None:
    access = access_of(root)
    tokens = access.logins.log_in("root", PASSWORD, origin=HOME_ADDRESS).tokens
    assert tokens
    before = access.tokens.kid
    said = users(root, "rotate-keys").all
    access.gate.authenticate(tokens.access_token)
    assert access.tokens.kid in said
    assert access.tokens.kid != before
    users(root, "rotate-keys", "--drop-old")
    assert kind(access.gate.authenticate, tokens.access_token) == "token-invalid"


def test_invitations_where_they_are_on(root: Path) -> None:
    content = yaml.safe_load(root.read_text())
    content["access"]["registration"] = "invitation"
    root.write_text(yaml.safe_dump(content))
    said = users(root, "invite", "--role", "analyst")
    access = access_of(root)
    assert access.logins.register("ana", PASSWORD, said.out.strip().partition("#")[2]).roles == ("analyst",)
