"""Which worker of pytest-xdist runs which files: in the order of the folders, those that share something dear together.

The order of the folders is that of their cost, so that what comes last is small and no worker waits long for another;
pytest-xdist itself would begin with the files of the most tests, which are the cheap ones.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = "stock_pipeline_tests/browser/"
"""Its files share a market that has been run, its running services and a browser."""


class Scheduling(LoadFileScheduling):
    """One file is one piece of work, as are the files that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return TOGETHER if file.startswith(TOGETHER) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Distribute so where whole files are to be distributed."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return Scheduling(config, log)
