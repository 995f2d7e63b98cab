"""The actions that a host needs, computed from the observation and the plan. Pure."""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.model.address import canonical
from dockerd_guard.model.names import SOCKET
from dockerd_guard.observe.configured import dockerd_syntax, passed_by
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.plan import Change, Plan, complies
from dockerd_guard.policy.model import Policy


class Actions(NamedTuple):
    """The actions that a host needs."""

    changes: tuple[Change, ...]
    reload: bool
    stop_sockets: tuple[str, ...]
    """Active socket units that must not pass sockets to docker.service any more."""
    restart_socket: bool
    restart: bool

    @property
    def restarts(self) -> bool:
        """Whether any unit has to be restarted."""
        return self.restart_socket or self.restart

    @property
    def anything(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self.changes or self.reload or self.stop_sockets or self.restarts)


def required_actions(seen: Observation, plan: Plan, policy: Policy) -> Actions:
    """Compare each layer with the policy. Nothing is required if the plan has obstacles."""
    loaded = seen.loaded
    if plan.obstacles or loaded is None:
        return Actions((), False, (), False, False)
    reload = bool(plan.changes) or not complies(loaded.layer, policy)
    runs = seen.running is not None
    wrong = [layer for layer in (seen.running, seen.listening)
             if layer is not None and not complies(layer.layer, policy)]
    failed = loaded.active_state == "failed"
    wanted = {canonical(address) for address, _ in passed_by(
        socket for socket in plan.after.sockets if socket.unit.name == SOCKET)}
    of_socket = {canonical(dockerd_syntax(item.address)) for socket in loaded.sockets
                 if socket.unit.name == SOCKET for item in socket.listen} | wanted
    held = {canonical(address) for address in seen.listening.held_by_systemd} & of_socket if seen.listening else set()
    socket_is_active = loaded.socket_states.get(SOCKET) == "active"
    passing = {socket.unit.name for socket in plan.after.sockets}
    return Actions(plan.changes, reload,
                 stop_sockets=tuple(name for name, state in loaded.socket_states.items()
                                    if state == "active" and name not in passing),
                 restart_socket=socket_is_active and wanted != held,
                 restart=(runs and bool(wrong)) or failed)
