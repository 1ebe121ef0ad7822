"""From a request to a run: which job, with which run configuration and tags. Pure, and without Dagster's library.

The service builds launches with it, and so does the command line, so a task is the same run wherever it was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from stock_pipeline.config.settings import Settings
from stock_pipeline.config.tasks import (
    JOBS,
    PRIORITIES,
    BackfillRequest,
    BacktestRequest,
    PredictRequest,
    RefreshRequest,
    TrainRequest,
    as_json,
)
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters

KIND = "stock_pipeline/kind"
"""Run tag: the kind of task; the queue limits how many of each run at a time."""

OWNER = "stock_pipeline/owner"
"""Run tag: the account that asked for it."""

REQUEST = "stock_pipeline/request"
"""Run tag: the reservation that it came from, so that no request becomes two runs."""

PARAMETERS = "stock_pipeline/parameters"
"""Run tag: what was asked for, as JSON."""

STARTED_BY = "stock_pipeline/started_by"
"""Run tag: ``command line`` or ``api``."""

PRIORITY = "dagster/priority"

MAX_RETRIES = "dagster/max_retries"
"""Run tag: how often Dagster starts the run again by itself when its process dies."""

RETRIES_BEFORE = "stock_pipeline/max_retries"
"""Run tag: what `MAX_RETRIES` was before a person asked the run to stop."""

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"

REBUILD = "stock_pipeline/rebuild"
"""Run tag: compute the whole window again, also where nothing changed."""

FROM, TO = "stock_pipeline/from", "stock_pipeline/to"
"""Run tags: narrow the window inside the partitions to sessions from/to (ISO dates)."""

FAMILIES = "stock_pipeline/families"
"""Run tag: of the families in the range, train only these (names separated by commas)."""

REQUEST_OPS = {"predict": "check_symbols", "backtest": "check_request"}
"""The step of each job on request whose configuration is the request."""


@dataclass(frozen=True)
class LaunchSpec:
    """Everything that Dagster must be told to start a task."""

    job: str
    run_config: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def launch_spec(
    settings: Settings,
    kind: str,
    request: Parameters,
    *,
    priority: str = "normal",
    newest_bars: date | None = None,
    today: date | None = None,
) -> LaunchSpec:
    """Say how a task of a kind is started.

    Parameters
    ----------
    request
        Of the model that `config.tasks.REQUESTS` names for the kind.
    priority
        One of `config.tasks.PRIORITIES`.
    newest_bars
        Newest stored session, where it is known: a refresh then begins with its year instead of the whole history.
    today
        The present day, UTC.

    Raises
    ------
    ConfigurationError
        A family is not configured, or the range lies outside the market's history.
    """
    tags = {KIND: kind, PRIORITY: str(PRIORITIES[priority]), PARAMETERS: json.dumps(as_json(request), sort_keys=True)}
    config: dict[str, Any] = {}
    if isinstance(request, PredictRequest):
        config = _op(kind, {"symbols": list(request.symbols)})
    elif isinstance(request, BacktestRequest):
        values = {"strategy": request.strategy, "parameters": json.dumps(request.parameters)}
        days = {name: day.isoformat() for name, day in (("start", request.start), ("end", request.end)) if day}
        config = _op(kind, {**values, **days})
    elif isinstance(request, TrainRequest):
        tags |= family_tags(settings, request.families)
    elif isinstance(request, RefreshRequest):
        tags |= year_tags(settings, newest_bars, None, today=today)
    elif isinstance(request, BackfillRequest):
        tags |= year_tags(settings, request.start, request.end, today=today)
        tags |= window_tags(request.start, request.end, request.rebuild)
    else:
        raise TypeError(f"{type(request).__name__} is no request for a task")
    return LaunchSpec(JOBS[kind], config, tags)


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags that make one run of a range of partitions, without the backfill daemon."""
    return {RANGE_START: first, RANGE_END: last}


def year_tags(settings: Settings, start: date | None, end: date | None, *, today: date | None = None) -> dict[str, str]:
    """Tags of a run over the years of the history, or over those of a range.

    Raises
    ------
    ConfigurationError
        The range lies outside the history.
    """
    history = settings.market.history
    last = history.last or (today or datetime.now(UTC).date()).year
    first_year = max(history.first, start.year if start else history.first)
    last_year = min(last, end.year if end else last)
    if first_year > last_year:
        raise ConfigurationError(
            "the range lies outside the market's history",
            value=f"{start} to {end}",
            allowed=f"{history.first} to {last} (market.history)",
        )
    return range_tags(str(first_year), str(last_year))


def window_tags(start: date | None, end: date | None, rebuild: bool) -> dict[str, str]:
    """Tags that narrow a run to sessions, and whether it computes again what has not changed."""
    tags = {name: day.isoformat() for name, day in ((FROM, start), (TO, end)) if day is not None}
    return tags | ({REBUILD: "true"} if rebuild else {})


def family_tags(settings: Settings, families: list[str] | None) -> dict[str, str]:
    """Tags of a training of all configured families, or of some of them.

    Raises
    ------
    ConfigurationError
        One of them is not configured.
    """
    known = settings.models.families
    unknown = sorted(set(families or ()) - set(known))
    if unknown:
        raise ConfigurationError(
            "these model families are not configured",
            value=", ".join(unknown),
            allowed=", ".join(known),
            fix="leave them out, or add them to models.families",
        )
    wanted = [name for name in known if families is None or name in families]
    tags = range_tags(wanted[0], wanted[-1])
    between = known[known.index(wanted[0]) : known.index(wanted[-1]) + 1]
    return tags if wanted == between else tags | {FAMILIES: ",".join(wanted)}


def asked_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """What was asked for, as the tags of a run tell it; empty for a run that nobody asked for."""
    try:
        found = json.loads(tags.get(PARAMETERS, "{}"))
    except ValueError:  # a person may write anything into the tags of a run in the web UI
        return {}
    return found if isinstance(found, dict) else {}


def priority_of(tags: Mapping[str, str]) -> str:
    """Our word for a run's priority: the highest that is not above Dagster's number."""
    try:
        number = int(tags.get(PRIORITY, "0"))
    except ValueError:
        number = 0
    reached = [name for name, value in PRIORITIES.items() if value <= number]
    return reached[-1] if reached else "low"


def _op(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {REQUEST_OPS[kind]: {"config": values}}}
