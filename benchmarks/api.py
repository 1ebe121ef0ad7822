"""Reads of predictions beside an empty route of the same service, in the same minutes on the same machine.

    python benchmarks/api.py [--symbols 5000] [--rounds 5] [--seconds 3] [--connections 16]

The service is the real one, with an account, a log-in and a token: one uvicorn process, every middleware, the same log.
The benchmark adds to it a route ``/empty`` that answers ``{}`` behind the same `require`, as the first of all routes.
The load comes from ``wrk`` (Debian and Ubuntu: ``apt install wrk``; macOS: ``brew install wrk``), which keeps its
connections open and asks for random symbols. Rounds alternate between all kinds of reads, so a busy machine slows all
of them. Printed are medians over the rounds, with the processor time that a request took of the service and of ``wrk``.

What must hold: each kind marked with * reaches 70 % of the requests per second of the empty route, and its 99th
percentile is below three times that route's.

All symbols as rows that are not compressed are 2.6 MB, and copying them through the system takes longer than the empty
route takes for everything. What can be had of such answers at all is shown by ``bare bytes``: as many bytes of nothing,
handed to the server at once, without a log-in, a route, a header or a log line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from stock_pipeline.config.loading import load_settings
from stock_pipeline.storage.lake import Lake
from stock_pipeline.storage.publication import PUBLISHED

SESSION = date(2023, 6, 30)
NAME, PASSWORD = "reader", "three green lanterns over the harbour"
LEAST_SHARE, MOST_LATENCY = 0.7, 3.0
BARE = "/bare"
"""Answers as many bytes as the kind before it."""

CONFIGURATION = """
home: home
market: {name: benchmark, calendar: XNYS}
source: {kind: files, path: prices}
access: {limits: {read: 100000000/second}}
"""

SERVER = """
import sys
from fastapi import Depends
from stock_pipeline.api.app import create_app
from stock_pipeline.api.dependencies import require
from stock_pipeline.api.server import LOOPBACK_NAMES, listen, server_of
from stock_pipeline.api.service import Service
from stock_pipeline.config.loading import load_settings
from stock_pipeline.observability.logging import configure_logging

settings = load_settings(sys.argv[1], environment={})
configure_logging(settings.home, component="api", level="INFO", console=False)
app = create_app(Service(settings), allowed_hosts=LOOPBACK_NAMES)

@app.get("/empty", dependencies=[Depends(require("predictions:read"))])
async def empty():
    return {}

app.router.routes.insert(0, app.router.routes.pop())

class Bare:
    def __init__(self, app):
        self.app, self.state, self.bodies = app, app.state, {}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/bare":
            return await self.app(scope, receive, send)
        size = int(scope["query_string"])
        body = self.bodies.setdefault(size, b"0" * size)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": body})

with listen("127.0.0.1", int(sys.argv[2])) as listening:
    server_of(Bare(app)).run(sockets=[listening])
