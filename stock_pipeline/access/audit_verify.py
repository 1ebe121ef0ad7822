"""Checks the audit trail: every seal, every link, its end, and names what was done to it."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from stock_pipeline.access.audit_entry import COLUMNS, AuditEntry, read_entry
from stock_pipeline.access.audit_key import Anchor
from stock_pipeline.core.errors import IntegrityError
from stock_pipeline.storage.database import reading

if TYPE_CHECKING:
    from stock_pipeline.access.audit import Audit

FaultKind = Literal["changed", "missing", "inserted", "reordered", "broken-link", "tail-cut", "head", "anchor", "key"]

MOST_FAULTS = 500
"""Faults that are named one by one."""

_MOST_MOVES = 200
_QUERY = text(f"SELECT {', '.join(COLUMNS)}, previous_seal, seal FROM audit_entry ORDER BY sequence")
"""As the database holds it: what cannot even be read as the field that it should be is a finding, not an error."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it was written.

    Attributes
    ----------
    kind
        ``changed``, ``missing``, ``inserted``, ``reordered``, ``broken-link``, ``tail-cut``, ``head`` (the row that
        holds the newest seal), ``anchor`` (the file that remembers it) or ``key``.
    sequence
        Place in the trail.
    what
        What was found.
    """

    kind: FaultKind
    sequence: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.sequence}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the trail found.

    Attributes
    ----------
    entries
        Entries that were looked at.
    faults
        What is not as it was written, in the order of the trail.
    further
        Faults beyond those that are named.
    """

    entries: int
    faults: tuple[Fault, ...]
    further: int = 0

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


@dataclass(slots=True)
class _Suspect:
    """An entry whose seal does not fit it."""

    sequence: int
    entry: AuditEntry | None
    previous_seal: str
    seal: str
    seal_before: str
    link_after: str | None = None


