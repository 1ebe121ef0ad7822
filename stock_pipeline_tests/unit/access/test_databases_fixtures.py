"""The database fixtures: fresh, migrated, on both kinds."""

from __future__ import annotations

from sqlalchemy import Engine, inspect
from sqlalchemy.orm import Session

from stock_pipeline.access import versions


def test_a_database_is_fresh_and_has_all_tables(database: Engine) -> None:
    assert "audit_entry" in inspect(database).get_table_names()
    assert versions.current(database) == 0
    with Session(database) as session, session.begin():
        versions.bump(session)
    assert versions.current(database) == 1


def test_the_next_test_sees_nothing_of_it(database: Engine) -> None:
    assert versions.current(database) == 0
