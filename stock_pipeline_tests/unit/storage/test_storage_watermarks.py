"""What is new is decided from content: changes, removals, parameters, and what looks back into a change."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.watermarks import Plan, Watermarks, parameters_hash, session_hashes

FIRST = date(2020, 1, 1)
TABLE = "features/x"


def frame(values: list[float], start: date = FIRST) -> pl.DataFrame:
    days = [start + timedelta(days=i) for i in range(len(values))]
    return pl.DataFrame({"symbol": ["A"] * len(days), "session": days, "close": values})


def done(marks: Watermarks, inputs: pl.DataFrame, parameters: str = "p", **options: object) -> Plan:
    """Plan, write what was asked for, record."""
    plan = marks.plan(TABLE, {"bars": inputs}, parameters, **options)  # type: ignore[arg-type]
    if plan.start is not None and plan.end is not None:
        rows = inputs.filter(pl.col("session").is_between(plan.start, plan.end))
        marks.lake.write_sessions(TABLE, rows, start=plan.start, end=plan.end)
        marks.record(TABLE, plan, parameters)
    return plan


@pytest.fixture
def marks(tmp_path: Path) -> Watermarks:
    return Watermarks(Lake(tmp_path / "lake"))


@pytest.mark.requirement("R1.1")
def test_nothing_is_planned_twice_and_new_sessions_are_found(marks: Watermarks) -> None:
    assert done(marks, frame([1, 2, 3])).start == FIRST
    assert done(marks, frame([1, 2, 3])).is_empty
    plan = done(marks, frame([1, 2, 3, 4]))
    assert (plan.start, plan.end) == (FIRST + timedelta(days=3), FIRST + timedelta(days=3))


@pytest.mark.requirement("R1.1", "R3.1")
def test_a_changed_session_is_computed_with_everything_after_it(marks: Watermarks) -> None:
    done(marks, frame([1, 2, 3, 4, 5]))
    plan = done(marks, frame([1, 2, 9, 4, 5]))
    assert (plan.start, plan.end) == (FIRST + timedelta(days=2), FIRST + timedelta(days=4))


def test_a_change_inside_a_narrow_window_leaves_later_sessions_to_do(marks: Watermarks) -> None:
    done(marks, frame([1, 2, 3, 4, 5]))
    window = (FIRST + timedelta(days=1), FIRST + timedelta(days=2))
    plan = done(marks, frame([1, 2, 9, 4, 5]), window=window)
    assert (plan.start, plan.end) == (FIRST + timedelta(days=2), FIRST + timedelta(days=2))
    later = done(marks, frame([1, 2, 9, 4, 5]))
    assert (later.start, later.end) == (FIRST + timedelta(days=3), FIRST + timedelta(days=4)), "they look back into it"
    assert done(marks, frame([1, 2, 9, 4, 5])).is_empty


def test_a_rebuild_without_a_change_leaves_later_sessions_alone(marks: Watermarks) -> None:
    done(marks, frame([1, 2, 3]))
    plan = done(marks, frame([1, 2, 3]), window=(FIRST, FIRST), rebuild=True)
    assert (plan.start, plan.end, plan.changed) == (FIRST, FIRST, False)
    assert done(marks, frame([1, 2, 3])).is_empty


def test_a_session_that_vanished_and_new_parameters_are_changes(marks: Watermarks) -> None:
    done(marks, frame([1, 2, 3]))
    assert done(marks, frame([1, 2, 3]).filter(pl.col("close") != 2)).start == FIRST + timedelta(days=1)
    assert done(marks, frame([1, 3]), "other").start == FIRST


def test_a_table_without_its_files_is_computed_anew(marks: Watermarks) -> None:
    done(marks, frame([1, 2]))
    (Path(marks.lake.root) / TABLE).rename(Path(marks.lake.root) / "gone")
    assert done(marks, frame([1, 2])).start == FIRST


def test_a_plan_that_was_not_recorded_is_planned_again(marks: Watermarks) -> None:
    plan = marks.plan(TABLE, {"bars": frame([1, 2])}, "p")
    marks.lake.write_sessions(TABLE, frame([1, 2]), start=plan.start, end=plan.end)  # type: ignore[arg-type]
    assert not marks.plan(TABLE, {"bars": frame([1, 2])}, "p").is_empty, "killed between the write and the record"


@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=12),
    data=st.data(),
)
def test_hashes_depend_on_content_and_not_on_order(values: list[float], data: st.DataObject) -> None:
    rows = pl.DataFrame(
        {"symbol": [f"S{i}" for i in range(len(values))], "session": [FIRST] * len(values), "close": values}
    )
    order = data.draw(st.permutations(range(len(values))))
    hashes = session_hashes({"bars": rows})
    assert session_hashes({"bars": rows[order]}).equals(hashes)
    assert session_hashes({"bars": rows.select("close", "session", "symbol")}).equals(hashes)
    place = data.draw(st.integers(0, len(values) - 1))
    changed = [v + 1.0 if i == place else v for i, v in enumerate(values)]
    if changed != values:
        assert not session_hashes({"bars": rows.with_columns(close=pl.Series(changed))}).equals(hashes)
    assert not session_hashes({"bars": pl.concat([rows, rows])}).equals(hashes), "a copied row is a change"
    assert not session_hashes({"other": rows}).equals(hashes)


def test_parameters_are_told_apart() -> None:
    assert parameters_hash("ab", "c") != parameters_hash("a", "bc")
