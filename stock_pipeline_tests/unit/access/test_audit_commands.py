"""`stock-pipeline audit` and `stock-pipeline roles`, with the export and the report that they write."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from stock_pipeline.access.audit import Audit
from stock_pipeline.access.principal import Origin, Principal
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline_tests.api_service import settings_for
from stock_pipeline_tests.commands import command

pytestmark = pytest.mark.requirement("R8.4")
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def trail(database: Engine, tmp_path: Path) -> Audit:
    times = iter(NOW + timedelta(hours=n) for n in range(100))
    audit = Audit(database, tmp_path / "home", clock=lambda: next(times))
    root, ann = Principal("root", "console", 1), Principal("ann", "token", 2)
    audit.record("session.log_in", actor=ann, object=("account", "ann"), origin=Origin("198.51.100.7"))
    audit.record("session.log_in", actor="anonymous", object=("account", "ann"), result="refused")
    audit.record("role.change", actor=root, object=("role", "quant"), before={"p": []}, after={"p": ["risk:read"]})
    audit.record("account.reset", actor=root, object=("account", "=HYPERLINK(1)"), detail={"note": "a|b <i>`x`"})
    audit.record("abuse.new_device", actor="abuse watch", detail={"what": "a new network"})
    audit.record("abuse.probing", actor="abuse watch", detail={"what": "refused"})
    audit.record("+odd.action", actor="-1+2", object=("@x", "\ttab"), origin=Origin(user_agent='quote " and, comma'))
    return audit


def test_json_lines_hold_every_field(trail: Audit) -> None:
    lines = [json.loads(line) for line in trail.export("jsonl")]
    assert [line["sequence"] for line in lines] == list(range(1, 8))
    assert lines[2]["after"] == {"p": ["risk:read"]}
    assert lines[0]["at"] == "2026-01-05T12:00:00.000000+00:00"
    some = list(trail.export("jsonl", NOW + timedelta(hours=2), NOW + timedelta(hours=4)))
    assert [json.loads(line)["sequence"] for line in some] == [3, 4]


def test_no_cell_of_csv_is_a_formula(trail: Audit) -> None:
    rows = list(csv.DictReader(io.StringIO("".join(trail.export("csv")))))
    assert len(rows) == 7
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert rows[3]["object_id"] == "'=HYPERLINK(1)"
    assert rows[6]["user_agent"] == 'quote " and, comma'
    assert json.loads(rows[2]["after"]) == {"p": ["risk:read"]}
    with pytest.raises(ConfigurationError, match="jsonl, csv"):
        trail.export("xlsx")


def test_the_report_counts_lists_and_verifies(trail: Audit, database: Engine) -> None:
    made = trail.report(NOW, NOW + timedelta(days=1))
    assert (made.entries, made.checked, made.verified) == (7, 7, True)
    assert made.by_action["session.log_in"] == 2
    assert made.by_result == {"done": 6, "refused": 1}
    assert made.by_actor["root"] == 2
    names = ("permission_changes", "refused", "administration", "new_places", "detected")
    assert {name: [entry["sequence"] for entry in getattr(made, name)] for name in names} == {
        "permission_changes": [3], "refused": [2], "administration": [4], "new_places": [5], "detected": [6],
    }  # fmt: skip
    shown = made.markdown()
    assert "All 7 entries of the trail are as they were written." in shown
    assert r"a\|b \<i\>\`x\`" in shown
    assert "before: p nothing; after: p risk:read" in shown, "words, not how a program writes them"
    json.dumps(made.as_dict())
    with database.begin() as connection:
        connection.execute(text("UPDATE audit_entry SET actor = 'mallory' WHERE sequence = 2"))
    changed = trail.report(NOW, NOW + timedelta(days=1))
    assert not changed.verified
    assert "changed at 2" in changed.markdown()
    with pytest.raises(ConfigurationError, match="before"):
        trail.report(NOW, NOW)


@pytest.fixture
def config(database_address: str, tmp_path: Path) -> Path:
    settings_for(home=tmp_path / "home", storage={"metadata": database_address})
    return tmp_path / "home" / "market.yaml"


@pytest.mark.requirement("R8.3")
def test_roles_from_the_command_line_and_the_trail_of_it(config: Path, database_address: str, tmp_path: Path) -> None:
    said = command("-c", config, "roles", "create", "quant", "--parent", "viewer", "-p", "backtests:create")
    assert (said.code, "may do 10 things" in said.all) == (0, True), said.all
    assert command("-c", config, "roles", "change", "quant", "--add", "predictions:request").code == 0
    refused = command("-c", config, "roles", "change", "quant", "--add", "moon:land")
    assert refused.code == 1
    assert "there are no such permissions: 'moon:land'; allowed: predictions:read" in refused.all
    assert "contradict" in command("-c", config, "roles", "change", "quant", "--parent", "x", "--no-parent").all
    assert "nothing to change" in command("-c", config, "roles", "change", "quant").all
    inherited = command("-c", config, "roles", "change", "quant", "--remove", "risk:read")
    assert "does not hold this itself" in inherited.all
    assert "backtests:create" in command("-c", config, "roles", "show", "quant").out
    assert "quant" in command("-c", config, "roles", "list").out
    listed = json.loads(command("-c", config, "roles", "list", "--json").out)
    assert next(role["own"] for role in listed if role["name"] == "quant") == [
        "backtests:create",
        "predictions:request",
    ]
    assert json.loads(command("-c", config, "roles", "show", "quant", "--json").out)["parent"] == "viewer"
    assert "every installation has this role" in command("-c", config, "roles", "delete", "viewer").all
    assert command("-c", config, "roles", "delete", "quant").code == 0
    assert "no such role" in command("-c", config, "roles", "show", "quant").all

    checked = command("-c", config, "audit", "verify")
    assert (checked.code, checked.out.strip()) == (0, "4 entries, all as they were written")
    shown = command("-c", config, "audit", "show", "--action", "role.*", "--object", "role:quant", "--json")
    assert [json.loads(line)["action"] for line in shown.out.splitlines()] == [
        "role.create", "role.change", "role.delete",
    ]  # fmt: skip
    assert "no entry matches" in command("-c", config, "audit", "show", "--actor", "nobody").out
    assert "no such result" in command("-c", config, "audit", "show", "--result", "maybe").all
    exported = tmp_path / "trail.csv"
    assert command("-c", config, "audit", "export", "--format", "csv", "--output", exported).code == 0
    assert len(list(csv.DictReader(exported.open(encoding="utf-8")))) == 4
    assert exported.stat().st_mode & 0o777 == 0o600
    assert not exported.with_name(".trail.csv.part").exists()
    assert (
        "the folder of the output file does not exist"
        in command("-c", config, "audit", "export", "-o", tmp_path / "no" / "x").all
    )
    report = command("-c", config, "audit", "report", "--format", "json")
    assert json.loads(report.out)["verified"] is True
    assert "# Audit report" in command("-c", config, "audit", "report", "--since", "2026-01-01").out
    assert (
        "must be before" in command("-c", config, "audit", "show", "--since", "2026-02-01", "--until", "2026-01-01").all
    )
    assert "not a day or instant" in command("-c", config, "audit", "show", "--since", "soon").all

    engine = create_engine(database_address)
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit_entry SET actor = 'mallory' WHERE sequence = 2"))
        connection.execute(text("DELETE FROM audit_entry WHERE sequence = 4"))
    engine.dispose()
    faulty = command("-c", config, "audit", "verify")
    assert faulty.code == 1
    assert "changed at 2: the entry does not fit its seal" in faulty.all
    assert "missing at 4: entry 4 is not there" in faulty.all
    assert "2 faults: the trail was changed" in faulty.all
