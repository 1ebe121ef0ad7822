"""Tampering with a real audit trail is found and named, whatever it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from stock_pipeline.access.audit import Audit
from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.storage.database import open_database

pytestmark = pytest.mark.requirement("R8.4")
LENGTH = 12
TEXTS = (
    "actor", "actor_kind", "action", "object_kind", "object_id", "result", "address", "user_agent", "session_id",
    "request_id", "run_id", "previous_seal", "seal",
)  # fmt: skip
VALUES = ("detail", "before", "after")


def fill(audit: Audit, count: int = LENGTH) -> None:
    for number in range(count):
        audit.record(
            ("session.log_in", "role.change", "data.read")[number % 3],
            actor=Principal(f"user{number % 4}", "token", number, session_id=f"session-{number}"),
            origin=Origin(f"192.0.2.{number}", "agent", f"request-{number}"),
            object=("account", str(number)),
            result="refused" if number % 5 == 4 else "done",
            detail={"rows": number, "share": number / 7},
            before={"n": number} if number % 3 == 1 else None,
            after={"n": number + 1} if number % 3 == 1 else None,
        )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    """A folder with a real trail, its key and its anchor."""
    folder = tmp_path_factory.mktemp("trail")
    shutil.copyfile(migrated_file, folder / "metadata.db")
    engine = open_database(folder / "metadata.db", migrate=False)
    fill(Audit(engine, folder))
    with engine.connect() as connection:
        connection.commit()
        connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    engine.dispose()
    return folder


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, original: Path) -> Iterator[Callable[[], tuple[Engine, Audit]]]:
    """Gives a fresh copy of the trail each time."""
    folder, opened = tmp_path_factory.mktemp("copy"), []

    def fresh() -> tuple[Engine, Audit]:
        for engine in opened:
            engine.dispose()
        opened.clear()
        shutil.rmtree(folder)
        shutil.copytree(original, folder)
        engine = open_database(folder / "metadata.db", migrate=False)
        opened.append(engine)
        return engine, Audit(engine, folder)

    yield fresh
    for engine in opened:
        engine.dispose()


def run(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def content(engine: Engine) -> tuple[list[Any], list[Any]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM audit_entry ORDER BY sequence")).all()
        return list(rows), list(connection.execute(text("SELECT * FROM audit_head")).all())


def edit(engine: Engine, place: int, column: str, value: Any) -> None:
    run(engine, f"UPDATE audit_entry SET {column} = :value WHERE sequence = :place", value=value, place=place)


def delete(engine: Engine, place: int) -> None:
    run(engine, "DELETE FROM audit_entry WHERE sequence = :place", place=place)


def swap(engine: Engine, one: int, other: int) -> None:
    if one == other:
        return
    for before, after in ((one, -5), (other, one), (-5, other)):
        run(engine, "UPDATE audit_entry SET sequence = :after WHERE sequence = :before", before=before, after=after)


def insert_copy(engine: Engine, source: int, place: int) -> None:
    """A copy of an entry with another actor, put in at a place; those behind move up."""
    with engine.begin() as connection:
        count = connection.execute(text("SELECT max(sequence) FROM audit_entry")).scalar() or 0
        for number in range(count, place - 1, -1):
            connection.execute(text("UPDATE audit_entry SET sequence = :n + 1 WHERE sequence = :n"), {"n": number})
        names = [*TEXTS, "at", *VALUES]
        origin = source + 1 if source >= place else source
        picked = ", ".join("'mallory'" if name == "actor" else name for name in names)
        connection.execute(
            text(
                f"INSERT INTO audit_entry (sequence, {', '.join(names)})"
                f" SELECT :place, {picked} FROM audit_entry WHERE sequence = :origin"
            ),
            {"place": place, "origin": origin},
        )


def cut_tail(engine: Engine, keep: int) -> None:
    """Cut the tail off and make the head row fit."""
    run(engine, "DELETE FROM audit_entry WHERE sequence > :keep", keep=keep)
    run(
        engine,
        "UPDATE audit_head SET sequence = :keep, seal = (SELECT seal FROM audit_entry WHERE sequence = :keep)",
        keep=keep,
    )


places = st.integers(1, LENGTH)
edits = st.one_of(
    st.tuples(st.just(edit), places, st.sampled_from(TEXTS), st.text(max_size=30)),
    st.tuples(st.just(edit), places, st.sampled_from(VALUES),
              st.sampled_from(['{"rows": 99}', "{}", "[]", "1", "not json", '{"n": 1e999}', ""])),
    st.tuples(st.just(edit), places, st.just("at"),
              st.sampled_from(["2020-01-01 00:00:00.000000", "yesterday", "", "2026-01-01T00:00:00+05:00"])),
)  # fmt: skip
tamperings = st.one_of(
    edits,
    st.tuples(st.just(delete), places),
    st.tuples(st.just(swap), places, places),
    st.tuples(st.just(insert_copy), places, st.integers(1, LENGTH + 1)),
    st.tuples(st.just(cut_tail), st.integers(1, LENGTH - 1)),
)


@settings(max_examples=200)
@given(tampering=st.lists(tamperings, min_size=1, max_size=3))
def test_any_tampering_is_found(copies: Callable[[], tuple[Engine, Audit]], tampering: list[tuple[Any, ...]]) -> None:
    engine, audit = copies()
    before = content(engine)
    try:
        for act, *arguments in tampering:
            act(engine, *arguments)
    except Exception as error:  # the database itself refuses some combinations, such as two rows at one place
        assert "audit_" in str(error)  # noqa: PT017
    found = audit.verify()
    assert found.intact == (content(engine) == before), found.faults


@settings(max_examples=150)
@given(change=edits)
def test_each_edit_is_named_at_its_place(copies: Callable[[], tuple[Engine, Audit]], change: tuple[Any, ...]) -> None:
    engine, audit = copies()
    before = content(engine)
    change[0](engine, *change[1:])
    faults = audit.verify().faults
    if content(engine) != before:
        assert [(fault.kind, fault.sequence) for fault in faults] == [("changed", change[1])]


@settings(max_examples=100)
@given(one=places, other=places)
def test_each_swap_is_named_as_one(copies: Callable[[], tuple[Engine, Audit]], one: int, other: int) -> None:
    engine, audit = copies()
    swap(engine, one, other)
    found = [(fault.kind, fault.sequence) for fault in audit.verify().faults]
    assert found == ([] if one == other else [("reordered", place) for place in sorted((one, other))])


@pytest.mark.parametrize("place", range(1, LENGTH + 1))
def test_each_deletion_is_named(copies: Callable[[], tuple[Engine, Audit]], place: int) -> None:
    engine, audit = copies()
    delete(engine, place)
    kinds = {(fault.kind, fault.sequence) for fault in audit.verify().faults}
    assert kinds == {("missing" if place < LENGTH else "tail-cut", place)}


@pytest.mark.parametrize("keep", range(1, LENGTH))
def test_a_tail_that_was_cut_off_cleanly_is_found_by_the_anchor(
    copies: Callable[[], tuple[Engine, Audit]], keep: int
) -> None:
    engine, audit = copies()
    cut_tail(engine, keep)
    assert [(fault.kind, fault.sequence) for fault in audit.verify().faults] == [("tail-cut", keep + 1)]
    fill(audit)  # new entries over the cut do not hide it
    faults = audit.verify().faults
    assert [(fault.kind, fault.sequence) for fault in faults] == [("tail-cut", LENGTH)]
    assert "written anew" in faults[0].what


@pytest.mark.parametrize("place", range(1, LENGTH + 2))
def test_an_entry_put_in_is_named(copies: Callable[[], tuple[Engine, Audit]], place: int) -> None:
    engine, audit = copies()
    insert_copy(engine, 3, place)
    faults = audit.verify().faults
    assert ("inserted", place) in {(fault.kind, fault.sequence) for fault in faults}
    assert {fault.kind for fault in faults if fault.sequence > place} <= {"reordered"}


def test_everything_removed_is_found(copies: Callable[[], tuple[Engine, Audit]]) -> None:
    engine, audit = copies()
    run(engine, "DELETE FROM audit_entry")
    run(engine, "DELETE FROM audit_head")
    assert [fault.kind for fault in audit.verify().faults] == ["tail-cut"]


def test_head_and_anchor_are_checked_themselves(copies: Callable[[], tuple[Engine, Audit]]) -> None:
    engine, audit = copies()
    run(engine, "UPDATE audit_head SET seal = 'x'")
    assert [fault.kind for fault in audit.verify().faults] == ["head"]
    engine, audit = copies()
    run(engine, "UPDATE audit_head SET sequence = 5")
    assert [fault.kind for fault in audit.verify().faults] == ["head"]
    engine, audit = copies()
    run(engine, "DELETE FROM audit_head")
    assert [fault.kind for fault in audit.verify().faults] == ["head"]
    for broken in ("", "{", '{"sequence": 3}', '{"sequence": "3", "seal": "x", "key": "y"}', "[]"):
        _, audit = copies()
        audit.files.anchor_path.write_text(broken)
        assert [fault.kind for fault in audit.verify().faults] == ["anchor"], broken
    _, audit = copies()
    audit.files.anchor_path.unlink()
    assert [fault.kind for fault in audit.verify().faults] == ["anchor"]
    audit.record("a.b", actor="x")  # an anchor that was removed does not come back by itself
    assert [fault.kind for fault in audit.verify().faults] == ["anchor"]


def test_another_key_is_told_from_changed_entries(copies: Callable[[], tuple[Engine, Audit]], tmp_path: Path) -> None:
    engine, audit = copies()
    audit.files.key_path.write_text("ab" * 32)
    found = Audit(engine, audit.files.key_path.parent.parent).verify()
    assert [fault.kind for fault in found.faults] == ["key"]
    assert found.entries == LENGTH
    elsewhere = Audit(engine, tmp_path)
    (tmp_path / "keys").mkdir(mode=0o700)
    shutil.copy(audit.files.key_path, tmp_path / "keys" / "audit.key")
    assert [fault.kind for fault in elsewhere.verify().faults] == ["key"]


def test_an_anchor_is_renewed_on_purpose_and_the_trail_tells_of_it(copies: Callable[[], tuple[Engine, Audit]]) -> None:
    engine, audit = copies()
    cut_tail(engine, 7)
    audit.renew_anchor("root", "restored from the backup of Sunday")
    assert audit.verify().intact
    (entry,) = audit.entries(limit=1)
    assert entry.action == "audit.anchor"
    assert entry.detail is not None
    assert "tail-cut" in entry.detail["faults_before"][0]


def test_an_anchor_that_lags_is_no_fault(copies: Callable[[], tuple[Engine, Audit]]) -> None:
    _, audit = copies()
    old = audit.files.anchor_path.read_text()
    fill(audit, 3)
    audit.files.anchor_path.write_text(old)  # the process ended between commit and file
    assert audit.verify().intact
    fill(audit, 1)
    assert audit.files.anchor().sequence == LENGTH + 4  # type: ignore[union-attr]
    assert audit.verify().intact


def test_a_damaged_entry_keeps_nobody_from_the_others(copies: Callable[[], tuple[Engine, Audit]]) -> None:
    engine, audit = copies()
    edit(engine, 2, "detail", "not json")
    edit(engine, 3, "at", "yesterday")
    edit(engine, 4, "before", "[1]")
    assert [entry.sequence for entry in audit.entries()] == list(range(LENGTH, 0, -1))
    assert len(list(audit.export("csv"))) == LENGTH + 1
    assert audit.entries(after=3, limit=1)[0].detail == {"unreadable": "not json"}
    assert [fault.sequence for fault in audit.verify().faults] == [2, 3, 4]


def test_a_long_trail_of_faults_is_bounded(sqlite_database: Engine, tmp_path: Path) -> None:
    audit = Audit(sqlite_database, tmp_path / "home")
    fill(audit, 1010)
    run(sqlite_database, "UPDATE audit_entry SET actor = 'mallory' WHERE sequence > 1")
    found = audit.verify()
    assert found.entries == 1010
    assert [entry.sequence for entry in audit.stream()] == list(range(1, 1011))  # read in pages
    assert len(found.faults) + found.further >= 1009
    assert len(found.faults) <= 501


@pytest.mark.parametrize(
    ("tampering", "kind"),
    [
        ((edit, 4, "actor", "mallory"), "changed"),
        ((edit, 4, "detail", '{"rows": 0}'), "changed"),
        ((edit, 4, "at", "2020-01-01 00:00:00+00"), "changed"),
        ((delete, 4), "missing"),
        ((swap, 4, 9), "reordered"),
        ((insert_copy, 3, 6), "inserted"),
        ((cut_tail, 8), "tail-cut"),
    ],
)
def test_the_same_on_every_database(database: Engine, tmp_path: Path, tampering: tuple[Any, ...], kind: str) -> None:
    audit = Audit(database, tmp_path / "home")
    fill(audit)
    assert audit.verify().intact
    if tampering[0] is edit and tampering[2] == "at" and database.dialect.name == "postgresql":
        run(database, "UPDATE audit_entry SET at = '2020-01-01 00:00:00+00' WHERE sequence = 4")
    elif tampering[0] is edit and tampering[2] == "detail" and database.dialect.name == "postgresql":
        run(database, "UPDATE audit_entry SET detail = CAST('{\"rows\": 0}' AS json) WHERE sequence = 4")
    else:
        tampering[0](database, *tampering[1:])
    assert kind in {fault.kind for fault in audit.verify().faults}
