"""HTML tables of a backtest: the monthly heat table, the figures beside buy-and-hold, the sortable list of trades."""

from __future__ import annotations

import json
from html import escape

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.metrics import return_metrics
from stock_pipeline.core.backtesting.result import BacktestResult

CSS = """
.heat{border-spacing:3px;border-collapse:separate}
.heat th,.heat td{border:0;text-align:center;padding:.38rem .3rem;border-radius:6px;min-width:3.2rem}
.heat th:first-child{position:sticky;left:0;text-align:left;min-width:3rem}
.heat td.year{font-weight:600;border-left:3px solid var(--paper)}
.heat td:empty{background:#f6f7fa}
.banner{border-radius:12px;padding:.9rem 1.2rem;margin:0 0 1.2rem;border:1px solid}
.banner b{display:block}
.banner.warn{background:#fff6e0;border-color:#efc65b;color:#6b4a00}
.banner.bad{background:#fdecee;border-color:#e59aa1;color:#7c1420}
.banner.good{background:#e9f7f0;border-color:#9fd8bd;color:#0e5334}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.2rem}
.two>section{min-width:0}
.two .scroll,.scroll:has(.heat){max-height:none}
.two th,.two td{padding:.38rem .35rem}
.two table{font-size:.83rem}
.two td:first-child{white-space:normal}
@media(min-width:900px){.tiles{grid-template-columns:repeat(5,1fr)}}
.tile b,.trades td,.heat td{white-space:nowrap}
.trades th,.trades td{padding:.36rem .42rem;font-size:.83rem}
.scroll:has(.trades){max-height:none}
section h2:not(:first-child){margin:1.1rem 0 .5rem}
.trades th{cursor:pointer;user-select:none}
.trades th[aria-sort=ascending]::after{content:" \\25B2";font-size:.65em}
.trades th[aria-sort=descending]::after{content:" \\25BC";font-size:.65em}
.gain{color:#1d7a50}.loss{color:#bb2d39}
.pager{display:flex;gap:.6rem;align-items:center;flex-wrap:wrap;margin:.8rem 0 0;color:var(--soft);font-size:.85rem}
.pager button{font:inherit;border:1px solid var(--line);background:var(--paper);border-radius:8px;padding:.3rem .8rem}
.pager button:disabled{opacity:.4}
.pager input{font:inherit;border:1px solid var(--line);border-radius:8px;padding:.3rem .7rem;min-width:0;width:11rem}
ul.notes{margin:.3rem 0 0;padding-left:1.1rem;color:var(--ink)}
ul.notes li{margin:.3rem 0}
@media(max-width:600px){
main{padding:.8rem}header{padding:1.4rem 1rem 1.1rem}section{padding:1rem .9rem}
.tiles{grid-template-columns:1fr 1fr;gap:.6rem}.tile b{font-size:1.2rem}
.heat th,.heat td{min-width:2.9rem;font-size:.78rem}
.modebar,.updatemenu-container{display:none!important}
}
"""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def monthly_heat(monthly: pl.DataFrame) -> str:
    """Years down, months across, the year's return at the end; green for gains, red for losses."""
    if monthly.is_empty():
        return "<p>None.</p>"
    cells = {(y, m): r for y, m, r in monthly.select("year", "month", "return").iter_rows()}
    scale = max(float(np.quantile(np.abs(list(cells.values())), 0.95)), 1e-9)
    years = sorted({y for y, _ in cells}, reverse=True)
    totals = {y: float(np.prod([1 + cells[y, m] for m in range(1, 13) if (y, m) in cells]) - 1) for y in years}
    widest = max(max(abs(v) for v in totals.values()), 1e-9)
    head = "".join(f"<th>{m}</th>" for m in _MONTHS)
    lines = []
    for year in years:
        months = "".join(_cell(cells.get((year, m)), scale) for m in range(1, 13))
        lines.append(f"<tr><th>{year}</th>{months}{_cell(totals[year], widest, 'year')}</tr>")
    return (
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{head}<th>Year</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: float | None, scale: float, kind: str = "") -> str:
    if value is None:
        return f'<td class="{kind}"></td>'
    strength = 0.06 + 0.62 * min(abs(value) / scale, 1.0)
    colour = f"46,158,107,{strength:.2f}" if value >= 0 else f"207,63,74,{strength:.2f}"
    if value == 0:
        colour = "125,138,160,.10"
    return f'<td class="{kind}" style="background:rgba({colour})">{100 * value:.1f}</td>'


