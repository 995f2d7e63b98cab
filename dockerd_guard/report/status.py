"""The output of `status`: one screen of text, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dockerd_guard.model.address import Tls
from dockerd_guard.observe.observation import LAYERS
from dockerd_guard.policy.model import POLICY_FILE, Policy
from dockerd_guard.report.agent_status import AgentStatus, LastCorrection
from dockerd_guard.report.history import duration
from dockerd_guard.report.json_output import finding_json
from dockerd_guard.report.text import clean, counted, folded, painted, stamp

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding

SCHEMA = 1

LABEL_COLUMNS = 9
MAX_FINDINGS = 10
"""The maximum in the text output; `lint` lists all."""

_Painter = Callable[[str, str], str]

RED, YELLOW, GREEN, BOLD = "1;31", "1;33", "1;32", "1"


def lines(status: Status, *, columns: int | None, colour: bool, zone: tzinfo | None = None) -> Iterator[str]:
    """The text. `columns`: the width of the terminal, None without one. Times are in `zone`, by default local."""
    paint = partial(painted, colour=colour)
    mood = RED if status.wrong else GREEN if is_complete(status) else YELLOW
    yield from (paint(line, mood) for line in folded(_headline(status), columns))
    for label, text in _facts(status, zone):
        yield from folded(f"{label:<{LABEL_COLUMNS}}{clean(text)}", columns, then=" " * LABEL_COLUMNS)
    if status.rows:
        yield ""
        yield from _table(status, columns, paint)
    if status.findings:
        yield ""
    since = status.since
    for finding in status.findings[:MAX_FINDINGS]:
        code = {"error": RED, "warning": YELLOW}.get(finding.severity, BOLD)
        # Colour codes must not count when lines are wrapped.
        first, *more = folded(f"{finding.severity} {_finding(finding, since, status.now)}", columns, then="  ")
        yield paint(finding.severity, code) + first.removeprefix(finding.severity)
        yield from more
    if len(status.findings) > MAX_FINDINGS:
        yield f"and {len(status.findings) - MAX_FINDINGS} more: dockerd-guard lint"
    if status.unseen:
        yield ""
    for text in status.unseen:
        yield from folded(f"degraded visibility: {clean(text)}", columns, then="  ")


def is_complete(status: Status) -> bool:
    """Whether everything was observed, by this process or by a running agent."""
    return not status.unseen or status.is_agent_complete


def _headline(status: Status) -> str:
    if status.wrong:
        return f"Problems: {', '.join(status.wrong)}."
    if status.unseen and not status.is_agent_complete:
        return "No problem found, with degraded visibility."
    if any(row.declared is not None and row.cells[-1] is not None and row.cells[-1].tls is None for row in status.rows):
        # That is waived.
        return "No problem found; not every declared socket is open."
    return "Docker listens as declared."


def _facts(status: Status, zone: tzinfo | None) -> Iterator[tuple[str, str]]:
    yield "agent", _agent(status, zone)
    agent_status = status.agent_status if status.is_alive else None
    if agent_status is not None:
        yield "policy", f"{agent_status.policy_file}, in force since {stamp(agent_status.policy_since, zone)}"
    elif status.policy is not None:
        # Without systemd it is unknown whether an agent is running.
        unenforced = "; not enforced, no agent is running" * (status.unit is not None)
        yield "policy", f"{status.policy.file}, mode: {status.policy.mode}{unenforced}"
    for problem in status.policy_problem.splitlines():
        stays = "; the last valid policy stays in force" * (agent_status is not None)
        yield "policy" * (problem == NO_POLICY), f"{problem}{stays}"
    if agent_status is not None and agent_status.held is not None:
        held = agent_status.held
        word = "restart due" if held.is_due else "until"
        until = f", {word} {stamp(held.until, zone)}" if held.until is not None else ", until this changes"
        yield "held", f"{held.reason}{until}; since {stamp(held.since, zone)}"
        if held.next_step:
            yield "", f"next: {held.next_step}"
    if status.contained:
        yield "blocked", f"at the network: {', '.join(status.contained)}"
    for trouble in agent_status.blind if agent_status is not None else ():
        yield "degraded", trouble
    if status.last is not None:
        yield "last", f"{stamp(status.last.at, zone)}, {status.last.outcome}: {status.last.message}"


def _agent(status: Status, zone: tzinfo | None) -> str:
    unit, agent_status = status.unit, status.agent_status
    if unit is None:
        unknown = "unknown: cannot query systemd over D-Bus"
        if agent_status is None:
            return unknown
        return f"{unknown}; last check {_ago(status, agent_status)}, by PID {agent_status.pid}"
    if unit.load_state == "not-found":
        return "not installed: there is no dockerd-guard.service"
    if status.is_alive and agent_status is not None:
        return (f"{agent_status.state}, mode: {agent_status.mode}, PID {unit.pid}; "
                f"last check {_ago(status, agent_status)}")
    since = f" since {stamp(unit.since, zone)}" if unit.since is not None else ""
    result = f", {unit.result}" if unit.result not in ("", "success") else ""
    return f"{unit.active_state}{since}{result}; this host is not guarded: systemctl status dockerd-guard"


def _ago(status: Status, agent_status: AgentStatus) -> str:
    return f"{duration((status.now - agent_status.at).total_seconds())} ago"


def _table(status: Status, columns: int | None, paint: _Painter) -> Iterator[str]:
    rows, is_policy_known = status.rows, status.policy is not None
    table: list[tuple[str, ...]] = [("socket", "policy", *LAYERS)]
    for row in rows:
        declared = _declared(row) if is_policy_known else "?"
        table.append((clean(_address(row)), declared, *(_cell(row, cell) for cell in row.cells)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if columns is not None and sum(widths) + 2 * len(widths) > columns:
        for address, declared, *layers in table[1:]:
            yield from folded(f"{address}: {declared}", columns, then="  ")
            listed = ", ".join(f"{name} {cell}" for name, cell in zip(LAYERS, layers, strict=True))
            yield from (f"  {line}" for line in folded(listed, columns - 2))
        return
    for number, texts in enumerate(table):
        padded = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        padded[-1] = padded[-1].rstrip()
        if number == 0:
            padded = [paint(text, BOLD) for text in padded]
        elif is_policy_known:
            padded[2:] = [paint(text, RED) if _is_wrong(rows[number - 1], cell) else text
                          for text, cell in zip(padded[2:], rows[number - 1].cells, strict=True)]
        yield "  ".join(padded).rstrip()


def _address(row: Row) -> str:
    return f"{row.address} in {row.namespace}" if row.namespace else row.address


def _declared(row: Row) -> str:
    if row.declared is None:
        return "not declared"
    return f"tls {row.declared}" if row.address.startswith("tcp://") else "declared"


def _cell(row: Row, cell: Cell | None) -> str:
    if cell is None:
        return "?"
    if cell.tls is not None:
        return f"tls {cell.tls}" if row.address.startswith("tcp://") else "yes"
    return "systemd" if cell.by_systemd else "no"


def _is_wrong(row: Row, cell: Cell | None) -> bool:
    if cell is None:
        return False
    if row.declared is None:
        return cell.tls is not None or cell.by_systemd
    return cell.tls is None or cell.tls.is_weaker(row.declared)


def _finding(finding: Finding, since: dict[str, datetime], now: datetime) -> str:
    where = f" {finding.location.file}:{finding.location.line}" if finding.location is not None else ""
    begun = since.get(finding.fact)
    lasting = f", for {duration((now - begun).total_seconds())}" if begun is not None else ""
    return clean(f"{finding.code}{where}{lasting}: {finding.message}")


# -- JSON -----------------------------------------------------------------------------------------


def to_json(status: Status) -> dict[str, Any]:
    """The output of `status` as JSON. Unknown values are null; times are ISO 8601 in UTC.

    The value of a socket in a layer is its TLS (`none`, `server`, `mutual`), `systemd` if only systemd listens,
    false if it is absent, null if unknown.
    """
    unit, policy, since = status.unit, status.policy, status.since
    alive = status.agent_status if status.is_alive else None
    held, last = alive and alive.held, status.last
    return {
        "schema": SCHEMA,
        "at": status.now.isoformat(),
        "wrong": list(status.wrong),
        "unseen": list(status.unseen),
        "agent": {
            "alive": status.is_alive if unit is not None else None,
            "unit": unit.active_state if unit is not None else None,
            "pid": (unit.pid or None) if unit is not None else None,
            "state": alive and alive.state,
            "looked": alive and alive.at.isoformat(),
            "blind": list(alive.blind) if alive is not None else [],
        },
        "policy": {
            "file": alive.policy_file if alive is not None else policy and policy.file,
            "mode": alive.mode if alive is not None else policy and str(policy.mode),
            "since": alive and alive.policy_since.isoformat(),
            "problem": status.policy_problem or None,
        },
        "sockets": [{
            "address": row.address, "declared": str(row.declared) if row.declared is not None else None,
            "layers": {name: _cell_json(cell) for name, cell in zip(LAYERS, row.cells, strict=True)},
            **({"network_namespace": row.namespace} if row.namespace else {}),
        } for row in status.rows],
        "findings": [{
            **finding_json(finding), "since": since[finding.fact].isoformat() if finding.fact in since else None,
        } for finding in status.findings],
        "held": held and {"reason": held.reason, "since": held.since.isoformat(),
                          "until": held.until and held.until.isoformat(), "next": held.next_step or None},
        "contained": list(status.contained),
        "last": last and {**last._asdict(), "at": last.at.isoformat()},
    }


def _cell_json(cell: Cell | None) -> str | bool | None:
    if cell is None:
        return None
    if cell.tls is not None:
        return str(cell.tls)
    return "systemd" if cell.by_systemd else False

LATE_S = 120.0
"""How much later than the policy's resync a pass may be."""


