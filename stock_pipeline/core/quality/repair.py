"""Estimates of single bad fields from earlier sessions only; a close is never touched.

Methods (names as they stand in ``repairs``):

``swap``
    High and low exchanged.
``clip``
    A field moved to the nearest value that keeps ``low <= open, close <= high``.
``median_ratio``
    open = previous close x median of open / previous close; high = max(open, close) x median of high / max(open,
    close); low likewise; all medians over the ``repair_sessions`` sessions before, on sound bars, and only when the
    symbol traded on the session before (never across a suspension). The open is then clipped to the bar.
``median_volume``
    Median of the volumes of the ``repair_sessions`` sessions before, in shares of the repaired session.
``removed``
    Set to null where no estimate is possible.
"""

from __future__ import annotations

import polars as pl

from stock_pipeline.core.quality.rules_bars import can_estimate, range_breach
from stock_pipeline.core.quality.settings import QualityRules

_FIELDS = ("open", "high", "low", "volume", "amount")
_REPAIR_RULES = {
    "open": ("high_low_swapped", "bad_price_field", "missing_price_field", "misplaced_field", "ohlc_rounding"),
    "high": (
        "high_low_swapped", "bad_price_field", "missing_price_field", "misplaced_field", "range_outlier",
        "ohlc_rounding",
    ),
    "low": (
        "high_low_swapped", "bad_price_field", "missing_price_field", "misplaced_field", "range_outlier",
        "ohlc_rounding",
    ),
    "volume": ("bad_volume", "missing_volume"),
    "amount": ("bad_volume",),
}  # fmt: skip


