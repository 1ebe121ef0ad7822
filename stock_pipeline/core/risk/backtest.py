"""Are the VaR and ES forecasts right? Coverage and independence tests of exceedances, and a test of ES.

A forecast dated t is judged by the return from t to t+1, never by the return that ended at t. Forecasts themselves are
made in ``var.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from stock_pipeline.core.errors import DataError


def _log_likelihood(failures: float, successes: float, probability: float) -> float:
    """Binomial log-likelihood without the constant; ``0 log 0`` counts as zero."""
    out = 0.0
    if failures:
        out += failures * math.log(probability) if probability > 0.0 else -math.inf
    if successes:
        out += successes * math.log1p(-probability) if probability < 1.0 else -math.inf
    return out


def kupiec(observations: int, exceedances: int, level: float) -> dict[str, float]:
    """Kupiec's proportion-of-failures test of the number of exceedances.

    Returns
    -------
    dict
        ``statistic`` (chi-squared, one degree of freedom) and ``p_value``.

    Notes
    -----
    Kupiec (1995), J. Derivatives 3(2), 73-84:
    ``LR = -2 ln[(1-p)^(T-x) p^x] + 2 ln[(1-x/T)^(T-x) (x/T)^x]``.
    """
    if observations <= 0 or not 0 <= exceedances <= observations:
        raise DataError("impossible exceedance count", value=(observations, exceedances), allowed="0 <= x <= T, T > 0")
    kept = observations - exceedances
    expected = _log_likelihood(exceedances, kept, 1.0 - level)
    observed = _log_likelihood(exceedances, kept, exceedances / observations)
    statistic = max(0.0, 2.0 * (observed - expected))
    return {"statistic": statistic, "p_value": math.erfc(math.sqrt(statistic / 2.0))}


def christoffersen(n00: int, n01: int, n10: int, n11: int) -> dict[str, float]:
    """Christoffersen's test that an exceedance is as likely after an exceedance as after none.

    Parameters
    ----------
    n00, n01, n10, n11
        ``n_ij`` sessions with state j (1 = exceedance) that followed a session with state i.

    Returns
    -------
    dict
        ``statistic`` (chi-squared, one degree of freedom) and ``p_value``; a series without exceedances shows no
        dependence (statistic 0).

    Notes
    -----
    Christoffersen (1998), International Economic Review 39(4), 841-862, section 3.2.
    """
    calm, struck = n00 + n01, n10 + n11
    total = calm + struck
    if total == 0 or min(n00, n01, n10, n11) < 0:
        raise DataError("impossible transition counts", value=(n00, n01, n10, n11), allowed="non-negative, not all 0")
    joint = _log_likelihood(n01 + n11, n00 + n10, (n01 + n11) / total)
    split = 0.0
    if calm:
        split += _log_likelihood(n01, n00, n01 / calm)
    if struck:
        split += _log_likelihood(n11, n10, n11 / struck)
    statistic = max(0.0, 2.0 * (split - joint))
    return {"statistic": statistic, "p_value": math.erfc(math.sqrt(statistic / 2.0))}


def transitions(hits: np.ndarray) -> tuple[int, int, int, int]:
    """``(n00, n01, n10, n11)`` of consecutive exceedance flags, shape (sessions,)."""
    before, after = hits[:-1].astype(bool), hits[1:].astype(bool)
    return (
        int(np.sum(~before & ~after)),
        int(np.sum(~before & after)),
        int(np.sum(before & ~after)),
        int(np.sum(before & after)),
    )


def verdict(observations: int, exceedances: int, moves: tuple[int, int, int, int], level: float) -> dict[str, Any]:
    """Both tests and their sum, the conditional coverage test (chi-squared with two degrees of freedom)."""
    coverage = kupiec(observations, exceedances, level)
    independence = christoffersen(*moves) if sum(moves) else {"statistic": 0.0, "p_value": 1.0}
    both = coverage["statistic"] + independence["statistic"]
    return {
        "level": level,
        "observations": observations,
        "exceedances": exceedances,
        "exceedance_rate": exceedances / observations,
        "expected_rate": 1.0 - level,
        "kupiec_statistic": coverage["statistic"],
        "kupiec_p": coverage["p_value"],
        "independence_statistic": independence["statistic"],
        "independence_p": independence["p_value"],
        "conditional_statistic": both,
        "conditional_p": math.exp(-both / 2.0),
    }


def var_backtest(returns: np.ndarray, var: np.ndarray, level: float) -> dict[str, Any]:
    """Kupiec, Christoffersen and conditional coverage of one series of VaR forecasts.

    Parameters
    ----------
    returns
        ``returns[t]`` is the return that *ended* at session t, shape (sessions,).
    var
        ``var[t]`` is the forecast made at t for the next return, a positive loss fraction; NaN = no forecast. It is
        compared with ``returns[t + 1]``; the shift is done here.
    level
        Confidence of the VaR, such as 0.99.

    Returns
    -------
    dict
        ``observations, exceedances, exceedance_rate, expected_rate`` and statistic and p-value of the three tests.

    Raises
    ------
    DataError
        The arrays differ in length, or no forecast has an outcome.
    """
    hits, _ = _judged(returns, var)
    if hits.size == 0:
        raise DataError("no VaR forecast has an outcome", value=0, fix="give more sessions than the VaR's look-back")
    return verdict(hits.size, int(hits.sum()), transitions(hits), level)


def _judged(returns: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exceedance flags and the rows (of the forecasts) that they belong to."""
    if returns.shape != var.shape:
        raise DataError("returns and VaR differ in length", value=(returns.shape, var.shape))
    rows = np.flatnonzero(np.isfinite(var[:-1]) & np.isfinite(returns[1:]))
    return returns[rows + 1] < -var[rows], rows


