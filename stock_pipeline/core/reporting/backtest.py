"""The report of a backtest as one self-contained, interactive HTML page.

What it says is decided here; figures are in ``backtest_figures``, tables in ``backtest_tables``, numbers in
``core.backtesting``.
"""

from __future__ import annotations

from html import escape
from typing import Any

from stock_pipeline.core.backtesting.replay import TOLERANCE
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.reporting._html import Page, table
from stock_pipeline.core.reporting.backtest_figures import (
    ROLLING,
    cost_figure,
    equity_figure,
    exposure_figure,
    rolling_figure,
    trade_figure,
)
from stock_pipeline.core.reporting.backtest_tables import (
    CSS,
    comparison,
    cost_table,
    monthly_heat,
    number,
    own_figures,
    trade_list,
)


def backtest_report(
    result: BacktestResult, *, title: str | None = None, max_trades: int = 2000, trades_link: str | None = None
) -> str:
    """Show a backtest.

    Parameters
    ----------
    result
        What `run_backtest` returned.
    title
        Heading; the strategy's name and description otherwise.
    max_trades
        Largest number of round trips put into the page, the newest ones; how many there are in all is stated.
    trades_link
        Address of the full list of trades, named below the table.

    Returns
    -------
    str
        HTML with its scripts inside (about 5 MB), usable offline; all text from data is escaped.
    """
    page = Page(title or result.strategy.replace("_", " ").capitalize(), _lead(result))
    page.parts.append(f"<style>{CSS}</style>")
    page.parts.extend(_banners(result))
    page.tiles(_tiles(result))
    page.section(
        "Equity",
        "After all costs, beside equal parts of all first symbols held without costs"
        + (", and the benchmark. " if _has_benchmark(result) else ". ")
        + "Below: the fall from the highest equity so far.",
        page.figure(equity_figure(result)),
    )
    page.section("Monthly returns", "Per cent, after costs.", monthly_heat(result.monthly))
    _figures(page, result)
    rolling = rolling_figure(result)
    if rolling is not None:
        page.section(
            "Rolling Sharpe ratio",
            f"Over the last {ROLLING} sessions, yearly. Steady beats high.",
            page.figure(rolling),
        )
    page.section(
        "Exposure and turnover",
        "How much of equity was in the market, and how much of it was traded a month.",
        page.figure(exposure_figure(result)),
    )
    _costs(page, result)
    _trades(page, result, max_trades, trades_link)
    _origin(page, result)
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    page.section("How to read this", "", f'<ul class="notes">{notes}</ul>')
    return page.html()


def _lead(result: BacktestResult) -> str:
    sessions = result.equity["session"]
    symbols = len(result.symbols)
    return (
        f"{result.description} {sessions[0]} to {sessions[-1]}, {sessions.len():,} sessions, "
        f"{symbols:,} symbol{'' if symbols == 1 else 's'}, {result.settings.execution.rules} rules."
    )


def _has_benchmark(result: BacktestResult) -> bool:
    return result.equity["benchmark"].null_count() < result.equity.height


def _banner(kind: str, head: str, text: str) -> str:
    return f'<div class="banner {kind}" role="status"><b>{escape(head)}</b>{escape(text)}</div>'


def _banners(result: BacktestResult) -> list[str]:
    out = []
    if result.too_good_to_be_true:
        out.append(
            _banner(
                "warn",
                f"Too good to be true: Sharpe ratio {number(result.metrics['sharpe'], '')}",
                "On daily data a Sharpe ratio above 3 is nearly always a leak from the future, a mistake in the data, "
                "or costs that are too low. Do not trust this result before somebody has found the reason.",
            )
        )
    if result.reconciliation is not None and not result.reconciliation.agrees:
        out.append(
            _banner(
                "bad",
                "The two ledgers do not agree",
                f"The largest difference is {result.reconciliation.worst:.1e} of equity. Do not rely on the figures.",
            )
        )
    if result.ruined is not None:
        out.append(_banner("bad", "The account was ruined", f"On {result.ruined} equity was gone; trading ended."))
    if result.fills.height == 0:
        out.append(_banner("warn", "Nothing was traded", "The strategy made no decision that could be executed."))
    return out


