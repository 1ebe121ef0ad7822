"""Structured logs: fields, context, secrets, rotation."""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stock_pipeline.observability.logfiles import SharedRotatingFileHandler
from stock_pipeline.observability.logging import configure_logging, get_logger, log_context
from stock_pipeline.observability.redaction import HIDDEN, redact, redact_text


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = configure_logging(tmp_path, component="test", level="DEBUG", console=False)
    assert path is not None
    yield path
    configure_logging(None, console=False)


OWN = {"stock_pipeline.storage", "stock_pipeline.x", "stock_pipeline.plain"}
"""Loggers of these tests: what earlier tests left in the background may have something to say too."""


def lines(path: Path) -> list[dict]:
    return [line for line in map(json.loads, path.read_text().splitlines()) if line["logger"] in OWN]


def test_a_line_has_time_level_event_and_fields(log: Path) -> None:
    get_logger("storage").info("bars written", rows=10, symbol="IBM", name="kept", ratio=float("nan"))
    (line,) = lines(log)
    assert line["event"] == "bars written"
    assert (line["level"], line["logger"], line["component"]) == ("info", "stock_pipeline.storage", "test")
    assert (line["rows"], line["symbol"], line["name"], line["ratio"]) == (10, "IBM", "kept", None)
    assert line["time"].endswith("Z")


def test_context_follows_the_call_and_not_other_threads(log: Path) -> None:
    def other() -> None:
        get_logger("x").info("elsewhere")
        logging.getLogger("stock_pipeline.plain").warning("plain %s", "text")

    with log_context(run_id="r1", asset="market/raw_bars", symbol=None):
        get_logger("x").info("inside")
        with log_context(request_id="q1"):
            logging.getLogger("stock_pipeline.plain").warning("deeper")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    get_logger("x").info("after")
    by_event = {line["event"]: line for line in lines(log)}
    assert by_event["inside"]["run_id"] == "r1"
    assert "symbol" not in by_event["inside"]
    assert (by_event["deeper"]["request_id"], by_event["deeper"]["asset"]) == ("q1", "market/raw_bars")
    for event in ("elsewhere", "plain text", "after"):
        assert "run_id" not in by_event[event]


def test_an_exception_is_kept_with_its_cause_and_without_its_secrets(log: Path) -> None:
    try:
        raise ConnectionError("postgresql://admin:hunter2@db/prices refused")
    except ConnectionError:
        get_logger("x").exception("no database", password="hunter2")
    (line,) = lines(log)
    assert "ConnectionError" in line["exception"]
    assert line["password"] == HIDDEN
    assert "hunter2" not in log.read_text()


def test_other_handlers_see_a_whole_readable_message(log: Path) -> None:
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name in OWN:
                seen.append(record.getMessage())

    handler = Keep()
    logger = logging.getLogger("stock_pipeline")
    logger.addHandler(handler)
    try:
        get_logger("x").warning("100% done", rows=3, token="abc")
    finally:
        logger.removeHandler(handler)
    assert seen == [f"100% done rows=3 token={HIDDEN}"]


def test_configuring_again_replaces_the_files_and_levels_are_kept(tmp_path: Path) -> None:
    first = configure_logging(tmp_path / "a", console=False)
    second = configure_logging(tmp_path / "b", console=False, level="WARNING")
    get_logger("x").info("too low")
    get_logger("x").error("high enough")
    configure_logging(None, console=False)
    assert first is not None
    assert second is not None
    assert not first.exists() or first.read_text() == ""
    assert [line["event"] for line in lines(second)] == ["high enough"]


def test_the_console_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(None, console=True)
    get_logger("x").warning("gap found", symbol="IBM", note="two words")
    configure_logging(None, console=False)
    shown = capsys.readouterr().err
    assert "WARNING  gap found  symbol=IBM note='two words'" in shown


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("slack://TokenA/TokenB failed for user:pw1234@host", "nothing"),
        ("postgresql+psycopg2://me:pw1234@db:5432/x", "pw1234"),
        ("https://hooks.example/x?token=pw1234&a=1", "pw1234"),
        ("Authorization: Bearer pw1234pw1234", "pw1234"),
        ("api_key='pw1234'", "pw1234"),
        ('{"password": "pw1234"}', "pw1234"),
        ("client_secret: pw1234", "pw1234"),
        ("eyJhbGciOi.eyJzdWIiOi.pw1234abcd", "pw1234"),
    ],
)
def test_secrets_in_texts(text: str, gone: str) -> None:
    assert gone not in redact_text(text)


def test_what_is_no_secret_stays() -> None:
    for text in ("market/raw_bars: 10 rows", "2024-01-01T00:00:00Z", "a@b.c", "tokens: 3 kinds of", "AAPL close=10.5"):
        assert redact_text(text) == text
    assert redact({"rows": 3, "tokens_used": 5, "symbol": "KEY", "list": [1, "x"]}) == {
        "rows": 3,
        "tokens_used": 5,
        "symbol": "KEY",
        "list": [1, "x"],
    }


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    handler = SharedRotatingFileHandler(tmp_path / "x.jsonl", max_bytes=100, backups=2)
    for number in range(40):
        handler.emit(logging.LogRecord("x", logging.INFO, "", 0, f"line {number:03d}", (), None))
    handler.close()
    kept = [(tmp_path / name).read_text() for name in ("x.jsonl.2", "x.jsonl.1", "x.jsonl")]
    assert sorted(path.name for path in tmp_path.glob("x.jsonl*")) == [
        "x.jsonl",
        "x.jsonl.1",
        "x.jsonl.2",
        "x.jsonl.lock",
    ]
    assert all(len(text) <= 100 for text in kept)
    numbers = [int(line.split()[1]) for text in kept for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 40))


def _log_much(path: str, worker: int) -> None:
    handler = SharedRotatingFileHandler(Path(path), max_bytes=2_000, backups=500)
    for number in range(200):
        handler.emit(
            logging.LogRecord("x", logging.INFO, "", 0, f"worker {worker} line {number} " + "x" * 40, (), None)
        )
    handler.close()


def test_processes_that_rotate_together_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "x.jsonl"
    workers = [context.Process(target=_log_much, args=(str(path), worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    files = [file for file in tmp_path.glob("x.jsonl*") if file.suffix != ".lock"]
    found = [line for file in files for line in file.read_text().splitlines()]
    assert len(files) > 10
    assert len(found) == len(set(found)) == 600


@pytest.mark.requirement("P7")
def test_lines_that_a_file_keeps_are_not_kept_again_by_whatever_collects_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configure_logging(tmp_path, component="api")
    get_logger().info("a request")
    assert capsys.readouterr().err == ""
    assert path is not None
    assert "a request" in path.read_text()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    configure_logging(tmp_path, component="api")
    get_logger().info("somebody looks")
    assert "somebody looks" in capsys.readouterr().err
    monkeypatch.undo()
    configure_logging(None)
    get_logger().info("nothing else keeps it")
    assert "nothing else keeps it" in capsys.readouterr().err
    configure_logging(None, console=False)
