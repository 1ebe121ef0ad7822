"""What `doctor` looks at in the prices themselves: usual mistakes of a new configuration, before anything is run."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from stock_pipeline.cli.console import number_of, span
from stock_pipeline.cli.findings import Finding
from stock_pipeline.cli.looking import guess_calendar
from stock_pipeline.cli.show import examples
from stock_pipeline.config import Settings
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.sources.protocol import SourceData

FITS = 0.97
"""Share of the data's days that should be sessions of the calendar."""

SPLIT_LIKE = 0.45
"""A change of price over one session beyond which a split is likelier than news."""


def look_at_prices(settings: Settings) -> list[Finding]:
    """Read the source as a run does, and look at what came."""
    if settings.source.kind != "files":
        return [Finding(None, "source", f"{settings.source.kind}: not asked, it would use the network")]
    from stock_pipeline.sources import build

    calendar = SessionCalendar(settings.market.calendar)
    data = build(settings.source, calendar=calendar, currency=settings.market.currency).fetch(None, None)
    bars = data.bars
    text = f"{number_of(bars.height, 'row')}, {number_of(bars['symbol'].n_unique(), 'symbol')}, {span(bars)}"
    found = [Finding(bars.height > 0, "source", text)]
    found += [Finding(None, "source", problem) for problem in data.problems]
    return [
        *found,
        *_calendar(settings, calendar, bars),
        *_history(settings, bars),
        *_universe(settings, data),
        *_prices(settings, bars),
        *_features(settings, data),
    ]


def _calendar(settings: Settings, calendar: SessionCalendar, bars: pl.DataFrame) -> list[Finding]:
    days = bars["session"].unique().sort().to_list()
    known = [day for day in days if calendar.first <= day <= calendar.last]
    found = []
    if len(known) < len(days):
        odd = [day for day in days if not calendar.first <= day <= calendar.last]
        text = f"{len(odd)} days, such as {odd[-1]}, lie outside what {calendar.name} knows"
        found.append(Finding(None, "calendar", text))
    future = [day for day in known if day > datetime.now(UTC).date()]
    if future:
        found.append(Finding(None, "calendar", f"{len(future)} days lie in the future, such as {future[-1]}"))
    sessions = set(calendar.known_sessions(known[0], known[-1])) if known else set()
    share = sum(day in sessions for day in known) / len(known) if known else 0.0
    if share < FITS or (known and len(sessions) > 1.2 * len(known)):
        best, fit = guess_calendar(days)
        text = f"only {share:.0%} of the data's days are sessions of {calendar.name}"
        if share >= FITS:
            text = f"{calendar.name} has {len(sessions)} sessions where the data has {len(known)} days"
        hint = f"; {best} fits {fit:.0%}" if best != calendar.name else ""
        found.append(Finding(share >= FITS and None, "calendar", text + hint))
    return found


def _history(settings: Settings, bars: pl.DataFrame) -> list[Finding]:
    history, found = settings.market.history, []
    years = bars["session"].dt.year()
    first, last = int(years.min()), int(years.quantile(0.999, "lower"))  # type: ignore[arg-type]
    if history.first > first:
        found.append(
            Finding(None, "history", f"the data starts in {first}, before market.history.first ({history.first})")
        )
    if history.last is not None and history.last < last:
        found.append(Finding(None, "history", f"the data goes on after market.history.last ({history.last})"))
    longest = int(bars.group_by("symbol").len()["len"].max() or 0)  # type: ignore[arg-type]
    if longest < settings.universe.min_history:
        text = (
            f"the longest history has {longest} sessions, universe.min_history asks for {settings.universe.min_history}"
        )
        found.append(Finding(False, "history", text + ": nothing would be predicted"))
    train, sessions = settings.models.training, bars["session"].n_unique()
    needed = train.holdout_sessions + 2 * (train.horizon + train.embargo) + 20 * (train.folds + 1)
    if sessions < needed:
        text = f"{sessions} sessions are too few for {train.folds} folds and a hold-out of {train.holdout_sessions}"
        found.append(Finding(False, "history", text + "; lower models.train.folds or holdout_sessions"))
    return found


def _universe(settings: Settings, data: SourceData) -> list[Finding]:
    there, found = set(data.bars["symbol"].unique().to_list()), []
    wanted = settings.universe.symbols
    if wanted != "all" and (missing := sorted(set(wanted) - there)):
        found.append(
            Finding(False, "universe", f"no prices of {examples(missing)}; there are {examples(sorted(there))}")
        )
    if data.membership is not None:
        listed = set(data.membership["symbol"].to_list())
        if missing := sorted(listed - there):
            found.append(Finding(None, "universe", f"members without prices: {examples(missing)}"))
        if not listed & there:
            found.append(Finding(False, "universe", "no symbol of the membership file has prices: names differ?"))
    if len(there) == 1:
        found.append(Finding(None, "universe", "one symbol: nothing can be ranked, so rank IC is undefined"))
    return found


def _prices(settings: Settings, bars: pl.DataFrame) -> list[Finding]:
    found = []
    twice = bars.filter(pl.struct("symbol", "session").is_duplicated())
    if twice.height:
        row = twice.row(0, named=True)
        text = f"{twice.height} rows share symbol and session, such as {row['symbol']} on {row['session']}"
        found.append(Finding(None, "prices", text + ": all but one will be quarantined"))
    bad = bars.filter(~(pl.col("close").is_finite() & (pl.col("close") > 0)) | pl.col("close").is_null())
    if bad.height:
        row = bad.row(0, named=True)
        text = (
            f"{bad.height} closes are missing, zero, negative or infinite, such as {row['symbol']} on {row['session']}"
        )
        found.append(Finding(None, "prices", text))
    adjusted = pl.col("close") * pl.col("adj_factor")
    moves = bars.sort("symbol", "session").with_columns(move=(adjusted / adjusted.shift(1).over("symbol")).log().abs())
    jumps = moves.filter(pl.col("move").is_finite() & (pl.col("move") > SPLIT_LIKE))
    if jumps.height > max(3, bars["symbol"].n_unique() // 4) and settings.source.kind == "files":
        row = jumps.sort("move").row(-1, named=True)
        text = f"{jumps.height} jumps look like splits, such as {row['symbol']} on {row['session']}"
        found.append(Finding(None, "prices", f"{text}; is prices: {settings.source.prices} right?"))
    return found


def _features(settings: Settings, data: SourceData) -> list[Finding]:
    from stock_pipeline.orchestration.inputs import chosen_feature_sets, usable_features

    bars, found = data.bars, []
    if data.benchmark is not None:
        bars = bars.join(data.benchmark.select("session", benchmark="close"), on="session", how="left")
        uncovered = bars.filter(pl.col("benchmark").is_null())["session"].n_unique()
        if uncovered:
            found.append(Finding(None, "benchmark", f"has no value on {uncovered} of the data's days"))
    counts = []
    for name, chosen in chosen_feature_sets(settings).items():
        usable = usable_features(chosen, bars, settings.features.missing_columns)
        left = len(chosen.features) - len(usable.features)
        counts.append(f"{name}: {len(usable.features)}" + (f" ({left} left out for want of columns)" if left else ""))
    return [*found, Finding(True, "features", ", ".join(counts))]