def _tiles(result: BacktestResult) -> list[tuple[str, str]]:
    m = result.metrics
    hold = float(result.equity["buy_and_hold"][-1]) / result.settings.portfolio.capital - 1.0
    return [
        ("total return", number(m["total_return"], "%")),
        ("buy and hold", number(hold, "%")),
        ("annual return", number(m["annual_return"], "%")),
        ("volatility", number(m["volatility"], "%")),
        ("Sharpe ratio", number(m["sharpe"], "")),
        (f"deflated Sharpe, {result.settings.trials} trial{'' if result.settings.trials == 1 else 's'}",
         number(m["deflated_sharpe"], "%")),
        ("deepest drawdown", number(m["max_drawdown"], "%")),
        ("closed trades", number(m["trades"], "n")),
        ("trades with a gain", number(m["win_rate"], "%")),
        ("costs paid", _compact(result.costs["total"])),
    ]  # fmt: skip


def _compact(amount: float) -> str:
    for size, letter in ((1e9, "bn"), (1e6, "M")):
        if abs(amount) >= size:
            return f"{amount / size:,.2f} {letter}"
    return f"{amount:,.0f}"


def _figures(page: Page, result: BacktestResult) -> None:
    blocks = (
        f"<section><h2>Return and risk</h2>{comparison(result)}</section>"
        f"<section><h2>Trades, activity and luck</h2>{own_figures(result)}</section>"
    )
    page.parts.append(f'<div class="two">{blocks}</div>')


def _costs(page: Page, result: BacktestResult) -> None:
    figure = cost_figure(result)
    blocks = [cost_table(result)]
    if figure is not None:
        blocks.append(page.figure(figure))
    page.section("Costs", "Everything that trading cost, already taken off above.", *blocks)


def _trades(page: Page, result: BacktestResult, limit: int, link: str | None) -> None:
    if result.trades.is_empty():
        page.section("Trades", "None.")
        return
    block, shown = trade_list(result, limit)
    text = "From opening a position to closing or reversing it; prices as traded, gains after costs and splits."
    if shown < result.trades.height:
        text += f" The newest {shown:,} of {result.trades.height:,} are listed."
    if link:
        block += f'<p><a href="{escape(link)}">All trades</a></p>'
    figure = trade_figure(result)
    page.section("Trades", text, *([] if figure is None else [page.figure(figure)]), block)


def _origin(page: Page, result: BacktestResult) -> None:
    settings = result.settings
    origin: list[list[Any]] = [
        ["data version", settings.data_version or "not given"],
        ["model version", settings.model_version or ("not given" if result.strategy == "model_rank" else "no model")],
        ["seed", settings.seed],
        ["trials", settings.trials],
        ["look-ahead check", f"at {settings.lookahead_cuts} dates, passed" if settings.lookahead_cuts else "not made"],
    ]
    parameters = [[k, _plain(v)] for k, v in result.parameters.items()]
    groups = settings.model_dump(mode="json")
    flat = [
        [f"{group}.{key}", _plain(value)]
        for group in ("costs", "execution", "portfolio")
        for key, value in groups[group].items()
        if value is not None
    ]
    page.parts.append(
        '<div class="two">'
        f"<section><h2>Parameters and origin</h2>{table(['parameter', 'value'], [*parameters, *origin])}"
        f"<h2>Two ledgers</h2>{_reconciliation(result)}</section>"
        f"<section><h2>Settings</h2>{table(['setting', 'value'], flat)}</section></div>"
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)


def _reconciliation(result: BacktestResult) -> str:
    r = result.reconciliation
    if r is None:
        return _banner("warn", "Only one ledger was kept", "A published result needs both.")
    verdict = "agree" if r.agrees else "do not agree"
    return _banner(
        "good" if r.agrees else "bad",
        f"They {verdict} in every session",
        f"Our accounts and vectorbt's, kept from the same {result.fills.height:,} fills, differ by at most "
        f"{r.equity.max():.1e} in equity and {r.cash.max():.1e} in cash ({r.worst:.1e} of equity; "
        f"allowed {TOLERANCE:.0e}).",
    )
