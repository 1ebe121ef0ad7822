"""Take the pictures of ``docs/images`` from a finished home: start the services, open their pages, save small PNGs.

    make demo
    .venv/bin/python docs/make_screenshots.py [--home data/home] [--config FILE] [--chromium /usr/bin/chromium]
        [--only console,api]

The services are started on free ports of the loopback address by `stock-pipeline dev` and stopped at the end. Nothing
is computed and nothing in the home is changed but logs, the audit trail, and an account that is deleted afterwards.
Needs playwright (`make test` installs it), a Chromium, and Pillow (comes with matplotlib).
"""

from __future__ import annotations

import argparse
import io
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
COLOURS = 200
GROUPS = ("backtests", "features", "market", "models", "predictions", "risk")
START_SECONDS = 660
WAIT_MS = 120_000
VISITOR = "ada"


@dataclass(frozen=True)
class Picture:
    """One page, what has to be seen on it before it is photographed, who looks, and the part that is kept."""

    name: str
    url: str
    wait_for: str
    width: int = 1440
    height: int = 900
    keep: tuple[int, int] | None = None
    settle: float = 3.0
    who: str | None = None
    dark: bool = False


def main() -> int:
    """Take every picture; the exit code is 1 when one of them failed."""
    arguments = _arguments()
    home = arguments.home.resolve()
    if not (home / "reports" / "quality.html").exists():
        sys.stderr.write(f"{home} is not a finished home: run `make demo` first, or give --home\n")
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    failed = []
    wanted = [name for name in arguments.only.split(",") if name]
    with _services(home, arguments.config) as ports, _visitor(home, arguments.config) as cookie:
        chosen = [one for one in pictures(home, ports) if not wanted or one.name.startswith(tuple(wanted))]
        for name, image in _photograph(chosen, arguments.chromium, cookie):
            if image is None:
                failed.append(name)
                continue
            path = IMAGES / f"{name}.png"
            path.write_bytes(_small(image))
            sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB\n")
    return 1 if failed else 0


def pictures(home: Path, ports: dict[str, int]) -> list[Picture]:
    """What is photographed."""
    base = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    reports = (home / "reports").as_uri()
    groups = "%2C".join(f"global%40global%3A{group}" for group in GROUPS)
    graph = f"{base['dagster']}/asset-groups?expanded={groups}"
    checks = f"{base['dagster']}/assets/predictions/published?view=checks"
    return [
        Picture("asset-graph", graph, "text=validated_bars", 1700, 1900, keep=(1700, 1700)),
        Picture("asset-checks", checks, "text=ids_are_unique"),
        Picture("asset-page", f"{base['dagster']}/assets/predictions/outcomes", "text=Definition", 1440, 1200),
        Picture("mlflow", f"{base['mlflow']}/#/models/us_tech/versions/1", "text=checksum", keep=(1070, 860)),
        *console(base["api"]),
        Picture("api-reference", f"{base['api']}/docs", ".opblock", 1200, 900),
        Picture("backtest-report", f"{reports}/backtests/model_rank.html", "text=Monthly returns", 1200, 1500),
        Picture("quality-report", f"{reports}/quality.html", "text=Score over time", 1200, 1150),
    ]


def console(api: str) -> list[Picture]:
    """Pages of the console; the account that looks at them is made for that and deleted afterwards."""
    charts = "[data-drawn]"
    return [
        Picture("console-predictions", f"{api}/", "text=Symbols predicted", 1360, 800, who=VISITOR),
        Picture("console-symbol", f"{api}/symbols/NVDA", charts, 1360, 1200, who=VISITOR),
        Picture("console-symbol-dark", f"{api}/symbols/NVDA", charts, 1360, 1200, who=VISITOR, dark=True),
        Picture("console-backtest", f"{api}/backtests/sma_cross", charts, 1360, 1200, who=VISITOR),
        Picture("console-backtest-form", f"{api}/backtests/new?strategy=sma_cross", "legend", 1360, 720, who=VISITOR),
        Picture("console-model", f"{api}/models/champion", charts, 1360, 1000, who=VISITOR),
        Picture("console-tasks", f"{api}/tasks", ".live.on", 1360, 900, who=VISITOR),
        Picture("console-roles", f"{api}/roles", "text=predictions:read", 1360, 1000, who=VISITOR),
        Picture("console-phone", f"{api}/", "text=Symbols predicted", 390, 844, who=VISITOR),
    ]


