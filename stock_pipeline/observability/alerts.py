"""What an alert is, and the sinks that carry it to people.

When alerts are sent, grouped, held back and tried again is decided in ``storage.outbox``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from stock_pipeline.core.errors import ConfigurationError, PipelineError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.observability.redaction import redact_text

Severity = Literal["info", "warning", "error", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error", "critical")


@dataclass(frozen=True)
class Alert:
    """Something a person should know.

    Attributes
    ----------
    kind
        What sort of event: ``run_failure``, ``check_failure``, ``stale_data``, ...
    severity
        One of `SEVERITIES`.
    title, body
        One line, and the details.
    fingerprint
        Same value = same problem: such alerts are grouped, held back and resolved together.
    source_key
        Unique per event (run id, check evaluation id): a second alert with the same key is ignored.
    created_at
        Instant with time zone.
    labels
        Short facts (asset, symbol, run id).
    remedy
        What to do about it.
    """

    kind: str
    severity: Severity
    title: str
    body: str
    fingerprint: str
    source_key: str
    created_at: datetime
    labels: dict[str, str] = field(default_factory=dict)
    remedy: str | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ConfigurationError("not a severity", value=self.severity, allowed=", ".join(SEVERITIES))
        if self.created_at.tzinfo is None:
            raise ConfigurationError("created_at has no time zone", value=self.created_at)
        if not self.fingerprint or not self.source_key:
            raise ConfigurationError("an alert needs a fingerprint and a source key", value=self.title)


@dataclass(frozen=True)
class Notice:
    """What is sent: one or more alerts of one fingerprint.

    Attributes
    ----------
    severity
        The worst of the alerts.
    title, body
        Ready to read.
    fingerprint
        Of the alerts.
    count
        How many alerts it stands for.
    recovery
        Whether the problem is over.
    """

    severity: Severity
    title: str
    body: str
    fingerprint: str
    count: int
    recovery: bool


class DeliveryError(PipelineError):
    """A sink did not take a notice; it will be tried again."""


class Sink(Protocol):
    """A way to people.

    ``name`` identifies the sink in the outbox, so it must not change between runs; `send` raises when it fails.
    """

    name: str

    def send(self, notice: Notice) -> None:
        """Send one notice or raise."""


class LogSink:
    """Writes notices to the structured log."""

    name = "log"

    def __init__(self) -> None:
        self._log = get_logger("alerts")

    def send(self, notice: Notice) -> None:
        """Log at the level of the severity."""
        level = {"info": "info", "warning": "warning", "error": "error", "critical": "critical"}[notice.severity]
        getattr(self._log, level)(
            notice.title,
            body=notice.body,
            fingerprint=notice.fingerprint,
            count=notice.count,
            recovery=notice.recovery,
        )


class AppriseSink:
    """Mail, Slack, DingTalk, webhooks and a hundred more, by an Apprise address.

    Parameters
    ----------
    url
        Apprise address (``mailtos://``, ``slack://``, ``dingtalk://``, ``json://`` ...). It holds secrets: nothing of
        it but the scheme is logged, stored or shown.
    name
        Stable name; made of the scheme and a digest of the address where ``None``.
    timeout
        Seconds for one attempt. A service that took a notice and says so too late gets it again.
    """

    def __init__(self, url: str, name: str | None = None, *, timeout: float = 15.0) -> None:
        import apprise

        scheme = url.split("://", 1)[0].lower() if "://" in url else ""
        self._apprise = apprise.Apprise()
        if not scheme.isalnum() or not self._apprise.add(url):
            raise ConfigurationError(
                f"not an Apprise address (scheme {scheme or 'missing'!r}; the rest is not shown)",
                fix="see https://github.com/caronc/apprise/wiki for the form of each service",
            )
        for service in self._apprise:
            for waiting in ("socket_connect_timeout", "socket_read_timeout"):
                if waiting not in vars(service):  # the address may say so itself; by default four seconds
                    setattr(service, waiting, timeout)
        self.name = name or f"{scheme}-{hashlib.sha256(url.encode()).hexdigest()[:10]}"
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"AppriseSink({self.name!r})"

    def send(self, notice: Notice) -> None:
        """Post one notice; raises `DeliveryError` where the service did not take it."""
        kinds = {"info": "info", "warning": "warning", "error": "failure", "critical": "failure"}
        kind: Any = "success" if notice.recovery else kinds[notice.severity]
        try:
            taken = self._apprise.notify(
                body=notice.body, title=notice.title, notify_type=kind, body_format="text", timeout=self._timeout
            )
        except Exception as error:
            raise DeliveryError(f"{self.name} failed: {type(error).__name__}") from None
        if not taken:
            raise DeliveryError(f"{self.name} did not take the notice", fix="check the address and the service")


def build_sinks(targets: Sequence[str], *, timeout: float = 15.0) -> list[Sink]:
    """Make the sinks of a configuration; the log is always the first.

    Parameters
    ----------
    targets
        Apprise addresses; ``env:NAME`` reads the address from an environment variable.
    timeout
        Seconds for one attempt.
    """
    sinks: list[Sink] = [LogSink()]
    for target in targets:
        if target.startswith("env:"):
            variable = target.removeprefix("env:")
            address = os.environ.get(variable, "")
            if not address:
                raise ConfigurationError(
                    f"the environment variable {variable} of an alert target is not set",
                    fix=f"set {variable} to an Apprise address, or remove the target",
                )
            sinks.append(AppriseSink(address, timeout=timeout))
        else:
            sinks.append(AppriseSink(target, timeout=timeout))
    return sinks


def compose(alerts: Sequence[Alert], *, recovered: bool) -> Notice:
    """Join alerts of one fingerprint, oldest first, into one notice.

    Parameters
    ----------
    alerts
        At least one; those that say that the problem is over have the kind ``recovery``.
    recovered
        Whether the newest of them is a recovery.
    """
    problems = [alert for alert in alerts if alert.kind != "recovery"]
    worst: Severity = max((alert.severity for alert in problems), key=SEVERITIES.index, default="info")
    newest = alerts[-1]
    shown = problems[-5:] if problems else [newest]
    title = newest.title if not problems or not recovered else f"{problems[-1].title} (over again)"
    if len(problems) > 1:
        title = f"{title} ({len(problems)} times)"
    lines = []
    if len(problems) > len(shown):
        lines.append(
            f"{len(problems)} alerts since {alerts[0].created_at:%Y-%m-%d %H:%M:%S %Z}; the last {len(shown)}:"
        )
    for alert in shown:
        stamp = f"[{alert.created_at:%Y-%m-%d %H:%M:%S %Z}] " if len(shown) > 1 else ""
        lines.append(f"{stamp}{alert.body}")
    for label, value in newest.labels.items():
        lines.append(f"{label}: {value}")
    remedies = [alert.remedy for alert in shown if alert.remedy]
    if remedies:
        lines.append(f"What to do: {remedies[-1]}")
    if recovered and problems:
        lines.append(f"It is over since {newest.created_at:%Y-%m-%d %H:%M:%S %Z}.")
    return Notice(
        severity="info" if recovered and not problems else worst,
        title=redact_text(title),
        body=redact_text("\n".join(lines)),
        fingerprint=newest.fingerprint,
        count=len(alerts),
        recovery=recovered,
    )
