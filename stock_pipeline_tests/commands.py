"""The command line in this process: what a user types, and what comes back."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from stock_pipeline_tests.conftest import SAMPLE

SMALL: dict[str, Any] = {
    "home": "home",
    "market": {"name": "small", "calendar": "XNYS", "history": {"first": 2019, "last": 2021}},
    "source": {"kind": "files", "path": "prices", "prices": "raw_with_adj_close"},
    "universe": {"min_history": 60},
    "features": {"sets": ["rsi_14", "return_5", "volatility_20"]},
    "models": {"families": ["ridge"], "train": {"folds": 2, "embargo": 5, "holdout_sessions": 20}},
    "predictions": {"conformal": {"minimum_residuals": 100}},
    "risk": {"quantile_window": 250, "quantile_minimum": 150},
    "backtests": {"strategies": ["buy_and_hold", {"name": "model_rank", "parameters": {"top": 2}}]},
}
"""Configuration of a market that is run within seconds."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        """Both outputs as one line of words, so that wrapping does not matter."""
        return " ".join((self.out + self.err).split())


@contextlib.contextmanager
def environment(wanted: dict[str, str]) -> Iterator[None]:
    """These environment variables and no others for a while; what is set meanwhile is taken back.

    Only what differs is changed: threads of native libraries read the environment at any moment, and the C library
    gives the memory of a list that grows back while they do.
    """
    before = dict(os.environ)
    _become(wanted)
    try:
        yield
    finally:
        _become(before)


def _become(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def command(*arguments: str | Path, variables: dict[str, str] | None = None) -> Said:
    """Run ``stock-pipeline`` with these arguments; the environment is put back afterwards."""
    from stock_pipeline.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STOCK_PIPELINE")}
    with (
        environment({**kept, "COLUMNS": "160", **(variables or {})}),
        mock.patch.object(sys, "argv", ["stock-pipeline", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    said = Said(code, out.getvalue(), err.getvalue())
    assert "Traceback" not in said.all
    return said


def small_market(
    folder: Path,
    *,
    symbols: tuple[str, ...] = ("AAPL", "AMZN", "GOOG", "NFLX"),
    since: str = "2019-06-01",
    until: str = "2021-06-30",
    **changes: Any,
) -> Path:
    """Write real prices and a configuration; returns the configuration's path.

    Parameters
    ----------
    changes
        Keys of sections to merge into `SMALL`, such as ``market={"calendar": "24/7"}``.
    """
    prices = folder / "prices"
    prices.mkdir(parents=True, exist_ok=True)
    for symbol in symbols:
        lines = (SAMPLE / "bars" / f"{symbol}.csv").read_text().splitlines()
        kept = [line for line in lines[1:] if since <= line.split(",")[1] <= until]
        (prices / f"{symbol}.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    values = {**SMALL, **{key: {**SMALL.get(key, {}), **below} for key, below in changes.items()}}
    config = folder / "market.yaml"
    config.write_text(yaml.safe_dump(values))
    return config
