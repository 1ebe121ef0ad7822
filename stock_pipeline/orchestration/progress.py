"""How far a step is, said in the log of its run: written by the step, read by the relay.

A line of the log is the only thing that every launcher and every storage of Dagster carries from a step to others while
the step goes on. It costs a write, so lines are throttled; the last one of a step is always written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

PAUSE_SECONDS = 1.0
"""Lines of one reporter are at least so far apart."""

_LINE = re.compile(r"progress: (?P<unit>[a-z]+) (?P<done>\d+) of (?P<total>\d+)(?: \((?P<of>[^\r\n]*)\))?")


@dataclass(frozen=True)
class Part:
    """Progress inside a step.

    Attributes
    ----------
    unit
        What is counted, one lower-case word: ``fold``, ``symbol``, ``year``, ``strategy``.
    done, total
        How many of how many.
    of
        What the counting is about, such as a model family.
    """

    unit: str
    done: int
    total: int
    of: str | None = None


def write(part: Part) -> str:
    """The line of a part."""
    return f"progress: {part.unit} {part.done} of {part.total}" + (f" ({part.of})" if part.of else "")


def read(line: str) -> Part | None:
    """The part that a line tells; ``None`` for every other line."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    return Part(found["unit"], int(found["done"]), int(found["total"]), found["of"] or None)


class Reporter:
    """Writes throttled lines.

    Parameters
    ----------
    log
        Takes a line: ``context.log.info``.
    clock
        Seconds that only grow.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._next = float("-inf")

    def __call__(self, unit: str, done: int, total: int, of: str | None = None) -> None:
        """Say that `done` of `total` are done."""
        now = self._clock()
        if now < self._next and done < total:
            return
        self._next = now + PAUSE_SECONDS
        self._log(write(Part(unit, done, total, of)))
