"""Workers in the configuration: what they need, and what is refused in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import ConfigurationError

DATABASE, BROKER = "postgresql+psycopg2://me:hunter2@db/stocks", "redis://:hunter2@queue:6379/0"
VARIABLES = {"DB": DATABASE, "BROKER": BROKER}
SHARED = {"dagster": "env:DB", "metadata": "env:DB"}
WORKERS = {"workers": {"broker": "env:BROKER"}}


def load(folder: Path, variables: dict[str, str] | None = None, **sections: Any) -> Settings:
    content = {
        "market": {"name": "m", "calendar": "XNYS"}, "source": {"kind": "files", "path": "prices"}, **sections,
    }  # fmt: skip
    file = folder / "market.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_settings(file, environment=VARIABLES if variables is None else variables)


@pytest.mark.requirement("R2.2", "R9.4")
def test_workers_are_configured_with_addresses_from_variables(tmp_path: Path) -> None:
    settings = load(tmp_path, environment="prod", storage=SHARED, tasks=WORKERS)
    assert settings.tasks.workers is not None
    assert settings.tasks.workers.slots == 3
    assert settings.tasks.workers.address(VARIABLES) == BROKER
    assert "hunter2" not in str(settings.tasks)
    alone = load(tmp_path, environment="prod")
    assert (alone.tasks.workers, alone.storage.dagster) == (None, None)
    assert settings.version == alone.version, "where work is done changes no result"


@pytest.mark.requirement("R2.2", "R9.4")
@pytest.mark.parametrize(
    ("storage", "variables", "told"),
    [
        ({}, VARIABLES, "SQLite, in which storage.dagster and storage.metadata would be"),
        ({"dagster": "env:DB"}, VARIABLES, "SQLite, in which storage.metadata would be"),
        ({"metadata": "env:DB"}, VARIABLES, "SQLite, in which storage.dagster would be"),
        ({**SHARED, "metadata": "sqlite:///somewhere.db"}, VARIABLES, "SQLite, in which storage.metadata would be"),
        (SHARED, {"DB": DATABASE}, r"tasks.workers.broker names .* not set: 'BROKER'"),
        (SHARED, {"BROKER": BROKER}, r"storage\.\w+ names .* not set: 'DB'"),
        (SHARED, {**VARIABLES, "BROKER": "amqp://me:hunter2@queue"}, "tasks.workers.broker is not the address of a"),
        (SHARED, {**VARIABLES, "DB": "mysql://me:hunter2@db/x"}, "storage.dagster is not the address of a Postgres"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, storage: dict[str, str], variables: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        load(tmp_path, variables, storage=storage, tasks=WORKERS)
    assert "hunter2" not in str(refused.value)
