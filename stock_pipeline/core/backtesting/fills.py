"""The records an execution leaves: fills, orders that were not filled, daily borrow cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stock_pipeline.core.backtesting.data import Panel

REASONS = (
    "target",
    "stop_loss",
    "trailing_stop",
    "take_profit",
    "drawdown_stop",
    "delisted",
    "end",
)
"""Why a fill happened, by code."""

BLOCKS = ("", "halted", "limit_up", "limit_down", "volume", "buying_power", "bought_today")
"""Why an order was not filled in full, by code."""

COST_KINDS = ("commission", "stamp_duty", "transfer_fee", "slippage")


@dataclass(frozen=True)
class Fills:
    """Fills in the order of execution, arrays of shape (fills,).

    ``row`` and ``column`` point into the panel; ``stage`` is 0 for what happens at the execution price of a session and
    1 for stops inside it. ``units`` and ``price`` (with slippage) are in adjusted units; ``shares`` and ``raw_price``
    at the raw scale. ``fees`` is the sum of commission, stamp duty and transfer fee; ``slippage`` is already in the
    price.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    stage: NDArray[np.int64]
    units: NDArray[np.float64]
    price: NDArray[np.float64]
    shares: NDArray[np.float64]
    raw_price: NDArray[np.float64]
    commission: NDArray[np.float64]
    stamp_duty: NDArray[np.float64]
    transfer_fee: NDArray[np.float64]
    slippage: NDArray[np.float64]
    reason: NDArray[np.int64]

    @property
    def fees(self) -> NDArray[np.float64]:
        """Everything paid beside the price, in currency."""
        return self.commission + self.stamp_duty + self.transfer_fee

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Unfilled:
    """Orders that were not filled in full: raw shares ``wanted`` and ``filled``, and the code of `BLOCKS`."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    wanted: NDArray[np.float64]
    filled: NDArray[np.float64]
    block: NDArray[np.int64]


@dataclass
class Recorder:
    """Collects records during the loop."""

    fills: dict[str, list[NDArray]] = field(default_factory=dict)
    unfilled: dict[str, list[NDArray]] = field(default_factory=dict)

    def fill(self, **columns: NDArray) -> None:
        """Add fills of one moment."""
        for name, values in columns.items():
            self.fills.setdefault(name, []).append(values)

    def miss(self, **columns: NDArray) -> None:
        """Add orders that were not filled."""
        for name, values in columns.items():
            self.unfilled.setdefault(name, []).append(values)

    def done(self) -> tuple[Fills, Unfilled]:
        """Everything collected, as arrays."""
        return Fills(**_join(self.fills, Fills)), Unfilled(**_join(self.unfilled, Unfilled))


def _join(parts: dict[str, list[NDArray]], kind: type) -> dict[str, NDArray]:
    out = {}
    for name in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        whole = name in ("row", "column", "stage", "reason", "block")
        values = np.concatenate(parts[name]) if parts.get(name) else np.empty(0)
        out[name] = values.astype(np.int64 if whole else np.float64)
    return out


@dataclass(frozen=True)
class Execution:
    """What the execution model hands to the ledgers.

    Parameters
    ----------
    fills, unfilled
        The records.
    borrow
        Borrow cost charged at the start of each session, in currency, shape (sessions,).
    cash, equity
        The running account of the loop at each session's close, shape (sessions,), kept only to be checked against the
        ledgers.
    ruined
        Row of the session at whose close equity was gone, or ``None``.
    pauses
        Rows of the sessions at whose close the drawdown stop fired.
    """

    fills: Fills
    unfilled: Unfilled
    borrow: NDArray[np.float64]
    cash: NDArray[np.float64]
    equity: NDArray[np.float64]
    ruined: int | None
    pauses: tuple[int, ...]


def fills_frame(fills: Fills, panel: Panel) -> pl.DataFrame:
    """Fills as a frame, one row a fill, in order of execution."""
    return pl.DataFrame(
        {
            "session": pl.Series(panel.sessions, dtype=pl.Date).gather(fills.row),
            "symbol": pl.Series(panel.symbols, dtype=pl.String).gather(fills.column),
            "side": np.where(fills.units > 0, "buy", "sell") if len(fills) else pl.Series([], dtype=pl.String),
            "shares": fills.shares,
            "price": fills.raw_price,
            "value": np.abs(fills.shares) * fills.raw_price,
            "commission": fills.commission,
            "stamp_duty": fills.stamp_duty,
            "transfer_fee": fills.transfer_fee,
            "slippage": fills.slippage,
            "reason": pl.Series(REASONS).gather(fills.reason),
            "moment": pl.Series(["execution", "intraday"]).gather(fills.stage),
            "units": fills.units,
            "adjusted_price": fills.price,
        }
    )


def unfilled_frame(unfilled: Unfilled, panel: Panel) -> pl.DataFrame:
    """Orders that were not filled in full, one row an order and session."""
    return pl.DataFrame(
        {
            "session": pl.Series(panel.sessions, dtype=pl.Date).gather(unfilled.row),
            "symbol": pl.Series(panel.symbols, dtype=pl.String).gather(unfilled.column),
            "wanted": unfilled.wanted,
            "filled": unfilled.filled,
            "reason": pl.Series(BLOCKS).gather(unfilled.block),
        }
    )
