"""What is new: which sessions of a derived table must be computed again, decided from content alone.

Every derived table keeps, beside it, the hash of the input rows of each session that it was computed from and the hash
of the parameters and code. A later run compares: the first session whose input changed, or is missing, is where the
computation starts again. There is no other state, so a run that was killed anywhere is simply continued by the next
one, and a run with nothing new computes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from stock_pipeline.storage.lake import Lake

PREFIX = "ops/watermarks"
HASH_SCHEMA = {"session": pl.Date(), "input_hash": pl.Int64()}


def session_hashes(inputs: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Hash the rows of each session over all input frames.

    Parameters
    ----------
    inputs
        Frames with a ``session`` column, by a name that enters the hash.

    Returns
    -------
    polars.DataFrame
        ``session`` (Date) and ``input_hash`` (Int64), sorted; independent of the order of rows.
    """
    parts = []
    for name, frame in sorted(inputs.items()):
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little")
        rows = frame.select(sorted(frame.columns)).hash_rows(seed=seed)
        # a wrapping sum: order does not matter, and a row that appears twice changes it
        parts.append(pl.DataFrame({"session": frame["session"], "input_hash": rows}))
    if not parts:
        return pl.DataFrame(schema=HASH_SCHEMA)
    return (
        pl.concat(parts)
        .with_columns(low=pl.col("input_hash") & 0xFFFFFFFF, high=pl.col("input_hash") // 2**32)
        .group_by("session")
        .agg(low=pl.col("low").sum() % 2**32, high=pl.col("high").sum() % 2**32)
        # Delta has no unsigned integers: the same 64 bits, read as signed
        .select("session", input_hash=(pl.col("low") + pl.col("high") * 2**32).cast(pl.UInt64).reinterpret(signed=True))
        .sort("session")
    )


def parameters_hash(*parts: object) -> str:
    """Hash whatever else decides a result: settings as JSON, code version, library version."""
    text = "\x1f".join([pl.__version__, *(str(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """Which sessions of a table to compute.

    Attributes
    ----------
    start, end
        Inclusive range to compute; ``None`` when the table is up to date.
    hashes
        The inputs' hashes, to be recorded once the table is written.
    changed
        Whether inputs or parameters changed (and not merely a rebuild was asked for): then sessions after `end` that
        look back into the range are computed again by the next run.
    """

    start: date | None
    end: date | None
    hashes: pl.DataFrame
    changed: bool = True

    @property
    def is_empty(self) -> bool:
        """Nothing to do."""
        return self.start is None


class Watermarks:
    """Plans and records the work on derived tables of a lake.

    Parameters
    ----------
    lake
        Where the tables and the watermarks are kept.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def plan(
        self,
        table: str,
        inputs: Mapping[str, pl.DataFrame],
        parameters: str,
        *,
        window: tuple[date, date] | None = None,
        rebuild: bool = False,
    ) -> Plan:
        """Decide which sessions of `table` to compute.

        Parameters
        ----------
        table
            The derived table.
        inputs
            Everything it is computed from, as frames with ``session``.
        parameters
            `parameters_hash` of what else decides it.
        window
            Only sessions in this inclusive range are considered.
        rebuild
            Compute the whole window even where nothing changed.
        """
        hashes = session_hashes(inputs)
        start, end = window or (date.min, date.max)
        inside = hashes.filter(pl.col("session").is_between(start, end))
        known = self._known(table).filter(pl.col("parameters") == parameters, pl.col("session").is_between(start, end))
        if not self.lake.exists(table):
            known = known.clear()
        stale = inside.join(known, on=["session", "input_hash"], how="anti").select("session")
        gone = known.join(hashes, on="session", how="anti").select("session")
        changed = pl.concat([stale, gone])["session"].to_list()
        todo = sorted({*changed, *(inside["session"].to_list() if rebuild else [])})
        if not todo:
            return Plan(None, None, hashes, changed=False)
        # everything from the first change on: a changed bar reaches into the look-backs of later sessions
        last = max([todo[-1], *inside["session"].to_list()[-1:]])
        return Plan(todo[0], last, hashes, changed=bool(changed))

    def record(self, table: str, plan: Plan, parameters: str) -> None:
        """Remember what `table` was computed from, after it has been written."""
        if plan.is_empty:
            return
        inside = pl.col("session").is_between(pl.lit(plan.start), pl.lit(plan.end))
        done = plan.hashes.filter(inside).with_columns(parameters=pl.lit(parameters))
        kept = self._known(table).filter(~inside)
        if plan.changed:
            kept = kept.filter(pl.col("session") < pl.lit(plan.start))
        self.lake.replace(f"{PREFIX}/{table}", pl.concat([kept, done]).sort("session"))

    def _known(self, table: str) -> pl.DataFrame:
        name = f"{PREFIX}/{table}"
        if not self.lake.exists(name):
            return pl.DataFrame(schema={**HASH_SCHEMA, "parameters": pl.String()})
        return self.lake.read(name).select("session", "input_hash", "parameters")
