"""Alpha158: this platform beside Qlib 0.9.7's own loader, on the same bars, in the same run.

Both get the same random-walk bars (values rounded to float32, which is what Qlib stores), each in the form it reads
itself (Parquet, Qlib's binary folder), and are timed from reading the bars to holding the 158 columns. Qlib lives in an
environment of its own, made at the first run (pyqlib==0.9.7, with uv where it is installed, else with venv and pip).
Memory is the largest resident set of the process and its children together, sampled ten times a second. CPU seconds are
those of the whole process and its children, imports included: on a busy machine they are the steadier figure.

    python benchmarks/features.py                                # 800 symbols x 3,300 sessions, Qlib with two kernels
    python benchmarks/features.py --symbols 50 --sessions 800    # small
    python benchmarks/features.py --large                        # also 5,000 x 2,500, piece by piece, ours alone
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

QLIB = "pyqlib==0.9.7"
WARM_UP = 60
Report = dict[str, Any]
HERE = Path(__file__).resolve()
REPOSITORY = HERE.parent.parent


def main() -> None:
    arguments = _arguments()
    if arguments.worker:
        print(json.dumps(WORKERS[arguments.worker](arguments)))
        return
    work = Path(tempfile.mkdtemp(prefix="features-", dir=arguments.cache))
    try:
        report = _run(arguments, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _print(report)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--sessions", type=int, default=3300)
    parser.add_argument("--kernels", type=int, default=2, help="processes of Qlib and threads of this platform")
    parser.add_argument("--compare", type=int, default=40, help="symbols whose values are compared")
    parser.add_argument("--large", action="store_true", help="also 5,000 symbols x 2,500 sessions, ours alone")
    parser.add_argument("--skip-qlib", action="store_true")
    parser.add_argument("--json", help="write the report to this file")
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "stock_pipeline_benchmarks"))
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    Path(arguments.cache).mkdir(parents=True, exist_ok=True)
    return arguments


def _run(arguments: argparse.Namespace, work: Path) -> Report:
    size = ["--symbols", str(arguments.symbols), "--sessions", str(arguments.sessions)]
    common = ["--work", str(work), "--kernels", str(arguments.kernels), "--compare", str(arguments.compare)]
    report: Report = {
        "symbols": arguments.symbols,
        "sessions": arguments.sessions,
        "rows": arguments.symbols * arguments.sessions,
        "kernels": arguments.kernels,
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
    _say("making bars")
    _measure([sys.executable, str(HERE), "--worker", "bars", *size, *common])
    _say("ours, first start (kernels are compiled)")
    cold = {**os.environ, "NUMBA_CACHE_DIR": str(work / "numba")}
    start = [sys.executable, str(HERE), "--worker", "start", *size, *common]
    report["first_start"] = _measure(start, cold)
    report["later_start"] = _measure(start, cold)
    _say("ours")
    report["ours"] = _measure([sys.executable, str(HERE), "--worker", "ours", *size, *common], cold)
    if not arguments.skip_qlib:
        python = _qlib_environment(Path(arguments.cache))
        _say("Qlib (minutes)")
        command = [str(python), str(HERE.parent / "features_qlib.py"), str(work / "qlib"), str(arguments.kernels)]
        qlib = _measure([*command, str(work / "values"), *_compared(arguments)], {**os.environ, "OMP_NUM_THREADS": "1"})
        names = qlib.pop("names")
        report["qlib"] = qlib
        report["ratio"] = qlib["seconds"] / report["ours"]["seconds"]
        report["cpu_ratio"] = qlib["cpu_seconds"] / report["ours"]["cpu_seconds"]
        report["values"] = _compare_values(work / "values", names, _compared(arguments))
    if arguments.large:
        _say("5,000 symbols x 2,500 sessions, piece by piece")
        large = ["--symbols", "5000", "--sessions", "2500"]
        shutil.rmtree(work / "qlib", ignore_errors=True)
        _measure([sys.executable, str(HERE), "--worker", "large_bars", *large, *common])
        report["large"] = _measure([sys.executable, str(HERE), "--worker", "large", *large, *common], cold)
    report["load_average_after"] = round(os.getloadavg()[0], 2)
    return report


# --- workers: each runs in a process of its own, so that memory is its own --------------------------------------------


def _panel(symbols: int, sessions: int, seed: int) -> dict[str, np.ndarray]:
    """Random-walk bars, each field of shape (symbols, sessions), rounded to float32."""
    rng = np.random.default_rng(seed)
    shape = (symbols, sessions)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, shape), axis=1))
    opening = close * np.exp(rng.normal(0.0, 0.008, shape))
    high = np.maximum(opening, close) * (1.0 + np.abs(rng.normal(0.0, 0.006, shape)))
    low = np.minimum(opening, close) * (1.0 - np.abs(rng.normal(0.0, 0.006, shape)))
    volume = np.round(np.exp(rng.normal(13.0, 0.8, shape)))
    vwap = (high + low + close) / 3.0
    fields = {"open": opening, "high": high, "low": low, "close": close, "volume": volume, "vwap": vwap}
    return {name: values.astype(np.float32) for name, values in fields.items()}


def _days(sessions: int) -> list[date]:
    return [date(2010, 1, 1) + timedelta(days=k) for k in range(sessions)]


def _name(symbol: int) -> str:
    return f"S{symbol:05d}"


def _compared(arguments: argparse.Namespace) -> list[str]:
    step = max(arguments.symbols // max(arguments.compare, 1), 1)
    return [_name(s) for s in range(0, arguments.symbols, step)][: arguments.compare]


def _frame(panel: dict[str, np.ndarray], first: int):  # type: ignore[no-untyped-def]
    import polars as pl

    symbols, sessions = panel["close"].shape
    columns = {name: values.ravel().astype(np.float64) for name, values in panel.items() if name != "vwap"}
    names = pl.Series("symbol", [_name(first + s) for s in range(symbols)])
    frame = pl.DataFrame({"symbol": names.gather(np.repeat(np.arange(symbols), sessions)), **columns})
    return frame.with_columns(
        session=pl.Series(np.tile(np.array(_days(sessions), dtype="datetime64[D]"), symbols)),
        amount=pl.Series(panel["vwap"].ravel().astype(np.float64)) * pl.col("volume"),
        adj_factor=pl.lit(1.0),
    )


def _bars(arguments: argparse.Namespace) -> Report:
    """Write the same bars as Parquet and as Qlib's binary folder."""
    work = Path(arguments.work)
    panel = _panel(arguments.symbols, arguments.sessions, seed=158)
    _frame(panel, 0).write_parquet(work / "bars.parquet")
    days = [d.isoformat() for d in _days(arguments.sessions)]
    for folder in ("calendars", "instruments", "features"):
        (work / "qlib" / folder).mkdir(parents=True)
    (work / "values").mkdir()
    (work / "qlib" / "calendars" / "day.txt").write_text("\n".join(days) + "\n")
    lines = [f"{_name(s)}\t{days[0]}\t{days[-1]}\n" for s in range(arguments.symbols)]
    (work / "qlib" / "instruments" / "all.txt").write_text("".join(lines))
    for s in range(arguments.symbols):
        folder = work / "qlib" / "features" / _name(s).lower()
        folder.mkdir()
        for name, values in panel.items():
            np.concatenate([[np.float32(0.0)], values[s]]).astype("<f4").tofile(folder / f"{name}.day.bin")
    return {}