"""

LUA = """
local paths = {{{paths}}}
math.randomseed(7)
request = function()
  return wrk.format("GET", paths[math.random(#paths)])
end
"""


@dataclass
class Kind:
    """One kind of read, and what was measured of it."""

    name: str
    path: str
    judged: bool = True
    headers: dict[str, str] = field(default_factory=lambda: {"Accept-Encoding": "gzip"})
    rates: list[float] = field(default_factory=list)
    middle: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    """Processor time of the service, microseconds a request."""
    taking: list[float] = field(default_factory=list)
    """The same of the load generator."""
    size: int = 0

    def forget(self) -> None:
        """Begin to measure anew."""
        for measured in (self.rates, self.middle, self.late, self.work, self.taking):
            measured.clear()

    def address(self, number: int = 1) -> str:
        """Its path, of one symbol where it is about one."""
        return self.path.format(symbol=number, id=id_of(number))


KINDS = [
    Kind("empty route", "/empty", judged=False),
    Kind("one symbol", "/api/predictions?symbol=S{symbol}"),
    Kind("one by its id", "/api/predictions/{id}"),
    Kind("page of 100", "/api/predictions"),
    Kind("all, rows", "/api/predictions?limit=10000"),
    Kind("all, columns", "/api/predictions?limit=10000&format=columns"),
    Kind("all, known already", "/api/predictions?limit=10000", judged=False),
    Kind("all, columns, plain", "/api/predictions?limit=10000&format=columns", judged=False, headers={}),
    Kind("bare bytes, as many", BARE, judged=False, headers={}),
    Kind("all, rows, plain", "/api/predictions?limit=10000", judged=False, headers={}),
    Kind("bare bytes, as many", BARE, judged=False, headers={}),
]


def publish(lake: Lake, symbols: int) -> None:
    """Publish drawn predictions of the form of real ones: all digits of the numbers count."""
    draw = np.random.default_rng(1)
    noise = {name: draw.normal(0, 0.03, symbols) for name in ("expected_return", "lower", "upper")}
    spread = {name: draw.uniform(0.01, 0.5, symbols) for name in ("volatility", "var_95", "es_95", "confidence")}
    frame = pl.DataFrame({**noise, **spread, "close": draw.lognormal(4, 1, symbols).round(2)}).with_columns(
        symbol=pl.format("S{}", pl.int_range(symbols)),
        session=pl.lit(SESSION),
        horizon=pl.lit(5),
        coverage_target=pl.lit(0.9),
        interval_level=pl.lit(0.91),
        rank=pl.int_range(1, symbols + 1),
        model_name=pl.lit("market"),
        model_version=pl.lit("12"),
        arm=pl.lit("champion"),
        fallback_level=pl.lit(0),
        currency=pl.lit("USD"),
        published_at=pl.lit(datetime(2023, 7, 1, tzinfo=UTC)),
    )
    ids = pl.Series("prediction_id", [id_of(number) for number in range(symbols)])
    lake.replace(PUBLISHED, frame.with_columns(ids))


def id_of(number: int) -> str:
    """Id of a prediction; as long as real ones, and as little compressible."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def prepare(folder: Path, symbols: int) -> Path:
    """Write a configuration, publish, and make an account; returns the configuration."""
    from stock_pipeline.api.service import Service

    path = folder / "market.yaml"
    path.write_text(CONFIGURATION, encoding="utf-8")
    service = Service(load_settings(path, environment={}))
    publish(service.lake, symbols)
    service.access.accounts.create(NAME, password=PASSWORD, roles=("viewer",), by="system")
    return path


def start(configuration: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the service and wait until it can answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(configuration), str(port)])
    address = f"http://127.0.0.1:{port}"
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"{address}/readyz", timeout=1).close()
            return server, address
        except OSError:
            time.sleep(0.05)
    server.terminate()
    raise RuntimeError("the service did not become ready")


def ask(address: str, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[bytes, str]:
    """Ask once; returns the bytes on the wire and the entity tag."""
    request = urllib.request.Request(address + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read(), answer.headers.get("ETag", "")


def load(
    address: str, server: psutil.Process, kind: Kind, symbols: int, seconds: int, connections: int, scratch: Path
) -> None:
    """Ask for one kind of read as often as the service can, and note how often that is and what it costs."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    for name, value in kind.headers.items():
        command += ["-H", f"{name}: {value}"]
    if "{" in kind.path:
        script = scratch / "random.lua"
        paths = ",".join(f'"{kind.address(number)}"' for number in range(symbols))
        script.write_text(LUA.format(paths=paths), encoding="utf-8")
        command += ["-s", str(script), address]
    else:
        command.append(address + kind.path)
    served, took = server.cpu_times(), psutil.Process().cpu_times()
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    worked, taken = server.cpu_times(), psutil.Process().cpu_times()
    if "Non-2xx" in text and "known" not in kind.name:
        raise RuntimeError(f"{kind.name} was refused:\n{text}")
    kind.rates.append(float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]))  # type: ignore[index]
    kind.middle.append(_milliseconds(re.search(r"50%\s+([\d.]+)(us|ms|s)", text)))
    kind.late.append(_milliseconds(re.search(r"99%\s+([\d.]+)(us|ms|s)", text)))
    requests = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    kind.work.append((worked.user + worked.system - served.user - served.system) / requests * 1e6)
    both = taken.children_user + taken.children_system - took.children_user - took.children_system
    kind.taking.append(both / requests * 1e6)


def _milliseconds(found: re.Match[str] | None) -> float:
    assert found is not None
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def show() -> bool:
    """Print the table; returns whether everything that must hold holds."""
    base = KINDS[0]
    late = statistics.median(base.late)
    print(
        f"{'':22}{'requests/s':>11}{'of empty':>9}{'50 % ms':>9}{'99 % ms':>9}{'of empty':>9}{'bytes':>9}"
        f"{'service us':>11}{'wrk us':>8}"
    )
    good = True
    for kind in KINDS:
        share = statistics.median(ours / its for ours, its in zip(kind.rates, base.rates, strict=True))
        rate, middle, tail, work, taking = map(
            statistics.median, (kind.rates, kind.middle, kind.late, kind.work, kind.taking)
        )
        slow = tail / late
        failed = kind.judged and (share < LEAST_SHARE or slow >= MOST_LATENCY)
        good &= not failed
        print(
            f"{kind.name + (' *' if kind.judged else ''):22}{rate:11.0f}{share:9.2f}{middle:9.2f}{tail:9.2f}{slow:9.2f}"
            f"{kind.size:9d}{work:11.0f}{taking:8.0f}{'   too slow' if failed else ''}"
        )
    print(f"load of the machine: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    return good


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        print("this benchmark needs the load generator wrk: apt install wrk, or brew install wrk", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        print(f"load before: {os.getloadavg()[0]:.1f}; {given.symbols} symbols, {given.connections} connections")
        server, address = start(prepare(scratch, given.symbols))
        try:
            login = json.dumps({"name": NAME, "password": PASSWORD}).encode()
            answer, _ = ask(address, "/api/auth/login", {"Content-Type": "application/json"}, login)
            process = psutil.Process(server.pid)
            for before, kind in zip([KINDS[0], *KINDS], KINDS, strict=False):
                if kind.path == BARE:
                    kind.path = f"{BARE}?{before.size}"
                kind.headers["Authorization"] = f"Bearer {json.loads(answer)['access_token']}"
                body, tag = ask(address, kind.address(), kind.headers)
                kind.size = len(body)
                if "known" in kind.name:
                    kind.headers["If-None-Match"], kind.size = tag, 0
                load(address, process, kind, given.symbols, 1, given.connections, scratch)
                kind.forget()
            for _ in range(given.rounds):
                for kind in KINDS:
                    load(address, process, kind, given.symbols, given.seconds, given.connections, scratch)
        finally:
            server.terminate()
            server.wait()
    return 0 if show() else 1


if __name__ == "__main__":
    sys.exit(main())
