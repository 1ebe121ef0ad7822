"""Dagster's instance file: written from the configuration, without secrets, and a person's once edited."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from stock_pipeline.cli.services import services
from stock_pipeline.config import Settings, load_settings
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.orchestration import instance_file
from stock_pipeline.orchestration.bootstrap import prepare_home
from stock_pipeline.orchestration.worker_launcher import CELERY, WorkerLauncher
from stock_pipeline_tests.commands import command
from stock_pipeline_tests.conftest import REPOSITORY

DATABASE, BROKER = "postgresql+psycopg2://me:hunter2@127.0.0.1:1/stocks", "redis://:hunter2@127.0.0.1:1/0"
VARIABLES = {"DB": DATABASE, "BROKER": BROKER}
FROM_VARIABLES = {
    "storage": {"dagster": "env:DB", "metadata": "env:DB"},
    "tasks": {"workers": {"broker": "env:BROKER", "start_minutes": 5}, "max_running": 8, "max_running_per_kind": 4},
}
WRITTEN_DOWN = {
    "storage": {"dagster": DATABASE, "metadata": DATABASE},
    "tasks": {"workers": {"broker": BROKER, "start_minutes": 5}, "max_running": 8, "max_running_per_kind": 4},
}


def settings_of(folder: Path, **sections: Any) -> Settings:
    content = {
        "home": "home", "market": {"name": "m", "calendar": "XNYS"},
        "source": {"kind": "files", "path": "prices"}, **sections,
    }  # fmt: skip
    (folder / "market.yaml").write_text(yaml.safe_dump(content))
    return load_settings(folder / "market.yaml", environment=VARIABLES)


@pytest.mark.requirement("R2.2", "R9.4", "P1")
@pytest.mark.parametrize(
    ("sections", "database", "broker"),
    [(FROM_VARIABLES, "DB", "BROKER"), (WRITTEN_DOWN, "STOCK_PIPELINE_DAGSTER_DATABASE", "STOCK_PIPELINE_BROKER")],
)
def test_the_file_follows_the_configuration_and_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], database: str, broker: str
) -> None:
    target, environment = tmp_path / "dagster.yaml", {}
    instance_file.write(settings_of(tmp_path), target, environment)
    assert target.read_text() == (REPOSITORY / "dagster.yaml").read_text()
    assert environment == {}

    instance_file.write(settings_of(tmp_path, **sections), target, environment)
    assert "hunter2" not in target.read_text()
    content = yaml.safe_load(target.read_text())
    assert content["storage"] == {"postgres": {"postgres_url": {"env": database}}}
    assert content["concurrency"]["runs"]["max_concurrent_runs"] == 8
    limits = {(limit["key"], limit["limit"]) for limit in content["concurrency"]["runs"]["tag_concurrency_limits"]}
    assert limits == {("stock_pipeline/kind", 4), ("stock_pipeline/writes", 1)}
    assert content["run_monitoring"]["start_timeout_seconds"] == 300
    assert environment == ({} if sections is FROM_VARIABLES else {database: DATABASE, broker: BROKER})

    # Dagster itself takes it so
    for name, value in (VARIABLES | environment).items():
        monkeypatch.setenv(name, value)
    launcher = InstanceRef.from_dir(str(tmp_path)).run_launcher
    assert isinstance(launcher, WorkerLauncher)
    assert (launcher.broker, launcher.backend, launcher.default_queue) == (BROKER, BROKER, "stock_pipeline.m")
    assert launcher.celery.conf.worker_max_tasks_per_child == CELERY["worker_max_tasks_per_child"]

    instance_file.write(settings_of(tmp_path), target, environment)
    assert target.read_text() == (REPOSITORY / "dagster.yaml").read_text()


@pytest.mark.requirement("R2.2", "P1")
def test_a_file_that_a_person_edited_is_theirs_unless_it_says_something_else(tmp_path: Path) -> None:
    target = tmp_path / "dagster.yaml"
    shared = settings_of(tmp_path, **FROM_VARIABLES)
    instance_file.write(shared, target, {})
    mine = target.read_text().replace("poll_interval_seconds: 30", "poll_interval_seconds: 7")
    target.write_text(mine)
    instance_file.write(shared, target, {})
    assert target.read_text() == mine

    target.write_text((REPOSITORY / "dagster.yaml").read_text() + "# mine\n")
    instance_file.write(settings_of(tmp_path), target, {})
    with pytest.raises(ConfigurationError, match=r"edited by hand, and its section storage is not .*delete the file"):
        instance_file.write(shared, target, {})


@pytest.mark.requirement("P1")
@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_process_that_dies_while_it_writes_leaves_a_file_that_follows_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    target, replace, written = tmp_path / "dagster.yaml", instance_file.replace_file, []
    instance_file.write(settings_of(tmp_path), target, {})

    def dies(path: Path, content: bytes) -> None:
        if len(written) == last:
            raise KeyboardInterrupt
        written.append(path)
        replace(path, content)

    monkeypatch.setattr(instance_file, "replace_file", dies)
    with pytest.raises(KeyboardInterrupt):
        instance_file.write(settings_of(tmp_path, tasks={"max_running": 8}), target, {})
    monkeypatch.setattr(instance_file, "replace_file", replace)
    instance_file.write(settings_of(tmp_path, tasks={"max_running": 5}), target, {})
    assert yaml.safe_load(target.read_text())["concurrency"]["runs"]["max_concurrent_runs"] == 5


@pytest.mark.requirement("P1")
@pytest.mark.parametrize("after", ["read_text", "read_bytes"])
def test_two_processes_that_begin_at_once_write_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The services begin together: another one writes the file between two looks of this one."""
    target, shared, read = tmp_path / "dagster.yaml", settings_of(tmp_path, **FROM_VARIABLES), getattr(Path, after)
    instance_file.write(settings_of(tmp_path), target, {})

    def reads(path: Path, *arguments: Any, **named: Any) -> Any:
        content = read(path, *arguments, **named)
        if path.parent == tmp_path:
            monkeypatch.undo()
            instance_file.write(shared, target, {})
        return content

    monkeypatch.setattr(Path, after, reads)
    instance_file.write(shared, target, {})
    assert "postgres" in yaml.safe_load(target.read_text())["storage"]
    instance_file.write(settings_of(tmp_path), target, {})
    assert target.read_text() == (REPOSITORY / "dagster.yaml").read_text(), "it is nobody's but the configuration's"


@pytest.mark.requirement("R2.2", "P8")
def test_a_machine_of_the_services_has_a_worker_where_a_broker_hands_out_runs(tmp_path: Path) -> None:
    alone = {service.name for service in services(settings_of(tmp_path))}
    assert {service.name for service in services(settings_of(tmp_path, **FROM_VARIABLES))} - alone == {"worker"}


@pytest.mark.requirement("R2.2", "P8")
def test_workers_without_their_library_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dagster_celery", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stock-pipeline\[celery\]'"):
        prepare_home(settings_of(tmp_path, **FROM_VARIABLES))


@pytest.mark.requirement("R2.2", "P8")
def test_the_command_line_says_what_workers_lack(tmp_path: Path) -> None:
    settings_of(tmp_path)
    said = command("-c", tmp_path / "market.yaml", "worker")
    assert said.code == 1
    assert "set tasks.workers.broker" in said.all
    settings_of(tmp_path, **FROM_VARIABLES)
    said = command("-c", tmp_path / "market.yaml", "doctor", variables=VARIABLES)
    assert "the broker cannot be reached" in said.all
    assert "hunter2" not in said.all