def repair(rows: pl.DataFrame, trading: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    """Repair rows that a repair rule caught.

    Parameters
    ----------
    rows
        Prepared rows with context, and for each repair rule a boolean column ``?<rule>``.
    trading
        All trading rows with context, sorted by symbol and session: the past from which estimates come.
    rules
        Windows.

    Returns
    -------
    polars.DataFrame
        ``_row``, the new values of open, high, low, volume and amount, ``_repairs`` (JSON text as in
        ``VALIDATED_SCHEMA``) and ``_repaired_fields`` (how many).
    """
    rows = rows.join(_medians(trading, rows["symbol"].unique(), rules), on="_row", how="left", maintain_order="left")
    rows = _prices(rows, rules)
    rows = _volumes(rows, rules)
    return rows.select("_row", *[pl.col(f"+{f}").alias(f) for f in _FIELDS], *_account(rows))


def _medians(trading: pl.DataFrame, symbols: pl.Series, rules: QualityRules) -> pl.DataFrame:
    some = trading.filter(pl.col("symbol").is_in(symbols.implode())).with_columns(_sid=pl.col("symbol").rle_id())
    top = pl.max_horizontal(pl.col("_open"), pl.col("_close"))
    bottom = pl.min_horizontal(pl.col("_open"), pl.col("_close"))
    sound = pl.col("_violation") == 0
    opening = pl.col("_open") * pl.col("adj_factor") / pl.col("_reference")
    ratios = {
        "_m_open": pl.when(sound & (pl.col("_gap") == 1)).then(opening),
        "_m_high": pl.when(sound).then(pl.col("_high") / top),
        "_m_low": pl.when(sound).then(pl.col("_low") / bottom),
        "_m_volume": pl.col("_volume") / pl.col("adj_factor"),
    }
    some = some.with_columns(**ratios)
    window = f"{rules.repair_sessions}i"
    # One observation is enough here: whether there are enough of them was decided by can_estimate.
    medians = [
        pl.col(name).rolling_median_by("_idx", window, closed="left", min_samples=1).over("_sid") for name in ratios
    ]
    return some.select("_row", *medians)


def _prices(rows: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    swapped, wrong = pl.col("?high_low_swapped"), {}
    for name in ("open", "high", "low"):
        unusable = pl.col("?bad_price_field") & pl.col(name).is_not_null() & pl.col(f"_{name}").is_null()
        absent = pl.col("?missing_price_field") & pl.col(name).is_null()
        misplaced = pl.col("?misplaced_field") & (pl.col("_culprit") == name).fill_null(False)
        wrong[name] = unusable | absent | misplaced
        if name != "open":
            wrong[name] |= pl.col("?range_outlier") & range_breach(name, rules)
    rows = rows.with_columns(**{f"~{name}": condition for name, condition in wrong.items()})
    alone = pl.sum_horizontal(*[pl.col(f"~{name}").cast(pl.Int8) for name in wrong]) == 1
    estimable = {name: pl.col(f"~{name}") & alone & can_estimate(pl.lit(name), rules) for name in wrong}
    rows = rows.with_columns(
        **{f"^{name}": condition for name, condition in estimable.items()},
        _o=pl.when(~pl.col("~open")).then(pl.col("_open")),
        _h=pl.when(swapped).then(pl.col("_low")).when(~pl.col("~high")).then(pl.col("_high")),
        _l=pl.when(swapped).then(pl.col("_high")).when(~pl.col("~low")).then(pl.col("_low")),
    )
    guess = pl.col("_reference") / pl.col("adj_factor") * pl.col("_m_open")
    rows = rows.with_columns(_o=pl.when(pl.col("^open")).then(guess).otherwise(pl.col("_o")))
    # Only an open that is outside by itself moves; otherwise the range is widened to hold open and close.
    clipped = pl.col("_o").clip(pl.col("_l"), pl.col("_h"))
    moves = pl.col("^open") | (pl.col("?ohlc_rounding") & (pl.col("_culprit") == "open").fill_null(False))
    rows = rows.with_columns(_o=pl.when(moves & clipped.is_not_null()).then(clipped).otherwise(pl.col("_o")))
    top = pl.max_horizontal(pl.col("_o"), pl.col("_close"))
    bottom = pl.min_horizontal(pl.col("_o"), pl.col("_close"))
    rows = rows.with_columns(
        _h=pl.when(pl.col("^high")).then(top * pl.col("_m_high")).otherwise(pl.col("_h")),
        _l=pl.when(pl.col("^low")).then(bottom * pl.col("_m_low")).otherwise(pl.col("_l")),
    )
    return rows.with_columns(
        pl.col("_o").alias("+open"),
        pl.when(pl.col("_h").is_not_null()).then(pl.max_horizontal("_h", top)).alias("+high"),
        pl.when(pl.col("_l").is_not_null()).then(pl.min_horizontal("_l", bottom)).alias("+low"),
    )


def _volumes(rows: pl.DataFrame, rules: QualityRules) -> pl.DataFrame:
    wrong = (pl.col("?bad_volume") | pl.col("?missing_volume")) & pl.col("_volume").is_null()
    possible = wrong & can_estimate(pl.lit("volume"), rules) & pl.col("_volume_before").fill_null(False)
    usable_amount = pl.col("amount").is_finite().fill_null(False) & (pl.col("amount") >= 0).fill_null(False)
    return rows.with_columns(
        pl.when(possible)
        .then(pl.col("_m_volume") * pl.col("adj_factor"))
        .otherwise(pl.col("_volume"))
        .alias("+volume"),
        pl.when(usable_amount).then(pl.col("amount")).alias("+amount"),
        (wrong & possible).alias("^volume"),
    )


def _account(rows: pl.DataFrame) -> list[pl.Expr]:
    """Work out what changed: the JSON list and the number of fields."""
    entries, counts = [], []
    for name in _FIELDS:
        old, new = pl.col(name), pl.col(f"+{name}")
        changed = ~old.eq_missing(new)
        rule = pl.coalesce(*[pl.when(pl.col(f"?{r}")).then(pl.lit(r)) for r in _REPAIR_RULES[name]])
        if name in ("open", "high", "low"):
            method = (
                pl.when(pl.col("?high_low_swapped"))
                .then(pl.lit("swap"))
                .when(pl.col(f"^{name}"))
                .then(pl.lit("median_ratio"))
                .when(new.is_null())
                .then(pl.lit("removed"))
                .otherwise(pl.lit("clip"))
            )
        elif name == "volume":
            method = pl.when(pl.col("^volume")).then(pl.lit("median_volume")).otherwise(pl.lit("removed"))
        else:
            method = pl.lit("removed")
        original = (
            pl.when(old.is_null())
            .then(pl.lit("null"))
            .when(old.is_finite())
            .then(old.cast(pl.String))
            .otherwise(pl.format('"{}"', old.cast(pl.String)))
        )
        pieces = (
            '{"field": "' + name + '", "rule": "',
            rule,
            '", "method": "',
            method,
            '", "original": ',
            original,
            "}",
        )
        text = pl.concat_str(*[pl.lit(piece) if isinstance(piece, str) else piece for piece in pieces])
        entries.append(pl.when(changed).then(text))
        counts.append(changed.cast(pl.Int64))
    joined = pl.concat_str(*entries, separator=", ", ignore_nulls=True)
    count = pl.sum_horizontal(*counts)
    return [
        pl.when(count > 0).then(pl.format("[{}]", joined)).alias("_repairs"),
        count.alias("_repaired_fields"),
    ]
