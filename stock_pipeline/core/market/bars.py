"""The bar table: its columns, their types, and adjusted prices.

Cleaning belongs to ``core.quality``; factors are made in ``core.market.corporate_actions``.
"""

from __future__ import annotations

import polars as pl

KEYS = ("symbol", "session")
"""The key of every long frame: vendor-neutral symbol and exchange date."""

PRICES = ("open", "high", "low", "close")

BAR_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "amount": pl.Float64(),
    "adj_factor": pl.Float64(),
    "currency": pl.String(),
    "known_at": pl.Datetime("us", "UTC"),
}
"""Raw prices as traded, in ``currency``; ``volume`` in shares; ``amount`` (traded value) may be null.

``adj_factor`` is anchored at the *first* bar of a symbol (1.0 there) and grows with splits and dividends, so that a
new corporate action never rewrites the past. ``known_at`` is the UTC instant at which the row was learnt.
Only ``close`` is required of a vendor; the other prices and the volume are null where the vendor has none.
"""

VALIDATED_SCHEMA: dict[str, pl.DataType] = {
    **BAR_SCHEMA,
    "status": pl.String(),
    "repairs": pl.String(),
    "quality_score": pl.Float64(),
}
"""Bars that passed: ``status`` is ``clean`` or ``repaired``; ``repairs`` is a JSON list of
``{"field", "rule", "method", "original"}`` (null when clean); ``quality_score`` is in [0, 100]."""

QUARANTINED_SCHEMA: dict[str, pl.DataType] = {**BAR_SCHEMA, "rules": pl.List(pl.String()), "reason": pl.String()}
"""Bars that must not be used, as they came, with the names of the rules that caught them and a sentence why."""


def adjusted(bars: pl.DataFrame) -> pl.DataFrame:
    """Replace raw prices and volume by adjusted ones.

    Parameters
    ----------
    bars
        Frame with ``adj_factor`` and any of the price and volume columns of `BAR_SCHEMA`.

    Returns
    -------
    polars.DataFrame
        The same rows and columns; prices multiplied by ``adj_factor``, volume divided by it, so that traded value is
        unchanged (Qlib's convention).
    """
    prices = [pl.col(c) * pl.col("adj_factor") for c in PRICES if c in bars.columns]
    volume = [pl.col("volume") / pl.col("adj_factor")] if "volume" in bars.columns else []
    return bars.with_columns(*prices, *volume)
