"""Raw bars as they came: append-only, with the batch in which each row arrived.

A vendor may deliver a key twice in one batch (both rows are kept and judged by validation) or revise it later (the
newest batch of a key is the current one, the older rows stay for whoever wants to know what was believed then).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from stock_pipeline.core.market.bars import BAR_SCHEMA, KEYS
from stock_pipeline.storage.lake import Lake

TABLE = "market/raw_bars"
FACTOR_TOLERANCE = 1e-5
"""Relative change of an adjustment factor that is only the vendor's rounding: a vendor that rebases its adjusted closes
after a dividend moves all factors of a symbol by about 1e-7, which revises nothing."""
SCHEMA = {**BAR_SCHEMA, "batch": pl.Int64()}


@dataclass(frozen=True)
class Ingested:
    """What an ingestion changed: rows added, rows that revise known keys, and the earliest session touched."""

    added: int
    revised: int
    first_session: date | None
    version: int | None


class RawBars:
    """Append-only store of raw bars in a lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def append(self, fetched: pl.DataFrame) -> Ingested:
        """Keep every key of `fetched` whose rows differ from the current ones.

        Parameters
        ----------
        fetched
            Rows of ``BAR_SCHEMA``; null sessions or symbols are not allowed here (sources refuse them).

        Returns
        -------
        Ingested
            Counts and the earliest session touched; nothing is written when nothing is new.
        """
        fetched = fetched.select(*BAR_SCHEMA)
        current = self.current()
        before, after = _by_key(current), _by_key(fetched)
        changed = after.join(before, on=list(KEYS), how="left", suffix="_before").filter(
            (pl.col("content") != pl.col("content_before")).fill_null(True)
            | ((pl.col("factor") / pl.col("factor_before") - 1.0).abs() > FACTOR_TOLERANCE).fill_null(False)
        )
        if changed.is_empty():
            return Ingested(0, 0, None, self.lake.version(TABLE))
        rows = fetched.join(changed.select(KEYS), on=list(KEYS), how="semi")
        batch = 1 + (self._all()["batch"].max() or 0)  # type: ignore[operator]
        start, end = rows["session"].min(), rows["session"].max()
        assert isinstance(start, date)
        assert isinstance(end, date)
        stored = self._all().filter(pl.col("session").is_between(start, end))
        version = self.lake.write_sessions(
            TABLE,
            pl.concat([stored, rows.with_columns(batch=pl.lit(batch, pl.Int64)).select(*SCHEMA)]),
            start=start,
            end=end,
        )
        revised = changed.join(before, on=list(KEYS), how="semi").height
        return Ingested(rows.height, revised, start, version)

    def current(self, start: date | None = None, end: date | None = None) -> pl.DataFrame:
        """Rows of the newest batch of each key, in ``BAR_SCHEMA``, sorted."""
        rows = self._all(start, end)
        return rows.filter(pl.col("batch") == pl.col("batch").max().over(KEYS)).select(*BAR_SCHEMA)

    def _all(self, start: date | None = None, end: date | None = None) -> pl.DataFrame:
        if not self.lake.exists(TABLE):
            return pl.DataFrame(schema=SCHEMA)
        return self.lake.read(TABLE, start=start, end=end).select(*SCHEMA)


def _by_key(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a key: a hash of its rows' content, whatever their order, and its adjustment factor."""
    content = [column for column in BAR_SCHEMA if column not in ("known_at", "adj_factor")]
    return (
        frame.select(*KEYS, content=frame.select(content).hash_rows(), factor="adj_factor")
        .group_by(KEYS)
        .agg(content=pl.col("content").sort().cast(pl.String).str.join(","), factor=pl.col("factor").mean())
    )
