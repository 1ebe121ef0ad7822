"""The repository itself: its top level, its locks, its layers, and packages that are really used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stock_pipeline_tests.conftest import REPOSITORY

TOP = [
    "pyproject.toml", "stock_pipeline", "stock_pipeline_tests", "dagster.yaml", "workspace.yaml", "data", "Makefile",
    "README.md", "requirements.lock", "CHANGELOG.md", "docs", "benchmarks",
]  # fmt: skip
PACKAGES = {
    "dagster": "orchestration", "pandas": "storage", "polars": "core", "pandera": "core", "sklearn": "core",
    "lightgbm": "core", "mlflow": "storage", "vectorbt": "core", "great_expectations": "storage", "duckdb": "storage",
}  # fmt: skip


@pytest.mark.requirement("P6")
def test_the_top_level_is_as_described() -> None:
    assert [name for name in TOP if not (REPOSITORY / name).exists()] == []


@pytest.mark.requirement("P7")
@pytest.mark.parametrize(("package", "folder"), sorted(PACKAGES.items()))
def test_the_packages_are_in_real_use(package: str, folder: str) -> None:
    pattern = re.compile(rf"^\s*(import|from) {package}\b", re.MULTILINE)
    sources = (REPOSITORY / "stock_pipeline" / folder).rglob("*.py")
    assert any(pattern.search(path.read_text(encoding="utf-8")) for path in sources)


@pytest.mark.requirement("P8")
@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_have_hashes_and_no_addresses(lock: str) -> None:
    text = (REPOSITORY / lock).read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index-url|--find-links", text)
    pinned = re.findall(r"^[A-Za-z0-9][A-Za-z0-9._\[\],-]*==", text, re.MULTILINE)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(pinned) == len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.requirement("P8")
def test_what_runs_is_part_of_what_is_tested() -> None:
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^[A-Za-z0-9._-]+(?:\[[^\]]*\])?==\S+", (REPOSITORY / lock).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_the_command_starts_without_heavy_packages() -> None:
    heavy = ("dagster", "mlflow", "lightgbm", "sklearn", "vectorbt", "great_expectations", "pandas", "scipy")
    code = (
        "import sys; import stock_pipeline.cli.app, stock_pipeline.cli.show, stock_pipeline.cli.pipeline;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert found.stdout.strip() == "[]"


def test_every_test_that_names_a_requirement_names_one_that_exists() -> None:
    known = re.compile(r"^(P[1-8]|R([1-9]|10)\.\d|A[1-6]|D[1-3]|V([1-9]|10))$")
    named: set[str] = set()
    for path in Path(REPOSITORY / "stock_pipeline_tests").rglob("test_*.py"):
        for call in re.findall(r"mark\.requirement\(([^)]*)\)", path.read_text(encoding="utf-8")):
            named |= set(re.findall(r'"([^"]+)"', call))
    assert [name for name in sorted(named) if not known.match(name)] == []
