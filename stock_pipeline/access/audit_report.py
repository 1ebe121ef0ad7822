"""The compliance report of a period: what was done by whom, what was refused, and whether the trail can be believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stock_pipeline.access.audit_entry import AuditEntry
from stock_pipeline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from stock_pipeline.access.audit import Audit

LONGEST_LIST = 200
"""Entries that a list of the report names; the counts are of all."""

_PERMISSION_CHANGES = ("role.", "account.create", "account.delete", "account.disable", "account.enable", "key.")
_ADMINISTRATION = ("role.", "account.", "audit.", "link.", "key.", "model.promote", "model.rollback", "settings.")
_OWN = ("account.change_password",)
_LOG_IN, _ODD = "session.log_in", "abuse."


@dataclass(frozen=True, slots=True)
class ComplianceReport:
    """A period of the audit trail.

    Attributes
    ----------
    since, until
        The period: from, and before.
    entries
        Entries in it.
    by_action, by_result, by_actor
        How many.
    permission_changes, refused, administration, new_places, detected
        Entries, the newest `LONGEST_LIST` of each: changes of who may do what; attempts that were refused; other
        actions of administrators; log-ins from a new device, network or place; findings of the rules of abuse.
    verified, faults
        Whether the whole trail is as it was written, and what is not.
    checked
        Entries that were checked.
    """

    since: datetime
    until: datetime
    entries: int
    by_action: dict[str, int]
    by_result: dict[str, int]
    by_actor: dict[str, int]
    permission_changes: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    administration: list[dict[str, Any]]
    new_places: list[dict[str, Any]]
    detected: list[dict[str, Any]]
    verified: bool
    faults: list[str]
    checked: int

    def markdown(self) -> str:
        """The report as a text for people."""
        lines = [
            f"# Audit report, {self.since:%Y-%m-%d %H:%M} to {self.until:%Y-%m-%d %H:%M} UTC",
            "",
            f"{self.entries} {'entry' if self.entries == 1 else 'entries'}. "
            + (
                f"All {self.checked} entries of the trail are as they were written."
                if self.verified
                else "**The trail is not as it was written.**"
            ),
            "",
            *(f"- {_inline(fault)}" for fault in self.faults),
        ]
        for heading, counts in (("Actions", self.by_action), ("Results", self.by_result), ("Actors", self.by_actor)):
            lines += ["", f"## {heading}", "", "| | entries |", "| --- | ---: |"]
            lines += [f"| {_inline(name)} | {count} |" for name, count in counts.items()]
        for heading, found in (
            ("Changes of who may do what", self.permission_changes),
            ("Refused attempts", self.refused),
            ("Administrators' actions", self.administration),
            ("Log-ins from new places", self.new_places),
            ("Detected", self.detected),
        ):
            lines += ["", f"## {heading}", ""]
            if not found:
                lines.append("None.")
                continue
            lines += ["| entry | at | who | what | on | result | from | details |", "|" + " --- |" * 8]
            lines += [_line(entry) for entry in found]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON carries it."""
        return asdict(self) | {"since": self.since.isoformat(), "until": self.until.isoformat()}


def report(audit: Audit, since: datetime, until: datetime) -> ComplianceReport:
    """Read a period of the trail, and verify all of it.

    Raises
    ------
    ConfigurationError
        The period is empty.
    """
    from stock_pipeline.access.audit import AuditFilter

    if since >= until:
        raise ConfigurationError("since must be before until", value=f"{since.isoformat()} to {until.isoformat()}")
    count = 0
    by_action: Counter[str] = Counter()
    by_result: Counter[str] = Counter()
    by_actor: Counter[str] = Counter()
    lists: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("permission_changes", "refused", "administration", "new_places", "detected")
    }
    for entry in audit.stream(AuditFilter(since=since, until=until)):
        count += 1
        by_action[entry.action] += 1
        by_result[entry.result] += 1
        by_actor[entry.actor] += 1
        for name in _belongs_to(entry):
            lists[name].append(_short(entry))
            del lists[name][:-LONGEST_LIST]
    checked = audit.verify()
    return ComplianceReport(
        since=since,
        until=until,
        entries=count,
        by_action=dict(by_action.most_common()),
        by_result=dict(by_result.most_common()),
        by_actor=dict(by_actor.most_common(LONGEST_LIST)),
        verified=checked.intact,
        faults=[str(fault) for fault in checked.faults],
        checked=checked.entries,
        **lists,
    )


def _belongs_to(entry: AuditEntry) -> list[str]:
    found = []
    if entry.result == "refused":
        found.append("refused")
    elif entry.action.startswith(_PERMISSION_CHANGES):
        found.append("permission_changes")
    elif entry.action.startswith(_ADMINISTRATION) and entry.action not in _OWN:
        found.append("administration")
    if entry.action in ("abuse.new_device", "abuse.impossible_travel"):
        found.append("new_places")
    elif entry.action.startswith(_ODD):
        found.append("detected")
    return found


def _short(entry: AuditEntry) -> dict[str, Any]:
    whole = {"detail": entry.detail, "before": entry.before, "after": entry.after}
    return {
        "sequence": entry.sequence,
        "at": entry.at.isoformat(timespec="seconds"),
        "actor": entry.actor,
        "action": entry.action,
        "object": None if entry.object_kind is None else f"{entry.object_kind} {entry.object_id}",
        "result": entry.result,
        "address": entry.address,
        **{name: value for name, value in whole.items() if value is not None},
    }


def _line(entry: dict[str, Any]) -> str:
    details = "; ".join(f"{name}: {_said(entry[name])}" for name in ("detail", "before", "after") if name in entry)
    cells = [entry["sequence"], entry["at"], entry["actor"], entry["action"], entry["object"], entry["result"],
             entry["address"], details[:300]]  # fmt: skip
    return "| " + " | ".join(_inline("-" if cell is None else str(cell)) for cell in cells) + " |"


def _said(value: Any) -> str:
    """A value of a JSON document in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items()) or "nothing"
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "nothing"
    if value is None:
        return "nothing"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _inline(text: str) -> str:
    """A text that cannot end a cell or begin markup."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
