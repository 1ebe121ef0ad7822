"""The words under ``source`` in a configuration, and the messages when they are wrong."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from stock_pipeline.core.market.source_settings import AkShareSource, FilesSource, SourceSettings, YFinanceSource

ADAPTER: TypeAdapter = TypeAdapter(SourceSettings)


def test_kind_chooses_the_vendor() -> None:
    assert isinstance(ADAPTER.validate_python({"kind": "files", "path": "x"}), FilesSource)
    assert isinstance(ADAPTER.validate_python({"kind": "yfinance", "symbols": ["AAPL"]}), YFinanceSource)
    assert isinstance(ADAPTER.validate_python({"kind": "akshare", "symbols": ["600000"]}), AkShareSource)


def test_a_path_is_enough_for_a_table() -> None:
    settings = FilesSource(path="x", membership="m.csv", benchmark={"path": "b.csv", "symbol": "SPX"})  # type: ignore[arg-type]
    assert settings.membership is not None
    assert settings.membership.path == "m.csv"
    assert ADAPTER.validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "ftp", "path": "x"}, "'files', 'yfinance', 'akshare'"),
        ({"kind": "files"}, "path"),
        ({"kind": "files", "path": "x", "prices": "adjusted_maybe"}, "raw_with_adj_close"),
        ({"kind": "files", "path": "x", "columns": {"sesion": "date"}}, "did you mean session"),
        ({"kind": "files", "path": "x", "columns": {"symbol": "t"}, "symbol_from": "filename"}, "contradict"),
        ({"kind": "files", "path": "x", "events": "e.csv"}, "raw_with_events"),
        ({"kind": "files", "path": "x", "timezone": "Mars/Base"}, "Asia/Tokyo"),
        ({"kind": "files", "path": "x", "encoding": "utf-99"}, "not a text encoding"),
        ({"kind": "files", "path": "x", "currency": "dollar"}, "A-Z"),
        ({"kind": "files", "path": "x", "benchmark": {"path": "b", "columns": {"open": "o"}}}, "benchmark.columns"),
        ({"kind": "files", "path": "x", "globb": "*"}, "globb"),
        ({"kind": "yfinance", "symbols": []}, "symbols"),
        ({"kind": "yfinance", "symbols": ["A"], "requests_per_minute": 0}, "greater than 0"),
        ({"kind": "akshare", "symbols": ["sh600000"]}, "symbols"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ADAPTER.validate_python(wrong)
    assert message in str(raised.value)
