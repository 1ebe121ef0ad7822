"""The panel: what a feature function sees of the bars, and the window operations it may use.

A panel holds the *adjusted* columns of some symbols as flat float64 arrays (rows ordered by symbol, then session), with
NaN for what is missing. Every operation works within one symbol and evaluates each window afresh, so that a feature
made of them and of element-wise NumPy depends on nothing but its own look-back. Results are remembered for as long as
the panel lives: features that share a part compute it once. Definitions of features do not belong here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stock_pipeline.core.errors import ConfigurationError

Array = NDArray[np.float64]

INPUTS = ("open", "high", "low", "close", "volume", "amount", "benchmark")
"""The columns a feature may ask for."""

RECURSION_TOLERANCE = 1e-4
"""Weight that is cut off the infinite tail of an exponential average, as a share of the whole."""


def decay_length(alpha: float) -> int:
    """Rows in the finite window of an exponential average with smoothing factor ``alpha``.

    The weight beyond the window, ``(1 - alpha) ** rows``, is at most `RECURSION_TOLERANCE`.
    """
    return int(np.ceil(np.log(RECURSION_TOLERANCE) / np.log1p(-alpha)))


def ema_length(span: int) -> int:
    """Rows in the finite window of `Panel.ema` (``alpha = 2 / (span + 1)``)."""
    return decay_length(2.0 / (span + 1.0))


def wilder_length(periods: int) -> int:
    """Rows in the finite window of `Panel.wilder` (``alpha = 1 / periods``)."""
    return decay_length(1.0 / periods)


class Panel:
    """Adjusted bars of some symbols, with window operations.

    Parameters
    ----------
    columns
        Name to values, each of shape (rows,), NaN where missing.
    offsets
        Shape (symbols + 1,), int64: symbol s has the rows ``offsets[s]`` to ``offsets[s + 1]``.

    Notes
    -----
    Every array that a panel hands out is shared by all features and therefore read-only. Arrays passed to the
    operations have the shape (rows,) and are taken as float64. A window that is not full or holds a NaN gives NaN.
    ``n`` is the number of rows in a window, the current row included.
    """

    def __init__(self, columns: Mapping[str, Array], offsets: NDArray[np.int64]) -> None:
        self._originals: dict[int, Array] = {}
        self._columns = {name: self._sealed(values) for name, values in columns.items()}
        self.offsets = offsets
        self._memory: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def __getitem__(self, name: str) -> Array:
        """Return an input column."""
        try:
            return self._columns[name]
        except KeyError:
            raise ConfigurationError(
                "A feature uses a column that it does not declare among its inputs",
                value=name,
                allowed=", ".join(sorted(self._columns)),
                fix=f"add {name!r} to the feature's inputs",
            ) from None

    @property
    def open(self) -> Array:
        """Adjusted opening price."""
        return self["open"]

    @property
    def high(self) -> Array:
        """Adjusted highest price."""
        return self["high"]

    @property
    def low(self) -> Array:
        """Adjusted lowest price."""
        return self["low"]

    @property
    def close(self) -> Array:
        """Adjusted closing price."""
        return self["close"]

    @property
    def volume(self) -> Array:
        """Shares traded, divided by the adjustment factor."""
        return self["volume"]

    @property
    def benchmark(self) -> Array:
        """Closing level of the market benchmark on the row's session."""
        return self["benchmark"]

    @property
    def typical(self) -> Array:
        """Typical price, the mean of high, low and close."""
        return self.once("typical", lambda: (self.high + self.low + self.close) / 3.0)

    @property
    def true_range(self) -> Array:
        """True range: the day's range extended to the previous close (Wilder 1978)."""

        def build() -> Array:
            before = self.lag(self.close)
            return np.maximum(self.high, before) - np.minimum(self.low, before)

        return self.once("true_range", build)

    @property
    def log_return(self) -> Array:
        """Logarithm of close over previous close."""
        return self.once("log_return", lambda: np.log(self.close / self.lag(self.close)))

    def once(self, key: str, build: Callable[[], Array]) -> Array:
        """Return ``build()``, computed at the first call and remembered under this key of the module that calls."""
        return self._remember(("once", build.__module__, key), None, build)

    def _remember(self, key: tuple[Any, ...], holds: Any, build: Callable[[], Any]) -> Any:
        """Remember by key; ``holds`` keeps alive the arrays whose identity is part of the key."""
        if key not in self._memory:
            made = build()
            made = tuple(self._sealed(m) for m in made) if isinstance(made, tuple) else self._sealed(made)
            self._memory[key] = (holds, made)
        return self._memory[key][1]

    def _sealed(self, values: Array) -> Array:
        """A read-only view, whose original the kernels use (they would be compiled once more for read-only arrays)."""
        if not values.flags.writeable:
            return values
        view = values.view()
        view.flags.writeable = False
        self._originals[id(view)] = values
        return view

    def _kernel(self, name: str, *arrays: Array, rest: tuple[Any, ...]) -> Any:
        originals = (np.ascontiguousarray(self._originals.get(id(x), x), dtype=np.float64) for x in arrays)
        return getattr(_kernels(), name)(*originals, self.offsets, *rest)

    def _window(self, name: str, x: Array, *rest: Any) -> Any:
        return self._remember((name, id(x), *rest), x, lambda: self._kernel(name, x, rest=rest))

    def _weighted(self, x: Array, key: tuple[Any, ...], weights: Callable[[], Array]) -> Array:
        def build() -> Array:
            return self._kernel("weighted_sum", x, rest=(np.array(weights(), dtype=np.float64),))

        return self._remember(("weighted", id(x), *key), x, build)

    def lag(self, x: Array, k: int = 1) -> Array:
        """Return the value k rows earlier of the same symbol (k >= 1), NaN in the first k rows."""

        def build() -> Array:
            out = np.full(len(x), np.nan)
            out[k:] = x[:-k] if k < len(x) else x[:0]
            for i in range(k):
                starts = self.offsets[:-1] + i
                out[starts[starts < self.offsets[1:]]] = np.nan
            return out

        return self._remember(("lag", id(x), k), x, build)

    def change(self, x: Array, k: int = 1) -> Array:
        """Return ``x`` less its value k rows earlier."""
        return self._remember(("change", id(x), k), x, lambda: x - self.lag(x, k))

    def growth(self, x: Array, k: int = 1) -> Array:
        """Return ``x`` over its value k rows earlier, less 1."""
        return self._remember(("growth", id(x), k), x, lambda: x / self.lag(x, k) - 1.0)

    def sum(self, x: Array, n: int) -> Array:
        """Sum over the window."""
        return self._weighted(x, ("sum", n), lambda: np.ones(n))

    def mean(self, x: Array, n: int) -> Array:
        """Arithmetic mean over the window."""
        return self._remember(("mean", id(x), n), x, lambda: self.sum(x, n) / n)

    def weighted(self, x: Array, weights: tuple[float, ...]) -> Array:
        """Return ``sum(weights[j] * x[j rows earlier])``; ``weights[0]`` belongs to the current row."""
        return self._weighted(x, ("weights", weights), lambda: np.array(weights, dtype=np.float64))

    def linear_mean(self, x: Array, n: int) -> Array:
        """Linearly weighted mean: n for the current row down to 1 for the oldest."""
        return self._weighted(x, ("linear", n), lambda: np.arange(n, 0, -1) / (n * (n + 1) / 2.0))

    def ema(self, x: Array, span: int) -> Array:
        """Exponential mean with ``alpha = 2 / (span + 1)`` over the finite window of `ema_length` rows."""
        return self.exponential(x, 2.0 / (span + 1.0))

    def wilder(self, x: Array, periods: int) -> Array:
        """Wilder's smoothing (``alpha = 1 / periods``) over the finite window of `wilder_length` rows."""
        return self.exponential(x, 1.0 / periods)

    def exponential(self, x: Array, alpha: float) -> Array:
        """Exponential mean; weights over `decay_length` rows are scaled to sum to 1."""

        def weights() -> Array:
            w = (1.0 - alpha) ** np.arange(decay_length(alpha))
            return w / w.sum()

        return self._weighted(x, ("exponential", alpha), weights)

    def slope(self, x: Array, n: int) -> Array:
        """Least-squares slope of x against 1, 2, ..., n."""

        def weights() -> Array:
            places = np.arange(n, 0, -1) - (n + 1) / 2.0
            return places / (places**2).sum()

        return self._weighted(x, ("slope", n), weights)

    def squares(self, x: Array, n: int) -> Array:
        """Sum of squared deviations from the window's mean."""
        return self._window("moments", x, n, 2)[1]

    def std(self, x: Array, n: int, ddof: int = 1) -> Array:
        """Standard deviation over the window."""
        return self._remember(("std", id(x), n, ddof), x, lambda: np.sqrt(self.squares(x, n) / (n - ddof)))

    def higher_moments(self, x: Array, n: int) -> tuple[Array, Array, Array]:
        """Sums of the 2nd, 3rd and 4th powers of the deviations from the window's mean."""
        _, m2, m3, m4 = self._window("moments", x, n, 4)
        return m2, m3, m4

    def absolute_deviation(self, x: Array, n: int) -> Array:
        """Mean absolute deviation from the window's mean."""
        return self._window("absolute_deviation", x, n)

    def pair_moments(self, x: Array, y: Array, n: int) -> tuple[Array, Array, Array]:
        """Sums of squared deviations of x and of y, and of the products of both deviations."""
        return self._remember(("pair", id(x), id(y), n), (x, y), lambda: self._kernel("pair_moments", x, y, rest=(n,)))

    def correlation(self, x: Array, y: Array, n: int, flat: float = 0.0) -> Array:
        """Pearson's correlation, within [-1, 1]; NaN where either standard deviation is at most ``flat``."""
        sxx, syy, sxy = self.pair_moments(x, y, n)
        level = flat * flat * (n - 1)
        r = np.clip(sxy / np.sqrt(sxx * syy), -1.0, 1.0)
        return np.where((sxx > level) & (syy > level), r, np.nan)

    def max(self, x: Array, n: int) -> Array:
        """Largest value in the window."""
        return self._window("extreme", x, n, 1.0, False)[0]

    def min(self, x: Array, n: int) -> Array:
        """Smallest value in the window."""
        return self._window("extreme", x, n, -1.0, False)[0]

    def place_of_max(self, x: Array, n: int, newest: bool = False) -> Array:
        """Place of the largest value, 1 = oldest row to n = current row; the oldest (or newest) of equals."""
        return self._window("extreme", x, n, 1.0, newest)[1]

    def place_of_min(self, x: Array, n: int, newest: bool = False) -> Array:
        """Place of the smallest value, 1 = oldest row to n = current row; the oldest (or newest) of equals."""
        return self._window("extreme", x, n, -1.0, newest)[1]

    def order(
        self, x: Array, n: int, part: Literal["rank", "low", "high"], low: float = 0.2, high: float = 0.8
    ) -> Array:
        """Percentile rank of the current value, or the ``low`` or ``high`` quantile (linear interpolation)."""
        return self._window("order_statistics", x, n, low, high)[("rank", "low", "high").index(part)]

    def deepest_fall(self, x: Array, n: int) -> Array:
        """Maximum drawdown within the window, at most 0."""
        return self._window("deepest_fall", x, n)


def _kernels() -> ModuleType:
    """The compiled kernels: numba is imported when something is computed, not before."""
    from stock_pipeline.core.features import kernels

    return kernels
