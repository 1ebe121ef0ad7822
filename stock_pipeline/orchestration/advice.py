"""What to do about a failed task: a table of rules over what Dagster and the platform said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.orchestration.causes import Cause


@dataclass(frozen=True)
class Rule:
    """A kind of failure and its remedy.

    Attributes
    ----------
    action
        Stable word for programs: ``retry``, ``look-at-check``, ``run-first`` and so on.
    pattern
        Found in the cause, whatever its case.
    text
        What a person does; ``{fix}`` is the pattern's group of that name.
    only
        Kind of own error that it is about; any error where ``None``.
    """

    action: str
    pattern: str
    text: str
    only: str | None = None

    def fits(self, cause: Cause) -> dict[str, str] | None:
        """The advice for a cause; ``None`` where this is another kind of failure."""
        found = re.search(self.pattern, cause.text, re.IGNORECASE)
        if found is None or self.only not in (None, cause.kind):
            return None
        return {"action": self.action, "text": self.text.format(**found.groupdict())}


_FIX = r"to fix it: (?P<fix>.+)"

RULES = (
    Rule("wait", r"dagster starts it again by itself", "nothing: Dagster starts it again by itself"),
    Rule(
        "raise-time-limit",
        r"exceeded maximum runtime|max(imum)? run ?time",
        "it ran into its time limit: ask for less at once, or start it again when the machine is less busy; resuming "
        "keeps the steps that are done",
    ),
    Rule(
        "retry",
        # the last is what Dagster's code server notes of a process that ended without a word
        r"process is gone|interrupted unexpectedly|run worker|marked as failed from outside",
        "retry it: steps that are done are kept",
    ),
    Rule(
        "run-first",
        r"there are no (bars|features|predictions)( yet)?;|no bars to|run `stock-pipeline run`",
        "start a refresh (or `stock-pipeline run`) first, then retry",
    ),
    Rule("correct-symbols", r"there are no bars of these symbols", "correct the symbols and ask again"),
    Rule(
        "train-first",
        r"no champion|out-of-sample predictions",
        "train a model first (a task of kind train), then retry",
    ),
    Rule(
        "widen-history",
        r"too (few|little)|not enough|at least \d+ (sessions|rows|bars)|min_history",
        "widen the history: load earlier years (market.history.first) or lower the least history, then retry",
    ),
    Rule("fix-parameters", _FIX, "{fix}", only=ConfigurationError.__name__),
    Rule("fix-parameters", "", "correct what the error names, then ask again", only=ConfigurationError.__name__),
    Rule("free-space", r"no space left|disk is (nearly )?full", "make room on the disk of the home folder, then retry"),
    Rule(
        "retry-later",
        r"timed? ?out|connection|unavailable|temporarily|rate limit|held the lock",
        "something that it needs did not answer: retry in some minutes",
    ),
    Rule("follow-advice", _FIX, "{fix}"),
)
"""The first rule that fits is taken; a failed check comes before all of them."""

LOOK = "open the run's log in the Dagster web UI; after the cause is mended, retry: steps that are done are kept"


def next_step(cause: Cause, checks: list[dict[str, Any]], *, will_retry: bool = False) -> dict[str, str]:
    """What to do next.

    Parameters
    ----------
    cause
        Why it failed.
    checks
        Failed blocking checks, each with ``check``, ``asset`` and, where known, ``remedy``.
    will_retry
        Whether Dagster starts it again by itself.

    Returns
    -------
    dict
        ``action``, a stable word, and ``text`` for people.
    """
    if will_retry:
        return {"action": RULES[0].action, "text": RULES[0].text}
    if checks:
        first = checks[0]
        more = f" (and {len(checks) - 1} more)" if len(checks) > 1 else ""
        remedy = first.get("remedy") or "see its figures on the asset's page and in the quality report"
        return {
            "action": "look-at-check",
            "text": f"look at the check {first['check']} of {first['asset']}{more}: {remedy}",
        }
    for rule in RULES:
        found = rule.fits(cause)
        if found is not None:
            return found
    return {"action": "look-at-log", "text": LOOK}