@dataclass
class _Walk:
    """What is remembered on the way through the trail."""

    key: bytes
    genesis: str
    faults: list[Fault] = field(default_factory=list)
    further: int = 0
    count: int = 0
    sealed: int = 0
    last: int = 0
    seals: tuple[str, ...] = ()
    """Seals that the next entry may link to: the one that is stored, and the one that it should be."""
    begins_well: bool = True
    suspects: list[_Suspect] = field(default_factory=list)
    suspected: bool = False
    missing: list[int] = field(default_factory=list)
    watched: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Seals of the places that head and anchor speak of."""

    def fault(self, kind: FaultKind, sequence: int, what: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(kind, sequence, what))
        else:
            self.further += 1

    def step(self, row: Row[Any], watched: set[int]) -> None:
        self.count += 1
        if row.sequence < 1:
            self.fault("inserted", row.sequence, "the trail begins at 1")
            return
        stored, link = str(row.seal), str(row.previous_seal)
        entry = _parsed(row)
        right = "" if entry is None else entry.sealed(self.key, link)
        gap = row.sequence > self.last + 1
        if gap:
            self._gap(self.last + 1, row.sequence - 1)
        if self.suspects and self.suspects[-1].sequence == row.sequence - 1:
            self.suspects[-1].link_after = link
        if row.sequence == 1:
            self.begins_well = hmac.compare_digest(link.encode(), self.genesis.encode())
        before = self.seals or (self.genesis,)
        if not hmac.compare_digest(right.encode(), stored.encode()):
            if len(self.suspects) < MOST_FAULTS:
                self.suspects.append(_Suspect(row.sequence, entry, link, stored, before[0]))
            else:
                self.further += 1
            self.suspected = True
        else:
            self.sealed += 1
            if not gap and link not in before and not self.suspected:
                self.fault("broken-link", row.sequence, "it does not continue the entry before it")
            self.suspected = False
        self.last, self.seals = row.sequence, (stored, right)
        if row.sequence in watched:
            self.watched[row.sequence] = self.seals

    def _gap(self, first: int, last: int) -> None:
        which = f"entry {first} is" if first == last else f"the entries {first} to {last} are"
        self.fault("missing", first, f"{which} not there")
        self.missing += range(first, min(last, first + _MOST_MOVES) + 1)


def verify(audit: Audit) -> Verification:
    """Walk through the trail once, as it stands at one moment, and name each fault.

    Changed, missing, inserted and reordered entries are told apart where the seals allow it. The end of the trail is
    compared with the row that holds the newest seal and with the anchor in the home folder, which a change of the
    database does not reach.

    Parameters
    ----------
    audit
        The trail.

    Returns
    -------
    Verification
    """
    try:
        anchor, anchor_fault = audit.files.anchor(), None  # before the walk: it is never ahead of what is committed
    except IntegrityError as error:
        anchor, anchor_fault = None, error.what
    engine = reading(audit.engine)
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(engine) as session:
        head = session.execute(text("SELECT sequence, seal FROM audit_head WHERE id = 1")).one_or_none()
        some = session.execute(text("SELECT 1 FROM audit_entry LIMIT 1")).one_or_none() is not None
        key = audit.files.key(may_make=lambda: not some and head is None)
        walk = _Walk(key, audit.files.genesis())
        watched = {place.sequence for place in (head, anchor) if place is not None}
        for row in _rows(session):
            walk.step(row, watched)
    if _other_key(walk, anchor, audit):
        fault = Fault("key", 1, "the seals were made with another key than that of this home folder")
        return Verification(walk.count, (fault,))
    _explain(walk, walk.last if head is None else int(head.sequence))
    _check_end(walk, head, anchor, anchor_fault)
    return Verification(walk.count, tuple(sorted(walk.faults, key=lambda fault: fault.sequence)), walk.further)


def _rows(session: Session) -> Iterator[Row[Any]]:
    return iter(session.execute(_QUERY, execution_options={"yield_per": 1000}))


def _parsed(row: Row[Any]) -> AuditEntry | None:
    """The entry, ``None`` where a field is not of its form."""
    try:
        entry = read_entry(row, strict=True)
        entry.canonical()
    except (ValueError, TypeError, RecursionError):
        return None
    return entry


def _other_key(walk: _Walk, anchor: Anchor | None, audit: Audit) -> bool:
    """Whether nothing fits the key at all: then it is the key that is wrong, not every entry."""
    if walk.count == 0 or walk.sealed or walk.begins_well:
        return False
    return anchor is None or anchor.key != audit.files.fingerprint()


def _explain(walk: _Walk, end: int) -> None:
    """Say of each entry whose seal does not fit whether it was changed, moved or put in."""
    places = [suspect.sequence for suspect in walk.suspects[:_MOST_MOVES]] + walk.missing[:_MOST_MOVES]
    for number, suspect in enumerate(walk.suspects):
        entry, seal = suspect.entry, suspect.seal.encode()
        origin = None
        if entry is not None and number < _MOST_MOVES:
            origin = next(
                (
                    place
                    for place in places
                    if hmac.compare_digest(entry.at_place(place).sealed(walk.key, suspect.previous_seal).encode(), seal)
                ),
                None,
            )
        if origin is not None:
            walk.fault("reordered", suspect.sequence, f"here stands entry {origin}")
        elif suspect.sequence > end:
            walk.fault("inserted", suspect.sequence, f"the trail ends at {end}")
        elif suspect.link_after is not None and suspect.link_after == suspect.seal_before:
            walk.fault("inserted", suspect.sequence, "the entry after it continues the one before it")
        elif entry is None:
            walk.fault("changed", suspect.sequence, "a field cannot even be read")
        else:
            walk.fault("changed", suspect.sequence, "the entry does not fit its seal")


def _check_end(walk: _Walk, head: Row[Any] | None, anchor: Anchor | None, anchor_fault: str | None) -> None:
    last = walk.last
    named = {suspect.sequence for suspect in walk.suspects}  # what is wrong there is said already
    ends = [place for place in (head, anchor) if place is not None and place.sequence > last]
    if ends:
        longest = max(int(place.sequence) for place in ends)
        known = "the anchor remembers" if anchor in ends else "the head row knows"
        walk.fault("tail-cut", last + 1, f"the trail ends at {last}, {known} {longest} entries")
    if head is None:
        if walk.count:
            walk.fault("head", last, "the row that holds the newest seal is gone")
    elif head.sequence == last and last not in named and last and head.seal not in walk.seals:
        walk.fault("head", last, "the row that holds the newest seal holds another one than the last entry")
    elif head.sequence < last and not any(fault.sequence > head.sequence for fault in walk.faults):
        walk.fault("head", last, f"the row that holds the newest seal says {head.sequence}")
    if anchor_fault is not None:
        walk.fault("anchor", last, anchor_fault)
    elif anchor is None:
        if walk.count:
            walk.fault("anchor", last, "the anchor file is gone: a tail that was cut off would not be seen")
    elif anchor.sequence <= last and anchor.sequence not in named:
        seals = walk.watched.get(anchor.sequence)
        if anchor.sequence < 1 or (seals is not None and anchor.seal not in seals):
            walk.fault(
                "tail-cut", max(anchor.sequence, 1), "the anchor remembers another entry here: the end was written anew"
            )
