"""How good out-of-sample predictions are, always beside what needs no model.

Definitions are with each function. A figure that is undefined (too few symbols, constant predictions) is ``None``,
never 0. Whether the figures suffice is decided in ``modelling.promotion``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.modelling.statistics import newey_west_mean

MIN_SYMBOLS = 3
"""A session with fewer symbols has no rank correlation and no long-short spread."""

_NEEDED = ("symbol", "session", "prediction", "label")


def evaluate(
    oos: pl.DataFrame,
    *,
    horizon: int | None = None,
    cost_bps: float = 10.0,
    quantile: float = 0.2,
    sessions_per_year: int = 252,
) -> dict[str, float | None]:
    """Compute all figures of out-of-sample predictions.

    Parameters
    ----------
    oos
        ``symbol, session, prediction, label`` and, where known, ``label_session`` (to find the horizon) and ``lower``,
        ``upper`` (for the coverage). Rows without a label are left out.
    horizon
        Length of the labels in sessions; default: found from ``label_session``, else 1.
    cost_bps
        Cost of trading 1 unit of value, for the net spread.
    quantile
        Share of the symbols on each side of the long-short portfolio (at least one symbol).
    sessions_per_year
        For annualised ratios.

    Returns
    -------
    dict
        ``rows, sessions, symbols``;
        ``rank_ic`` (mean of `ic_series`), ``rank_ic_std``, ``rank_ic_ir`` (mean / standard deviation over sessions;
        Grinold and Kahn 2000), ``rank_ic_t``, ``rank_ic_p`` (Newey-West, at least horizon - 1 lags; one-sided);
        ``hit_rate`` (share of rows, both signs not zero, whose signs agree), ``always_up_hit_rate`` (share of rises
        among labels that are not zero), ``hit_rate_edge_t`` (Newey-West t of their paired difference per session);
        ``rmse, mae`` and the same of two constants, ``zero_rmse, zero_mae`` and ``mean_rmse`` (the mean of these very
        labels: a yardstick that no forecast could know); ``skill_zero`` = 1 - MSE / MSE of zero (Gu, Kelly and Xiu, RFS
        33, 2020, eq. 19), ``skill_mean`` against the mean (the usual R2);
        ``calibration_slope`` (regression of label on prediction: 1 is right, 0 is noise);
        ``long_short_bps``, ``long_short_t``, ``long_short_net_bps``, ``long_short_cost_bps``, ``long_short_turnover``,
        ``long_short_sharpe``, ``long_short_net_sharpe`` (of `spread_series`, per holding period; Sharpe ratios are
        annualised, the mean over the non-overlapping series);
        ``coverage`` (share of labels inside ``lower``..``upper``, where given).
    """
    rows = _rows(oos)
    horizon = horizon or label_horizon(rows)
    result: dict[str, float | None] = {
        "rows": float(rows.height),
        "sessions": float(rows["session"].n_unique()),
        "symbols": float(rows["symbol"].n_unique()),
    }
    ic = ic_series(rows)["rank_ic"].drop_nulls().to_numpy()
    test = newey_west_mean(ic, horizon)
    deviation = float(ic.std(ddof=1)) if len(ic) > 1 else None
    result |= {
        "rank_ic": test.mean,
        "rank_ic_std": deviation,
        "rank_ic_ir": test.mean / deviation if test.mean is not None and deviation else None,
        "rank_ic_t": test.t,
        "rank_ic_p": test.p_greater,
    }
    result |= _hits(rows, horizon)
    result |= _errors(rows["prediction"].to_numpy(), rows["label"].to_numpy())
    spread = spread_series(rows, horizon=horizon, cost_bps=cost_bps, quantile=quantile)
    gross, net = spread["gross"].to_numpy(), spread["net"].to_numpy()
    per_year = sessions_per_year / horizon
    result |= {
        "long_short_bps": _mean(gross, 1e4),
        "long_short_t": newey_west_mean(gross, horizon).t,
        "long_short_net_bps": _mean(net, 1e4),
        "long_short_cost_bps": _mean(gross - net, 1e4),
        "long_short_turnover": _mean(spread["turnover"].to_numpy(), 1.0),
        "long_short_sharpe": _sharpe(gross, horizon, per_year),
        "long_short_net_sharpe": _sharpe(net, horizon, per_year),
        "coverage": _coverage(rows),
    }
    return result


def ic_series(oos: pl.DataFrame) -> pl.DataFrame:
    """Compute Spearman's rank correlation of prediction and label over the symbols of each session.

    Ties get their mean rank. Null where a session has fewer than `MIN_SYMBOLS` symbols or either side is constant.

    Returns
    -------
    polars.DataFrame
        ``session, rank_ic, symbols``, sorted by session.
    """
    ranks = _rows(oos).select(
        "session",
        p=pl.col("prediction").rank("average").over("session"),
        y=pl.col("label").rank("average").over("session"),
    )
    defined = (
        (pl.len() >= MIN_SYMBOLS) & (pl.col("p").min() < pl.col("p").max()) & (pl.col("y").min() < pl.col("y").max())
    )
    return (
        ranks.group_by("session")
        .agg(rank_ic=pl.when(defined).then(pl.corr("p", "y")), symbols=pl.len())
        .sort("session")
    )


def spread_series(oos: pl.DataFrame, *, horizon: int, cost_bps: float = 10.0, quantile: float = 0.2) -> pl.DataFrame:
    """Compute the return of buying the best and selling the worst predictions of each session, before and after costs.

    Equal weights, 1 unit on each side, held for ``horizon`` sessions. Of the ``horizon`` portfolios that are held at a
    time each is followed on its own (Jegadeesh and Titman, Journal of Finance 48, 1993): a portfolio of session i pays
    for its difference to that of session i - horizon (the first ones pay for building up in full). Drift of the weights
    in between is not counted.

    Parameters
    ----------
    oos
        ``symbol, session, prediction, label``.
    horizon
        Sessions that a portfolio is held.
    cost_bps
        Cost of trading 1 unit of value.
    quantile
        Share of the symbols on each side.

    Returns
    -------
    polars.DataFrame
        ``session, gross, net, turnover`` (fractions of 1 unit), sorted by session; sessions with fewer than
        `MIN_SYMBOLS` symbols or equal predictions throughout are absent.
    """
    rows = _rows(oos).sort("session", "prediction", "symbol")
    size = pl.len().over("session")
    rows = rows.with_columns(
        place=pl.int_range(pl.len()).over("session"),
        size=size,
        leg=(size * quantile).floor().clip(1, size // 2).cast(pl.Int64),
        constant=(pl.col("prediction").min() == pl.col("prediction").max()).over("session"),
    ).filter((pl.col("size") >= MIN_SYMBOLS) & ~pl.col("constant"))
    side = (
        pl.when(pl.col("place") >= pl.col("size") - pl.col("leg"))
        .then(1.0)
        .when(pl.col("place") < pl.col("leg"))
        .then(-1.0)
    )
    held = (
        rows.with_columns(weight=side / pl.col("leg"), index=pl.col("session").rank("dense").cast(pl.Int64))
        .filter(pl.col("weight").is_not_null())
        .select("session", "index", "symbol", "weight", "label")
    )
    before = held.select(pl.col("index") + horizon, "symbol", old="weight")
    last = held["index"].max() or 0
    trades = (
        held.select("index", "symbol", "weight")
        .join(before, on=["index", "symbol"], how="full", coalesce=True)
        .filter(pl.col("index") <= last)
        .group_by("index")
        .agg(turnover=(pl.col("weight").fill_null(0.0) - pl.col("old").fill_null(0.0)).abs().sum())
    )
    return (
        held.group_by("session", "index")
        .agg(gross=(pl.col("weight") * pl.col("label")).sum())
        .join(trades, on="index", how="left")
        .sort("session")
        .select(
            "session",
            "gross",
            net=pl.col("gross") - pl.col("turnover") * (cost_bps * 1e-4),
            turnover="turnover",
        )
    )


def calibration(oos: pl.DataFrame, bins: int = 10) -> pl.DataFrame:
    """Compare predictions and labels in bins of the prediction, of equal counts over all rows.

    Returns
    -------
    polars.DataFrame
        ``bin`` (from 1, lowest predictions), ``rows, prediction_mean, label_mean, label_std``. Equal predictions share
        a bin, so there are fewer bins where predictions take few values.
    """
    rows = _rows(oos)
    place = (pl.col("prediction").rank("min") - 1) * bins // pl.len()
    return (
        rows.with_columns(bin=(place + 1).cast(pl.Int32))
        .group_by("bin")
        .agg(
            rows=pl.len(),
            prediction_mean=pl.col("prediction").mean(),
            label_mean=pl.col("label").mean(),
            label_std=pl.col("label").std(),
        )
        .sort("bin")
    )


def by_year(oos: pl.DataFrame, *, horizon: int | None = None, cost_bps: float = 10.0) -> pl.DataFrame:
    """Evaluate each calendar year: ``year`` and the figures of `evaluate`."""
    return _by(oos, pl.col("session").dt.year().alias("year"), horizon, cost_bps)


def by_symbol(oos: pl.DataFrame) -> pl.DataFrame:
    """Evaluate each symbol over time.

    Returns
    -------
    polars.DataFrame
        ``symbol, rows, hit_rate, always_up_hit_rate, rmse, zero_rmse, time_ic`` (Spearman's correlation over time; null
        where predictions are constant), sorted by symbol.
    """
    error = pl.col("prediction") - pl.col("label")
    signed = (pl.col("prediction") != 0) & (pl.col("label") != 0)
    varied = (pl.col("prediction").min() < pl.col("prediction").max()) & (pl.len() >= MIN_SYMBOLS)
    return (
        _rows(oos)
        .sort("symbol", "session")
        .group_by("symbol")
        .agg(
            rows=pl.len(),
            hit_rate=(pl.col("prediction").sign() == pl.col("label").sign()).filter(signed).mean(),
            always_up_hit_rate=(pl.col("label") > 0).filter(pl.col("label") != 0).mean(),
            rmse=(error**2).mean().sqrt(),
            zero_rmse=(pl.col("label") ** 2).mean().sqrt(),
            time_ic=pl.when(varied).then(pl.corr(pl.col("prediction").rank(), pl.col("label").rank())),
        )
        .sort("symbol")
    )


def label_horizon(oos: pl.DataFrame) -> int:
    """Return the usual number of sessions from decision to completed label (1 where ``label_session`` is absent)."""
    if "label_session" not in oos.columns or oos.is_empty():
        return 1
    days = np.unique(np.concatenate([oos["session"].to_numpy(), oos["label_session"].drop_nulls().to_numpy()]))
    known = oos.filter(pl.col("label_session").is_not_null())
    steps = np.searchsorted(days, known["label_session"].to_numpy()) - np.searchsorted(
        days, known["session"].to_numpy()
    )
    return max(1, int(np.median(steps))) if len(steps) else 1


def _by(oos: pl.DataFrame, key: pl.Expr, horizon: int | None, cost_bps: float) -> pl.DataFrame:
    rows = _rows(oos)
    horizon = horizon or label_horizon(rows)
    keyed = rows.with_columns(key)
    name = key.meta.output_name()
    parts = keyed.partition_by(name, as_dict=True, maintain_order=True)
    table = [{name: k[0], **evaluate(part, horizon=horizon, cost_bps=cost_bps)} for k, part in parts.items()]
    return pl.DataFrame(table, infer_schema_length=None).sort(name) if table else pl.DataFrame(schema={name: pl.Int32})


def _rows(oos: pl.DataFrame) -> pl.DataFrame:
    missing = [c for c in _NEEDED if c not in oos.columns]
    if missing:
        raise DataError("predictions lack columns", value=missing, allowed=", ".join(_NEEDED))
    rows = oos.filter(pl.col("label").is_not_null() & pl.col("prediction").is_not_null())
    finite = rows.select((pl.col("label").is_finite() & pl.col("prediction").is_finite()).all()).item()
    if not finite:
        raise DataError("predictions and labels must be finite numbers or null")
    return rows


def _hits(rows: pl.DataFrame, horizon: int) -> dict[str, float | None]:
    labelled = rows.filter(pl.col("label") != 0)
    signed = labelled.filter(pl.col("prediction") != 0).select(
        "session",
        hit=(pl.col("prediction").sign() == pl.col("label").sign()).cast(pl.Float64),
        up=(pl.col("label") > 0).cast(pl.Float64),
    )
    edge = signed.group_by("session").agg((pl.col("hit") - pl.col("up")).mean().alias("edge")).sort("session")
    return {
        "hit_rate": _scalar(signed["hit"].mean()),
        "always_up_hit_rate": _scalar((labelled["label"] > 0).mean()),
        "hit_rate_edge_t": newey_west_mean(edge["edge"].to_numpy(), horizon).t,
    }


def _errors(prediction: np.ndarray, label: np.ndarray) -> dict[str, float | None]:
    names = ("rmse", "mae", "zero_rmse", "zero_mae", "mean_rmse", "skill_zero", "skill_mean", "calibration_slope")
    if not len(label):
        return dict.fromkeys(names)
    error = prediction - label
    mse, zero, mean = float(np.mean(error**2)), float(np.mean(label**2)), float(label.var())
    spread = prediction - prediction.mean()
    varies = float(prediction.max()) > float(prediction.min())
    values = (
        mse**0.5,
        float(np.abs(error).mean()),
        zero**0.5,
        float(np.abs(label).mean()),
        mean**0.5,
        1 - mse / zero if zero else None,
        1 - mse / mean if mean else None,
        float(spread @ label / (spread @ spread)) if varies else None,
    )
    return dict(zip(names, values, strict=True))


def _sharpe(values: np.ndarray, horizon: int, per_year: float) -> float | None:
    """Return the annualised Sharpe ratio, the mean over the ``horizon`` non-overlapping series."""
    ratios = []
    for phase in range(horizon):
        part = values[phase::horizon]
        if len(part) >= 3 and (deviation := part.std(ddof=1)) > 0:
            ratios.append(part.mean() / deviation * per_year**0.5)
    return float(np.mean(ratios)) if ratios else None


def _coverage(rows: pl.DataFrame) -> float | None:
    if not {"lower", "upper"} <= set(rows.columns):
        return None
    inside = pl.col("label").is_between(pl.col("lower"), pl.col("upper"))
    return _scalar(rows.select(inside.mean()).item())


def _mean(values: np.ndarray, unit: float) -> float | None:
    return float(values.mean() * unit) if len(values) else None


def _scalar(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def skills(oos: pl.DataFrame, baselines: dict[str, pl.DataFrame], names: Sequence[str] = ()) -> dict[str, float | None]:
    """Return 1 - MSE / MSE of each baseline on the rows that both predict (``None`` without common rows)."""
    result: dict[str, float | None] = {}
    for name in names or baselines:
        other = _rows(baselines[name]).select("symbol", "session", other="prediction")
        both = _rows(oos).join(other, on=["symbol", "session"], how="inner")
        mine = both.select(((pl.col("prediction") - pl.col("label")) ** 2).mean()).item()
        theirs = both.select(((pl.col("other") - pl.col("label")) ** 2).mean()).item()
        result[name] = None if not theirs else 1 - mine / theirs
    return result
