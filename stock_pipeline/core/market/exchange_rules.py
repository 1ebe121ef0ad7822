"""Dated trading rules of exchanges: lots, price limits, settlement lock, levies on trades.

What belongs here: what an exchange or a state prescribes, with the date from which it holds and its source. What does
not: a broker's prices (commission, slippage, borrow), which are settings of a backtest.

Every rule set is a value of `ExchangeRules`; `rules(name)` finds one. Dates between two changes take the older rule; a
date before the first known one takes no levy and the oldest limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.errors import ConfigurationError


@dataclass(frozen=True)
class Levy:
    """A levy on traded value from a date on, as fractions of the value of a purchase and of a sale."""

    start: date
    buy: float
    sell: float


@dataclass(frozen=True)
class PriceLimit:
    """The largest move from the previous close that a board allows from a date on, as a fraction."""

    start: date
    limit: float


@dataclass(frozen=True)
class Lot:
    """Smallest order and step of an order, in shares; a step of 0 means that fractions of a share are traded."""

    minimum: float
    step: float


@dataclass(frozen=True)
class ExchangeRules:
    """The rules of one market.

    Parameters
    ----------
    name
        Name by which settings refer to the rules.
    lots
        Lot of each board; the board ``""`` is the default.
    limits
        Dated price limits of each board; a board without an entry has none.
    st_limit
        Limit of shares under special treatment on boards of ``st_boards``; ``None`` where there is no such thing.
    stamp_duty, transfer_fee
        Dated levies in ascending order of date.
    sell_next_session
        Whether shares bought in a session cannot be sold in the same session ("T+1").
    shorting
        Whether short positions can be opened.
    tick
        Smallest price step, used to round price limits (half up).
    """

    name: str
    lots: dict[str, Lot]
    limits: dict[str, tuple[PriceLimit, ...]] = field(default_factory=dict)
    st_limit: float | None = None
    st_boards: tuple[str, ...] = ()
    stamp_duty: tuple[Levy, ...] = ()
    transfer_fee: tuple[Levy, ...] = ()
    sell_next_session: bool = False
    shorting: bool = True
    tick: float = 0.01

    def board(self, symbol: str) -> str:
        """Board of a symbol, ``""`` for the main one (only the Chinese rules tell boards apart)."""
        return chinese_board(symbol) if "star" in self.lots else ""

    def lot_arrays(self, symbols: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest order and step of each symbol, in shares, two arrays of shape (symbols,)."""
        lots = [self.lots.get(self.board(s), self.lots[""]) for s in symbols]
        return np.array([x.minimum for x in lots], dtype=float), np.array([x.step for x in lots], dtype=float)

    def limit_array(
        self, symbols: Sequence[str], sessions: Sequence[date], special: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64] | None:
        """Price limits as fractions, shape (sessions, symbols); ``inf`` where there is none.

        Parameters
        ----------
        symbols, sessions
            Axes of the result.
        special
            Which symbol was under special treatment ("ST") in which session, same shape; ``None`` when unknown.

        Returns
        -------
        numpy.ndarray or None
            ``None`` when the market has no price limits at all.
        """
        if not self.limits:
            return None
        days = np.array(sessions, dtype="datetime64[D]")
        boards = [self.board(s) for s in symbols]
        columns = {b: _dated(days, [(x.start, x.limit) for x in self.limits.get(b, ())], np.inf) for b in set(boards)}
        out = np.stack([columns[b] for b in boards], axis=1) if boards else np.empty((len(days), 0))
        if special is not None and self.st_limit is not None:
            on_board = np.array([b in self.st_boards for b in boards], dtype=bool)
            out = np.where(special & on_board[None, :], np.minimum(out, self.st_limit), out)
        return out

    def levy_arrays(self, sessions: Sequence[date]) -> dict[str, NDArray[np.float64]]:
        """Rates by session: ``duty_buy, duty_sell, transfer_buy, transfer_sell``, each of shape (sessions,)."""
        days = np.array(sessions, dtype="datetime64[D]")
        out = {}
        for kind, levies in (("duty", self.stamp_duty), ("transfer", self.transfer_fee)):
            out[f"{kind}_buy"] = _dated(days, [(x.start, x.buy) for x in levies], 0.0)
            out[f"{kind}_sell"] = _dated(days, [(x.start, x.sell) for x in levies], 0.0)
        return out


def _dated(days: NDArray, changes: list[tuple[date, float]], default: float) -> NDArray[np.float64]:
    out = np.full(len(days), changes[0][1] if changes and default == np.inf else default, dtype=float)
    for start, value in changes:
        out[days >= np.datetime64(start)] = value
    return out


_DIGITS = re.compile(r"(?<!\d)(\d{6})(?!\d)")


