"""The documentation says what the code does: generated pages are current, examples load, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from stock_pipeline.config import load_settings

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_pages_are_up_to_date(reference):
    for name, text in reference.pages().items():
        stored = (DOCS / "reference" / name).read_text(encoding="utf-8")
        assert stored == text, f"docs/reference/{name} is out of date: run docs/make_reference.py"


def test_reference_names_every_setting(reference):
    page = reference.configuration()
    for key in ("market.calendar", "source.prices", "models.train.folds", "alerts.targets", "backtests.strategies"):
        assert f"`{key}`" in page


def configurations() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, text in enumerate(blocks(page, "yaml")):
            if text.startswith("# configuration"):
                yield f"{page.relative_to(ROOT)}#{number}", text


CONFIGURATIONS = dict(configurations())
_VALUES = {"PIPELINE_DATABASE": "postgresql+psycopg2://me@db/stocks", "PIPELINE_REDIS": "redis://queue:6379/0"}


@pytest.mark.parametrize("name", [name for name, text in CONFIGURATIONS.items() if ", needs my_" not in text])
def test_configurations_in_the_documentation_are_valid(name, tmp_path):
    text = CONFIGURATIONS[name]
    file = tmp_path / "stock_pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    needed = text.splitlines()[0].partition(", needs ")[2].split()
    settings = load_settings(file, environment={name: _VALUES.get(name, "x") for name in needed})
    assert settings.market.name


@pytest.mark.parametrize("name", NAMES)
def test_other_yaml_is_yaml(name):
    for text in blocks(ROOT / name, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)


def run(code: str, folder: Path, **variables: str) -> str:
    """Run code as a reader would, in a process of its own, with the sample beside it."""
    (folder / "data").mkdir(exist_ok=True)
    if not (folder / "data" / "sample").exists():
        (folder / "data" / "sample").symlink_to(ROOT / "data" / "sample")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


LOAD = "from stock_pipeline.config import load_settings; print(load_settings('stock_pipeline.yaml').market.name)"


def test_own_data_example_is_read_as_the_guide_says(tmp_path):
    page = DOCS / "how-to" / "bring-your-own-data.md"
    run(blocks(page, "python")[0], tmp_path)
    (tmp_path / "stock_pipeline.yaml").write_text(blocks(page, "yaml")[0], encoding="utf-8")
    settings = load_settings(tmp_path / "stock_pipeline.yaml", environment={})
    from stock_pipeline.sources import build

    bars = build(settings.source, calendar=settings.market.calendar).fetch(None, None).bars
    assert f"{bars.height:,} rows, {bars['symbol'].n_unique()} symbols" in page.read_text(encoding="utf-8")
    assert bars.filter(bars["symbol"] == "AAPL")["adj_factor"].max() > 1.0


def test_own_feature_example_works_and_the_cheat_is_caught(tmp_path):
    page = DOCS / "how-to" / "add-a-feature.md"
    module, audit, cheat = blocks(page, "python")
    (tmp_path / "my_features.py").write_text(module, encoding="utf-8")
    assert "shape: (0, 7)" in run(audit, tmp_path)
    (tmp_path / "cheats.py").write_text(cheat, encoding="utf-8")
    found = run(audit.replace("my_features", "cheats").replace('"mine"', '"cheating"'), tmp_path)
    assert "look_ahead" in found
    assert "tomorrow" in found
    (tmp_path / "stock_pipeline.yaml").write_text(blocks(page, "yaml")[0], encoding="utf-8")
    assert run(LOAD, tmp_path).strip() == "my_market"


def test_own_strategy_example_trades(tmp_path):
    page = DOCS / "how-to" / "add-a-strategy.md"
    (tmp_path / "my_strategies.py").write_text(blocks(page, "python")[0], encoding="utf-8")
    (tmp_path / "stock_pipeline.yaml").write_text(blocks(page, "yaml")[0], encoding="utf-8")
    code = (
        LOAD + "\nfrom stock_pipeline.core.backtesting.run import run_backtest\n"
        "from stock_pipeline.core.market.source_settings import FilesSource\n"
        "from stock_pipeline.sources import build\n"
        "source = FilesSource(path='data/sample/bars', prices='raw_with_adj_close')\n"
        "bars = build(source, calendar='XNYS').fetch(None, None).bars\n"
        "print(run_backtest('my_strategies:Channel', None, bars, second_ledger=False).metrics['trades'])\n"
    )
    name, trades = run(code, tmp_path).split()
    assert name == "my_market"
    assert float(trades) > 10


def test_audit_example_of_the_concept_page_runs(tmp_path):
    assert "shape: (0, 7)" in run(blocks(DOCS / "concepts" / "nothing-from-the-future.md", "python")[0], tmp_path)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as code hosts make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name} links to {link}"
        assert target.is_relative_to(ROOT), f"{name} links out of the repository: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name} links to {link}, which has no such heading"


def test_commands_in_the_documentation_exist():
    import typer

    from stock_pipeline.cli.app import app, main  # noqa: F401 - main names the modules that register commands

    for module in sorted((ROOT / "stock_pipeline" / "cli").glob("[a-z]*.py")):
        importlib.import_module(f"stock_pipeline.cli.{module.stem}")
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"stock-pipeline((?: -q| -c \S+)* [a-z]+)\b", text):
            word = line.split()[-1]
            if word not in ("on", "command", "as", "is", "prints"):
                assert word in known, f"{page.name}: there is no command {word}"


def test_every_check_is_explained():
    from stock_pipeline.orchestration.checks import backtests, features, market, models, predictions, risk

    page = (DOCS / "how-to" / "operate.md").read_text(encoding="utf-8")
    specs = [
        *market.RAW, *market.VALIDATED, *market.REPORT, *features.specs("features/x"), *models.CANDIDATE_SPECS,
        *models.CHAMPION_SPECS, *predictions.SCORED_SPECS, *predictions.PUBLISHED_SPECS, *predictions.OUTCOME_SPECS,
        *risk.SPECS, *backtests.SPECS,
    ]  # fmt: skip
    missing = [spec.name for spec in specs if f"`{spec.name}`" not in page]
    assert not missing, f"docs/how-to/operate.md does not explain {missing}"


def test_pictures_are_small():
    assert sum(path.stat().st_size for path in (DOCS / "images").iterdir()) < 2 * 1024 * 1024


def test_readme_has_its_figures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    between = text.partition("<!-- figures: written by docs/make_figures.py -->")[2].partition("<!-- /figures -->")[0]
    assert "| momentum | naive |" in between
    assert "| buy_and_hold |" in between


@pytest.mark.requirement("P6")
def test_readme_names_the_top_level_and_it_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    top = (
        "pyproject.toml",
        "stock_pipeline",
        "stock_pipeline_tests",
        "dagster.yaml",
        "workspace.yaml",
        "data",
        "Makefile",
    )
    for name in top:
        assert (ROOT / name).exists()
        assert name in text


@pytest.mark.requirement("P8")
def test_readme_begins_with_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


def test_sql_of_the_guide_runs(tmp_path):
    import datetime

    import polars as pl

    from stock_pipeline.storage.lake import Lake

    bars = pl.DataFrame({"symbol": ["AAPL"], "session": [datetime.date(2023, 1, 3)], "close": [125.07]})
    (tmp_path / "data" / "home").mkdir(parents=True)
    lake = Lake(str(tmp_path / "data" / "home" / "lake"))
    lake.replace("market/validated_bars", bars)
    lake.replace("predictions/published", bars.with_columns(rank=1, expected_return=0.0, lower=-0.1, upper=0.1))
    for code in blocks(DOCS / "how-to" / "read-predictions.md", "python"):
        assert "shape: (1, " in run(code, tmp_path)