@contextmanager
def _visitor(home: Path, config: Path) -> Iterator[dict[str, str]]:
    """The cookie of an administrator that exists as long as the pictures are taken."""
    from stock_pipeline.access.principal import Origin
    from stock_pipeline.api import cookies
    from stock_pipeline.api.service import Service
    from stock_pipeline.config import load_settings

    service = Service(load_settings(config, environment={"STOCK_PIPELINE_HOME": str(home)}))
    access, password = service.access, secrets.token_urlsafe(24)
    access.accounts.create(VISITOR, password=password, roles=("administrator",), by="system")
    try:
        opened = access.logins.log_in(VISITOR, password, kind="console", origin=Origin("127.0.0.1", "screenshots"))
        yield {"name": cookies.name(service.settings), "value": opened.cookie or ""}
    finally:
        service.database.dispose()
        _forget(service)


def _forget(service: Any) -> None:
    """Delete the account, also where it is the only administrator."""
    from sqlalchemy import delete, select
    from sqlalchemy.orm import Session

    from stock_pipeline.access import versions
    from stock_pipeline.storage.database.tables.accounts import AccountRow, PolicyRow

    with Session(service.database) as session, session.begin():
        row = session.scalars(select(AccountRow).where(AccountRow.name == VISITOR)).one()
        # the number of a deleted account may be given again, and must bring no roles with it
        session.execute(delete(PolicyRow).where(PolicyRow.ptype == "g", PolicyRow.v0 == f"account:{row.id}"))
        session.delete(row)
        versions.bump(session)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=ROOT / "data" / "home")
    parser.add_argument("--config", type=Path, default=ROOT / "data" / "sample" / "market.yaml")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--only", default="", help="beginnings of the names of pictures, separated by commas")
    return parser.parse_args()


@contextmanager
def _services(home: Path, config: Path) -> Iterator[dict[str, int]]:
    ports = {name: _free_port() for name in ("dagster", "mlflow", "api")}
    environment = os.environ | {"STOCK_PIPELINE_HOME": str(home), "STOCK_PIPELINE_CONFIG": str(config.resolve())}
    environment |= {f"STOCK_PIPELINE__SERVICES__{name.upper()}_PORT": str(port) for name, port in ports.items()}
    command = [sys.executable, "-m", "stock_pipeline", "dev"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        for name, port in ports.items():
            while not _answers(f"http://127.0.0.1:{port}/"):
                if process.poll() is not None:
                    raise SystemExit("the services ended by themselves")
                if time.monotonic() > deadline:
                    raise SystemExit(f"{name} does not answer")
                time.sleep(1)
        yield ports
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except HTTPError:
        return True  # it answers, if only that one has to log in
    except (URLError, OSError):
        return False


def _photograph(wanted: Sequence[Picture], chromium: str, cookie: dict[str, str]) -> Iterator[tuple[str, bytes | None]]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for picture in wanted:
            context = browser.new_context(color_scheme="dark" if picture.dark else "light")
            if picture.who:
                context.add_cookies([{**cookie, "url": picture.url}])
            page = context.new_page()
            try:
                yield picture.name, _take(page, picture)
            except Error as error:
                sys.stderr.write(f"{picture.name}: {error}\n")
                yield picture.name, None
            finally:
                context.close()
        browser.close()


def _take(page: Any, picture: Picture) -> bytes:
    page.set_viewport_size({"width": picture.width, "height": picture.height})
    page.goto(picture.url, timeout=WAIT_MS)
    page.wait_for_selector(picture.wait_for, timeout=WAIT_MS)
    time.sleep(picture.settle)
    greeting = page.locator("button:has-text('Skip')")
    if greeting.count():  # Dagster asks every new browser to join its community
        greeting.first.click()
        time.sleep(1)
    width, height = picture.keep or (picture.width, picture.height)
    image: bytes = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
    return image


def _small(image: bytes) -> bytes:
    """The same picture with few colours: a fifth of the size, and no difference that matters."""
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