def _start(arguments: argparse.Namespace) -> Report:
    """Import, read a little, compute it: what a short-lived process pays."""
    began = time.perf_counter()
    import polars as pl

    from stock_pipeline.core import features

    bars = pl.scan_parquet(Path(arguments.work) / "bars.parquet").head(arguments.sessions).collect(engine="in-memory")
    features.compute(bars, features.feature_set(["alpha158"]))
    return {"seconds": time.perf_counter() - began}


def _ours(arguments: argparse.Namespace) -> Report:
    import polars as pl

    from stock_pipeline.core import features

    work = Path(arguments.work)
    fs = features.feature_set(["alpha158"])
    began = time.perf_counter()
    bars = pl.read_parquet(work / "bars.parquet")
    frame = features.compute(bars, fs, threads=arguments.kernels)
    seconds = time.perf_counter() - began
    rows = frame.height
    if not arguments.skip_qlib:
        for symbol in _compared(arguments):
            values = frame.filter(pl.col("symbol") == symbol).select(fs.names).to_numpy()
            np.savez(work / "values" / f"{symbol}.ours.npz", names=np.array(fs.names), values=values)
    return {"seconds": seconds, "rows": rows}


def _large_bars(arguments: argparse.Namespace) -> Report:
    """Write bars in pieces of 250 symbols, so that making them takes little memory."""
    import pyarrow.parquet as pq

    writer = None
    for first in range(0, arguments.symbols, 250):
        table = _frame(_panel(250, arguments.sessions, seed=first), first).to_arrow()
        writer = writer or pq.ParquetWriter(Path(arguments.work) / "large.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return {}


def _large(arguments: argparse.Namespace) -> Report:
    """Read all bars, compute piece by piece, write each piece as Parquet."""
    import polars as pl

    from stock_pipeline.core import features

    work = Path(arguments.work)
    began = time.perf_counter()
    bars = pl.read_parquet(work / "large.parquet")
    rows = pieces = 0
    for piece in features.compute_batches(bars, features.feature_set(["alpha158"]), threads=arguments.kernels):
        piece.write_parquet(work / "piece.parquet", compression="lz4")
        rows, pieces = rows + piece.height, pieces + 1
        del piece  # or it is held while the next one is computed
    return {"seconds": time.perf_counter() - began, "rows": rows, "pieces": pieces}


WORKERS = {"bars": _bars, "start": _start, "ours": _ours, "large_bars": _large_bars, "large": _large}


# --- measuring and comparing ------------------------------------------------------------------------------------------


def _measure(command: list[str], environment: dict[str, str] | None = None) -> Report:
    """Run a worker; return its JSON line with ``peak_gib`` of it and its children."""
    import resource

    import psutil

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = dict(environment or os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            try:
                root = psutil.Process(process.pid)
                family = [root, *root.children(recursive=True)]
                peak = max(peak, sum(p.memory_info().rss for p in family))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"worker failed with code {process.returncode}: {' '.join(command[:6])} ...")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads(output.strip().splitlines()[-1])
    return {**result, "peak_gib": round(peak / 2**30, 3), "cpu_seconds": round(cpu, 2)}


def _qlib_environment(cache: Path) -> Path:
    """Python of an environment with pyqlib, made when it is not there yet."""
    folder = cache / "pyqlib-0.9.7"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    probe = [str(python), "-c", "import qlib"]
    if python.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return python
    _say(f"making an environment with {QLIB} in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), QLIB, "setuptools"], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", QLIB, "setuptools"], check=True)
    return python


