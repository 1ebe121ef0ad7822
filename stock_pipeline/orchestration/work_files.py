"""What one step of a run leaves for the next: files in the home folder, under the task's id.

They outlive the process, so a run that was paused or killed goes on in another one. The last step removes them;
maintenance removes those of tasks that nobody resumed.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stock_pipeline.core.backtesting.replay import Reconciliation
from stock_pipeline.core.backtesting.result import BacktestResult
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.errors import NotFoundError

_FRAMES = ("equity", "fills", "unfilled", "trades", "positions", "monthly")
_LEDGERS = ("cash", "equity", "positions")


def folder(home: Path, task_id: str) -> Path:
    """Where the steps of a task leave their files; made where absent."""
    path = home / "work" / task_id
    path.mkdir(parents=True, exist_ok=True)
    return path


def remove(home: Path, task_id: str) -> None:
    """Remove what the steps of a task left."""
    shutil.rmtree(home / "work" / task_id, ignore_errors=True)


def remove_old(home: Path, before: datetime) -> int:
    """Remove the files of tasks that were last touched before an instant; returns of how many tasks."""
    removed = 0
    for path in (home / "work").glob("*"):
        with suppress(FileNotFoundError, NotADirectoryError):  # its task removes it at this moment, or it is no task's
            if max(each.stat().st_mtime for each in (path, *path.iterdir())) < before.timestamp():
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
    return removed


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole: readers see the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(path.suffix + ".new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a table as a whole."""
    scratch = path.with_suffix(path.suffix + ".new")
    frame.write_parquet(scratch)
    scratch.replace(path)


def read_frame(path: Path) -> pl.DataFrame:
    """A table that an earlier step left.

    Raises
    ------
    NotFoundError
        It is not there.
    """
    if not path.exists():
        raise _lost(path)
    return pl.read_parquet(path)


def save_result(place: Path, name: str, result: BacktestResult) -> None:
    """Keep a back-test's result for the next step; the description is written last and vouches for the tables."""
    for table in _FRAMES:
        write_frame(place / f"{name}-{table}.parquet", getattr(result, table))
    r = result.reconciliation
    plain = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in (*_FRAMES, "settings", "reconciliation")
    }
    plain["settings"] = result.settings.model_dump(mode="json")
    plain["reconciliation"] = r and {**{part: getattr(r, part).tolist() for part in _LEDGERS}, "scale": r.scale}
    write_text(place / f"{name}.json", json.dumps(plain, default=str))


def load_result(place: Path, name: str) -> BacktestResult:
    """The result that an earlier step kept.

    Raises
    ------
    NotFoundError
        It is not there.
    """
    path = place / f"{name}.json"
    if not path.exists():
        raise _lost(path)
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    r = plain["reconciliation"]
    if r is not None:
        plain["reconciliation"] = Reconciliation(**{part: np.array(r[part]) for part in _LEDGERS}, scale=r["scale"])
    plain["settings"] = BacktestSettings.model_validate_json(json.dumps(plain["settings"]))
    plain["ruined"] = None if plain["ruined"] is None else date.fromisoformat(plain["ruined"])
    plain["drawdown_stops"] = tuple(date.fromisoformat(day) for day in plain["drawdown_stops"])
    for listed in ("notes", "symbols"):
        plain[listed] = tuple(plain[listed])
    plain |= {table: read_frame(place / f"{name}-{table}.parquet") for table in _FRAMES}
    return BacktestResult(**plain)


def _lost(path: Path) -> NotFoundError:
    return NotFoundError(
        "what an earlier step left for this one is gone",
        value=str(path),
        fix="repeat the whole task: its files were removed because it had rested for long",
    )