def chinese_board(symbol: str) -> str:
    """Board of a mainland Chinese share from its six-digit code in any usual spelling (``SH688012``, ``300015.SZ``).

    Returns
    -------
    str
        ``"star"`` (688, 689), ``"chinext"`` (300-302), ``"bse"`` (43, 8x, 92) or ``""`` for the main boards and for
        symbols without such a code.
    """
    found = _DIGITS.search(symbol)
    code = found.group(1) if found else ""
    if code.startswith(("688", "689")):
        return "star"
    if code.startswith(("300", "301", "302")):
        return "chinext"
    if code.startswith(("43", "82", "83", "87", "88", "92")):
        return "bse"
    return ""


NONE = ExchangeRules(name="none", lots={"": Lot(0.0, 0.0)})
"""No rules at all: fractions of shares, no limits, no levies."""

US = ExchangeRules(name="US", lots={"": Lot(1.0, 1.0)})
"""Listed shares in the United States: whole shares, sold at any time, no daily price limit, no stamp duty.

Left out: the SEC's Section 31 fee on sales and FINRA's trading activity fee (the SEC changes its rate about once a
year; since 2000 it has been at most 0.3 basis points of the value sold): set ``sell_levy`` to include them. The limit
up-limit down bands (SEC Release 34-67091, from 2013-04-08) pause trading for minutes and are not visible in daily bars.
"""

_MAIN = (PriceLimit(date(1996, 12, 16), 0.10),)

CN = ExchangeRules(
    name="CN",
    lots={"": Lot(100.0, 100.0), "chinext": Lot(100.0, 100.0), "star": Lot(200.0, 1.0), "bse": Lot(100.0, 1.0)},
    limits={
        "": _MAIN,
        "chinext": (PriceLimit(date(2009, 10, 30), 0.10), PriceLimit(date(2020, 8, 24), 0.20)),
        "star": (PriceLimit(date(2019, 7, 22), 0.20),),
        "bse": (PriceLimit(date(2021, 11, 15), 0.30),),
    },
    st_limit=0.05,
    st_boards=("",),
    stamp_duty=(
        Levy(date(2001, 11, 16), 0.002, 0.002),
        Levy(date(2005, 1, 24), 0.001, 0.001),
        Levy(date(2007, 5, 30), 0.003, 0.003),
        Levy(date(2008, 4, 24), 0.001, 0.001),
        Levy(date(2008, 9, 19), 0.0, 0.001),
        Levy(date(2023, 8, 28), 0.0, 0.0005),
    ),
    transfer_fee=(Levy(date(2015, 8, 1), 0.00002, 0.00002), Levy(date(2022, 4, 29), 0.00001, 0.00001)),
    sell_next_session=True,
    shorting=False,
)
"""Mainland Chinese A shares.

Sources
-------
- Price limits of 10 % (5 % for ST shares): trading rules of the Shanghai and Shenzhen exchanges, since 1996-12-16.
  ChiNext 20 %: "Special Provisions on Trading of ChiNext Stocks" (Shenzhen Stock Exchange), from 2020-08-24. STAR 20 %:
  "Special Provisions on Trading of STAR Market Stocks" (Shanghai Stock Exchange), since its opening on 2019-07-22.
  Beijing 30 %: Beijing Stock Exchange trading rules, since its opening on 2021-11-15.
- Lots of 100 shares; STAR at least 200 and then single shares; Beijing at least 100 and then single shares (same
  rules). What is left below a lot is sold in one order.
- T+1: shares bought are sold from the next session on (trading rules, since 1995-01-01).
- Stamp duty: Ministry of Finance and State Taxation Administration: 0.2 % from 2001-11-16, 0.1 % from 2005-01-24, 0.3 %
  from 2007-05-30, 0.1 % from 2008-04-24, sales only from 2008-09-19, halved to 0.05 % from 2023-08-28 (announcement
  2023 no. 39).
- Transfer fee: China Securities Depository and Clearing: 0.002 % of value from 2015-08-01, 0.001 % from 2022-04-29.

Left out: the first sessions of a new listing, which have wider or no limits (a symbol's first bar has no previous close
and so no limit here); the transfer fee on face value before 2015; handling and regulatory fees, which brokers include
in their commission; margin lending, so that short positions are refused unless a setting allows them.
"""

_RULES = {r.name: r for r in (US, CN, NONE)}


def rules(name: str) -> ExchangeRules:
    """Find a rule set by name.

    Raises
    ------
    ConfigurationError
        When there is no such rule set.
    """
    if name not in _RULES:
        raise ConfigurationError("unknown exchange rules", value=name, allowed=", ".join(sorted(_RULES)))
    return _RULES[name]
