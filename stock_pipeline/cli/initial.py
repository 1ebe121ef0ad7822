"""`stock-pipeline init`: writes a configuration for a folder of prices that was looked at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
import yaml

from stock_pipeline.cli.app import app
from stock_pipeline.cli.console import err, number_of, out, span
from stock_pipeline.cli.looking import CURRENCIES, guess_calendar, look
from stock_pipeline.core.errors import ConfigurationError, DataError, PipelineError

TEMPLATE = """\
# Configuration of one market. `stock-pipeline -c {file} doctor` checks it; all keys: docs/reference/configuration.md
home: {home}   # everything that is made at run time, relative to this file
market:
  name: {name}
  calendar: {calendar}   # XNYS, XSHG, XTKS, XNSE, XLON, ... or 24/7
  currency: {currency}
  history: {history}   # first year, and last year of a market that has ended
source:
  kind: files   # or yfinance, akshare (optional extras)
{source}
  # prices: raw | adjusted | raw_with_adj_close | raw_with_factors | raw_with_events
  # columns: {{symbol: ticker, session: date}}   # ours: theirs, where their names differ
  # date_format: "%d/%m/%Y"   # only where dates are ambiguous
  # benchmark: benchmark.csv   # session, close
universe:
  symbols: all
  min_history: {min_history}   # sessions that a symbol needs before it is predicted
  # membership: membership.csv   # symbol, start, end: a point-in-time universe
features:
  sets: [technical, statistical]   # also: alpha158, or your own modules
  missing_columns: drop   # leave out features whose columns the vendor does not deliver
models:
  families: [lightgbm, ridge]
  horizon: 5
  train: {train}
backtests:
  strategies: [buy_and_hold, sma_cross, momentum_rank, model_rank]
  costs: {{commission_bps: 5, slippage_bps: 5}}
"""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Folder or file of prices.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Configuration file to write.")] = Path(
        "stock_pipeline.yaml"
    ),
    name: Annotated[str, typer.Option(help="Name of the market.")] = "my_market",
    calendar: Annotated[str | None, typer.Option(help="Exchange calendar; by default the one that fits best.")] = None,
    currency: Annotated[str | None, typer.Option(help="Currency of the prices; by default the calendar's.")] = None,
    prices: Annotated[str | None, typer.Option(help="What the prices are; by default a guess by the columns.")] = None,
    first: Annotated[int | None, typer.Option(help="First year of history; by default that of the data.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Look at your own prices and write a configuration that fits them."""
    from stock_pipeline.config import load_settings
    from stock_pipeline.sources import build

    if output.exists() and not force:
        raise ConfigurationError(
            "the configuration file exists already", value=str(output), fix="use --force or --output"
        )
    if not output.absolute().parent.is_dir():
        raise ConfigurationError("the folder of the configuration does not exist", value=str(output))
    if not path.exists():
        raise DataError("there is no such folder or file", value=str(path), fix="give the path of your prices")
    seen = look(path.resolve())
    source = {"path": str(path.resolve()), **seen.source} | ({"prices": prices} if prices else {})
    values: dict[str, Any] = {"name": name, "calendar": calendar or "XNYS", "currency": currency or "USD"}
    output.write_text(_text(output, values, source, first=first), encoding="utf-8")
    try:
        settings = load_settings(output)
        bars = build(settings.source, calendar=settings.market.calendar, currency="USD").fetch(None, None).bars
    except PipelineError as error:
        raise DataError(
            f"{output} is written, but the prices cannot be read with it yet: {error}", fix=f"edit {output}"
        ) from error
    if calendar is None:
        values["calendar"], share = guess_calendar(bars["session"].unique().to_list())
        seen.notes.append(f"calendar {values['calendar']}: {share:.1%} of its days agree with the data's")
    if currency is None:
        values["currency"] = CURRENCIES.get(values["calendar"], "USD")
    output.write_text(_text(output, values, source, bars, first=first), encoding="utf-8")
    load_settings(output)
    symbols = bars["symbol"].n_unique()
    out.print(f"{number_of(bars.height, 'row')} of {number_of(symbols, 'symbol')}, {span(bars)}", markup=False)
    for note in seen.notes:
        out.print(f"  {note}", markup=False, soft_wrap=True)
    out.print(f"{output} written. Look at it, then:", markup=False, soft_wrap=True)
    option = "" if output == Path("stock_pipeline.yaml") else f" -c {output}"
    for command in ("doctor", "run"):
        out.print(f"  stock-pipeline{option} {command}", markup=False, soft_wrap=True)
    if symbols == 1:
        err.print("with one symbol nothing can be ranked: rank IC and ranking strategies need several", markup=False)


def _text(
    output: Path, market: dict[str, Any], source: dict[str, Any], bars: pl.DataFrame | None = None, *, first: int | None
) -> str:
    """The configuration's text; lengths are fitted to the data where it is known."""
    history: dict[str, int] = {"first": first or 1990}
    train: dict[str, Any] = {"window": "expanding", "folds": 5, "embargo": 5}
    min_history = 252
    if bars is not None:
        sessions = bars["session"].unique().sort()
        history["first"] = first or max(1900, sessions[0].year)
        if sessions[-1].year < datetime.now(UTC).year - 1:
            history["last"] = sessions[-1].year
        if len(sessions) < 1260:
            train |= {"folds": 2, "holdout_sessions": max(10, len(sessions) // 20)}
            min_history = max(20, min(252, len(sessions) // 5))
    return TEMPLATE.format(
        file=output.name,
        home=f"data/{market['name']}",
        name=market["name"],
        calendar=market["calendar"],
        currency=market["currency"],
        history=_flow(history),
        source="\n".join(f"  {key}: {_flow(value)}" for key, value in source.items()),
        min_history=min_history,
        train=_flow(train),
    )


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("...\n").strip()
