"""A real nginx with the site of ``deploy/nginx`` and a certificate of its own, before services that run."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.services import free_port

NAME = "stocks.example"
"""Name of the site as it stands; clients of the tests find it on this machine."""

SITE = REPOSITORY / "deploy" / "nginx" / "stock_pipeline.conf"

MAIN = """daemon off; pid nginx.pid; error_log error.log;
events {{}}
http {{
  access_log access.log;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  include {site};
}}
"""


@dataclass(frozen=True)
class Proxy:
    """Where it answers, and what proves that it is itself."""

    port: int
    plain_port: int
    certificate: Path

    @property
    def address(self) -> str:
        """Address of the site."""
        return f"https://{NAME}:{self.port}"

    def trust(self) -> ssl.SSLContext:
        """What a client must trust."""
        return ssl.create_default_context(cafile=str(self.certificate))


def prepare_proxy(folder: Path) -> Proxy:
    """Choose ports, and make the certificate: the public address has to be in the configuration of the services."""
    folder.mkdir(parents=True, exist_ok=True)
    _certificate(folder)
    return Proxy(free_port(), free_port(), folder / "site.pem")


@contextmanager
def nginx(proxy: Proxy, folder: Path, ports: dict[str, int]) -> Iterator[None]:
    """Run nginx for the length of a ``with`` block; skipped where it is not installed.

    Parameters
    ----------
    proxy
        From `prepare_proxy` with the same folder.
    folder
        Of everything that it writes.
    ports
        Of the services ``api``, ``dagster`` and ``mlflow``.
    """
    text = SITE.read_text()
    for present, wanted in (
        (":8000", f":{ports['api']}"),
        (":3000", f":{ports['dagster']}"),
        (":5000", f":{ports['mlflow']}"),
        ("listen 80;", f"listen 127.0.0.1:{proxy.plain_port};"),
        ("listen 443 ", f"listen 127.0.0.1:{proxy.port} "),
        ("/etc/ssl/certs/stocks.example.pem", str(proxy.certificate)),
        ("/etc/ssl/private/stocks.example.key", str(folder / "site.key")),
    ):
        assert present in text, f"{present!r} is not in {SITE}"
        text = text.replace(present, wanted)
    (folder / "site.conf").write_text(text)
    # what it puts aside for slow clients lies in a folder of the test, which nobody else may enter
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(user + MAIN.format(site=folder / "site.conf"))
    command = [program(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    server = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 120
        while not _listens(proxy.port):
            assert server.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(120)


class OnThisMachine(httpx.HTTPTransport):
    """Finds the site on this machine, as a name server would."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to this machine under the name that it was made for."""
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def program() -> str:
    """Path of nginx; the test is skipped where there is none."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if found is None:
        pytest.skip("nginx is not installed; to run this test: sudo apt-get install nginx-light")
    return found


def _certificate(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "site.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "site.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
