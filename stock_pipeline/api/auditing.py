"""Writes what routes do into the audit trail: each change at once, reads of data as sums."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import Request
from sqlalchemy.orm import Session

from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import service
from stock_pipeline.observability.logging import get_logger

Result = Literal["done", "refused", "failed"]

_MOST_KEPT = 10_000
"""Sums that wait to be written; a service that cannot write forgets rather than grows."""

_log = get_logger(__name__)


def audit(
    request: Request,
    action: str,
    *,
    object: tuple[str, str] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    result: Result = "done",
    detail: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    actor: Principal | str | None = None,
    session: Session | None = None,
) -> int:
    """Write one entry about what the asker of a request did.

    Parameters
    ----------
    request
        The request; gives who, from where, and its id.
    action
        ``noun.verb``, such as ``role.change``.
    object
        Kind and name of what it was done to.
    before, after
        What changed.
    result
        How it ended.
    detail
        Further facts; never a secret.
    run_id
        Dagster run that it started or touched.
    actor
        Who, where that is not the principal of the request.
    session
        Transaction that the entry is a part of; one of its own where ``None``.

    Returns
    -------
    int
        Number of the entry.
    """
    who = actor if actor is not None else getattr(request.state, "principal", None) or "anonymous"
    number: int = service(request).access.audit.record(
        action,
        actor=who,
        origin=origin(request),
        object=object,
        result=result,
        detail=None if detail is None else dict(detail),
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
        run_id=run_id,
        session=session,
    )
    return number


def count_rows(request: Request, rows: int) -> None:
    """Count rows of data that an answer holds; the sums reach the audit trail within a minute."""
    who: Principal | None = getattr(request.state, "principal", None)
    if who is not None:
        route = request.scope.get("route")
        request.app.state.reads.add(who, request, getattr(route, "path", request.scope["path"]), rows)


@dataclass(slots=True)
class _Sum:
    who: Principal
    origin: Origin
    rows: int = 0
    requests: int = 0


class ReadCounter:
    """Sums of the rows that each session has read, by route, until they are written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str | None, str], _Sum] = {}

    def add(self, who: Principal, request: Request, route: str, rows: int) -> None:
        """Count one answer."""
        key = (who.name, who.session_id, route)
        with self._lock:
            found = self._sums.get(key)
            if found is None:
                if len(self._sums) >= _MOST_KEPT:
                    return
                found = self._sums[key] = _Sum(who, origin(request))
            found.rows += rows
            found.requests += 1

    def flush(self, trail: Any) -> int:
        """Write the sums as ``data.read`` entries and begin anew; what could not be written is counted on.

        Parameters
        ----------
        trail
            The audit trail.

        Returns
        -------
        int
            Entries written.
        """
        with self._lock:
            sums, self._sums = self._sums, {}
        written = 0
        for key, one in sums.items():
            try:
                trail.record(
                    "data.read",
                    actor=one.who,
                    origin=Origin(one.origin.address, one.origin.user_agent),
                    object=("route", key[2]),
                    detail={"rows": one.rows, "requests": one.requests, "route": key[2]},
                )
                written += 1
            except Exception as error:
                _log.error("reads could not be audited", problem=str(error), route=key[2])
                self._put_back(key, one)
        return written

    def _put_back(self, key: tuple[str, str | None, str], one: _Sum) -> None:
        with self._lock:
            later = self._sums.setdefault(key, _Sum(one.who, one.origin))
            later.rows += one.rows
            later.requests += one.requests