_ROWS: tuple[tuple[str, str, str], ...] = (
    ("total_return", "total return", "%"),
    ("annual_return", "annual return", "%"),
    ("volatility", "volatility, yearly", "%"),
    ("sharpe", "Sharpe ratio", ""),
    ("sortino", "Sortino ratio", ""),
    ("calmar", "Calmar ratio", ""),
    ("max_drawdown", "deepest drawdown", "%"),
    ("max_drawdown_sessions", "longest drawdown", "n"),
    ("var_95", "VaR 95 %, one session", "%"),
    ("es_95", "shortfall 95 %", "%"),
    ("tail_ratio", "tail ratio", ""),
    ("skew", "skew", ""),
    ("kurtosis", "kurtosis (normal: 3)", ""),
    ("best_session", "best session", "%"),
    ("worst_session", "worst session", "%"),
    ("positive_sessions", "sessions with a gain", "%"),
)
_OWN: tuple[tuple[str, str, str], ...] = (
    ("beta", "beta to the benchmark", ""),
    ("alpha", "alpha, yearly", "%"),
    ("information_ratio", "information ratio", ""),
    ("correlation", "correlation with the benchmark", ""),
    ("trades", "closed trades", "n"),
    ("win_rate", "trades with a gain", "%"),
    ("profit_factor", "profit factor", ""),
    ("payoff_ratio", "average gain over average loss", ""),
    ("average_trade_return", "average trade", "%"),
    ("best_trade_return", "best trade", "%"),
    ("worst_trade_return", "worst trade", "%"),
    ("average_trade_sessions", "average trade, sessions", ""),
    ("turnover", "turnover a year, one way", "%"),
    ("exposure", "average gross exposure", "%"),
    ("time_in_market", "sessions with a position", "%"),
    ("probabilistic_sharpe", "probability of a Sharpe ratio above 0", "%"),
    ("deflated_sharpe", "the same, given the number of trials", "%"),
    ("trials", "trials", "n"),
    ("unfilled_orders", "orders not filled in full", "n"),
)


def number(value: float | None, unit: str) -> str:
    """Write a figure with its unit: ``%`` for fractions, ``n`` for counts."""
    if value is None:
        return "–"
    if unit == "%":
        digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 0.1 else 2
        return f"{100 * value:,.{digits}f} %"
    return f"{value:,.0f}" if unit == "n" else f"{value:,.2f}"