class AgentUnit(NamedTuple):
    """The agent's unit. `since`: StateChangeTimestamp=."""

    load_state: str
    active_state: str
    result: str
    pid: int
    since: datetime | None


class Cell(NamedTuple):
    """A socket in one layer: its TLS (None: absent), or whether only systemd listens, for socket activation."""

    tls: Tls | None = None
    by_systemd: bool = False


class Row(NamedTuple):
    """A socket: its declared TLS (None: not declared), and its layers in the order of LAYERS (None: unknown).

    `namespace`: the network namespace in which the running dockerd listens there, "" for the host's own.
    """

    address: str
    declared: Tls | None
    cells: tuple[Cell | None, ...]
    namespace: str = ""


NO_POLICY = f"no policy at {POLICY_FILE}; `dockerd-guard init` writes one"


class Status(NamedTuple):
    """The input of the output. `findings`: the drifts. `unseen`: messages about what could not be observed.

    `is_alive`: the unit is running and the status file is from its process.
    """

    now: datetime
    unit: AgentUnit | None
    is_alive: bool
    agent_status: AgentStatus | None
    policy: Policy | None
    policy_problem: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    contained: tuple[str, ...]
    last: LastCorrection | None
    unseen: tuple[str, ...]

    @property
    def is_late(self) -> bool:
        """Whether the agent is running but its last pass is older than the policy's resync allows."""
        resync_s = self.policy.watch.resync_s if self.policy is not None else 3600.0
        return self.is_alive and self.agent_status is not None and (
            self.now - self.agent_status.at > timedelta(seconds=resync_s + LATE_S))

    @property
    def is_agent_complete(self) -> bool:
        """Whether a running agent has observed everything."""
        return self.is_alive and not self.is_late and self.agent_status is not None and not self.agent_status.blind

    @property
    def since(self) -> dict[str, datetime]:
        """The start time of each drift by fact, as published by the agent."""
        return self.agent_status.since() if self.agent_status is not None else {}

    @property
    def wrong(self) -> tuple[str, ...]:
        """Messages about problems."""
        return tuple(self._wrong())

    def _wrong(self) -> Iterator[str]:
        if self.unit is not None and not self.is_alive:
            is_starting = self.unit.active_state in ("activating", "reloading")
            yield "the agent is starting" if is_starting else "no agent is running"
        if self.is_late:
            yield "the agent is overdue"
        if self.policy_problem:
            yield "there is no policy" if self.policy_problem == NO_POLICY else "the policy is invalid"
        for severity in ("error", "warning"):
            if number := sum(finding.severity == severity for finding in self.findings):
                yield counted(number, severity)
        if self.is_alive and self.agent_status is not None:
            if self.agent_status.held is not None:
                yield "a correction is held"
            if self.agent_status.blind:
                yield "the agent has degraded visibility"
        if self.contained:
            yield f"{counted(len(self.contained), 'port')} blocked"
