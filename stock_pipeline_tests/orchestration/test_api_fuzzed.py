"""Thousands of requests that a generator makes of the OpenAPI document, right and wrong ones, on a finished market.

Dagster's web server is not running: what needs it answers 503, which is documented. Anything else of 500 and above, an
undocumented status and an answer outside its schema fail.
"""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from stock_pipeline.access.principal import Origin
from stock_pipeline.config import Settings
from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_finished import PATIENT, app_of, copied
from stock_pipeline_tests.api_service import add_account, app_for
from stock_pipeline_tests.asgi_calls import Asked, ask_raw
from stock_pipeline_tests.databases import postgres_address, postgres_server  # noqa: F401
from stock_pipeline_tests.published import SESSIONS, publish

EXAMPLES, FEW = 60, 12
"""Requests of each operation: on the finished market, and on Postgres."""

IN_THE_DATABASE = {"account", "alerts", "audit", "authentication", "events", "roles", "tasks", "users"}
"""Tags of operations whose answers come from the metadata database."""

LEAST = 5_000
"""Requests of all of them."""

ABUSE = {
    "probing_refusals": 10_000,
    "failures_before_delay": 100,
    "failures_before_lock": 1000,
    "address_failures": 50_000,
}
PROOFS = ("authorization", "x-api-key", "cookie")


class Fuzzed:
    """An application, an administrator, and the loop in which requests are answered.

    The loop has a thread of its own: a browser that other tests have open keeps one running in this thread.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app, self.access, self.loop = app, app.state.service.access, asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        for name, role in (("the-tester", "administrator"), ("the-deputy", "administrator"), ("ana", "viewer")):
            add_account(app, name, role)
        self.access.roles.create("fuzzed", None, ("risk:read",), "system")
        self.token = self.new_token()
        publication = app.state.publications.current
        self.known = {
            "symbol": ["AAPL", "NFLX"],
            "prediction_id": publication.frame["prediction_id"].to_list()[:2],
            "version": ["1", "2"],
            "backtest_id": ["buy_and_hold", "model_rank"],
            "path": ["index.html", "buy_and_hold.html"],
            "name": ["ana", "fuzzed"],
            "alert_id": [1],
        }

    def close(self) -> None:
        """End what still waits in the loop, and the loop."""

        async def cancel() -> None:
            waiting = asyncio.all_tasks() - {asyncio.current_task()}
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def new_token(self) -> str:
        """A token of a new session."""
        account = self.access.accounts.get("the-tester")
        opened = self.access.logins.enter(account, "token", Origin("192.0.2.1", "generator"), second_factor=False)
        assert opened.tokens is not None
        return opened.tokens.access_token

    def ask(self, prepared: requests.PreparedRequest) -> Asked:
        """Send a request as the administrator."""
        parts = urlsplit(prepared.url or "")
        body = prepared.body or b""
        body = body.encode() if isinstance(body, str) else body
        headers = [
            (name.lower().encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in prepared.headers.items()
            if name.lower() not in PROOFS
        ]
        headers += [(b"host", b"testserver"), (b"authorization", f"Bearer {self.token}".encode())]
        asked = ask_raw(
            self.app, str(prepared.method), unquote(str(parts.path)), str(parts.path).encode(),
            str(parts.query).encode(), headers, body,
        )  # fmt: skip
        answer = asyncio.run_coroutine_threadsafe(asked, self.loop).result()
        if answer.status == 401 and answer.kind in ("session-revoked", "token-expired"):
            self.token = self.new_token()  # some requests end the session of their own
        if answer.headers.get("content-encoding") == "gzip":
            answer.body = gzip.decompress(answer.body)
        return answer

    def known_parameters(self, path: str) -> list[dict[str, Any]]:
        """Values of a path's parameters that exist."""
        names = [name for name in self.known if f"{{{name}}}" in path]
        if not names or path.count("{") != len(names):
            return []
        return [dict(zip(names, values, strict=True)) for values in zip(*(self.known[n] for n in names), strict=False)]


@dataclass
class Tally:
    """What came of all requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)


def fuzz(world: Fuzzed, operation: Any, tally: Tally, examples: int = EXAMPLES) -> None:
    """Send requests of one operation: right ones, wrong ones, and ones about what exists."""
    from schemathesis import GenerationMode, Response
    from schemathesis.core.failures import FailureGroup
    from schemathesis.specs.openapi import checks

    rules = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    kinds = [operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    kinds += [operation.as_strategy(path_parameters=some) for some in world.known_parameters(operation.path)]

    @seed(20_231)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(kinds))
    def run(case: Any) -> None:
        parts = case.as_transport_kwargs(base_url="http://testserver")
        kept = {name: parts[name] for name in ("method", "url", "headers", "params", "data", "json") if name in parts}
        prepared = requests.Request(**kept).prepare()
        answer = world.ask(prepared)
        tally.asked[operation.label] += 1
        tally.statuses[answer.status] += 1
        if answer.status < 400:
            tally.reached.add(operation.label)
        shown = f"{prepared.method} {prepared.url} {prepared.body!r:.300}: {answer.status} {answer.body!r:.300}"
        if answer.status >= 500 and answer.status != 503:
            tally.faults.setdefault(operation.label, shown)
        headers = {name: [value] for name, value in answer.headers.items()}
        try:
            case.validate_response(Response(answer.status, headers, answer.body, prepared, 0.0, False), checks=rules)
        except FailureGroup as error:
            tally.faults.setdefault(operation.label, f"{shown}\n{error}")

    run()


@pytest.mark.slow
@pytest.mark.requirement("A5", "R8.2", "A1", "A2", "A3", "A4", "A6")
def test_no_request_meets_an_error_or_an_undocumented_answer(finished: Settings, tmp_path: Path) -> None:
    import schemathesis

    app = app_of(copied(finished, tmp_path / "market", access={**PATIENT, "abuse": ABUSE}))
    world, tally = Fuzzed(app), Tally()
    for found in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
        fuzz(world, found.ok(), tally)
    world.close()
    assert not tally.faults, "\n\n".join(f"{label}: {text}" for label, text in tally.faults.items())
    assert sum(tally.asked.values()) >= LEAST, tally.statuses
    assert set(tally.asked) == {f"{m.upper()} {p}" for p, item in app.openapi()["paths"].items() for m in item}
    assert len(tally.reached) > len(tally.asked) / 2, sorted(set(tally.asked) - tally.reached)
    assert tally.statuses[401] < LEAST / 20, tally.statuses


@pytest.mark.slow
@pytest.mark.requirement("A5", "R8.2")
def test_nor_does_one_on_postgres(tmp_path: Path, postgres_address: str) -> None:  # noqa: F811
    import schemathesis

    lake = Lake(tmp_path / "lake")
    publish(lake, SESSIONS[0])
    app = app_for(lake, sections={"access": {**PATIENT, "abuse": ABUSE}, "storage": {"metadata": postgres_address}})
    app.state.publications.refresh()
    world, tally = Fuzzed(app), Tally()
    for found in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
        operation = found.ok()
        if IN_THE_DATABASE & set(operation.tags or ()):
            fuzz(world, operation, tally, FEW)
    world.close()
    assert not tally.faults, "\n\n".join(f"{label}: {text}" for label, text in tally.faults.items())
    assert sum(tally.asked.values()) > 300, tally.statuses
