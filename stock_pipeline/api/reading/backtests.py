"""Results of back-tests: those of the configured strategies and those that people asked for.

A result is the JSON and the page that the pipeline wrote side by side; its id is the name of the files. Nothing is
computed here but the monthly table, from the equity curve that is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.reading.files import Remembered, locate
from stock_pipeline.api.reading.tables import finite, stored
from stock_pipeline.core.backtesting.result import EQUITY_SCHEMA
from stock_pipeline.observability.logging import get_logger

CONFIGURED, ON_REQUEST = "configured", "on_request"
ID = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,180}$"
"""What an id looks like."""

TRADES_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(), "side": pl.String(), "opened": pl.Date(), "closed": pl.Date(), "sessions": pl.Int64(),
    "shares": pl.Float64(), "entry_price": pl.Float64(), "exit_price": pl.Float64(), "pnl": pl.Float64(),
    "return": pl.Float64(), "costs": pl.Float64(), "fills": pl.Int64(), "exit_reason": pl.String(),
}  # fmt: skip

_UNDEFINED = "cannot be computed from this account, for example because it never lost or never traded"

_log = get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """One result on disk.

    Attributes
    ----------
    id
        Name of its files.
    origin
        ``configured`` or ``on_request``.
    finished_at
        When it was written.
    path
        Its JSON.
    """

    id: str
    origin: str
    finished_at: datetime
    path: Path

    @property
    def position(self) -> tuple[int, str]:
        """Its place in the list, newest first."""
        return int(self.finished_at.timestamp() * 1e6), self.id


class Results:
    """The results below the folder of reports.

    Parameters
    ----------
    reports
        The folder.
    """

    def __init__(self, reports: Path) -> None:
        self.folder = reports / "backtests"
        self._remembered = Remembered(48_000_000)

    def all(self) -> list[Found]:
        """Every result, newest first."""
        found = []
        for origin, folder in ((CONFIGURED, self.folder), (ON_REQUEST, self.folder / "on_request")):
            for path in folder.glob("*.json") if folder.is_dir() else ():
                try:
                    moment = path.stat().st_mtime_ns / 1e9
                except OSError:
                    continue
                found.append(Found(path.stem, origin, datetime.fromtimestamp(moment, UTC), path))
        return sorted(found, key=lambda one: one.position, reverse=True)

    def find(self, result_id: str) -> Found:
        """One result.

        Raises
        ------
        ProblemError
            404 ``backtest-not-found``.
        """
        for origin, below in ((CONFIGURED, ""), (ON_REQUEST, "on_request/")):
            try:
                path = locate(self.folder, f"{below}{result_id}.json", frozenset({".json"}))
                moment = path.stat().st_mtime_ns / 1e9
            except (ProblemError, OSError):
                continue
            return Found(result_id, origin, datetime.fromtimestamp(moment, UTC), path)
        raise ProblemError(404, "backtest-not-found", f"there is no back-test {result_id!r}")

    def newest_of_strategies(self) -> dict[str, str]:
        """Id of the newest readable result of each strategy."""
        newest: dict[str, str] = {}
        for found in self.all():
            content = self.readable(found)
            if content is not None:
                newest.setdefault(content["strategy"], found.id)
        return newest

    def summary(self, found: Found) -> dict[str, Any]:
        """Everything of a result but its long tables."""
        made: dict[str, Any] = self._read(found, "summary", _summary)
        reasons = {name: _UNDEFINED for name, value in made["metrics"].items() if value is None}
        return {"id": found.id, "origin": found.origin, "finished_at": found.finished_at, **made, "undefined": reasons}

    def readable(self, found: Found) -> dict[str, Any] | None:
        """`summary`; ``None``, and a line in the log, where the file is damaged."""
        try:
            return self.summary(found)
        except Exception as error:
            _log.warning("a back-test result cannot be read", id=found.id, error=str(error))
            return None

    def equity(self, found: Found) -> pl.DataFrame:
        """The curves, one row a session."""
        frame: pl.DataFrame = self._read(
            found, "equity", lambda raw: _frame(orjson.loads(raw)["equity"], EQUITY_SCHEMA)
        )
        return frame

    def trades(self, found: Found) -> pl.DataFrame:
        """The round trips, in the order of their opening."""
        frame: pl.DataFrame = self._read(
            found, "trades", lambda raw: _frame(orjson.loads(raw)["trades"], TRADES_SCHEMA)
        )
        return frame

    def monthly(self, found: Found) -> pl.DataFrame:
        """Compounded return of each calendar month."""
        equity = self.equity(found)
        return (
            equity.group_by(year=pl.col("session").dt.year(), month=pl.col("session").dt.month())
            .agg(((1 + pl.col("return")).product() - 1).alias("return"))
            .sort("year", "month")
        )

    def _read(self, found: Found, kind: str, make: Any) -> Any:
        with stored(f"the result of the back-test {found.id}"):
            return self._remembered.get(found.path, kind, make, _size)


def _summary(raw: bytes) -> dict[str, Any]:
    content = orjson.loads(raw)
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        raise ValueError("not a result of a back-test")
    content.pop("equity", None)
    content.pop("trades", None)
    missing = [
        name for name in ("strategy", "parameters", "costs", "first_session", "last_session") if name not in content
    ]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    made: dict[str, Any] = finite(content)
    return made


def _frame(values: Any, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    dates = [name for name, dtype in schema.items() if dtype == pl.Date()]
    read = {name: pl.String() if name in dates else dtype for name, dtype in schema.items()}
    frame = pl.DataFrame(values, schema=read) if values else pl.DataFrame(schema=read)
    return frame.with_columns(pl.col(name).str.to_date() for name in dates)


def _size(made: Any) -> int:
    return int(made.estimated_size()) if isinstance(made, pl.DataFrame) else 20_000
