"""Journal entries of an agent, seconds after NOON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dockerd_guard.report.history import Record

SVG = "{http://www.w3.org/2000/svg}"

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

OPEN = "DG101 tcp://*:2375"
EDITED = "DG304 configured /lib/systemd/system/docker.service"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def start(seconds: float, run: str = "a") -> Record:
    return Record(at(seconds), "policy", "in force", run)


def drift(seconds: float, fact: str = OPEN, *, exposed: bool = False, run: str = "a") -> Record:
    socket = "tcp://0.0.0.0:2375" if "tcp:" in fact else None
    rule = fact.partition(" ")[0]
    return Record(at(seconds), "drift", "open", run, "drift", rule, "configured", socket, "/etc/a.conf", 3,
                  episodes=(fact,), exposed=exposed)


def ended(seconds: float, outcome: str = "repaired", *facts: str, run: str = "a") -> Record:
    return Record(at(seconds), "corrected", "as declared", run, outcome=outcome, episodes=facts or (OPEN,))


def tried(seconds: float, event: str, outcome: str, run: str = "a") -> Record:
    return Record(at(seconds), event, "not now", run, outcome=outcome, episodes=(OPEN,))


def contained(seconds: float, event: str = "contained", run: str = "a") -> Record:
    return Record(at(seconds), event, "cut", run, socket="tcp://[::]:2375")
