"""What a model learns to predict: forward returns on adjusted prices, and when each one becomes known.

Features belong to ``core.features``; reshaping of the training target (demeaning, ranks) to ``modelling.target``.
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.errors import ConfigurationError, DataError

LABEL_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "label": pl.Float64(),
    "label_session": pl.Date(),
}
"""Labels: the forward return as a fraction, and the session whose price completes it."""


def forward_returns(bars: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """Compute the return that a decision taken after each session earns.

    A decision dated t is traded at the open of the symbol's next row: ``open[t+1+h] / open[t+1] - 1``. A symbol that
    has no open at all falls back to closes: ``close[t+h] / close[t] - 1``. Prices are adjusted (raw x ``adj_factor``)
    where the frame has an ``adj_factor``. Rows are counted per symbol, so a halted symbol's label is completed late
    and its ``label_session`` says when.

    Parameters
    ----------
    bars
        Validated bars: ``symbol``, ``session``, ``close`` and, where known, ``open`` and ``adj_factor``.
    horizon
        Number of rows (sessions) that the position is held, at least 1.

    Returns
    -------
    polars.DataFrame
        `LABEL_SCHEMA`, one row per bar, sorted by symbol and session. ``label`` and ``label_session`` are null where
        the label has not matured, and where a price it needs is missing or not positive.

    Raises
    ------
    ConfigurationError
        If ``horizon`` is below 1.
    DataError
        If a needed column is absent or a key is repeated.
    """
    if horizon < 1:
        raise ConfigurationError("the horizon is too short", value=horizon, allowed="1 session or more")
    _check(bars, ("symbol", "session", "close"))
    rows = bars.sort("symbol", "session")
    factor = pl.col("adj_factor") if "adj_factor" in rows.columns else pl.lit(1.0)
    opens = pl.col("open").cast(pl.Float64) * factor if "open" in rows.columns else pl.lit(None, pl.Float64)
    rows = rows.select("symbol", "session", open=_positive(opens), close=_positive(pl.col("close") * factor))

    has_open = pl.col("open").is_not_null().any().over("symbol")
    ahead = {
        "entry": pl.when(has_open).then(pl.col("open").shift(-1).over("symbol")).otherwise(pl.col("close")),
        "exit": pl.when(has_open)
        .then(pl.col("open").shift(-1 - horizon).over("symbol"))
        .otherwise(pl.col("close").shift(-horizon).over("symbol")),
        "label_session": pl.when(has_open)
        .then(pl.col("session").shift(-1 - horizon).over("symbol"))
        .otherwise(pl.col("session").shift(-horizon).over("symbol")),
    }
    known = pl.col("label").is_not_null()
    return (
        rows.with_columns(**ahead)
        .with_columns(label=pl.col("exit") / pl.col("entry") - 1.0)
        .select("symbol", "session", "label", label_session=pl.when(known).then("label_session"))
        .cast(LABEL_SCHEMA)  # type: ignore[arg-type]
    )


def past_returns(bars: pl.DataFrame, sessions: int = 250, name: str = "past_return_250") -> pl.DataFrame:
    """Compute each symbol's return over its last rows, the input of the momentum baseline.

    Parameters
    ----------
    bars
        ``symbol``, ``session``, ``close`` and, where known, ``adj_factor``.
    sessions
        Length of the look-back in rows of the symbol.
    name
        Name of the result column.

    Returns
    -------
    polars.DataFrame
        ``symbol``, ``session`` and ``name`` (Float32, null where the look-back is not full): adjusted
        ``close[t] / close[t-sessions] - 1``.
    """
    if sessions < 1:
        raise ConfigurationError("the look-back is too short", value=sessions, allowed="1 session or more")
    _check(bars, ("symbol", "session", "close"))
    factor = pl.col("adj_factor") if "adj_factor" in bars.columns else pl.lit(1.0)
    return (
        bars.sort("symbol", "session")
        .select("symbol", "session", close=_positive(pl.col("close") * factor))
        .with_columns(value=pl.col("close") / pl.col("close").shift(sessions).over("symbol") - 1.0)
        .select("symbol", "session", pl.col("value").cast(pl.Float32).alias(name))
    )


def _positive(price: pl.Expr) -> pl.Expr:
    price = price.cast(pl.Float64)
    return pl.when(price.is_finite() & (price > 0)).then(price)


def _check(bars: pl.DataFrame, needed: tuple[str, ...]) -> None:
    missing = [c for c in needed if c not in bars.columns]
    if missing:
        raise DataError("bars lack columns that labels need", value=missing, allowed=", ".join(needed))
    if bars.select(pl.struct("symbol", "session").is_duplicated().any()).item():
        raise DataError(
            "bars repeat a symbol and session",
            value=bars.filter(pl.struct("symbol", "session").is_duplicated()).select("symbol", "session").row(0),
            fix="compute labels from validated bars",
        )
