"""Which runs have changed since a reader looked last, whatever the clocks of their writers say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

PAGE = 200
OVERLAP = timedelta(minutes=2)
"""Runs are looked at again for so long: the clocks of several writers need not agree to the second."""


def changed_since(
    instance: dg.DagsterInstance, since: datetime, statuses: Collection[dg.DagsterRunStatus] = ()
) -> tuple[Sequence[dg.RunRecord], bool]:
    """Runs that changed after an instant or shortly before it.

    Parameters
    ----------
    since
        Where the reader is: the last change that it has seen.
    statuses
        Only runs that are in one of these; all where empty.

    Returns
    -------
    tuple
        A page of them, oldest change first, which goes beyond `since` where anything does; and whether these are all.
    """
    limit, chosen = PAGE, dg.RunsFilter(statuses=list(statuses), updated_after=since - OVERLAP)
    while True:
        page = instance.get_run_records(chosen, limit=limit, order_by="update_timestamp", ascending=True)
        whole = len(page) < limit
        if whole or changed_at(page[-1]) > since:
            return page, whole
        limit *= 2  # the whole page lies in the overlap: without a larger one its reader would stand still


def changed_at(record: dg.RunRecord) -> datetime:
    """When a run changed last; for one that has ended, when it ended."""
    at = record.update_timestamp
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
