"""The file of the metadata database."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from stock_pipeline.storage.database import open_database


@pytest.mark.requirement("R8.1")
def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "metadata.db")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        files = list(tmp_path.glob("metadata.db*"))
        held = [file for file in files if file.stat().st_size]
        assert tmp_path / "metadata.db" in held
        assert {file.stat().st_mode & 0o777 for file in held} == {0o600}
    engine.dispose()
