"""From Dagster's event to the client: how long it takes, and whether anything is lost, while tasks really run.

    python benchmarks/events.py [--clients 200] [--backtests 3] [--items 600]

Starts everything that ``stock-pipeline dev`` starts on a market of four real stocks in a folder of its own, and, in
another process, clients that follow the stream over the WebSocket. Then tasks are asked for over HTTP: the history is
loaded (a backfill), and strategies are back-tested. Beside them, a third process executes a talkative Dagster job,
which says ten times a second how far its step is. Each client notes when it received each event; the time of an event
is the one that Dagster gave it, so the delay holds Dagster's storage, the relay, the log of events, the service's
reader and the network. How much of it was over when the event stood in the log is shown as well.

What must hold: no event is lost, repeated or out of order at any client, and the 95th percentile is below two seconds.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from websockets.asyncio.client import connect

from stock_pipeline.api.service import Service
from stock_pipeline.config.loading import load_settings

ROOT = Path(__file__).resolve().parent.parent
NAME, PASSWORD = "watcher", "three green lanterns over the harbour"
SYMBOLS = ("AAPL", "AMZN", "GOOG", "NFLX")
START_SECONDS, TASK_SECONDS, MOST_P95 = 600, 1800, 2.0
STEPS, PAUSE_SECONDS = 4, 0.1
AT_ONCE = 20
"""Clients that log in at the same time: the service takes 50 connections of an address that have not yet."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--backtests", type=int, default=3)
    parser.add_argument("--items", type=int, default=600, help="progress events of the talkative job")
    parser.add_argument("--talk", metavar="CONFIGURATION", help=argparse.SUPPRESS)
    parser.add_argument("--follow", nargs=3, metavar=("ADDRESS", "TOKEN_FILE", "REPORT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.follow:
        asyncio.run(follow(chosen.clients, *chosen.follow))
        return 0
    if chosen.talk:
        return talk(chosen.talk, chosen.items)
    with tempfile.TemporaryDirectory(prefix="events-") as name:
        return measure(Path(name), chosen.clients, chosen.backtests, chosen.items)


# ------------------------------------------------------------------ the talkative job, in a process of its own
def talk(config: str, items: int) -> int:
    """Execute a job whose steps say how far they are, in the Dagster instance of the platform."""
    import dagster as dg

    from stock_pipeline.orchestration.bootstrap import open_instance
    from stock_pipeline.orchestration.progress import Part, write

    def step(number: int) -> dg.OpDefinition:
        @dg.op(name=f"part_{number}", ins={"before": dg.In(dg.Nothing)})
        def count(context: dg.OpExecutionContext) -> None:
            for done in range(1, items // STEPS + 1):
                context.log.info(write(Part("item", done, items // STEPS)))
                time.sleep(PAUSE_SECONDS)

        return count

    @dg.job
    def talkative() -> None:
        before = None
        for number in range(STEPS):
            before = step(number)(**({} if before is None else {"before": before}))

    instance = open_instance(load_settings(config, environment={}))
    return 0 if talkative.execute_in_process(instance=instance).success else 1


# ------------------------------------------------------------------ the clients, in a process of their own
async def follow(clients: int, address: str, token_file: str, report: str) -> None:
    """Follow the stream with many clients until the file of the report is asked for, then write it."""
    token = Path(token_file).read_text()
    received: list[list[tuple[int, float]]] = [[] for _ in range(clients)]
    delays: list[tuple[float, float]] = []
    ready, coming = asyncio.Barrier(clients + 1), asyncio.Semaphore(AT_ONCE)

    async def client(number: int) -> None:
        async with contextlib.AsyncExitStack() as open_ones:
            async with coming:
                stream = await open_ones.enter_async_context(
                    connect(f"{address.replace('http', 'ws', 1)}/ws/events", compression=None, open_timeout=120)
                )
                await stream.send(json.dumps({"type": "authenticate", "token": token}))
                await stream.recv()
            await stream.send(json.dumps({"type": "subscribe"}))
            await stream.recv()
            await ready.wait()
            async for text in stream:
                now = time.time()
                message = json.loads(text)
                if message["type"] == "event":
                    received[number].append((message["sequence"], now))
                    at = datetime.fromisoformat(message["at"]).timestamp()
                    delays.append((now - at, message["recorded_at"] - at))

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    await ready.wait()
    Path(f"{report}.ready").touch()
    while not Path(f"{report}.stop").exists():
        await asyncio.sleep(0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    numbers = [[sequence for sequence, _ in events] for events in received]
    Path(report).write_text(json.dumps({"numbers": numbers, "delays": delays}))


# ------------------------------------------------------------------ the services and the tasks
def measure(folder: Path, clients: int, backtests: int, items: int) -> int:
    ports = {name: free_port() for name in ("api", "dagster", "mlflow")}
    config = market(folder, ports, clients)
    Service(load_settings(config, environment={})).access.accounts.create(
        NAME, password=PASSWORD, roles=("operator",), by="system"
    )
    address, report = f"http://127.0.0.1:{ports['api']}", folder / "report.json"
    with (folder / "dev.log").open("wb") as log:
        services = subprocess.Popen(
            [sys.executable, "-m", "stock_pipeline", "-c", str(config), "dev"], cwd=ROOT, stdout=log, stderr=log
        )
    followers = talking = None
    load = os.getloadavg()[0]
    try:
        wait_for(lambda: "Ctrl-C stops them all" in (folder / "dev.log").read_text(), START_SECONDS, services)
        with httpx.Client(base_url=address, timeout=60) as client:
            token = client.post("/api/auth/login", json={"name": NAME, "password": PASSWORD}).json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            (folder / "token").write_text(token)
            command = [sys.executable, __file__, "--clients", str(clients), "--follow", address]
            followers = subprocess.Popen([*command, str(folder / "token"), str(report)], cwd=ROOT)
            wait_for(Path(f"{report}.ready").exists, START_SECONDS, followers)
            start = newest(client)
            seconds = time.monotonic()
            talking = subprocess.Popen(
                [sys.executable, __file__, "--items", str(items), "--talk", str(config)],
                cwd=ROOT, stdout=subprocess.DEVNULL, stderr=(folder / "talk.log").open("wb"),
            )  # fmt: skip
            finish(client, [{"kind": "backfill"}])
            windows = [{"fast": 5, "slow": 20 + 10 * number} for number in range(backtests)]
            strategies = [{"strategy": "sma_cross", "parameters": window} for window in windows]
            finish(client, [{"kind": "backtest", "parameters": strategy} for strategy in strategies])
            if talking.wait(TASK_SECONDS):
                raise SystemExit(f"the talkative job failed: {(folder / 'talk.log').read_text()[-2000:]}")
            seconds = time.monotonic() - seconds
            time.sleep(3)  # what was on its way arrives
            end = newest(client)
        Path(f"{report}.stop").touch()
        followers.wait(120)
    finally:
        for process in (talking, followers, services):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(120)
    print(f"load of the machine before {load:.1f}, after {os.getloadavg()[0]:.1f}, of {os.cpu_count()} cores")
    return tell(json.loads(report.read_text()), start, end, seconds)


def tell(report: dict[str, Any], start: int, end: int, seconds: float) -> int:
    expected = list(range(start + 1, end + 1))
    lost = sum(len(set(expected) - set(numbers)) for numbers in report["numbers"])
    repeated = sum(len(numbers) - len(set(numbers)) for numbers in report["numbers"])
    disordered = sum(numbers != sorted(numbers) for numbers in report["numbers"])
    print(
        f"{len(report['numbers'])} clients, {len(expected)} events in {seconds:.0f} s, {len(report['delays'])} messages"
    )
    whole, logged = (sorted(part) for part in zip(*report["delays"], strict=True))
    for name, delays in (("to the client", whole), ("to the log of events", logged)):
        p50, p95, p99 = (delays[int(len(delays) * share)] for share in (0.5, 0.95, 0.99))
        figures = ", ".join(f"{mark} {value:.2f} s" for mark, value in (("p50", p50), ("p95", p95), ("p99", p99)))
        print(f"from Dagster's event {name}: {figures}, longest {delays[-1]:.2f} s")
    p95 = whole[int(len(whole) * 0.95)]
    print(f"lost {lost}, repeated {repeated}, clients with events out of order {disordered}")
    return 0 if lost == repeated == disordered == 0 and p95 < MOST_P95 else 1


def finish(client: httpx.Client, wanted: list[dict[str, Any]]) -> None:
    """Ask for tasks, and wait until they have ended."""
    made = [client.post("/api/tasks", json=body).raise_for_status().json()["id"] for body in wanted]
    deadline = time.monotonic() + TASK_SECONDS
    while made:
        states = {task: client.get(f"/api/tasks/{task}").json() for task in made}
        failed = [task["error"] for task in states.values() if task["state"] in ("failed", "canceled")]
        if failed or time.monotonic() > deadline:
            raise SystemExit(f"a task did not succeed: {failed or states}")
        made = [task for task, found in states.items() if found["state"] != "succeeded"]
        time.sleep(1)


def newest(client: httpx.Client) -> int:
    return int(client.get("/api/events", params={"limit": 1}).json()["newest"])


def market(folder: Path, ports: dict[str, int], clients: int) -> Path:
    """Four real stocks of the tracked sample, and a configuration."""
    prices = folder / "prices"
    prices.mkdir()
    for symbol in SYMBOLS:
        (prices / f"{symbol}.csv").write_bytes((ROOT / "data" / "sample" / "bars" / f"{symbol}.csv").read_bytes())
    config = folder / "market.yaml"
    content = {
        "home": "home",
        "market": {"name": "benchmark", "calendar": "XNYS", "history": {"first": 2016, "last": 2021}},
        "source": {"kind": "files", "path": "prices", "prices": "raw_with_adj_close"},
        "universe": {"min_history": 100},
        "features": {"sets": ["technical"], "exclude": []},
        "risk": {"quantile_window": 250, "quantile_minimum": 150},
        "services": {f"{name}_port": port for name, port in ports.items()},
        "access": {"limits": {"streams": clients + 10}},
    }
    config.write_text(yaml.safe_dump(content))
    return config


def wait_for(condition: Any, seconds: float, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("a process did not start; see its output")
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main())
