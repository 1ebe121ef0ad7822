"""Great Expectations over validated bars: expectations made from the schema and the rules, and a Data Docs site.

Validation itself, with a fate for each row, is in ``core.quality``; this is the independent second look at what
passed, in a form that others can read. Give it the newest partition: it works on pandas, in memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.bars import PRICES, VALIDATED_SCHEMA
from stock_pipeline.core.quality import all_rules
from stock_pipeline.storage.data_docs_offline import make_offline

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE = "validated_bars"
_PANDAS_TYPES: dict[pl.DataType, str] = {pl.Float64(): "float64"}


@dataclass(frozen=True)
class DataDocs(os.PathLike[str]):
    """A site that was built; can be used as a path.

    Parameters
    ----------
    success
        Whether every expectation was met.
    path
        The front page.
    failed
        The expectations that were not met, in words.
    expectations
        How many there were.
    """

    success: bool
    path: Path
    failed: tuple[str, ...]
    expectations: int

    def __fspath__(self) -> str:
        return str(self.path)


def build_data_docs(frame: pl.DataFrame, directory: Path | str, *, title: str = "Validated bars") -> DataDocs:
    """Check validated bars and write the Data Docs site.

    Parameters
    ----------
    frame
        Validated bars (``VALIDATED_SCHEMA``), for example of the newest session.
    directory
        Where the site belongs. It is a link that is moved in one step to the finished site, so a reader sees the old
        or the new site, never half of one.
    title
        Heading of the front page.

    Returns
    -------
    DataDocs
        Verdict, front page and failed expectations.

    Raises
    ------
    DataError
        For an empty frame: there is nothing to document.
    """
    if frame.is_empty():
        raise DataError("no validated bars to document", fix="run the validation first")
    target = Path(directory).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-build-") as work:
        site = Path(work) / "site"
        results = _run(frame, site)
        failed = tuple(_in_words(result) for result in results if not result.success)
        make_offline(site, title=title, success=not failed)
        _put_in_place(site, target)
    return DataDocs(not failed, target / "index.html", failed, len(results))


def _run(frame: pl.DataFrame, site: Path) -> list[Any]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read once, when the library is imported
    import great_expectations as gx
    from great_expectations.checkpoint.actions import UpdateDataDocsAction

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    batch = (
        context.data_sources.add_pandas("lake")
        .add_dataframe_asset("bars")
        .add_batch_definition_whole_dataframe("newest")
    )
    suite = context.suites.add(gx.ExpectationSuite(name=SUITE, expectations=list(_expectations(gx.expectations))))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=SUITE, data=batch, suite=suite))
    configuration: dict[str, Any] = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site("local", cast("Any", configuration))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=SUITE,
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="site", site_names=["local"])],
            result_format="SUMMARY",
        )
    )
    # The library puts values on its pages as they are.
    safe = frame.with_columns(pl.col(pl.String).str.replace_many(["&", "<", ">"], ["&amp;", "&lt;", "&gt;"]))
    outcome = checkpoint.run(batch_parameters={"dataframe": safe.to_pandas()})
    return [result for run in outcome.run_results.values() for result in run.results]


def _expectations(gxe: Any) -> Iterator[Any]:
    """Make the expectations of the table, each with a note that names the rule behind it."""
    yield gxe.ExpectTableRowCountToBeBetween(min_value=1)
    yield gxe.ExpectTableColumnsToMatchSet(column_set=list(VALIDATED_SCHEMA), exact_match=True)
    for name, kind in VALIDATED_SCHEMA.items():
        if kind in _PANDAS_TYPES:
            yield gxe.ExpectColumnValuesToBeOfType(column=name, type_=_PANDAS_TYPES[kind])
    for name, rule in _NEEDED.items():
        yield gxe.ExpectColumnValuesToNotBeNull(column=name, notes=_note(rule))
    for name in (*PRICES, "adj_factor"):
        rule = {"close": "non_positive_close", "adj_factor": "bad_adj_factor"}.get(name, "bad_price_field")
        yield gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, strict_min=True, notes=_note(rule))
    for name in ("volume", "amount"):
        yield gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, notes=_note("bad_volume"))
    pairs = [("high", "low"), ("high", "open"), ("high", "close"), ("open", "low"), ("close", "low")]
    for larger, smaller in pairs:
        yield gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=larger,
            column_B=smaller,
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            notes=_note("ohlc_order"),
        )
    yield gxe.ExpectCompoundColumnsToBeUnique(column_list=["symbol", "session"], notes=_note("duplicate"))
    yield gxe.ExpectColumnValuesToBeInSet(column="status", value_set=["clean", "repaired"])
    yield gxe.ExpectColumnValuesToBeBetween(column="quality_score", min_value=0, max_value=100)
    yield gxe.ExpectColumnValuesToMatchRegex(column="repairs", regex=r'^\[\{"field": .*\}\]$')


_NEEDED = {
    "symbol": "missing_key",
    "session": "missing_key",
    "close": "missing_close",
    "adj_factor": "bad_adj_factor",
    "status": None,
    "quality_score": None,
}


def _note(rule: str | None) -> str | None:
    return None if rule is None else f"Rule {rule}: {all_rules()[rule].description}"


def _in_words(result: Any) -> str:
    configuration = result.expectation_config
    keys = ("column", "column_A", "column_B", "column_list")
    about = ", ".join(str(configuration.kwargs[key]) for key in keys if key in configuration.kwargs)
    count = (result.result or {}).get("unexpected_count")
    return f"{configuration.type}({about})" + (f": {count} rows" if count is not None else "")


def _put_in_place(site: Path, target: Path) -> None:
    """Move a finished site beside the target and turn the target's link to it in one step."""
    home = target.parent / f".{target.name}-{uuid4().hex[:12]}"
    shutil.move(site, home)
    link = target.parent / f".{target.name}-link-{uuid4().hex[:12]}"
    link.symlink_to(home.name, target_is_directory=True)
    old: Path | None = None
    if target.is_symlink():
        old = target.parent / target.readlink()
    elif target.is_dir():
        old = target.parent / f".{target.name}-{uuid4().hex[:12]}"
        target.rename(old)
    link.replace(target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
