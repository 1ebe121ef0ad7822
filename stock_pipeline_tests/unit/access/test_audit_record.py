"""The audit trail: what an entry keeps, who writes at the same time, and transactions that fail."""

from __future__ import annotations

import json
import multiprocessing
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from stock_pipeline.access import versions
from stock_pipeline.access.audit import Audit, AuditFilter
from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.core.errors import ConfigurationError, IntegrityError
from stock_pipeline.storage.database import open_database

pytestmark = pytest.mark.requirement("R8.4")
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def audit(database: Engine, tmp_path: Path) -> Audit:
    return Audit(database, tmp_path / "home")


def test_an_entry_keeps_who_what_on_what_from_where(database: Engine, tmp_path: Path) -> None:
    audit = Audit(database, tmp_path, clock=lambda: NOW)
    who = Principal("ann", "token", 7, session_id="s-1")
    number = audit.record(
        "role.change",
        actor=who,
        origin=Origin("203.0.113.9", "curl/8", "req-1"),
        object=("role", "quant"),
        before={"permissions": ["a:b"]},
        after={"permissions": []},
        detail={"share": 0.1, "none": None, "many": {"x": [1, 2.5, True]}},
        run_id="run-1",
    )
    assert number == 1
    (entry,) = audit.entries()
    assert (entry.sequence, entry.at, entry.actor, entry.actor_kind) == (1, NOW, "ann", "token")
    assert (entry.action, entry.object_kind, entry.object_id, entry.result) == ("role.change", "role", "quant", "done")
    assert (entry.address, entry.user_agent, entry.request_id) == ("203.0.113.9", "curl/8", "req-1")
    assert (entry.session_id, entry.run_id) == ("s-1", "run-1")
    assert entry.before == {"permissions": ["a:b"]}
    assert entry.after == {"permissions": []}
    assert entry.detail == {"share": 0.1, "none": None, "many": {"x": [1, 2.5, True]}}
    assert audit.verify().intact


def test_secrets_are_hidden_and_long_values_cut_with_a_mark(audit: Audit) -> None:
    audit.record(
        "odd.thing",
        actor="x" * 500,
        origin=Origin("a" * 100, "Mozilla token=abc123secret " + "u" * 1000, "r" * 100),
        object=("kind" * 30, "https://user:hunter2@host/" + "i" * 400),
        detail={"password": "hunter2", "note": "Bearer abcdefghijk", "long": "l" * 5000, "list": list(range(1000))},
        before={"big": {str(n): "v" * 500 for n in range(150)}},
    )
    (entry,) = audit.entries()
    text = json.dumps([entry.actor, entry.user_agent, entry.object_id, entry.detail, entry.before])
    assert not any(secret in text for secret in ("hunter2", "abc123secret", "abcdefghijk"))
    assert entry.actor.endswith("~cut:500")
    assert len(entry.actor) == 120
    assert len(entry.user_agent or "") == 300
    assert len(entry.object_id or "") == 200
    assert entry.detail is not None
    assert entry.detail["long"].endswith("~cut:5000")
    assert entry.detail["list"][-1] == "~cut:1000 items"
    assert entry.before is not None
    assert list(entry.before) == ["cut"]
    assert audit.verify().intact


def test_values_that_no_database_takes_as_they_are(audit: Audit) -> None:
    audit.record(
        "odd.thing",
        actor="nul\0 and \ud800 half",
        origin=Origin(user_agent="\0\udfff"),
        detail={"nan": float("nan"), "inf": float("-inf"), "bytes": b"x", "at": NOW, "n\0": "\0\ud800", "big": 2**70,
                "set": {"b", "a"}, 5: Path("/x")},
    )  # fmt: skip
    (entry,) = audit.entries()
    assert entry.detail is not None
    assert entry.detail["nan"] == "nan"
    assert entry.detail["big"] == 2**70
    assert entry.detail["set"] == ["a", "b"]
    assert entry.detail["5"] == "/x"
    assert audit.verify().intact


@pytest.mark.parametrize(("action", "result"), [("login", "done"), (".x", "done"), ("x.", "done"), ("a.b", "maybe")])
def test_what_is_not_an_entry_is_refused(audit: Audit, action: str, result: str) -> None:
    with pytest.raises(ConfigurationError, match="not an audit entry"):
        audit.record(action, actor="x", result=result)  # type: ignore[arg-type]
    assert audit.entries() == []


def test_filters_and_pages(database: Engine, tmp_path: Path) -> None:
    times = iter(NOW + timedelta(hours=n) for n in range(100))
    audit = Audit(database, tmp_path, clock=lambda: next(times))
    for n in range(10):
        audit.record(
            "role.change" if n % 2 else "roles_x.other",
            actor=f"user{n % 3}",
            object=("role", str(n)),
            result="refused" if n == 4 else "done",
            origin=Origin(f"192.0.2.{n}", request_id=f"r{n}"),
            run_id=f"run{n}",
        )
    found = lambda **filters: [entry.sequence for entry in audit.entries(AuditFilter(**filters))]  # noqa: E731
    assert found() == list(range(10, 0, -1))
    assert found(action="role.change") == found(action="role.*") == [10, 8, 6, 4, 2]
    assert found(action="rol%.*") == []
    assert found(actor="user1", result="refused") == [5]
    assert found(since=NOW + timedelta(hours=8), until=NOW + timedelta(hours=9)) == [9]
    assert found(object_kind="role", object_id="3") == found(address="192.0.2.3") == found(run_id="run3") == [4]
    assert found(request_id="r3") == [4]
    first = audit.entries(limit=4)
    assert [entry.sequence for entry in audit.entries(after=first[-1].sequence, limit=4)] == [6, 5, 4, 3]


