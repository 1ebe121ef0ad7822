"""From the targets of a strategy to the matrix of weights that the engine trades: sizing and exposure limits.

All of it looks only at rows up to the decision's date. NaN in the matrix means "no decision: keep what is held".
"""

from __future__ import annotations

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.data import Matrix, Panel, positions
from stock_pipeline.core.backtesting.settings import PortfolioSettings
from stock_pipeline.core.errors import DataError


def target_matrix(targets: pl.DataFrame, panel: Panel) -> Matrix:
    """Spread a target frame over (sessions, symbols).

    Parameters
    ----------
    targets
        ``session, symbol, weight``; targets of sessions or symbols outside the panel are ignored, except that the last
        target of each symbol before the panel's first session is taken as decided on that first session.
    panel
        The dense data.

    Raises
    ------
    DataError
        When a weight is not finite or a key is repeated.
    """
    missing = [c for c in ("session", "symbol", "weight") if c not in targets.columns]
    if missing:
        raise DataError("the targets lack columns", value=missing, allowed="session, symbol, weight")
    bad = targets.filter(~pl.col("weight").cast(pl.Float64).is_finite().fill_null(False))
    if bad.height:
        row = bad.row(0, named=True)
        raise DataError(
            f"the target weight of {row['symbol']} on {row['session']} is not a number", value=row["weight"]
        )
    out = np.full((len(panel.sessions), len(panel.symbols)), np.nan)
    if targets.height == 0 or not panel.sessions:
        return out
    first = panel.sessions[0]
    earlier = targets.filter(pl.col("session") < first).sort("session").group_by("symbol", maintain_order=True).last()
    inside = targets.filter(pl.col("session") >= first)
    if inside.select(pl.struct("symbol", "session").is_duplicated().any()).item():
        raise DataError("a symbol has two targets in one session")
    for frame in (earlier.with_columns(session=pl.lit(first, dtype=pl.Date)), inside):
        columns = positions(frame["symbol"], panel.symbols)
        rows = positions(frame["session"], panel.sessions)
        known = (columns >= 0) & (rows >= 0)
        out[rows[known], columns[known]] = frame["weight"].cast(pl.Float64).to_numpy()[known]
    return out


def size(weights: Matrix, panel: Panel, settings: PortfolioSettings, sessions_per_year: int) -> Matrix:
    """Apply the sizing rule and the limits to the decisions of every session.

    Parameters
    ----------
    weights
        Target weights, NaN where nothing is decided, shape (sessions, symbols).
    panel
        The dense data, same shape.
    settings
        Sizing and limits. In order: sizing, ``max_position``, ``max_positions``, ``max_gross``, ``max_net``.
    sessions_per_year
        Used to annualise the volatility.

    Returns
    -------
    numpy.ndarray
        New weights. Limits count the weights decided earlier and still standing; these are not touched, new ones are
        scaled down to what is left.
    """
    out = weights.copy()
    standing = np.zeros(weights.shape[1])
    for t in np.flatnonzero(np.isfinite(weights).any(axis=1)).tolist():
        decided = np.flatnonzero(np.isfinite(weights[t]))
        new = weights[t, decided].copy()
        standing[decided] = 0.0
        if settings.sizing == "equal":
            names = np.count_nonzero(new) + np.count_nonzero(standing)
            new = np.sign(new) * (settings.max_gross / max(int(names), 1))
        elif settings.sizing == "volatility":
            new = new * _volatility_scale(standing, decided, new, panel, t, settings, sessions_per_year)
        if settings.max_position is not None:
            new = np.clip(new, -settings.max_position, settings.max_position)
        if settings.max_positions is not None:
            room = max(settings.max_positions - np.count_nonzero(standing), 0)
            order = np.argsort(-np.abs(new), kind="stable")
            new[order[room:]] = 0.0
        new = _limit(new, np.abs(new).sum(), settings.max_gross - np.abs(standing).sum())
        if settings.max_net is not None:
            new = _limit_net(new, float(standing.sum()), settings.max_net)
        standing[decided] = new
        out[t, decided] = new
    return out


def _limit(new: np.ndarray, used: float, room: float) -> np.ndarray:
    return new if used <= room * (1 + 1e-12) else new * (max(room, 0.0) / used)


def _limit_net(new: np.ndarray, others: float, limit: float) -> np.ndarray:
    net = others + new.sum()
    if abs(net) <= limit * (1 + 1e-12):
        return new
    side = np.sign(net)
    same = np.where(new * side > 0, new, 0.0)
    excess = abs(net) - limit
    total = abs(same.sum())
    return new - same * min(excess / total, 1.0) if total > 0 else new


def _volatility_scale(
    standing: np.ndarray,
    decided: np.ndarray,
    new: np.ndarray,
    panel: Panel,
    t: int,
    settings: PortfolioSettings,
    sessions_per_year: int,
) -> float:
    """Factor that brings the portfolio of all standing and new weights to the volatility aimed at.

    The volatility is the sample deviation of the returns that these weights would have had over the last window; the
    factor is 0, so that nothing is held, until there is a whole window.
    """
    portfolio = standing.copy()
    portfolio[decided] = new
    held = np.flatnonzero(portfolio)
    begin = t - settings.volatility_window
    if begin < 0 or len(held) == 0:
        return 0.0
    marks = panel.mark[begin : t + 1, held]
    returns = np.nan_to_num(marks[1:] / marks[:-1] - 1.0)
    volatility = float((returns @ portfolio[held]).std(ddof=1)) * np.sqrt(sessions_per_year)
    return settings.volatility_target / volatility if volatility > 0 else 0.0
