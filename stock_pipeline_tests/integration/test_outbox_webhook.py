"""Alerts through Apprise to a real local web server that is down at first."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.observability.alerts import Alert, AppriseSink, build_sinks
from stock_pipeline.observability.logging import configure_logging
from stock_pipeline.storage.database import open_database
from stock_pipeline.storage.outbox import AlertOutbox
from stock_pipeline_tests.services import free_port

NOW = datetime(2024, 3, 1, 22, 0, tzinfo=UTC)


@pytest.mark.requirement("P3", "R6.5")
def test_a_webhook_that_comes_up_later_gets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = configure_logging(tmp_path, console=False)
    received: list[tuple[str, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        status = 503

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if Handler.status == 200:
                received.append((self.headers.get("Authorization", ""), json.loads(body)))
            self.send_response(Handler.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    port = free_port()
    monkeypatch.setenv("HOOK", f"json://watcher:s3cr3t-word@127.0.0.1:{port}/alerts")
    sinks = build_sinks(["env:HOOK"], timeout=60)
    outbox = AlertOutbox(open_database(tmp_path / "metadata.db"))
    outbox.enqueue(Alert("run_failure", "critical", "nightly failed", "disk full", "run:nightly", "run-1", NOW))

    refused = outbox.deliver_due(sinks, NOW)  # nobody listens
    assert refused.sent == {"log": 1}
    assert list(refused.failed) == [sinks[1].name]

    server = HTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        assert outbox.deliver_due(sinks, NOW + timedelta(hours=1)).failed  # it answers with an error
        Handler.status = 200
        assert outbox.deliver_due(sinks, NOW + timedelta(hours=3)).sent == {sinks[1].name: 1}
        outbox.resolve("run:nightly", NOW + timedelta(hours=4))
        outbox.deliver_due(sinks, NOW + timedelta(hours=4))
    finally:
        server.shutdown()
        server.server_close()
    assert [body["title"] for _, body in received] == ["nightly failed", "Over: nightly failed"]
    assert received[0][1]["message"] == "disk full"
    assert received[0][1]["type"] == "failure"
    assert received[1][1]["type"] == "success"
    assert received[0][0].startswith("Basic ")
    assert log is not None
    text = log.read_text()
    assert "nightly failed" in text
    assert "s3cr3t-word" not in text
    assert "s3cr3t-word" not in repr(sinks) + str(refused)


@pytest.mark.requirement("R6.5")
@pytest.mark.parametrize("bad", ["nonsense://token-abc", "no address token-abc", ""])
def test_a_target_that_is_no_address_is_refused_without_showing_it(bad: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AppriseSink(bad)
    assert "token-abc" not in str(caught.value)


@pytest.mark.requirement("R6.5")
def test_a_target_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    with pytest.raises(ConfigurationError, match="HOOK"):
        build_sinks(["env:HOOK"])


@pytest.mark.requirement("R6.5")
@pytest.mark.parametrize(
    "address",
    [
        "mailto://user:password@example.com",
        "slack://TokenA123/TokenBBBB/TokenCCCCCCCCCCCCCCCCCCC/#channel",
        "dingtalk://abcdefgh12345678",
        "discord://123456789/abcdefghijklmnop",
        "json://localhost/hook",
    ],
)
def test_the_usual_services_are_known(address: str) -> None:
    sink = AppriseSink(address)
    assert sink.name.startswith(address.split(":")[0])
    assert AppriseSink(address).name == sink.name


@pytest.mark.requirement("R6.5")
def test_a_service_has_the_time_that_it_is_given() -> None:
    """Whoever is slow to say that it took a notice is not sent it twice."""
    (usual,) = AppriseSink("json://localhost/hook", timeout=60)._apprise
    assert usual.request_timeout == (60, 60)
    (own,) = AppriseSink("json://localhost/hook?rto=2", timeout=60)._apprise
    assert own.request_timeout == (60, 2)
