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
        content = [column for column in BAR_SCHEMA if column != "known_at"]
        before = _key_hash(current, content)
        after = _key_hash(fetched, content)
        changed = after.join(before, on=[*KEYS, "content"], how="anti")
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


def _key_hash(frame: pl.DataFrame, content: list[str]) -> pl.DataFrame:
    """One row a key with a hash of its rows' content, whatever their order."""
    return (
        frame.select(*KEYS, content=frame.select(content).hash_rows())
        .group_by(KEYS)
        .agg(content=pl.col("content").sort().cast(pl.String).str.join(","))
    )
