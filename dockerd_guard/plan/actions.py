"""What has to be done to a host, from what was observed and the plan. Pure."""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.model.address import Via, canonical
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.configured import dockerd_syntax, passed_by
from dockerd_guard.observe.observation import Loaded, Observation, Running
from dockerd_guard.observe.started import INVOCATION
from dockerd_guard.plan.memory import Intent, digest
from dockerd_guard.plan.plan import Change, Plan, complies, content_at
from dockerd_guard.policy.model import Policy

STARTING_S = 120.0
"""How long an interrupted correction waits for a dockerd that is starting. It pauses for 16 s before plain TCP."""


class Actions(NamedTuple):
    """What has to be done to a host, each step by what was observed of it."""

    changes: tuple[Change, ...] = ()
    reload: bool = False
    stop_sockets: tuple[str, ...] = ()
    """Socket units that must not pass anything any more."""
    restart_socket: bool = False
    restart: bool = False
    """Restart docker.service, which runs with other sockets than declared."""
    start: bool = False
    """Start docker.service, which failed with the configuration that the changes correct."""

    @property
    def starts_dockerd(self) -> bool:
        """Whether dockerd is started or restarted, which the gate decides about."""
        return self.restart_socket or self.restart or self.start

    @property
    def anything(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self.changes or self.reload or self.stop_sockets or self.starts_dockerd)

    @property
    def without_starts(self) -> Actions:
        """The part that the gate does not decide about."""
        return self._replace(restart_socket=False, restart=False, start=False)

    def steps(self) -> tuple[str, ...]:
        """The steps in their order, for people."""
        count = len(self.changes)
        return (
            *((f"write {count} file{'s' * (count != 1)}",) if count else ()),
            *(("reload systemd",) if self.reload else ()),
            *(f"stop {name}" for name in self.stop_sockets),
            *((f"restart {SOCKET}",) if self.restart_socket else ()),
            *((f"restart {SERVICE}",) if self.restart else ()),
            *((f"start {SERVICE}",) if self.start else ()),
        )


def required_actions(seen: Observation, plan: Plan, policy: Policy, intent: Intent | None = None) -> Actions:
    """Return what has to be done, by comparing each layer with the policy; nothing if the plan has an obstacle.

    `intent`: the correction that was applied last, of which the start may be left to do.
    """
    loaded = seen.loaded
    if plan.obstacles:
        return Actions()
    if loaded is None:
        return Actions(plan.changes)
    reload = bool(plan.changes) or not complies(loaded.layer, policy)
    wrong = any(layer is not None and not complies(layer.layer, policy) for layer in (seen.running, seen.listening))
    runs = seen.running is not None
    passing = {socket.unit.name for socket in plan.after.sockets}
    is_stale = _is_socket_stale(seen, loaded, plan)
    return Actions(
        plan.changes, reload,
        stop_sockets=tuple(name for name, state in loaded.socket_states.items()
                           if state == "active" and name not in passing),
        restart_socket=is_stale,
        restart=runs and wrong,
        # A start of what failed with a configuration that complies would fail again, or undo what somebody wants. With
        # `fd://` dockerd fails where docker.socket holds nothing: "no sockets found via socket activation".
        start=has_failed(seen) and (reload or is_stale or _is_start_left(seen, loaded, intent)))


def has_failed(seen: Observation) -> bool:
    """Whether docker.service is in the state `failed`."""
    return seen.running is None and seen.loaded is not None and seen.loaded.active_state == "failed"


def started_at(seen: Observation) -> str:
    """Return the invocation ID of the running dockerd, empty where none runs."""
    return seen.running.process.environ.get(INVOCATION, "") if seen.running is not None else ""


def is_starting(now: Instant, seen: Observation) -> bool:
    """Return whether dockerd is on its way up, and cannot answer yet: what its restart would stop is unknown (I1)."""
    if seen.running is None or seen.loaded is None or seen.loaded.active_state != "activating":
        return False
    return 0 <= age_s(now, seen.running) < STARTING_S


def age_s(now: Instant, running: Running) -> float:
    """How long dockerd has run, in seconds; negative where the clock was set back meanwhile."""
    return now.wall.timestamp() - running.process.started_ns / 1e9


def is_in_force(seen: Observation, intent: Intent) -> bool:
    """Whether the files are as an applied correction left them."""
    return intent.is_applied and bool(intent.changes) and all(
        digest(content_at(seen.rootfs, change.path)) == digest(change.after) for change in intent.changes)


def is_not_started_since(seen: Observation, intent: Intent) -> bool:
    """Whether docker.service, which did not run at a correction, is in the same run, and nobody has started it. One
    that systemd restarted then (Restart=) has gone through further runs since, until its start limit."""
    is_same = seen.loaded is not None and (seen.loaded.invocation == intent.invocation or intent.was_starting)
    return not intent.was_active and is_same


def _is_start_left(seen: Observation, loaded: Loaded, intent: Intent | None) -> bool:
    """Whether the files were corrected of a docker.service that had failed, or that failed at the start it was in, and
    its start was held or interrupted; also if others have changed these files since."""
    if intent is None or intent.proven_by is not None:
        return False
    if is_not_started_since(seen, intent):
        return True
    return is_in_force(seen, intent) and (
        not intent.was_active or (intent.was_starting and loaded.invocation == intent.invocation))


def _is_socket_stale(seen: Observation, loaded: Loaded, plan: Plan) -> bool:
    """Whether docker.socket is active and lacks an address that the corrected unit lists, or dockerd has replaced a
    socket file that it is to be passed: when that dockerd stops, the file is gone.

    A start of docker.socket replaces the file, and containers that have the old one mounted lose the API. What it no
    longer lists a daemon-reload closes (socket_deserialize_item() in src/core/socket.c; seen on systemd 252, 257 and
    262), and dockerd with its restart. Only what systemd still holds after that needs a restart of docker.socket.
    """
    if loaded.socket_states.get(SOCKET) != "active" or seen.listening is None:
        return False
    bindings = plan.after.layer.bindings
    to_be_passed = {binding.key for binding in bindings} - {
        binding.key for binding in bindings if binding.via is not Via.SOCKET_UNIT}
    if to_be_passed & set(map(canonical, seen.listening.taken)):
        return True
    wanted = {canonical(address) for address, _ in passed_by(
        socket for socket in plan.after.sockets if socket.unit.name == SOCKET)}
    # What no socket unit lists any more is of docker.socket, or of a unit that was stopped.
    listed = {canonical(dockerd_syntax(item.address)) for socket in loaded.sockets for item in socket.listen}
    passed = {binding.key for binding in seen.listening.layer.bindings if binding.via is Via.SOCKET_UNIT}
    if passed - wanted - listed:
        return True
    return not wanted <= set(map(canonical, seen.listening.held_by_systemd))