def _compare_values(folder: Path, names: list[str], symbols: list[str]) -> Report:
    """Largest difference of each factor after warm-up, over the standard deviation of Qlib's values."""
    theirs = np.concatenate([np.load(folder / f"{s}.npy")[WARM_UP:] for s in symbols])
    loaded = [np.load(folder / f"{s}.ours.npz") for s in symbols]
    order = [list(loaded[0]["names"]).index(n) for n in names]
    ours = np.concatenate([a["values"][WARM_UP:, order] for a in loaded])
    missing = int((np.isnan(ours) != np.isnan(theirs)).sum())
    differences = np.nanmax(np.abs(ours - theirs), axis=0) / np.nanstd(theirs, axis=0)
    worst = np.argsort(-differences)[:5]
    return {
        "factors": len(names),
        "values": int(ours.size),
        "null_in_one_only": missing,
        "worst": {names[k]: float(differences[k]) for k in worst},
        "median_difference": float(np.median(differences)),
    }


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _print(report: Report) -> None:
    lines = [
        f"Alpha158, {report['symbols']:,} symbols x {report['sessions']:,} sessions = {report['rows']:,} bars",
        f"{report['cores']} cores, load average {report['load_average_before']} before, "
        f"{report['load_average_after']} after",
        "",
        f"{'':24}{'seconds':>10}{'CPU s':>10}{'peak GiB':>10}{'bars/s':>14}",
    ]
    rows = [
        ("stock_pipeline", "ours"),
        (f"Qlib 0.9.7, {report['kernels']} kernels", "qlib"),
        ("5,000 x 2,500", "large"),
    ]
    for label, key in rows:
        entry = report.get(key)
        if isinstance(entry, dict):
            speed = entry["rows"] / entry["seconds"]
            figures = f"{entry['seconds']:>10.2f}{entry['cpu_seconds']:>10.1f}{entry['peak_gib']:>10.2f}{speed:>14,.0f}"
            lines.append(f"{label:24}{figures}")
    lines.append("")
    if "ratio" in report:
        lines.append(f"{report['ratio']:.1f} times as fast as Qlib ({report['cpu_ratio']:.1f} times less CPU)")
    first, later = report["first_start"], report["later_start"]
    lines.append("a process that computes one symbol, imports included:")
    lines.append(f"  first start {first['seconds']:.1f} s (CPU {first['cpu_seconds']:.1f} s), kernels compiled")
    lines.append(f"  later {later['seconds']:.1f} s (CPU {later['cpu_seconds']:.1f} s)")
    values = report.get("values")
    if isinstance(values, dict):
        worst = ", ".join(f"{name} {value:.1e}" for name, value in values["worst"].items())
        lines += [
            f"{values['factors']} factors agree over {values['values']:,} values after {WARM_UP} rows of warm-up;",
            f"largest difference over the factor's standard deviation: {worst};",
            f"median over the factors {values['median_difference']:.1e};",
            f"null in one only: {values['null_in_one_only']}",
        ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
