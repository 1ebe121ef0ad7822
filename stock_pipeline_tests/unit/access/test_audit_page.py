"""The page about access says what holds: its numbers are the defaults, and its commands run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stock_pipeline.access.abuse_rules import delay_seconds
from stock_pipeline.access.permissions import ROLES
from stock_pipeline.access.policy import DEEPEST
from stock_pipeline.config.access import AbuseSettings, LimitSettings
from stock_pipeline_tests.api_service import settings_for
from stock_pipeline_tests.commands import command

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "concepts" / "access.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


@pytest.mark.requirement("R8.5")
def test_the_page_says_the_defaults() -> None:
    abuse, limits = AbuseSettings(), LimitSettings()
    delays = [delay_seconds(n, abuse) for n in range(abuse.failures_before_delay, abuse.failures_before_lock)]
    growing = ", ".join(f"{delay:g}" for delay in delays)
    for sentence in (
        f"{abuse.failures_before_lock} wrong passwords in a row for one account",
        f"from the {abuse.failures_before_delay}rd on, the next attempt must wait {growing} s (429)",
        f"the account is locked for {abuse.lock_minutes} minutes (423)",
        f"{abuse.address_failures} failed log-ins from one address within an hour",
        f"on {abuse.stuffing_accounts} accounts within an hour",
        f"{2 * abuse.stuffing_accounts} addresses on {2 * abuse.stuffing_accounts} accounts within 10 minutes",
        f"faster than {abuse.travel_kmh:g} km/h",
        f"{abuse.probing_refusals} refused requests of one account within 10 minutes",
        f"{abuse.bulk_rows:,} rows read",
        f"outside {abuse.office_hours[0]} to {abuse.office_hours[1]} h",
        f"more than {DEEPEST} roles",
        f"{int(limits.read.split('/')[0]):,} reads and {limits.write.split('/')[0]} writes a minute",
        f"{limits.login.split('/')[0]} log-ins a minute",
        f"{limits.streams} live connections",
    ):
        assert sentence in WORDS


@pytest.mark.requirement("R8.3")
def test_the_page_lists_the_built_in_roles() -> None:
    for name, (parent, held) in ROLES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
        assert (f"| `{parent}` |" in row) == (parent is not None)
        assert parent is None or set(re.findall(r"`(\w+:\w+)`", row)) == set(held)


@pytest.mark.requirement("R8.3", "R8.4")
def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_for(home=tmp_path / "home", access={"passwords": {"memory_kib": 8, "passes": 1, "lanes": 1}})
    monkeypatch.chdir(tmp_path)
    configured = ("-c", tmp_path / "home" / "market.yaml")
    assert command(*configured, "users", "create", "ann", "--link").code == 0
    lines = re.findall(r"^\$ \.venv/bin/stock-pipeline (.+)$", PAGE, re.MULTILINE)
    lines += [
        line.removeprefix("stock-pipeline ") for line in re.findall(r"`(stock-pipeline audit anchor[^`]+)`", PAGE)
    ]
    assert len(lines) == 9
    for line in lines:
        said = command(*configured, *shlex.split(line, comments=True))
        assert said.code == 0, said.all
    assert (tmp_path / "january.csv").is_file()
