"""SQL over the lake: DuckDB reads the named tables through Arrow and sees nothing else.

DuckDB's own Delta reader is a download, so tables are handed over as Arrow datasets; filters and column choices are
pushed down into them. Writing by SQL is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from stock_pipeline.core.errors import DataError, IntegrityError, NotFoundError
from stock_pipeline.storage.lake_frames import PARTITION

if TYPE_CHECKING:
    from stock_pipeline.storage.lake_reading import LakeReader


def query(lake: LakeReader, text: str, parameters: Sequence[Any] | None, versions: Mapping[str, int]) -> pl.DataFrame:
    """Answer one SELECT.

    Parameters
    ----------
    lake
        Where the tables are.
    text
        One SELECT; tables are written as ``"market/raw_bars"`` or, where the name has two parts, ``market.raw_bars``.
    parameters
        Values for ``?`` placeholders.
    versions
        Delta version per table; the newest where absent.

    Returns
    -------
    polars.DataFrame
        The rows, in the order of the query.

    Raises
    ------
    DataError
        Not one SELECT, or DuckDB refuses it.
    NotFoundError
        The query names a table that the lake does not have.
    IntegrityError
        A data file is missing or damaged.
    """
    with duckdb.connect(config={"python_enable_replacements": False, "autoinstall_known_extensions": False}) as engine:
        names = _named_tables(engine, text)
        for schema, name in names:
            table = f"{schema}/{name}" if schema else name
            if not schema and "/" not in name and not lake.exists(name):
                continue  # a common table expression, or unknown: DuckDB tells
            _register(engine, lake, table, versions.get(table))
        engine.execute("SET enable_external_access = false")
        engine.execute("SET lock_configuration = true")
        try:
            table = engine.sql(text, params=list(parameters or [])).to_arrow_table()
            return pl.DataFrame(pl.from_arrow(table))
        except duckdb.CatalogException as error:
            raise NotFoundError(_first_line(error), allowed="tables: " + ", ".join(lake.tables())) from error
        except duckdb.Error as error:
            if "reading the stream registered as" in str(error):
                raise IntegrityError(
                    f"a data file is missing or damaged ({_first_line(error)})",
                    fix="restore the table from a backup, or read an older version",
                ) from error
            raise DataError(f"the query failed: {_first_line(error)}", value=text) from error


def _named_tables(engine: duckdb.DuckDBPyConnection, text: str) -> list[tuple[str, str]]:
    rows = engine.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    tree = json.loads(rows[0][0])
    if tree.get("error"):
        raise DataError(
            f"not a query: {tree.get('error_message', 'unreadable')}", value=text, allowed="one SELECT statement"
        )
    if len(tree["statements"]) != 1:
        raise DataError("more than one statement", value=text, allowed="one SELECT statement")
    found = {
        (node["schema_name"], node["table_name"])
        for node in _walk(tree)
        if node.get("type") == "BASE_TABLE" and node.get("table_name")
    }
    return sorted(found)


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _walk(part)


def _register(engine: duckdb.DuckDBPyConnection, lake: LakeReader, table: str, version: int | None) -> None:
    delta = lake.delta_table(table, version)
    source = f"source:{table}"
    engine.register(source, delta.to_pyarrow_dataset())
    hidden = f" EXCLUDE ({PARTITION})" if PARTITION in delta.metadata().partition_columns else ""
    engine.execute(f'CREATE OR REPLACE TEMP VIEW "{table}" AS SELECT *{hidden} FROM "{source}"')
    if table.count("/") == 1:
        schema, name = table.split("/")
        engine.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        engine.execute(f'CREATE OR REPLACE VIEW "{schema}"."{name}" AS SELECT * FROM "{table}"')


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