def comparison(result: BacktestResult) -> str:
    """Figures of the strategy beside buy-and-hold and, where there is one, the benchmark."""
    year, rate = result.settings.sessions_per_year, result.settings.risk_free
    columns = [("strategy", result.metrics)]
    for column, name in (("buy_and_hold", "buy and hold"), ("benchmark", "benchmark")):
        curve = result.equity[column].drop_nulls().to_numpy()
        if len(curve) > 2:
            returns = curve[1:] / curve[:-1] - 1.0
            columns.append((name, return_metrics(returns, sessions_per_year=year, risk_free=rate)))
    head = "".join(f'<th class="n">{escape(name)}</th>' for name, _ in columns)
    body = "".join(
        f"<tr><td>{escape(label)}</td>"
        + "".join(f'<td class="n">{number(metrics.get(key), unit)}</td>' for _, metrics in columns)
        + "</tr>"
        for key, label, unit in _ROWS
    )
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def own_figures(result: BacktestResult) -> str:
    """Figures that only the strategy has: against the benchmark, of its trades, of its activity, of luck."""
    body = "".join(
        f'<tr><td>{escape(label)}</td><td class="n">{number(result.metrics.get(key), unit)}</td></tr>'
        for key, label, unit in _OWN
        if key in result.metrics
    )
    head = '<thead><tr><th></th><th class="n">strategy</th></tr></thead>'
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def cost_table(result: BacktestResult) -> str:
    """Costs by kind, in currency and as shares of capital and of traded value."""
    traded = float(result.fills["value"].sum()) if result.fills.height else 0.0
    capital = result.settings.portfolio.capital
    head = "".join(f'<th class="n">{h}</th>' for h in ("paid", "of capital", "bp of traded value"))
    body = "".join(
        f"<tr><td>{escape(kind.replace('_', ' '))}</td>"
        f'<td class="n">{amount:,.2f}</td><td class="n">{100 * amount / capital:,.2f} %</td>'
        f'<td class="n">{f"{1e4 * amount / traded:,.2f}" if traded > 0 else "–"}</td></tr>'
        for kind, amount in result.costs.items()
        if amount > 0 or kind == "total"
    )
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def trade_list(result: BacktestResult, limit: int) -> tuple[str, int]:
    """Sortable, filterable, paged list of round trips, newest first; how many are in it.

    The rows are data inside the page and are put into cells as text, never as HTML.
    """
    shown = result.trades.sort("opened", "symbol", descending=[True, False]).head(limit)
    rows = [
        [
            r["symbol"],
            r["side"],
            str(r["opened"]),
            "" if r["closed"] is None else str(r["closed"]),
            r["sessions"],
            round(r["shares"], 2),
            round(r["entry_price"], 2),
            round(r["exit_price"], 2),
            round(r["pnl"], 2),
            round(100 * r["return"], 2),
            round(r["costs"], 2),
            r["exit_reason"].replace("_", " "),
        ]
        for r in shown.iter_rows(named=True)
    ]
    head = "".join(
        f'<th class="{"n" if n else ""}" data-c="{i}" tabindex="0">{escape(h)}</th>'
        for i, (h, n) in enumerate(_TRADE_COLUMNS)
    )
    data = json.dumps(rows, allow_nan=False).replace("<", "\\u003c")
    block = (
        f'<div class="scroll"><table class="trades" id="trades"><thead><tr>{head}</tr></thead><tbody></tbody></table>'
        "</div>"
        '<div class="pager"><button data-go="-1">Back</button><button data-go="1">Next</button><span></span>'
        '<input type="search" placeholder="symbol or reason" aria-label="filter trades"></div>'
        f'<script type="application/json" id="trade-data">{data}</script><script>{_SCRIPT}</script>'
    )
    return block, shown.height


_TRADE_COLUMNS = (
    ("symbol", False),
    ("side", False),
    ("opened", False),
    ("closed", False),
    ("sessions", True),
    ("shares", True),
    ("entry", True),
    ("exit", True),
    ("gain", True),
    ("return %", True),
    ("costs", True),
    ("closed by", False),
)

_SCRIPT = """
(()=>{const all=JSON.parse(document.getElementById('trade-data').textContent),size=25;
const t=document.getElementById('trades'),box=t.closest('section'),body=t.tBodies[0],numeric=[4,5,6,7,8,9,10];
let rows=all.slice(),page=0,by=-1,down=false;
const show=()=>{body.replaceChildren();rows.slice(page*size,page*size+size).forEach(r=>{const tr=body.insertRow();
r.forEach((v,i)=>{const td=tr.insertCell();td.textContent=numeric.includes(i)?v.toLocaleString('en-US',
{minimumFractionDigits:[6,7,9].includes(i)?2:0,maximumFractionDigits:[6,7,9].includes(i)?2:0}):v;if(numeric.includes(i))td.className='n';
if(i==8||i==9)td.className='n '+(v>0?'gain':v<0?'loss':'')})});
const pages=Math.max(1,Math.ceil(rows.length/size));
box.querySelector('.pager span').textContent=rows.length.toLocaleString('en-US')+' trades, page '+(page+1)+' of '+pages;
box.querySelectorAll('.pager button').forEach(b=>b.disabled=b.dataset.go<0?page==0:page>=pages-1)};
const sort=th=>{const c=+th.dataset.c;down=by==c?!down:numeric.includes(c);by=c;
rows.sort((a,b)=>(a[c]>b[c]?1:a[c]<b[c]?-1:0)*(down?-1:1));page=0;
t.querySelectorAll('th').forEach(h=>h.removeAttribute('aria-sort'));
th.setAttribute('aria-sort',down?'descending':'ascending');show()};
t.querySelectorAll('th').forEach(th=>{th.onclick=()=>sort(th);th.onkeydown=e=>{if(e.key=='Enter')sort(th)}});
box.querySelectorAll('.pager button').forEach(b=>b.onclick=()=>{page+=+b.dataset.go;show()});
box.querySelector('.pager input').oninput=e=>{const q=e.target.value.toLowerCase();
rows=all.filter(r=>(r[0]+' '+r[1]+' '+r[11]).toLowerCase().includes(q));page=0;show()};show()})();
"""
