"""What the agent publishes after each pass: the status file, the metrics, the STATUS= line."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dockerd_guard.agent import textfile
from dockerd_guard.agent.counters import Stopwatch
from dockerd_guard.agent.drift_tracker import DriftTracker
from dockerd_guard.agent.states import AgentState
from dockerd_guard.agent.status_file import OWN_FILE, publish, published
from dockerd_guard.fleet.lock import Fault
from dockerd_guard.model.address import canonical
from dockerd_guard.plan.memory import HeldCorrection, Memory
from dockerd_guard.policy.model import Mode, Policy
from dockerd_guard.report.agent_status import AgentStatus, Counters, last_correction
from dockerd_guard.report.correction import hold_text
from dockerd_guard.report.drift import sentence
from dockerd_guard.report.journal import Journal
from dockerd_guard.report.metrics import Snapshot, metrics_text

BUSY = "another dockerd-guard is correcting this host"
BUSY_AFTER_S = 5.0
"""How long another dockerd-guard corrects the host before this counts as a hold: a fix without a hold takes less."""
BUSY_STEP = "Wait until it ends, or end it if it hangs: `pgrep -af dockerd-guard` lists it"


class Standing(NamedTuple):
    """Where the agent stands at the end of a pass. `exposed`: addresses open to the network against the policy;
    `observed_at`: when the host was last observed (seconds since the epoch), None before the first time; `busy_since`:
    since when another dockerd-guard corrects the host, None where none does."""

    state: AgentState
    policy: Policy
    policy_since: datetime
    policy_problem: str
    memory: Memory
    is_contested: bool
    exposed: int
    observed_at: float | None
    changed_at: float
    busy_since: datetime | None = None

    @property
    def held(self) -> HeldCorrection | None:
        """The correction that waits, also for another dockerd-guard."""
        if self.busy_since is None or datetime.now(UTC) - self.busy_since < timedelta(seconds=BUSY_AFTER_S):
            return self.memory.held
        return HeldCorrection(BUSY, self.busy_since, None, BUSY_STEP)


class Publisher:
    """Writes where the agent stands, on the disk only what is new."""

    def __init__(self, journal: Journal, tracker: DriftTracker, directory: str) -> None:
        self._journal = journal
        self._tracker = tracker
        self._directory = directory
        self._last = published(f"{directory}/{OWN_FILE}")
        self._exposure = Stopwatch()
        self._earlier = self._last
        """The last status of the previous agent process, until this one has looked at everything."""
        self._metrics_problem = ""
        if self._last is not None:
            tracker.go_on_from(self._last.drifts)

    def publish(self, standing: Standing) -> None:
        """Write the status file and the metrics. Never raises."""
        now, before, policy = datetime.now(UTC), self._last, standing.policy
        self._last = AgentStatus(
            now, os.getpid(), str(standing.state), str(policy.mode), policy.file, standing.policy_since,
            standing.policy_problem, self._tracker.lasting(now), tuple(sorted(self._tracker.blind)),
            standing.held, standing.memory.contained.addresses,
            last_correction(self._tracker.written, now) or (before and before.last), self._counters(before, standing))
        self._tracker.written.clear()
        publish(self._last, before, self._directory)
        self._publish_metrics(self._last, standing)

    def counted(self, exposed: int, changed_at: float, started_at: float | None = None) -> None:
        """Take in how many addresses are open to the network now.

        `changed_at`: of the last trigger (time.monotonic()); `started_at`: of the running dockerd (time.time()).
        """
        if exposed and self._earlier is not None and _was_open(self._earlier):
            # An agent was killed or stopped, and Docker has run on.
            since = max(self._earlier.at.timestamp(), started_at or 0.0)
            self._exposure.go_on(min(max(time.time() - since, 0.0), time.monotonic()))
        self._earlier = None
        self._exposure.looked(is_exposed=exposed > 0, changed_at=changed_at)

    def reopened(self, seconds: float) -> None:
        """Take in that another program had removed the block of open addresses for so long."""
        self._exposure.add(seconds)

    def _counters(self, before: AgentStatus | None, standing: Standing) -> Counters:
        """The counters of the last status file plus those of this pass."""
        self._exposure.looked(is_exposed=standing.exposed > 0, changed_at=standing.changed_at)
        seconds, self._exposure.seconds = self._exposure.seconds, 0.0
        counters = before.counts if before is not None else Counters()
        known = before.since() if before is not None else ()
        return counters.with_entries(self._tracker.written, known)._replace(exposed_s=counters.exposed_s + seconds)

    def _publish_metrics(self, now: AgentStatus, standing: Standing) -> None:
        """Until the host was observed once, the metrics of the previous agent process stay."""
        if standing.observed_at is None:
            return
        policy, fleet = standing.policy, standing.memory.fleet
        snapshot = Snapshot(
            up=standing.state is not AgentState.STOPPING, enforcing=policy.mode is Mode.ENFORCE,
            last_pass=standing.observed_at, resync_s=policy.watch.resync_s, policy_ok=not now.policy_problem,
            policy_since=now.policy_since.timestamp(), blind=len(now.blind),
            drift_open=Counter(f"{drift.finding.code} {drift.finding.layer}" for drift in now.drifts),
            drift_total=now.counts.drifts, exposed=standing.exposed, contained=len(now.contained),
            exposed_s=now.counts.exposed_s, held=now.held is not None, contested=standing.is_contested,
            corrections=now.counts.corrections, fleet_waiting=fleet.refusal is not None,
            fleet_slot=fleet.slot is not None, fleet_unreachable=fleet.unreachable,
            fleet_stopped=fleet.is_kept or bool(fleet.to_stop) or (
                fleet.refusal is not None and fleet.refusal.fault is Fault.STOPPED))
        try:
            textfile.publish(metrics_text(snapshot))
            self._metrics_problem = ""
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            if self._metrics_problem != reason:
                # The sandbox does not include a directory that was created after the agent started.
                hint = "; fix: `systemctl restart dockerd-guard`" * (error.errno == errno.EROFS)
                self._journal.say(f"Cannot write metrics to {textfile.DIRECTORY}: {reason}{hint}.", "warning")
            self._metrics_problem = reason

    def status_line(self, standing: Standing) -> str:
        """The STATUS= line: what is wrong, then what is being done about it."""
        policy, memory = standing.policy, standing.memory
        blind, drifts = self._tracker.blind, self._tracker.drifts
        parts = [f"Degraded visibility: {min(blind)}"] if blind else []
        if standing.busy_since is not None:
            since = f"{standing.busy_since.astimezone():%Y-%m-%d %H:%M:%S}"
            parts.append(f"{BUSY}, noticed at {since}; nothing is corrected until it ends")
        if standing.observed_at is None:
            parts.append("this host has not been checked yet")
        elif memory.held is not None and standing.busy_since is None:
            parts.append(hold_text(memory.held))
        elif drifts:
            first, *others = sorted(drifts.values(), key=lambda finding: (finding.socket is None, finding.order))
            more = f" (and {len(others)} more; dockerd-guard status)" if others else ""
            parts.append(f"{policy.mode}: {first.code} {sentence(first.message).rstrip('.')}{more}")
        elif not blind:
            parts.append(f"{policy.mode}: Docker listens as declared, on " + (
                ", ".join(socket.address for socket in policy.sockets) or "nothing"))
        if memory.attempt is not None and memory.held is None:
            parts.append("the last correction failed; it is retried when something changes")
        if memory.contained.addresses:
            parts.append(f"blocked at the network: {', '.join(memory.contained.addresses)}")
        if standing.policy_problem:
            parts.append("the policy file is invalid, the last valid policy stays in force")
        return "; ".join(parts)


def _was_open(status: AgentStatus) -> bool:
    """Whether an address that is open now was open when this was written, if Docker has run since."""
    contained = {canonical(address) for address in status.contained}
    return any(drift.finding.socket is not None and canonical(drift.finding.socket) not in contained
               for drift in status.drifts)


def policy_changed_at(path: str) -> datetime:
    """When the policy file was last changed, now if that is in the future or unknown."""
    now = datetime.now(UTC)
    with contextlib.suppress(OSError):
        return min(datetime.fromtimestamp(os.stat(path).st_ctime, UTC), now)
    return now
