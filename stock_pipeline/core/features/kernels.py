"""Compiled window kernels: every window of every symbol is evaluated afresh.

Here belong only loops that NumPy cannot express. Each kernel takes flat float64 arrays in which the rows of one symbol
stand together, and ``offsets`` (``offsets[s]`` to ``offsets[s + 1]`` are the rows of symbol s). None carries a running
sum from one row to the next: the value of a row is computed from the values of its own window alone, in a fixed order,
so that it has the same bits wherever the frame starts and whichever symbols stand beside it. The inner loop runs over
neighbouring rows, which the compiler turns into vector instructions; ``fastmath`` stays off, because it would let the
compiler change the order of additions.

A row whose window is not full, or holds a NaN, is NaN. This module imports numba: import it inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

TILE = 512
"""Rows that are worked on together: small enough that the accumulators stay in the first-level cache."""


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL; cache on disk where a directory is writable (``NUMBA_CACHE_DIR`` is honoured)."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no writable cache directory: compile in memory
        return numba.njit(nogil=True, error_model="numpy")(function)


@_jit
def weighted_sum(x, offsets, weights):  # type: ignore[no-untyped-def]
    """``sum_j weights[j] * x[i - j]``: ``weights[0]`` belongs to the newest row of the window."""
    n = len(weights)
    out = np.full(len(x), np.nan)
    for s in range(len(offsets) - 1):
        for t in range(offsets[s] + n - 1, offsets[s + 1], TILE):
            m = min(TILE, offsets[s + 1] - t)
            total = out[t : t + m]
            total[:] = 0.0
            for j in range(n):
                w = weights[j]
                values = x[t - j : t - j + m]
                for i in range(m):
                    total[i] += w * values[i]
    return out


@_jit
def moments(x, offsets, n, order):  # type: ignore[no-untyped-def]
    """Mean and sums of the 2nd (and for ``order`` 4 the 3rd and 4th) powers of deviations from the window's mean."""
    mean, m2 = np.full(len(x), np.nan), np.full(len(x), np.nan)
    size = len(x) if order > 2 else 0
    m3, m4 = np.full(size, np.nan), np.full(size, np.nan)
    for s in range(len(offsets) - 1):
        for t in range(offsets[s] + n - 1, offsets[s + 1], TILE):
            m = min(TILE, offsets[s + 1] - t)
            centre, second = mean[t : t + m], m2[t : t + m]
            centre[:] = 0.0
            second[:] = 0.0
            for j in range(n):
                values = x[t - j : t - j + m]
                for i in range(m):
                    centre[i] += values[i]
            for i in range(m):
                centre[i] /= n
            if order <= 2:
                for j in range(n):
                    values = x[t - j : t - j + m]
                    for i in range(m):
                        d = values[i] - centre[i]
                        second[i] += d * d
            else:
                third, fourth = m3[t : t + m], m4[t : t + m]
                third[:] = 0.0
                fourth[:] = 0.0
                for j in range(n):
                    values = x[t - j : t - j + m]
                    for i in range(m):
                        d = values[i] - centre[i]
                        second[i] += d * d
                        third[i] += d * d * d
                        fourth[i] += d * d * d * d
    return mean, m2, m3, m4


@_jit
def absolute_deviation(x, offsets, n):  # type: ignore[no-untyped-def]
    """Mean absolute deviation from the window's mean."""
    out = np.full(len(x), np.nan)
    mean = np.empty(TILE)
    for s in range(len(offsets) - 1):
        for t in range(offsets[s] + n - 1, offsets[s + 1], TILE):
            m = min(TILE, offsets[s + 1] - t)
            total = out[t : t + m]
            mean[:] = 0.0
            total[:] = 0.0
            for j in range(n):
                values = x[t - j : t - j + m]
                for i in range(m):
                    mean[i] += values[i]
            for i in range(m):
                mean[i] /= n
            for j in range(n):
                values = x[t - j : t - j + m]
                for i in range(m):
                    total[i] += abs(values[i] - mean[i])
            for i in range(m):
                total[i] /= n
    return out


@_jit
def pair_moments(x, y, offsets, n):  # type: ignore[no-untyped-def]
    """Sums of squared deviations of x and of y, and of their products, each from the window's means."""
    sxx, syy, sxy = np.full(len(x), np.nan), np.full(len(x), np.nan), np.full(len(x), np.nan)
    mx, my = np.empty(TILE), np.empty(TILE)
    for s in range(len(offsets) - 1):
        for t in range(offsets[s] + n - 1, offsets[s + 1], TILE):
            m = min(TILE, offsets[s + 1] - t)
            xx, yy, xy = sxx[t : t + m], syy[t : t + m], sxy[t : t + m]
            mx[:] = 0.0
            my[:] = 0.0
            xx[:] = 0.0
            yy[:] = 0.0
            xy[:] = 0.0
            for j in range(n):
                u, v = x[t - j : t - j + m], y[t - j : t - j + m]
                for i in range(m):
                    mx[i] += u[i]
                    my[i] += v[i]
            for i in range(m):
                mx[i] /= n
                my[i] /= n
            for j in range(n):
                u, v = x[t - j : t - j + m], y[t - j : t - j + m]
                for i in range(m):
                    du, dv = u[i] - mx[i], v[i] - my[i]
                    xx[i] += du * du
                    yy[i] += dv * dv
                    xy[i] += du * dv
    return sxx, syy, sxy


