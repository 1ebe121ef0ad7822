"""One order for all rows, their place in the calendar, and the fate of duplicates.

Internal columns start with an underscore. What does not belong here: comparisons of prices over time (``series``).
"""

from __future__ import annotations

from datetime import date

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import BAR_SCHEMA, KEYS, PRICES
from stock_pipeline.core.quality.settings import QualityRules

PRESENCE_SESSIONS = 20
"""Window of the completeness score, in sessions."""

_VALUES = [name for name in BAR_SCHEMA if name not in (*KEYS, "known_at")]


def ordered(frame: pl.DataFrame) -> pl.DataFrame:
    """Sort rows so that the result never depends on the order of the input, and number them in ``_row``.

    Ties of the key are broken by all other columns; rows equal in everything are interchangeable.
    """
    by = list(KEYS)
    if frame.select(pl.struct(KEYS).is_duplicated().any()).item():
        by += [*_VALUES, "known_at"]
    return frame.sort(by, nulls_last=False).with_row_index("_row")


def place_in_calendar(frame: pl.DataFrame, sessions: list[date]) -> pl.DataFrame:
    """Add ``_idx`` (number of the session, null where it is none) and ``_future`` (later than the last session)."""
    if not sessions:
        raise DataError("no sessions were given", allowed="the calendar's sessions over all rows, look-back included")
    calendar = pl.DataFrame({"session": sorted(set(sessions))}, schema={"session": pl.Date()})
    calendar = calendar.with_columns(_idx=pl.int_range(pl.len(), dtype=pl.Int64))
    last = calendar["session"][-1]
    return frame.join(calendar, on="session", how="left", maintain_order="left").with_columns(
        _future=(pl.col("session") > last).fill_null(False)
    )


def clean_values(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``_open .. _close, _volume``: the values where they can be one, else null (volume 0 is a value)."""
    prices = [pl.when(_finite(name) & (pl.col(name) > 0)).then(pl.col(name)).alias(f"_{name}") for name in PRICES]
    volume = pl.when(_finite("volume") & (pl.col("volume") >= 0)).then(pl.col("volume")).alias("_volume")
    return frame.with_columns(*prices, volume)


def _finite(name: str) -> pl.Expr:
    return pl.col(name).is_finite().fill_null(False)


def with_presence(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    """Add what is known from the mere presence of rows, one place for each symbol and session.

    Returns
    -------
    polars.DataFrame
        With ``_missing`` (sessions missing since the previous row, null where there is none within
        ``gap_sessions``), ``_first`` (no such row: the series starts, or starts anew), ``_present`` (share of
        sessions present in the last 20) and ``_copies`` (rows with this key).
    """
    keyed = frame.filter(pl.col("_idx").is_not_null() & pl.col("symbol").is_not_null())
    places = keyed.select("symbol", "_idx", "_row").with_columns(_copies=pl.len().over("symbol", "_idx"))
    places = places.unique(["symbol", "_idx"], keep="first", maintain_order=True)
    same = pl.col("symbol") == pl.col("symbol").shift(1)
    gap = pl.when(same).then(pl.col("_idx") - pl.col("_idx").shift(1))
    gap = pl.when(gap <= rules.gap_sessions).then(gap)
    window = f"{PRESENCE_SESSIONS}i"
    places = places.with_columns(_one=pl.lit(1, dtype=pl.Int64)).with_columns(
        _missing=gap - 1,
        _first=gap.is_null(),
        _count=pl.col("_one").rolling_sum_by("_idx", window).over("symbol"),
        _oldest=pl.col("_idx").rolling_min_by("_idx", window).over("symbol"),
    )
    places = places.select(
        "_row",
        "_missing",
        "_first",
        "_copies",
        _present=pl.col("_count") / (pl.col("_idx") - pl.col("_oldest") + 1),
    )
    return frame.join(places, on="_row", how="left", maintain_order="left")


def mark_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Decide which of several rows of a key is used, in ``_duplicate`` (null, or the name of a rule).

    Only rows whose own values can be used (``_usable``) compete. The values learnt last win (a vendor's revision);
    among equal rows the one learnt first is kept. Where different values were learnt at the same instant, nobody can
    tell which is right, and none is used.
    """
    several = frame.filter(pl.col("_usable")).filter(pl.struct(KEYS).is_duplicated())
    if several.is_empty():
        return frame.with_columns(_duplicate=pl.lit(None, dtype=pl.String))
    key = list(KEYS)
    learnt = pl.col("known_at").fill_null(pl.datetime(1, 1, 1, time_unit="us", time_zone="UTC"))
    several = several.select("_row", *KEYS, _version=pl.struct(*KEYS, *_VALUES).rle_id(), _learnt=learnt)
    newest = pl.col("_learnt") == pl.col("_learnt").max().over(key)
    several = several.with_columns(_winner=pl.when(newest).then(pl.col("_version")))
    several = several.with_columns(
        _tied=pl.col("_winner").n_unique().over(key) - pl.col("_winner").is_null().any().over(key).cast(pl.UInt32) > 1,
        _winner=pl.col("_winner").max().over(key),
    )
    keeps = (pl.col("_version") == pl.col("_winner")) & (
        pl.col("_row") == pl.col("_row").sort_by("_learnt", "_row").first().over([*key, "_version"])
    )
    fate = (
        pl.when(pl.col("_tied"))
        .then(pl.lit("conflicting_duplicate"))
        .when(keeps)
        .then(None)
        .when(pl.col("_version") == pl.col("_winner"))
        .then(pl.lit("duplicate"))
        .otherwise(pl.lit("superseded"))
    )
    fates = several.select("_row", _duplicate=fate)
    return frame.join(fates, on="_row", how="left", maintain_order="left")


def mark_suspensions(frame: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    """Add ``_suspended``: one flat price equal to the close of the row before, and no shares traded.

    The comparison tells a halted symbol from an index that has a flat bar and no volume on every session.
    """
    flat = frame.filter(pl.col("_usable") & pl.col("_duplicate").is_null())
    near = pl.col("_idx") - pl.col("_idx").shift(1) <= rules.gap_sessions
    carried = (pl.col("symbol") == pl.col("symbol").shift(1)) & near & (pl.col("close") == pl.col("close").shift(1))
    flat = flat.select("_row", _suspended=(pl.col("_flat_no_volume") & carried).fill_null(False))
    frame = frame.join(flat, on="_row", how="left", maintain_order="left")
    return frame.with_columns(pl.col("_suspended").fill_null(False))
