"""In continuous integration a test that is skipped fails; elsewhere it says what it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stock_pipeline_tests.conftest import REPOSITORY

FILES = {
    "test_one.py": """
import pytest
def test_passes(): pass
def test_lacks_a_program(): pytest.skip("to run this test: sudo apt-get install something")
@pytest.fixture
def market_data(): pytest.skip("needs the optional market data")
def test_lacks_data(market_data): pass
@pytest.mark.xfail
def test_is_known_to_fail(): assert False
""",
    "test_two.py": "import pytest\npytest.importorskip('no_such_library')\ndef test_of_it(): pass\n",
}


@pytest.mark.parametrize(
    ("value", "code", "summary"),
    [("", 0, "1 passed, 3 skipped, 1 xfailed"), ("true", 1, "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error")],
)
def test_what_is_skipped_fails_in_continuous_integration(tmp_path: Path, value: str, code: int, summary: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra --continue-on-collection-errors\n")
    ended = subprocess.run(
        [
            sys.executable, "-m", "pytest", "--color=no", "-p", "stock_pipeline_tests.conftest",
            "-p", "no:cacheprovider",
        ],
        env={**os.environ, "CI": value, "COLUMNS": "160", "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert summary in ended.stdout.splitlines()[-1], ended.stdout + ended.stderr
    assert ended.returncode == code
    assert "sudo apt-get install something" in ended.stdout
    assert "could not import 'no_such_library'" in ended.stdout
