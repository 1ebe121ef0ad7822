"""Findings of abuse as alerts: what they say, and when they end by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta

from stock_pipeline.access.abuse_rules import Finding
from stock_pipeline.observability.alerts import Alert
from stock_pipeline.storage.outbox import AlertOutbox

_KIND = "abuse"

_REMEDIES = {
    "brute_force": "If the owner did not do this, nothing is lost; a good password and a second factor keep it so.",
    "address_failures": "The address is blocked for a while. Block it at the firewall where it goes on.",
    "credential_stuffing": "The address is blocked for a while. Look at log-ins that succeeded from it, and have those "
    "passwords changed.",
    "distributed_stuffing": "Ask for second factors, look at log-ins from new places, and limit log-ins at the proxy.",
    "new_device": "If the owner did not do this: revoke the session and set a new password.",
    "impossible_travel": "If the owner did not do this: revoke all sessions and set a new password.",
    "bulk_reads": "Ask the owner whether this was wanted; revoke the session or key if not.",
    "probing": "Ask the owner what was tried; revoke the session or key if it was not the owner.",
    "token_reuse": "A refresh token was in two hands: have the password changed and look where the session came from.",
}

_QUIET = timedelta(hours=3)
"""After which what goes on and on is over: while it does, it is found anew at least every three hours (the two that are
looked back at, and the hour that is in the key of a finding)."""

_ONCE = timedelta(days=1)
"""After which what happens once is not news any more."""

_HAPPENS_ONCE = ("new_device", "impossible_travel", "token_reuse")


def alert_of(finding: Finding) -> Alert:
    """What people are told."""
    return Alert(
        kind=_KIND,
        severity=finding.severity,
        title=f"{finding.rule.replace('_', ' ').capitalize()}: {finding.subject}",
        body=f"{finding.what}.",
        fingerprint=f"abuse:{finding.rule}:{finding.subject}",
        source_key=finding.key,
        created_at=finding.at,
        labels={"rule": finding.rule, **finding.labels},
        remedy=_REMEDIES[finding.rule],
    )


def end_alerts(outbox: AlertOutbox, now: datetime) -> list[str]:
    """Resolve alerts of which nothing more was seen for as long as their rule looks; returns their fingerprints."""
    ended = []
    for fingerprint, last in outbox.newest_open(_KIND).items():
        rule = fingerprint.split(":")[1]
        quiet = _ONCE if rule in _HAPPENS_ONCE else _QUIET
        if last > now - quiet:
            continue
        body = (
            f"Nothing more of the kind was seen for {quiet // timedelta(hours=1)} hours, since {last:%Y-%m-%d %H:%M} "
            "UTC; the alert ended by itself, nobody has looked into it."
        )
        if outbox.resolve(fingerprint, now, body=body):
            ended.append(fingerprint)
    return ended