@_jit
def extreme(x, offsets, n, sign, newest):  # type: ignore[no-untyped-def]
    """Largest (``sign`` 1) or smallest (-1) value and its place in the window, 1 = oldest row, n = newest.

    Among equal values the oldest wins, or the newest with ``newest``.
    """
    value, place = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for s in range(len(offsets) - 1):
        a, b = offsets[s], offsets[s + 1]
        for t in range(a + n - 1, b, TILE):
            m = min(TILE, b - t)
            best, where = value[t : t + m], place[t : t + m]
            best[:] = -np.inf
            for j in range(n):
                values = x[t - n + 1 + j : t - n + 1 + j + m]
                at = np.float64(j + 1)
                if newest:
                    for i in range(m):
                        v = sign * values[i]
                        take = v >= best[i]
                        where[i] = at if take else where[i]
                        best[i] = v if take else best[i]
                else:
                    for i in range(m):
                        v = sign * values[i]
                        take = v > best[i]
                        where[i] = at if take else where[i]
                        best[i] = v if take else best[i]
        run = 0  # comparisons pass over NaN silently: blank every window that holds one
        for i in range(a, b):
            run = 0 if np.isnan(x[i]) else run + 1
            if run < n:
                value[i] = np.nan
                place[i] = np.nan
            else:
                value[i] *= sign
    return value, place


@_jit
def order_statistics(x, offsets, n, low, high):  # type: ignore[no-untyped-def]
    """Percentile rank of the newest value (ties: average) and two linearly interpolated quantiles of each window.

    A sorted copy of the window slides along; it holds values only, nothing computed from them, so it is the same
    wherever it began. Adding 0.0 turns -0.0 into 0.0, whose order would otherwise depend on the past.
    """
    rank, q_low, q_high = np.full(len(x), np.nan), np.full(len(x), np.nan), np.full(len(x), np.nan)
    window = np.empty(n)
    low_at, high_at = int(low * (n - 1)), int(high * (n - 1))
    low_part, high_part = low * (n - 1) - low_at, high * (n - 1) - high_at
    low_next, high_next = min(low_at + 1, n - 1), min(high_at + 1, n - 1)
    for s in range(len(offsets) - 1):
        size = 0
        for i in range(offsets[s], offsets[s + 1]):
            new = x[i] + 0.0
            if np.isnan(new):
                size = 0
                continue
            if size == n:
                k = np.searchsorted(window, x[i - n] + 0.0)
            else:
                k = size
                size += 1
            while k > 0 and window[k - 1] > new:
                window[k] = window[k - 1]
                k -= 1
            while k < size - 1 and window[k + 1] < new:
                window[k] = window[k + 1]
                k += 1
            window[k] = new
            if size < n:
                continue
            below = k
            while below > 0 and window[below - 1] == new:
                below -= 1
            above = k
            while above < n - 1 and window[above + 1] == new:
                above += 1
            rank[i] = (below + above + 2) / 2.0 / n
            q_low[i] = window[low_at] + low_part * (window[low_next] - window[low_at])
            q_high[i] = window[high_at] + high_part * (window[high_next] - window[high_at])
    return rank, q_low, q_high


@_jit
def deepest_fall(x, offsets, n):  # type: ignore[no-untyped-def]
    """Smallest ``x[j] / max(x[first..j]) - 1`` within each window (a maximum drawdown, at most 0)."""
    out = np.full(len(x), np.nan)
    peak = np.empty(TILE)
    for s in range(len(offsets) - 1):
        a, b = offsets[s], offsets[s + 1]
        for t in range(a + n - 1, b, TILE):
            m = min(TILE, b - t)
            fall = out[t : t + m]
            fall[:] = 0.0
            peak[:] = -np.inf
            for j in range(n):
                values = x[t - n + 1 + j : t - n + 1 + j + m]
                for i in range(m):
                    v = values[i]
                    peak[i] = v if v > peak[i] else peak[i]
                    d = v / peak[i] - 1.0
                    fall[i] = d if d < fall[i] else fall[i]
        run = 0
        for i in range(a, b):
            run = 0 if np.isnan(x[i]) else run + 1
            if run < n:
                out[i] = np.nan
    return out


@_jit
def group_standardise(x, offsets):  # type: ignore[no-untyped-def]
    """``(x - mean) / standard deviation`` (ddof 1) within each group, over its present values; NaN when flat."""
    out = np.full(len(x), np.nan)
    for s in range(len(offsets) - 1):
        count, total, squares = 0, 0.0, 0.0
        for i in range(offsets[s], offsets[s + 1]):
            if not np.isnan(x[i]):
                count += 1
                total += x[i]
        if count < 2:
            continue
        mean = total / count
        for i in range(offsets[s], offsets[s + 1]):
            if not np.isnan(x[i]):
                squares += (x[i] - mean) ** 2
        deviation = np.sqrt(squares / (count - 1))
        if deviation > 1e-12 * abs(mean):
            for i in range(offsets[s], offsets[s + 1]):
                out[i] = (x[i] - mean) / deviation
    return out


@_jit
def group_rank(x, offsets):  # type: ignore[no-untyped-def]
    """Average rank within each group over its present values, from 1/count to 1."""
    out = np.full(len(x), np.nan)
    for s in range(len(offsets) - 1):
        values = x[offsets[s] : offsets[s + 1]]
        order = np.argsort(values)  # NaN comes last
        count = len(values) - np.isnan(values).sum()
        i = 0
        while i < count:
            j = i
            while j + 1 < count and values[order[j + 1]] == values[order[i]]:
                j += 1
            for k in range(i, j + 1):
                out[offsets[s] + order[k]] = (i + j + 2) / 2.0 / count
            i = j + 1
    return out
