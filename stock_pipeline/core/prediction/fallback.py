"""What predicts when the champion cannot: the ladder champion, previous champion, naive.

Pure logic: the callables that load and run models come from outside. The naive rung is made here, from bars and risk
alone, so it can always answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.prediction.conformal import Calibrator, ConformalSettings, fit, normal

T = TypeVar("T")

CHAMPION, PREVIOUS, NAIVE = 0, 1, 2
"""Values of ``fallback_level``."""

RUNGS = ("champion", "previous", "naive")
NAIVE_NAME, NAIVE_VERSION = "naive", "1"


@dataclass(frozen=True)
class Failure:
    """Why a rung could not be used; ``error`` is ``None`` where the rung does not exist."""

    rung: str
    error: Exception | None

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.rung}: no such model version"
        return f"{self.rung}: {type(self.error).__name__}: {self.error}"


@dataclass(frozen=True)
class Choice(Generic[T]):
    """The rung in use: its result, its level, and why the rungs above it are not (``None`` for the champion)."""

    value: T
    level: int
    reason: str | None
    failures: tuple[Failure, ...]

    @property
    def name(self) -> str:
        """Name of the rung."""
        return RUNGS[self.level]


def choose(champion: Callable[[], T] | None, previous: Callable[[], T] | None, naive: Callable[[], T]) -> Choice[T]:
    """Use the first rung that works.

    Parameters
    ----------
    champion, previous
        Load the model and do with it all that could fail (such as predicting), and return the result; ``None`` where
        there is no such version.
    naive
        The last resort. Only its error is raised.

    Returns
    -------
    Choice
        Level 0, 1 or 2 with the causes of the failures above it.
    """
    failures: list[Failure] = []
    for level, attempt in ((CHAMPION, champion), (PREVIOUS, previous)):
        if attempt is None:
            failures.append(Failure(RUNGS[level], None))
            continue
        try:
            return Choice(attempt(), level, _because(failures), tuple(failures))
        except Exception as error:
            # any failure of a model must end in the next rung, with its cause in every published row
            failures.append(Failure(RUNGS[level], error))
    return Choice(naive(), NAIVE, _because(failures), tuple(failures))


def _because(failures: list[Failure]) -> str | None:
    return "; ".join(str(f) for f in failures) or None


def naive_outputs(requested: pl.DataFrame) -> pl.DataFrame:
    """Expected return zero for each ``symbol, session``: the hardest forecast of daily returns to beat."""
    return (
        requested.select("symbol", "session")
        .unique()
        .sort("symbol", "session")
        .with_columns(pl.lit(0.0).alias("expected_return"))
    )


def naive_calibrator(
    bars: pl.DataFrame,
    risk: pl.DataFrame,
    horizon: int,
    coverage: float | None = None,
    settings: ConformalSettings | None = None,
) -> Calibrator:
    """Intervals around zero from past returns over volatility; normal quantiles where there are too few returns.

    Parameters
    ----------
    bars
        Validated bars up to the session that is predicted; only returns completed within them are used.
    risk
        The risk table of the same rows.
    horizon, coverage, settings
        As in `stock_pipeline.core.prediction.conformal.fit`.
    """
    from stock_pipeline.core.modelling.labels import forward_returns

    chosen = settings or ConformalSettings()
    past = (
        forward_returns(bars, horizon)
        .join(risk.select("symbol", "session", "volatility"), on=["symbol", "session"], how="inner")
        .with_columns(pl.lit(0.0).alias("prediction"))
    )
    try:
        return fit(past, coverage, horizon=horizon, settings=chosen)
    except DataError:
        level = chosen.coverage if coverage is None else coverage
        return normal(level, horizon=horizon, sessions_per_year=chosen.sessions_per_year)
