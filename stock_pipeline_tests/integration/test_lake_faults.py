"""The lake when things go wrong around it: crashes, several processes, damaged files, a full disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.storage.lake import Lake, LakeWriteError

DAY = date(2020, 1, 2)


def bars(day: date, value: float, symbols: int = 50) -> pl.DataFrame:
    return pl.DataFrame({"symbol": [f"S{n:04d}" for n in range(symbols)]}).with_columns(
        session=pl.lit(day), value=pl.lit(value)
    )


def _write(root: str, worker: int, rounds: int) -> None:
    lake = Lake(root)
    for number in range(rounds):
        shared = DAY + timedelta(days=number)
        lake.write_sessions("shared", bars(shared, float(worker)), start=shared, end=shared)
        own = DAY + timedelta(days=100 * worker + number)
        lake.write_sessions("own", bars(own, float(worker)), start=own, end=own)
        lake.append_new("appended", bars(shared, float(worker)))


def test_several_processes_write_and_read_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(str(tmp_path), worker, 6)) for worker in range(3)]
    for worker in workers:
        worker.start()
    lake = Lake(tmp_path)
    while any(worker.is_alive() for worker in workers):
        if lake.exists("shared"):
            seen = lake.read("shared")
            assert not seen.select("symbol", "session").is_duplicated().any()
            assert (
                seen.group_by("session")
                .agg(pl.col("value").n_unique(), pl.len())
                .select((pl.col("value") == 1).all() & (pl.col("len") == 50).all())
                .item()
            )
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert lake.count("shared") == 6 * 50
    assert lake.count("own") == 3 * 6 * 50
    assert lake.count("appended") == 6 * 50
    assert not lake.read("appended").select("symbol", "session").is_duplicated().any()


def test_without_the_lock_deltas_own_conflict_check_keeps_writers_apart(tmp_path: Path) -> None:
    """Two machines share no file lock: what they replace at once still ends as one writer's rows."""
    import threading

    first, second = Lake(tmp_path, attempts=20), Lake(tmp_path, attempts=20)
    first.write_sessions("t", bars(DAY, -1.0), start=DAY, end=DAY)
    for lake in (first, second):
        lake.local = False  # no lock, as on an object store
    failures = []

    def write(lake: Lake, value: float) -> None:
        try:
            for number in range(8):
                lake.write_sessions("t", bars(DAY, value + number / 10), start=DAY, end=DAY)
                new = DAY + timedelta(days=1 + number)
                lake.write_sessions("t", bars(new, value), start=new, end=new)
                lake.append_new("appended", bars(new, value))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(lake, value)) for lake, value in ((first, 1.0), (second, 2.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = first.read("t")
    assert rows.height == 9 * 50
    assert set(rows.group_by("session").agg(pl.col("value").n_unique())["value"]) == {1}
    assert first.count("appended") == 8 * 50


def test_a_killed_writer_leaves_the_old_version_and_no_lock(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_sessions("t", bars(DAY, 0.0), start=DAY, end=DAY)
    code = (
        "import sys, datetime; sys.path.insert(0, sys.argv[2]);"
        "from stock_pipeline_tests.integration.test_lake_faults import bars, DAY;"
        "from stock_pipeline.storage.lake import Lake\n"
        "lake = Lake(sys.argv[1]); n = 0\n"
        "while True:\n"
        "    n += 1; lake.write_sessions('t', bars(DAY, float(n), 20000), start=DAY, end=DAY)\n"
        "    print(n, flush=True)\n"
    )
    root = str(Path(__file__).parents[2])
    for pause in (0.0, 0.017):
        worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), root], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.stdout.readline()
        time.sleep(pause)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        rows = lake.read("t")
        assert rows["value"].n_unique() == 1
        assert rows.height == 20000
    assert lake.write_sessions("t", bars(DAY, -1.0), start=DAY, end=DAY) == lake.version("t")
    assert set(lake.read("t")["value"]) == {-1.0}


def test_files_without_a_commit_are_invisible_and_cleaned_up(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_sessions("t", bars(DAY, 1.0), start=DAY, end=DAY)
    table = Path(lake.uri("t"))
    orphan = table / "year=2020" / "part-00000-orphan.parquet"
    bars(DAY, 2.0).write_parquet(orphan)
    (table / "_delta_log" / "_commit_half.json.tmp").write_text('{"add": {"path": "year=2020/part-')
    assert lake.read("t").height == 50
    assert lake.vacuum("t", retention_days=0) >= 1
    assert not orphan.exists()
    assert lake.read("t").height == 50
    half = tmp_path / "half"
    half.mkdir()
    bars(DAY, 2.0).write_parquet(half / "part.parquet")
    assert not lake.exists("half")
    assert lake.tables() == ["t"]


@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "overwritten"])
def test_a_damaged_data_file_is_an_error_and_never_a_wrong_number(tmp_path: Path, damage: str) -> None:
    lake = Lake(tmp_path)
    lake.write_sessions("market/t", bars(DAY, 1.0), start=DAY, end=DAY)
    (file,) = Path(lake.uri("market/t")).rglob("*.parquet")
    content = file.read_bytes()
    if damage == "removed":
        file.unlink()
    else:
        middle = len(content) // 2
        file.write_bytes({"truncated": content[:middle], "emptied": b"", "overwritten": b"\x00" * len(content)}[damage])
    with pytest.raises(IntegrityError, match="missing or damaged"):
        lake.read("market/t")
    with pytest.raises(IntegrityError, match="missing or damaged"):
        lake.sql("SELECT * FROM market.t")


def test_a_damaged_log_is_an_error(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_sessions("t", bars(DAY, 1.0), start=DAY, end=DAY)
    (Path(lake.uri("t")) / "_delta_log" / f"{0:020d}.json").write_text('{"commitInfo":')
    with pytest.raises(IntegrityError, match="log of t cannot be read"):
        lake.read("t")
    with pytest.raises(IntegrityError):
        lake.write_sessions("t", bars(DAY, 1.0), start=DAY, end=DAY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; needs the right to mount."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk (run as root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_a_clear_error_and_the_old_version_stands(small_disk: Path) -> None:
    import numpy as np

    lake = Lake(small_disk / "lake")
    lake.write_sessions("t", bars(DAY, 1.0), start=DAY, end=DAY)
    noise = bars(DAY, 0.0, 200_000).with_columns(value=pl.Series(np.random.default_rng(1).random(200_000)))
    with pytest.raises(LakeWriteError, match=r"disk is full.*free some space"):
        lake.write_sessions("t", noise, start=DAY, end=DAY)
    assert lake.version("t") == 0
    assert set(lake.read("t")["value"]) == {1.0}
    for leftover in Path(lake.root).rglob("*.parquet"):
        if leftover.stat().st_size > 100_000:
            leftover.unlink()
    assert lake.write_sessions("t", bars(DAY, 2.0), start=DAY, end=DAY) == 1


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file, not a folder")
    with pytest.raises(LakeWriteError, match="could not be written"):
        Lake(tmp_path / "lake").replace("t", bars(DAY, 1.0))
