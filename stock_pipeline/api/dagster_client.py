"""Dagster's web server, asked through its GraphQL: launch, end, repeat, find and delete runs.

This is the only way from the service to Dagster: the process never imports it. What runs do is read from the tables
that the relay fills, so that reads go on when the web server is down.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import httpx

from stock_pipeline.api import dagster_queries as queries
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.observability.logging import get_logger

LOCATION = "stock_pipeline"
REPOSITORY = "__repository__"
RETRY_AFTER = 10
"""Seconds after which asking again makes sense when the web server does not answer."""

HEALTH_SECONDS = 3.0
"""How long the answer to the cheap question may take."""

Strategy = Literal["FROM_FAILURE", "ALL_STEPS"]

_log = get_logger(__name__)


class UnavailableError(ProblemError):
    """Dagster's web server cannot be asked; 503 ``dagster-unavailable``."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            503,
            "dagster-unavailable",
            f"Dagster's web server cannot be asked: {reason}; reads go on, try this again later",
            headers={"Retry-After": str(RETRY_AFTER)},
        )


class UncertainError(UnavailableError):
    """The connection ended after the question was sent: what was asked may have been done."""


@dataclass(frozen=True)
class FoundRun:
    """A run as Dagster has it.

    Attributes
    ----------
    run_id, status, job
        Its id, Dagster's status such as ``QUEUED``, and the name of its job.
    root_run_id
        First run of its chain of repetitions; ``None`` for a first one.
    created_at
        When it was made.
    tags
        All of its tags.
    """

    run_id: str
    status: str
    job: str
    root_run_id: str | None
    created_at: datetime
    tags: dict[str, str]


