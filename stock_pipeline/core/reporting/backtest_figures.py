"""Plotly figures of a backtest. Numbers come from the result; nothing but rolling figures is computed here."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.reporting._figures import styled

STRATEGY, HOLD, BENCHMARK, LOSS, GAIN = "#2456d6", "#8a94a6", "#c98a00", "#cf3f4a", "#2e9e6b"
ROLLING = 126
"""Sessions of the rolling figures."""


def equity_figure(result: BacktestResult) -> Any:
    """Equity beside buy-and-hold and benchmark, with the drawdown below on the same axis of time."""
    from plotly.subplots import make_subplots

    frame = result.equity
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.04)
    x = frame["session"].to_list()
    curves = [("buy_and_hold", "buy and hold", HOLD, 1.4), ("benchmark", "benchmark", BENCHMARK, 1.4)]
    for column, name, colour, width in [*curves, ("equity", "strategy after costs", STRATEGY, 2.2)]:
        if frame[column].null_count() < frame.height:
            y = frame[column].to_numpy()
            figure.add_scatter(
                x=x, y=y, name=name, line={"color": colour, "width": width}, hovertemplate="%{y:,.0f}", row=1, col=1
            )
    figure.add_scatter(
        x=x,
        y=100 * frame["drawdown"].to_numpy(),
        name="drawdown",
        line={"color": LOSS, "width": 1},
        fill="tozeroy",
        fillcolor="rgba(207,63,74,.16)",
        hovertemplate="%{y:.1f} %",
        showlegend=False,
        row=2,
        col=1,
    )
    for session in result.drawdown_stops:
        figure.add_vline(x=str(session), line={"color": LOSS, "width": 1, "dash": "dot"}, row=1, col=1)
    styled(figure, height=520)
    positive = float(frame["equity"].min() or 0.0) > 0  # type: ignore[arg-type]
    if positive:
        buttons = [{"label": name, "method": "relayout", "args": [{"yaxis.type": name}]} for name in ("log", "linear")]
        figure.update_layout(
            updatemenus=[
                {
                    "type": "buttons",
                    "direction": "right",
                    "buttons": buttons,
                    "x": 1,
                    "xanchor": "right",
                    "y": 1.02,
                    "yanchor": "bottom",
                    "pad": {"b": 2},
                    "bgcolor": "#ffffff",
                    "bordercolor": "#e3e7ee",
                    "font": {"size": 11},
                    "showactive": True,
                }
            ]
        )
    figure.update_yaxes(type="log" if positive else "linear", row=1, col=1, tickformat="~s")
    figure.update_yaxes(ticksuffix=" %", nticks=4, row=2, col=1)
    figure.update_layout(hovermode="x unified", legend={"y": 1.06})
    return figure


def rolling_figure(result: BacktestResult) -> Any | None:
    """Sharpe ratio over the last `ROLLING` sessions, beside buy-and-hold; ``None`` when the history is too short."""
    import plotly.graph_objects as go

    frame, year = result.equity, result.settings.sessions_per_year
    if frame.height <= ROLLING:
        return None
    hold = frame["buy_and_hold"].to_numpy()
    figure = go.Figure()
    for name, returns, colour in (
        ("buy and hold", np.concatenate([[0.0], hold[1:] / hold[:-1] - 1.0]), HOLD),
        ("strategy", frame["return"].fill_null(0.0).to_numpy(), STRATEGY),
    ):
        windows = np.lib.stride_tricks.sliding_window_view(returns, ROLLING)
        deviation = windows.std(axis=1, ddof=1)
        moving = deviation > 1e-12
        sharpe = np.where(moving, windows.mean(axis=1) / np.where(moving, deviation, 1.0) * sqrt(year), np.nan)
        figure.add_scatter(
            x=frame["session"][ROLLING - 1 :].to_list(),
            y=np.round(sharpe, 3),
            name=name,
            line={"color": colour, "width": 1.6},
        )
    figure.add_hline(y=0, line={"color": "#b8c0cc", "width": 1})
    figure.update_layout(hovermode="x unified")
    return styled(figure, height=280)


def exposure_figure(result: BacktestResult) -> Any:
    """Gross and net exposure by session, and turnover by month."""
    from plotly.subplots import make_subplots

    frame = result.equity
    monthly = (
        frame.group_by_dynamic("session", every="1mo")
        .agg(pl.col("turnover").sum() / 2)
        .with_columns(pl.col("turnover") * 100)
    )
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.08)
    x = frame["session"].to_list()
    gross, net = (100 * frame[c].fill_null(np.nan).to_numpy() for c in ("gross_exposure", "net_exposure"))
    figure.add_scatter(x=x, y=gross, name="gross exposure", line={"color": STRATEGY, "width": 1.4}, row=1, col=1)
    if not np.allclose(gross, net, equal_nan=True):
        figure.add_scatter(x=x, y=net, name="net exposure", line={"color": BENCHMARK, "width": 1.4}, row=1, col=1)
    figure.add_bar(
        x=monthly["session"].to_list(),
        y=monthly["turnover"].to_numpy(),
        name="turnover a month, one way",
        marker_color="#a9bdf0",
        row=2,
        col=1,
    )
    figure.update_yaxes(ticksuffix=" %", rangemode="tozero")
    figure.update_layout(hovermode="x unified")
    return styled(figure, height=360)


def trade_figure(result: BacktestResult) -> Any | None:
    """Distribution of the returns of closed round trips; ``None`` when there are fewer than five."""
    import plotly.graph_objects as go

    returns = 100 * result.trades.filter(pl.col("closed").is_not_null())["return"].to_numpy()
    if len(returns) < 5:
        return None
    edges = np.histogram_bin_edges(returns, bins=min(60, max(30, int(3 * sqrt(len(returns))))))
    # An edge at zero keeps gains and losses apart.
    width = float(edges[1] - edges[0])
    edges = np.arange(np.floor(returns.min() / width), np.ceil(returns.max() / width) + 1) * width
    counts, edges = np.histogram(returns, bins=edges)
    middle = (edges[1:] + edges[:-1]) / 2
    figure = go.Figure()
    for name, side, colour in (("losses", middle < 0, LOSS), ("gains", middle >= 0, GAIN)):
        figure.add_bar(
            x=middle[side],
            y=counts[side],
            width=width * 0.92,
            name=name,
            marker_color=colour,
            hovertemplate="around %{x:.1f} %: %{y} trades<extra></extra>",
        )
    figure.update_xaxes(ticksuffix=" %")
    return styled(figure, height=260, y_title="trades")


def cost_figure(result: BacktestResult) -> Any | None:
    """Costs by kind, accumulated over time; ``None`` when nothing was paid."""
    import plotly.graph_objects as go

    if result.costs["total"] <= 0:
        return None
    kinds = [k for k in result.costs if k not in ("total", "borrow") and result.costs[k] > 0]
    sessions = result.equity.select("session", "borrow")
    daily = sessions.join(
        result.fills.group_by("session").agg(pl.col(kinds).sum()), on="session", how="left", maintain_order="left"
    ).fill_null(0.0)
    if result.costs["borrow"] > 0:
        kinds.append("borrow")
    palette = dict(zip(("commission", "slippage", "stamp_duty", "transfer_fee", "borrow"), _COSTS, strict=True))
    figure = go.Figure()
    for kind in kinds:
        figure.add_scatter(
            x=daily["session"].to_list(),
            y=daily[kind].cum_sum().to_numpy(),
            name=kind.replace("_", " "),
            stackgroup="costs",
            line={"width": 0.5, "color": palette[kind]},
            hovertemplate="%{y:,.0f}",
        )
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(tickformat="~s")
    return styled(figure, height=280)


_COSTS = ("#2456d6", "#8fb0ff", "#cf3f4a", "#e7a0a6", "#c98a00")
