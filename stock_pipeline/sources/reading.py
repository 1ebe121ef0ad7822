"""From a path to a frame with the platform's column names, everything still as the file has it.

Dates and numbers are read in ``parsing``.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from stock_pipeline.core.errors import DataError
from stock_pipeline.core.market.source_settings import FilesSource

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".txt", ".parquet", ".pq")

ALIASES: dict[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "code", "instrument", "ts_code", "sym", "tic"),
    "session": ("session", "date", "trade_date", "tradedate", "datetime", "timestamp", "time", "day", "ex_date"),
    "volume": ("volume", "vol"),
    "amount": ("amount", "turnover_value", "traded_value"),
    "adj_close": ("adj_close", "adjclose", "adjusted_close", "adjusted", "close_adj"),
    "factor": ("factor", "adj_factor", "adjustment_factor"),
    "split_ratio": ("split_ratio", "split", "splits", "stock_splits"),
    "dividend": ("dividend", "dividends", "div"),
    "start": ("start", "from", "start_date", "entry"),
    "end": ("end", "to", "end_date", "exit"),
}
"""Usual names, compared in lower case with spaces and hyphens as underscores."""


def discover(path: str, glob: str | None) -> list[Path]:
    """Files of the source, sorted by name.

    Raises
    ------
    DataError
        The path does not exist, or nothing matches; what is there is listed.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.exists():
        raise DataError(
            "the folder or file of the source does not exist",
            value=str(root),
            fix=f"correct source.path; relative paths start at {Path.cwd()}",
        )
    if glob is not None:
        found = [f for f in root.glob(glob) if f.is_file()]
    else:
        found = [f for f in root.iterdir() if f.is_file() and f.name.lower().endswith(SUFFIXES)]
    found = sorted(f for f in found if not f.name.startswith("."))
    if not found:
        there = sorted(f.name + ("/" if f.is_dir() else "") for f in root.iterdir() if not f.name.startswith("."))
        raise DataError(
            f"no file in {root} matches",
            value=glob or "any of " + " ".join(f"*{s}" for s in SUFFIXES),
            fix="correct source.glob; the folder holds "
            + (
                ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "") if there else "nothing"
            ),
        )
    return found


def read(file: Path, settings: FilesSource) -> pl.DataFrame:
    """One file as it is: text columns for CSV, typed columns for Parquet.

    Raises
    ------
    DataError
        An empty, damaged, wrongly encoded or unknown kind of file.
    """
    if file.stat().st_size == 0:
        raise DataError("the file is empty (0 bytes)", value=str(file), fix="fetch it again, or remove it")
    name = file.name.lower()
    if name.endswith((".parquet", ".pq")):
        try:
            return pl.read_parquet(file, hive_partitioning=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"the Parquet file is damaged or is none ({_first_line(error)})",
                value=str(file),
                fix="fetch it again, or remove it",
            ) from error
    return _read_csv(file, settings)


def first_row(file: Path) -> int:
    """Number of the first row for messages: as a person counts the lines of a CSV file with its header."""
    return 1 if file.suffix.lower() in (".parquet", ".pq") else 2


def _read_csv(file: Path, settings: FilesSource) -> pl.DataFrame:
    plain = settings.encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig", "ascii")
    try:
        content: bytes | Path = file
        if not plain:
            content = file.read_bytes().decode(settings.encoding).encode()
        head = content[:65536] if isinstance(content, bytes) else _head(file)
        separator = settings.separator or _separator(head)
        return pl.read_csv(
            io.BytesIO(content) if isinstance(content, bytes) else content,
            separator=separator,
            infer_schema=False,
            null_values=list(settings.null_values),
        )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not {settings.encoding} text", value=error.reason, fix="state source.encoding, such as gbk"
        ) from error
    except pl.exceptions.NoDataError as error:
        raise DataError("the file is empty", value=str(file), fix="fetch it again, or remove it") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        encoded = "utf" in str(error).lower()
        raise DataError(
            f"the CSV file cannot be read ({_first_line(error)})",
            value=str(file),
            fix="state source.encoding, such as gbk or latin-1" if encoded else "check the rows, and source.separator",
        ) from error


def _head(file: Path) -> bytes:
    if file.name.lower().endswith(".gz"):
        import gzip

        with gzip.open(file) as opened:
            return opened.read(65536)
    with file.open("rb") as plain:
        return plain.read(65536)


def _separator(head: bytes) -> str:
    line = head.split(b"\n", 1)[0]
    return max((",", ";", "\t", "|"), key=lambda mark: line.count(mark.encode()))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]


def rename(
    frame: pl.DataFrame, file: str, columns: Mapping[str, str], wanted: Sequence[str], required: Sequence[str]
) -> pl.DataFrame:
    """Give the columns the platform's names; others are dropped.

    Parameters
    ----------
    columns
        The user's mapping, ours: theirs.
    wanted, required
        Platform names to look for, and those that must be there.

    Raises
    ------
    DataError
        A mapped or required column is missing (the names found are listed and the nearest suggested), or a name occurs
        twice.
    """
    by_plain: dict[str, str] = {}
    twice: dict[str, str] = {}
    for column in frame.columns:
        # of two columns with one name, the CSV reader renames the second
        plain = re.sub(r"_duplicated_\d+$", "", column).strip().lower().replace(" ", "_").replace("-", "_")
        if by_plain.setdefault(plain, column) != column:
            twice[by_plain[plain]] = column
    taken: dict[str, str] = {}
    for ours in wanted:
        theirs = columns.get(ours)
        if theirs is not None:
            if theirs not in frame.columns:
                raise _missing(file, ours, theirs, frame.columns, frame.columns)
            taken[ours] = theirs
            continue
        match = next((by_plain[a] for a in ALIASES.get(ours, (ours,)) if a in by_plain), None)
        if match is None or match in columns.values():
            continue
        if match in twice:
            raise DataError(
                f"{file} has two columns that may be {ours!r}",
                value=[match, twice[match].split("_duplicated_")[0]],
                fix="remove or rename one, or say which under columns",
            )
        taken[ours] = match
    for ours in required:
        if ours not in taken:
            # a column that already serves as something else is no suggestion
            usual = {by_plain[a] for names in ALIASES.values() for a in names if a in by_plain}
            free = [c for c in frame.columns if c not in {*taken.values(), *usual}]
            raise _missing(file, ours, ours, frame.columns, free)
    return frame.select(pl.col(theirs).alias(ours) for ours, theirs in taken.items())


def _missing(file: str, ours: str, theirs: str, found: list[str], free: list[str]) -> DataError:
    plain = {f.lower(): f for f in free}
    near = [plain[n] for n in difflib.get_close_matches(theirs.lower(), list(plain), n=3, cutoff=0.4)]
    return DataError(
        f"{file} has no column for {ours!r}",
        value=theirs,
        allowed=f"the columns found are {', '.join(found)}",
        fix=f"write columns: {{{ours}: {near[0] if near else '<their name>'}}}"
        + (f" (near: {', '.join(near)})" if near else ""),
    )
