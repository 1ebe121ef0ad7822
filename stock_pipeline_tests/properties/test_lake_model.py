"""Any sequence of writes leaves the lake as a plain dictionary would be, now and in every earlier version."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.storage.lake import Lake

FIRST = date(2020, 12, 29)
"""The eight days from here lie in two years, so in two physical partitions."""
SCHEMA = {"symbol": pl.String, "session": pl.Date, "value": pl.Float64}

Rows = dict[tuple[str, date], float | None]

rows = st.dictionaries(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 7)),
    st.one_of(st.none(), st.sampled_from([0.0, 1.5, -2.0, 1e300])),
    max_size=6,
)
writes = st.tuples(
    st.sampled_from(["write_sessions", "append_new", "replace", "compact"]),
    st.tuples(st.integers(0, 7), st.integers(0, 7)).map(sorted),
    rows,
)


def frame(content: Rows) -> pl.DataFrame:
    return pl.DataFrame([(*key, value) for key, value in content.items()], schema=SCHEMA, orient="row")


@pytest.mark.slow
@given(st.lists(writes, min_size=1, max_size=5))
def test_the_lake_is_a_dictionary_with_memory(sequence: list[tuple[str, list[int], dict]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake, model, past = Lake(folder), Rows(), {}
        for kind, (low, high), drawn in sequence:
            start, end = FIRST + timedelta(days=low), FIRST + timedelta(days=high)
            new = {(symbol, FIRST + timedelta(days=day)): value for (symbol, day), value in drawn.items()}
            before = lake.version("t")
            if kind == "write_sessions":
                new = {key: value for key, value in new.items() if start <= key[1] <= end}
                model = {key: value for key, value in model.items() if not start <= key[1] <= end} | new
                version = lake.write_sessions("t", frame(new), start=start, end=end)
            elif kind == "append_new":
                model = new | model
                version = lake.append_new("t", frame(new))
            elif kind == "replace":
                model = new
                version = lake.replace("t", frame(new))
            elif before is None:
                continue
            else:
                version = lake.compact("t")
            assert version == lake.version("t")
            assert version >= (before or 0)
            if version == before:
                assert past[version] == model
            past[version] = dict(model)
            stored = lake.read("t")
            assert stored.rows() == sorted((*key, value) for key, value in model.items())
            assert lake.sessions("t") == sorted({day for _, day in model})
            assert lake.last_session("t") == max((day for _, day in model), default=None)
        for version, content in past.items():
            assert lake.read("t", version=version).rows() == sorted((*key, value) for key, value in content.items())