def es_backtest(
    returns: np.ndarray, var: np.ndarray, es: np.ndarray, level: float, *, simulations: int = 5_000, seed: int = 7
) -> dict[str, Any]:
    """Acerbi and Szekely's second test of expected shortfall, with a critical value by simulation.

    ``Z2 = sum(r[t+1] hit[t+1] / (T (1 - level) ES[t])) + 1``: 0 when VaR and ES are right, negative when losses in
    the tail are larger or more frequent than forecast.

    Returns
    -------
    dict
        ``z2``, ``critical`` (5 % quantile under the null), ``p_value`` (share of simulations at or below z2),
        ``observations``, ``exceedances``, ``mean_excess_ratio`` (mean loss beyond VaR over mean forecast ES).

    Notes
    -----
    Acerbi and Szekely (2014), "Back-testing expected shortfall", Risk, eq. 6. The null is simulated with independent
    standardised Student-t returns with five degrees of freedom; the paper shows that the critical value barely depends
    on the law (-0.70 for 250 sessions at 97.5 %). The number of sessions is rounded to two significant digits for the
    null, so that symbols share one simulation.
    """
    hits, rows = _judged(returns, var)
    if hits.size == 0:
        raise DataError("no ES forecast has an outcome", value=0, fix="give more sessions than the ES's look-back")
    share = 1.0 - level
    scaled = returns[rows + 1] / es[rows]
    z2 = float(np.sum(scaled[hits]) / (hits.size * share) + 1.0)
    null = _simulated_z2(int(float(f"{hits.size:.2g}")), share, simulations, seed)
    return {
        "level": level,
        "observations": int(hits.size),
        "exceedances": int(hits.sum()),
        "z2": z2,
        "critical": float(np.quantile(null, 0.05)),
        "p_value": float((1 + np.sum(null <= z2)) / (1 + null.size)),
        "mean_excess_ratio": float(-np.mean(scaled[hits])) if hits.any() else None,
    }


