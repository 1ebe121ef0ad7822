"""Text that others have stored is shown as text: it never becomes markup, a script, or a way out of the page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from stock_pipeline.api.app import create_app
from stock_pipeline.observability.alerts import Alert
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PUBLISHED
from stock_pipeline.storage.tasks import Launched
from stock_pipeline_tests.api_service import service_for
from stock_pipeline_tests.browser.visits import PASSWORD, Visits, fits
from stock_pipeline_tests.published import SESSIONS, predictions
from stock_pipeline_tests.serving import served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow]

ATTACK = "\"><img src=x onerror=hacked=1></script><b>{{7*7}}'&lt;"
ACCESS = {"passwords": {"memory_kib": 8, "passes": 1, "lanes": 1}, "limits": {"login": "1000/minute"}}


@pytest.fixture
def attacked(tmp_path: Path, chromium: Browser) -> Iterator[Visits]:
    """A service in which every text that somebody may choose is an attack."""
    lake = Lake(tmp_path / "lake")
    now = datetime.now(UTC)
    frame = predictions(SESSIONS[-1], 3).with_columns(
        symbol=pl.when(pl.col("rank") == 1).then(pl.lit(ATTACK)).otherwise("symbol"),
        model_name=pl.lit(ATTACK),
        fallback_level=pl.lit(1, dtype=pl.Int32),
        fallback_reason=pl.lit(ATTACK),
    )
    lake.write_sessions(PUBLISHED, frame, start=SESSIONS[-1], end=SESSIONS[-1])
    bars = pl.DataFrame(
        {
            "symbol": [ATTACK] * 3, "session": list(SESSIONS), "close": [10.0, 11.0, 12.0], "adj_factor": [1.0] * 3,
            "currency": [ATTACK] * 3, "status": ["clean"] * 3, "quality_score": [100.0] * 3,
        }
    )  # fmt: skip
    lake.write_sessions("market/validated_bars", bars, start=SESSIONS[0], end=SESSIONS[-1])
    service = service_for(lake, access=ACCESS)
    service.access.accounts.create("ada", password=PASSWORD, roles=("administrator",), by="system")
    service.access.audit.record("task.create", actor=ATTACK, object=("task", ATTACK), detail={ATTACK: ATTACK})
    service.alert_outbox.enqueue(
        Alert(
            kind="test", severity="warning", title=ATTACK, body=ATTACK, remedy=ATTACK, fingerprint="x", source_key="x",
            created_at=now, labels={},
        )
    )  # fmt: skip
    service.tasks.store.enter(
        Launched(
            "11111111-2222-3333-4444-555555555555", "backtest", "backtest_on_request", now, owner="ada",
            parameters={"strategy": ATTACK, "parameters": {ATTACK: ATTACK}},
        )
    )  # fmt: skip
    with served(create_app(service)) as address:
        visits = Visits(chromium, f"{address}/", service)
        yield visits
        visits.finish()


@pytest.mark.requirement("R8.2", "A1", "A2", "A6")
def test_stored_text_is_shown_as_it_is_and_does_nothing(attacked: Visits) -> None:
    page = attacked.page("ada", "/")
    shown = {
        "/": "#results tbody th",
        "/tasks": "#results tbody th",
        "/tasks/11111111-2222-3333-4444-555555555555": "main",
        "/alerts": "article h2",
        "/audit": "#results tbody th",
    }
    for path, place in shown.items():
        page.goto(attacked.address + path.lstrip("/"))
        page.locator(place).filter(has_text=ATTACK).first.wait_for()
        assert page.evaluate("window.hacked") is None, path
        assert page.locator("img[src=x]").count() == 0, path
        assert fits(page), path
    page.goto(attacked.address)
    page.get_by_role("link", name=ATTACK, exact=True).click()
    page.locator("h1").filter(has_text=ATTACK).wait_for()
    page.locator("[data-chart=chart-price][data-drawn]").wait_for()
    assert page.evaluate("window.hacked") is None
