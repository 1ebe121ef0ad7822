"""Which VaR method a symbol uses: the first of an ordered list whose own backtest passes, decided at fixed points.

The points are a symbol's first session of each calendar month or quarter; a decision uses only forecasts whose outcome
is known by then, and holds until the next point. Methods are computed in ``var.py``, tests in ``backtest.py``.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import numpy as np

from stock_pipeline.core.risk.backtest import transitions, verdict
from stock_pipeline.core.risk.panel import Panel
from stock_pipeline.core.risk.settings import Method, RiskSettings
from stock_pipeline.core.risk.var import LEVELS, Tail, filtered_historical, garch_student, historical


def decision_points(sessions: list[date], period: str) -> np.ndarray:
    """Rows (of one symbol) that begin a calendar period, without the first row; ascending."""
    months = 1 if period == "month" else 3
    number = np.array([(d.year * 12 + d.month - 1) // months for d in sessions], dtype=np.int64)
    return np.flatnonzero(number[1:] != number[:-1]) + 1


def passes(returns: np.ndarray, var: np.ndarray, settings: RiskSettings) -> bool | None:
    """Whether forecasts pass Kupiec and conditional coverage at both levels; ``None`` if too few can be judged.

    Parameters
    ----------
    returns
        The outcome of each forecast, shape (sessions,).
    var
        The forecasts, shape (sessions, levels).
    """
    known = np.isfinite(var).all(axis=1) & np.isfinite(returns)
    if int(known.sum()) < settings.evaluation_window // 2:
        return None
    for j, level in enumerate(LEVELS):
        hits = returns[known] < -var[known, j]
        result = verdict(hits.size, int(hits.sum()), transitions(hits), level)
        if min(result["kupiec_p"], result["conditional_p"]) < settings.significance:
            return False
    return True


def choose(data: Panel, volatility: np.ndarray, settings: RiskSettings) -> tuple[Tail, np.ndarray]:
    """VaR and ES by the configured method, and the name of the method of each row.

    Where the chosen method has no value (a GARCH fit that did not converge, too few returns for it), filtered
    historical simulation stands in, then plain historical simulation; the name says so.

    Returns
    -------
    tail, method
        `Tail` over all rows; names of shape (rows,), dtype object, ``None`` where there is no value.
    """
    simulated = filtered_historical(data, volatility, settings)
    if settings.method == "fhs":
        return simulated, _named("fhs", simulated)
    plain = historical(data, settings)
    if settings.method == "historical":
        return plain, _named("historical", plain)
    sessions = data.keys["session"].to_list()
    tail = Tail(np.full_like(simulated.var, np.nan), np.full_like(simulated.es, np.nan))
    method = np.full(data.returns.shape[0], None, dtype=object)
    for begin, end in zip(data.starts[:-1], data.starts[1:], strict=True):
        points = decision_points(sessions[begin:end], settings.decision_period) + begin
        names, fitted = _plan(data, points, simulated, plain, settings, int(begin), int(end))
        for source, name in ((fitted, "garch_t"), (simulated, "fhs"), (plain, "historical")):
            wanted = names == name
            _take(tail, method, source, name, np.flatnonzero(wanted) + int(begin))
    for source, name in ((simulated, "fhs"), (plain, "historical")):
        _take(tail, method, source, name, np.flatnonzero(np.isnan(tail.var[:, 0])))
    return tail, method


def _plan(
    data: Panel, points: np.ndarray, simulated: Tail, plain: Tail, settings: RiskSettings, begin: int, end: int
) -> tuple[np.ndarray, Tail]:
    """The method of each row of one symbol, and the GARCH figures of the rows that use it (over all rows)."""
    if settings.method == "garch_t":
        own = garch_student(data, points, settings, begin, end)
        return np.full(end - begin, "garch_t", dtype=object), _spread(data, own, begin, end)
    names = np.full(end - begin, settings.ladder[0], dtype=object)
    fitted = Tail(np.full((end - begin, 2), np.nan), np.full((end - begin, 2), np.nan))
    done = np.zeros(end - begin, dtype=bool)

    def garch(low: int, high: int) -> np.ndarray:
        """GARCH figures of rows low..high, each computed once (by whole decision periods)."""
        bounds = [begin, *points.tolist(), end]
        for left, right in pairwise(bounds):
            if left >= high or right <= low or done[left - begin] or right == left:
                continue
            part = garch_student(data, points, settings, left, right)
            fitted.var[left - begin : right - begin] = part.var
            fitted.es[left - begin : right - begin] = part.es
            done[left - begin : right - begin] = True
        return fitted.var[low - begin : high - begin]

    for point, following in zip(points, np.append(points, end)[1:], strict=True):
        low = max(begin, int(point) - settings.evaluation_window)
        outcomes = data.returns[low + 1 : int(point) + 1]
        chosen: Method = settings.ladder[-1]
        for name in settings.ladder[:-1]:
            if name == "garch_t":
                var = garch(low, int(point))
            else:
                var = (simulated if name == "fhs" else plain).var[low : int(point)]
            if passes(outcomes, var, settings) is not False:
                chosen = name
                break
        names[int(point) - begin : int(following) - begin] = chosen
        if chosen == "garch_t":
            garch(int(point), int(following))
    if settings.ladder[0] == "garch_t":
        garch(begin, end)
    return names, _spread(data, fitted, begin, end)


def _spread(data: Panel, own: Tail, begin: int, end: int) -> Tail:
    out = Tail(np.full((data.returns.shape[0], 2), np.nan), np.full((data.returns.shape[0], 2), np.nan))
    out.var[begin:end], out.es[begin:end] = own.var, own.es
    return out


def _take(tail: Tail, method: np.ndarray, source: Tail, name: str, rows: np.ndarray) -> None:
    rows = rows[np.isfinite(source.var[rows, 0])]
    tail.var[rows], tail.es[rows], method[rows] = source.var[rows], source.es[rows], name


def _named(name: str, tail: Tail) -> np.ndarray:
    method = np.full(tail.var.shape[0], None, dtype=object)
    method[np.isfinite(tail.var[:, 0])] = name
    return method
