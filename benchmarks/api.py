"""The API's answers beside an empty FastAPI route, in the same minutes on the same machine.

    python benchmarks/api.py [--symbols 1000] [--requests 2000] [--clients 8]

Both services run under uvicorn with one process and no access log; rounds alternate between them, so a busy machine
slows both. The client speaks plain HTTP/1.1 over kept connections from this process, and so takes a share of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PUBLISHED

SESSION = date(2023, 6, 30)
ROUNDS = 5
EMPTY = """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/empty")
async def empty():
    return {}
uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False)
"""
OURS = """
import sys
from stock_pipeline.api.server import serve
from stock_pipeline.storage.lake import Lake
serve(Lake(sys.argv[2]), port=int(sys.argv[1]), log_level="WARNING", console=False)
"""


def publish(lake: Lake, symbols: int) -> None:
    """Publish drawn predictions; their values do not matter here, their number does."""
    draw = np.random.default_rng(1).standard_normal((symbols, 6))
    columns = ("expected_return", "lower", "upper", "volatility", "var_95", "es_95")
    frame = pl.DataFrame({name: draw[:, column] for column, name in enumerate(columns)}).with_columns(
        prediction_id=pl.format("id-{}", pl.int_range(symbols)),
        symbol=pl.format("S{}", pl.int_range(symbols)),
        session=pl.lit(SESSION),
        horizon=pl.lit(5),
        confidence=pl.lit(0.5),
        rank=pl.int_range(1, symbols + 1),
        model_name=pl.lit("model"),
        model_version=pl.lit("1"),
        published_at=pl.lit(datetime(2023, 7, 1, tzinfo=UTC)),
    )
    lake.replace(PUBLISHED, frame)


def start(code: str, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a service and wait until it takes connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", code, str(port), *arguments], stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server, port
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("a service did not start")


async def ask(port: int, path: str, count: int, seconds: list[float]) -> int:
    """Ask ``count`` times over one connection; returns the length of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode()
    length = 0
    for _ in range(count):
        begun = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - begun)
    writer.close()
    return length


def measure(port: int, path: str, requests: int, clients: int) -> tuple[float, list[float], int]:
    """Requests a second, seconds of each, and bytes of an answer."""

    async def run() -> tuple[float, list[float], int]:
        seconds: list[float] = []
        begun = time.perf_counter()
        lengths = await asyncio.gather(*(ask(port, path, requests // clients, seconds) for _ in range(clients)))
        return len(seconds) / (time.perf_counter() - begun), seconds, lengths[0]

    return asyncio.run(run())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--symbols", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        publish(Lake(folder), given.symbols)
        servers = [start(EMPTY), start(OURS, folder)]
        try:
            (_, empty), (_, ours) = servers
            paths = {
                "empty FastAPI route": (empty, "/empty"),
                "newest 100 predictions": (ours, "/api/predictions"),
                "newest 1000 predictions": (ours, "/api/predictions?limit=1000"),
                "two symbols": (ours, "/api/predictions?symbol=S5&symbol=S7"),
                "one prediction": (ours, "/api/predictions/id-5"),
            }
            for port, path in paths.values():
                measure(port, path, 80, given.clients)
            rates: dict[str, list[float]] = {name: [] for name in paths}
            times: dict[str, list[float]] = {name: [] for name in paths}
            sizes = {}
            for _ in range(ROUNDS):
                for name, (port, path) in paths.items():
                    rate, seconds, sizes[name] = measure(port, path, given.requests // ROUNDS, given.clients)
                    rates[name].append(rate)
                    times[name] += seconds
        finally:
            for server, _ in servers:
                server.terminate()
                server.wait()
    base = statistics.median(rates["empty FastAPI route"])
    print(f"{'':26}{'requests/s':>12}{'median ms':>12}{'99 % ms':>10}{'bytes':>10}{'of empty':>10}")
    for name in paths:
        rate, ordered = statistics.median(rates[name]), sorted(times[name])
        middle, late = ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000
        print(f"{name:26}{rate:12.0f}{middle:12.2f}{late:10.2f}{sizes[name]:10d}{rate / base:10.2f}")


if __name__ == "__main__":
    main()