@lru_cache(maxsize=256)
def _simulated_z2(observations: int, share: float, simulations: int, seed: int) -> np.ndarray:
    """Z2 under the null; the tail is drawn from its quantiles at 20,000 equal steps."""
    from scipy.stats import t as student

    random = np.random.default_rng(seed)
    nu, steps = 5.0, 20_000
    tail = student.ppf(share * (np.arange(steps) + 0.5) / steps, nu)
    counts = random.binomial(observations, share, simulations)
    draws = tail[random.integers(0, steps, int(counts.sum()))]
    owner = np.repeat(np.arange(simulations), counts)
    sums = np.bincount(owner, weights=draws, minlength=simulations)
    z2 = sums / (-tail.mean() * observations * share) + 1.0
    z2.flags.writeable = False
    return z2


def risk_backtest(
    risk: pl.DataFrame, bars: pl.DataFrame, *, start: Any = None, es: bool = True
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Backtest a risk frame per symbol and pooled.

    Parameters
    ----------
    risk
        As `stock_pipeline.core.risk.symbol_risk.symbol_risk` returns it.
    bars
        The validated bars of the same symbols; forecasts whose next session is not in them are not judged.
    start
        First session (date) of the forecasts that are judged; ``None``: all.
    es
        Also test expected shortfall (per symbol).

    Returns
    -------
    per_symbol, pooled
        One row a symbol and level, and one row a level. Pooled counts add up over symbols; because symbols fall
        together, the pooled p-values are too small: read the pooled *rate*, and the share of symbols that pass.
    """
    from stock_pipeline.core.risk.panel import panel

    data = panel(bars)
    names = ("var_95", "var_99", "es_95", "es_99")
    frame = data.keys.join(
        risk.select("symbol", "session", *names), on=["symbol", "session"], how="left", maintain_order="left"
    )
    if start is not None:
        frame = frame.with_columns(pl.when(pl.col("session") >= start).then(pl.col(c)).alias(c) for c in names)
    figures = {c: frame[c].cast(pl.Float64).fill_null(float("nan")).to_numpy() for c in names}
    symbols = data.keys["symbol"].gather(data.starts[:-1]).to_list()
    rows: list[dict[str, Any]] = []
    pooled: dict[float, np.ndarray] = {0.95: np.zeros(6, np.int64), 0.99: np.zeros(6, np.int64)}
    for i, symbol in enumerate(symbols):
        part = slice(data.starts[i], data.starts[i + 1])
        ended = data.returns[part]
        for level, name in ((0.95, "95"), (0.99, "99")):
            var = figures[f"var_{name}"][part]
            hits, _ = _judged(ended, var)
            if hits.size == 0:
                continue
            moves = transitions(hits)
            row = {"symbol": symbol, **verdict(hits.size, int(hits.sum()), moves, level)}
            if es:
                found = es_backtest(ended, var, figures[f"es_{name}"][part], level)
                row |= {"es_z2": found["z2"], "es_critical": found["critical"], "es_p": found["p_value"]}
            rows.append(row)
            pooled[level] += np.array([hits.size, int(hits.sum()), *moves])
    totals = [
        {"symbols": len({r["symbol"] for r in rows if r["level"] == level})}
        | verdict(int(c[0]), int(c[1]), (int(c[2]), int(c[3]), int(c[4]), int(c[5])), level)
        for level, c in pooled.items()
        if c[0]
    ]
    return _frame(rows, {"symbol": pl.String(), **_FIGURES}), _frame(totals, {"symbols": pl.Int64(), **_FIGURES})


_FIGURES: dict[str, pl.DataType] = {
    "level": pl.Float64(), "observations": pl.Int64(), "exceedances": pl.Int64(), "exceedance_rate": pl.Float64(),
    "expected_rate": pl.Float64(), "kupiec_statistic": pl.Float64(), "kupiec_p": pl.Float64(),
    "independence_statistic": pl.Float64(), "independence_p": pl.Float64(), "conditional_statistic": pl.Float64(),
    "conditional_p": pl.Float64(),
}  # fmt: skip


def _frame(rows: list[dict[str, Any]], columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """A frame of the rows; with its columns also where there is none."""
    return pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema=columns)