class RunControl(Protocol):
    """What tasks need of the thing that runs them.

    Every method raises `ProblemError`: 503 ``dagster-unavailable`` where it cannot be reached.
    """

    def launch(self, job: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> FoundRun:
        """Queue a run of a job."""

    def repeat(self, run_id: str, strategy: Strategy, tags: Mapping[str, str]) -> FoundRun:
        """Queue a repetition of an ended run."""

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; whether it was there to be ended."""

    def delete(self, run_id: str) -> None:
        """Remove a run and its events; nothing happens where it is gone already."""

    def find(self, tags: Mapping[str, str]) -> list[FoundRun]:
        """Runs that have all of these tags, newest first."""

    def get(self, run_id: str) -> FoundRun | None:
        """One run."""

    def health(self) -> str:
        """Version of the thing that answers."""


class DagsterClient:
    """Dagster's web server.

    Parameters
    ----------
    url
        Its address, without ``/graphql``.
    timeout
        Seconds that one answer may take; connecting may take two.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        # the address is ours: a proxy of the environment must not see it
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=2.0), trust_env=False)
        self._launching = threading.BoundedSemaphore(4)
        """More launches at once only make each of them slower."""

    def launch(self, job: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> FoundRun:
        """Queue a run of a job.

        Raises
        ------
        ProblemError
            422 where Dagster refuses the run's configuration, 503 where it cannot be reached or knows no such job.
        """
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job}
        parameters = {
            "selector": selector,
            "runConfigData": dict(run_config),
            "executionMetadata": {"tags": _pairs(tags)},
        }
        with self._launching:
            return _launched(self._ask(queries.LAUNCH, {"parameters": parameters}))

    def repeat(self, run_id: str, strategy: Strategy, tags: Mapping[str, str]) -> FoundRun:
        """Queue a repetition of an ended run; its tags are kept, `tags` are added.

        Raises
        ------
        ProblemError
            See `launch`; 409 where nothing of the run is left to do.
        """
        parameters = {"parentRunId": run_id, "strategy": strategy, "extraTags": _pairs(tags), "useParentRunTags": True}
        with self._launching:
            return _launched(self._ask(queries.REPEAT, {"parameters": parameters}))

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end."""
        answer = self._ask(queries.TERMINATE, {"runs": [run_id]})
        results = answer.get("terminateRunResults")
        if results is None:
            raise _unexpected(answer)
        return bool(results) and results[0]["__typename"] == "TerminateRunSuccess"

    def delete(self, run_id: str) -> None:
        """Remove a run and its events."""
        answer = self._ask(queries.DELETE, {"run": run_id})
        if answer["__typename"] not in ("DeletePipelineRunSuccess", "RunNotFoundError"):
            raise _unexpected(answer)

    def find(self, tags: Mapping[str, str]) -> list[FoundRun]:
        """Runs that have all of these tags, newest first."""
        answer = self._ask(queries.FIND, {"filter": {"tags": _pairs(tags)}})
        if "results" not in answer:
            raise _unexpected(answer)
        return [_run(item) for item in answer["results"]]

    def get(self, run_id: str) -> FoundRun | None:
        """One run."""
        answer = self._ask(queries.GET, {"run": run_id})
        if answer["__typename"] == "Run":
            return _run(answer)
        if answer["__typename"] == "RunNotFoundError":
            return None
        raise _unexpected(answer)

    def health(self) -> str:
        """Version of Dagster's web server; a cheap question."""
        return str(self._ask(queries.HEALTH, {}, timeout=HEALTH_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(self, query: str, variables: Mapping[str, Any], timeout: float | None = None) -> Any:
        """Give the one answer of a query, or raise."""
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        try:
            response = self._http.post(
                f"{self.url}/graphql", json={"query": query, "variables": dict(variables)}, **options
            )
            content = response.json()
        except httpx.TransportError as error:
            raise _unreachable(error) from error
        except ValueError as error:
            raise UncertainError(f"it answered {response.status_code} without JSON") from error
        if not isinstance(content, dict) or content.get("errors") or not isinstance(content.get("data"), dict):
            _log.error("Dagster could not answer", status=response.status_code, answer=str(content)[:2000])
            raise UncertainError("it answered with an error; see the log of the service")
        return next(iter(content["data"].values()))


def _unreachable(error: httpx.TransportError) -> UnavailableError:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return UnavailableError("nothing answers at its address")
    if isinstance(error, httpx.TimeoutException):
        return UncertainError("it did not answer in time; what was asked may still happen")
    return UncertainError("the connection broke; what was asked may have happened")


def _launched(answer: Mapping[str, Any]) -> FoundRun:
    kind = answer["__typename"]
    if kind == "LaunchRunSuccess":
        return _run(answer["run"])
    if kind == "RunConfigValidationInvalid":
        errors = [
            {"parameter": ".".join(error["path"]) or "parameters", "message": error["message"], "value": None}
            for error in answer["errors"]
        ]
        detail = "; ".join(error["message"] for error in errors)
        raise ProblemError(422, "invalid-parameters", f"Dagster does not accept this run: {detail}", errors=errors)
    if kind == "InvalidSubsetError" or "No steps needed to be retried" in str(answer.get("message", "")):
        raise ProblemError(409, "nothing-to-repeat", "every step of the run has succeeded; nothing is left to do")
    if kind == "PipelineNotFoundError":
        raise UnavailableError("it has not loaded this job; the code location may be starting")
    raise _unexpected(answer)


def _unexpected(answer: Mapping[str, Any]) -> UnavailableError:
    _log.error("Dagster refused", answer=str(answer)[:2000])
    return UncertainError(f"it refused ({answer['__typename']}); see the log of the service")


def _run(item: Mapping[str, Any]) -> FoundRun:
    return FoundRun(
        run_id=item["runId"],
        status=item["status"],
        job=item["jobName"],
        root_run_id=item["rootRunId"],
        created_at=datetime.fromtimestamp(item["creationTime"], UTC),
        tags={tag["key"]: tag["value"] for tag in item["tags"]},
    )


def _pairs(tags: Mapping[str, str]) -> Sequence[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