def _write(address: str, home: Path, name: str, count: int, failures) -> None:
    try:
        audit = Audit(open_database(address, migrate=False), home)
        for number in range(count):
            audit.record("load.entry", actor=name, detail={"n": number})
    except Exception as error:
        failures.put(repr(error))


def test_many_threads_and_processes_leave_no_gap(database: Engine, database_address: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    writers = [
        context.Process(target=_write, args=(database_address, home, f"process{n}", 25, failures)) for n in range(3)
    ]
    for process in writers:
        process.start()
    audit = Audit(database, home)

    def work(name: str) -> None:
        for number in range(15):
            audit.record("load.entry", actor=name, detail={"n": number})

    threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for each in [*threads, *writers]:
        each.join()
    assert failures.empty(), failures.get()
    checked = audit.verify()
    assert (checked.entries, checked.faults) == (3 * 25 + 4 * 15, ())
    numbers: dict[str, list[int]] = {}
    for entry in audit.stream():
        numbers.setdefault(entry.actor, []).append((entry.detail or {})["n"])
    assert all(seen == sorted(seen) for seen in numbers.values())
    anchor = audit.files.anchor()
    assert anchor is not None
    assert anchor.sequence == checked.entries


def test_more_writers_than_connections(database: Engine, audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    database.pool._timeout = 300.0  # those for whom there is no connection wait their turn, however long it takes
    audit.record("a.first", actor="x")
    threads = [threading.Thread(target=audit.record, args=("a.b",), kwargs={"actor": "x"}) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.verify().entries == 61
    assert audit.files.anchor().sequence == 61  # type: ignore[union-attr]
    assert "anchor" not in caplog.text


def test_an_entry_lives_and_dies_with_its_transaction(database: Engine, audit: Audit) -> None:
    audit.record("a.first", actor="x")
    with suppress(RuntimeError), Session(database) as session, session.begin():
        audit.record("a.lost", actor="x", session=session)
        raise RuntimeError
    with Session(database) as session:
        audit.record("a.closed", actor="x", session=session)
    with Session(database) as session, session.begin():
        versions.bump(session)
        with suppress(RuntimeError), session.begin_nested():
            audit.record("a.inner", actor="x", session=session)
            raise RuntimeError
        with session.begin_nested():
            audit.record("a.second", actor="x", session=session)
        assert audit.files.anchor().sequence == 1  # type: ignore[union-attr] # it is not committed yet
        audit.record("a.third", actor="x", session=session)
    assert [entry.action for entry in audit.entries()] == ["a.third", "a.second", "a.first"]
    assert audit.verify().intact
    assert audit.files.anchor().sequence == 3  # type: ignore[union-attr]


def test_a_trail_may_begin_with_several_entries_at_once(database: Engine, audit: Audit) -> None:
    with Session(database) as session, session.begin():
        with suppress(RuntimeError), session.begin_nested():
            audit.record("a.lost", actor="x", session=session)
            raise RuntimeError
        for number in range(5):
            audit.record("a.b", actor="x", detail={"n": number}, session=session)
    assert audit.files.anchor().sequence == 5  # type: ignore[union-attr]
    assert audit.verify().intact
    with Session(database) as session, session.begin():
        audit.record("a.c", actor="x", session=session)
        with suppress(RuntimeError), session.begin_nested():
            audit.record("a.lost", actor="x", session=session)
            raise RuntimeError
    assert audit.files.anchor().sequence == 6  # type: ignore[union-attr]
    assert audit.verify().intact


def test_key_and_anchor_are_for_their_owner_alone(audit: Audit) -> None:
    audit.record("a.b", actor="x")
    for path in (audit.files.key_path, audit.files.anchor_path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert audit.files.key().hex() not in repr(audit.files) + audit.files.anchor_path.read_text()


def test_without_its_key_nothing_is_added_to_a_trail(database: Engine, audit: Audit, tmp_path: Path) -> None:
    audit.record("a.b", actor="x")
    content = audit.files.key_path.read_bytes()
    audit.files.key_path.unlink()
    fresh = Audit(database, tmp_path / "home")
    with pytest.raises(IntegrityError, match=r"audit\.key.*backup"):
        fresh.record("a.c", actor="x")
    with pytest.raises(IntegrityError, match="missing"):
        fresh.verify()
    audit.files.key_path.write_bytes(b"not hexadecimal")
    audit.files.key_path.chmod(0o600)
    with pytest.raises(IntegrityError, match="holds no key"):
        fresh.record("a.c", actor="x")
    audit.files.key_path.write_bytes(content)
    assert fresh.record("a.c", actor="x") == 2
    assert fresh.verify().intact


def test_a_home_that_cannot_be_written_does_not_stop_the_work(audit: Audit) -> None:
    audit.record("a.b", actor="x")
    audit.files.anchor_path.unlink()
    audit.files.anchor_path.mkdir()  # the file cannot be replaced
    assert audit.record("a.c", actor="x") == 2
    assert [entry.action for entry in audit.entries()] == ["a.c", "a.b"]
