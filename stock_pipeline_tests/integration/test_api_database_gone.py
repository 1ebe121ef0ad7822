"""The metadata database goes away while the service runs, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from stock_pipeline.storage.lake import Lake
from stock_pipeline_tests.api_service import PASSWORD, app_for, problem, signed_in
from stock_pipeline_tests.published import SESSIONS, publish


@pytest.mark.requirement("A5")
def test_a_database_that_is_away_is_said_so_and_its_return_is_noticed(
    tmp_path: Path, postgres_address: str, postgres_server: str
) -> None:
    lake = Lake(tmp_path)
    publish(lake, SESSIONS[0])
    app = app_for(lake, sections={"storage": {"metadata": postgres_address}})
    analyst = signed_in(app, "analyst", raise_server_exceptions=False)
    wanted = {"name": "job", "scopes": ["predictions:read"], "password": PASSWORD}
    name = make_url(postgres_address).database
    administrator = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false'))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
        away = analyst.post("/api/account/keys", json=wanted)
        problem(away, 503, "database-unavailable")
        assert int(away.headers["Retry-After"]) > 0
        connection.execute(text(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true'))
    administrator.dispose()
    made = analyst.post("/api/account/keys", json=wanted)
    assert made.status_code == 201, made.text
