"""Histories: what may happen to a simulated host, how often, and how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.simulation.actions import (
    DAEMON_JSON,
    DROPINS,
    POLICIES,
    POLICY,
    SOCKET_DROPIN,
    World,
    bad_policy,
    bus,
    clock,
    code_in_dropin,
    containers,
    copied_name,
    daemon_json,
    daemon_json_link,
    dies,
    dies_again,
    disk,
    dockerd_faults,
    down_with_containers,
    engine,
    environment_file,
    failing_override,
    fleet,
    flush,
    full_in_between,
    interference,
    kill,
    kill_dockerd,
    killed_again,
    late_dropin,
    late_link,
    late_link_in_force,
    later,
    live_restore_in_file_only,
    lock_service,
    manual_fix,
    next_start,
    nftables,
    no_code_in_dropin,
    no_late_dropins,
    no_override,
    override,
    own_dropin,
    pending_failure,
    policy,
    port_in_use,
    reload,
    reload_agent,
    reload_dockerd,
    restart,
    set_environment,
    silent_with_containers,
    socket_unit,
    spread,
    start,
    stop,
    war,
)
from tests.simulation.host import DOCKERD_FILE, WORKING_DOCKERD
from tests.simulation.meanwhile import meanwhile
from tests.simulation.packages import remove_package, replace_dockerd, upgrade


class Action(NamedTuple):
    """One thing that happens: its name, and a number that picks a variant."""

    name: str
    variant: int


ACTIONS: Mapping[str, tuple[Callable[[World, int], None], int]] = {
    "override": (override, 8), "failing override": (failing_override, 2), "no override": (no_override, 4),
    "late drop-in": (late_dropin, 5), "late link": (late_link, 2), "copied name": (copied_name, 1),
    "no late drop-ins": (no_late_dropins, 3), "daemon.json": (daemon_json, 6),
    "daemon.json link": (daemon_json_link, 1),
    "environment file": (environment_file, 2),
    "set-environment": (set_environment, 2),
    "code in drop-in": (code_in_dropin, 2), "no code in drop-in": (no_code_in_dropin, 2),
    "own drop-in": (own_dropin, 4),
    "socket unit": (socket_unit, 3), "upgrade": (upgrade, 1), "daemon-reload": (reload, 5), "restart": (restart, 5),
    "stop": (stop, 1), "start": (start, 4), "reload docker": (reload_dockerd, 3), "policy": (policy, 3),
    "bad policy": (bad_policy, 1), "containers": (containers, 5), "flush": (flush, 2), "disk": (disk, 3),
    "bus": (bus, 2), "nftables": (nftables, 1), "engine": (engine, 2), "dockerd faults": (dockerd_faults, 2),
    "clock": (clock, 1), "next start": (next_start, 2),
    "port in use": (port_in_use, 2), "full in between": (full_in_between, 1),
    "interference": (interference, 1), "dies": (dies, 2), "dies again": (dies_again, 1),
    "silent with containers": (silent_with_containers, 1), "down with containers": (down_with_containers, 2),
    "killed again": (killed_again, 1), "kill": (kill, 3), "kill dockerd": (kill_dockerd, 2),
    "fix": (manual_fix, 2), "reload agent": (reload_agent, 1), "remove package": (remove_package, 1),
    "later": (later, 12), "live-restore in file only": (live_restore_in_file_only, 5),
    "pending failure": (pending_failure, 3), "late link in force": (late_link_in_force, 2), "war": (war, 2),
    "spread": (spread, 4), "fleet": (fleet, 6), "lock service": (lock_service, 2), "meanwhile": (meanwhile, 5),
}
"""Each with its weight."""

FAULTS = frozenset(("disk", "bus", "nftables", "engine", "dockerd faults", "clock", "kill", "kill dockerd",
                    "failing override", "next start", "full in between", "interference", "dies", "dies again",
                    "silent with containers", "down with containers", "killed again", "port in use", "fleet",
                    "lock service", "meanwhile"))


def choose(random_: random.Random, count: int) -> tuple[Action, ...]:
    """A random history."""
    names = random_.choices(list(ACTIONS), [weight for _, weight in ACTIONS.values()], k=count)
    return tuple(Action(name, random_.randrange(10_000)) for name in names)


def calm(world: World) -> None:
    """End every fault, and whatever an administrator would have to do."""
    host = world.host
    host.disk_errno, host.bus_is_gone, host.nftables_is_gone = 0, False, False
    host.engine_is_silent, host.dies_after_s, host.is_slow, host.stop_hangs = False, None, False, False
    host.crash_in = host.full_in = host.interferes = host.meanwhile = host.while_loading = None
    host.next_starts.clear()
    host.binds_at_stop, host.foreign_listener = None, ""
    host.lock.is_gone, host.lock.fault, host.lock.forgets, host.lock.stopped = False, None, "", ""
    no_late_dropins(world, 0)
    if host.text(DOCKERD_FILE) != WORKING_DOCKERD:
        replace_dockerd(world, WORKING_DOCKERD)
    for name in ("override", "code", "pre"):
        host.remove(f"{DROPINS}/{name}.conf")
    if "Exec" in (host.text(SOCKET_DROPIN) or ""):
        host.remove(SOCKET_DROPIN)
    host.put(DAEMON_JSON, '{"live-restore": true}')
    host.put(POLICY, POLICIES[0])
    host.reload()
    host.reset_failed()
    host.stop("admin")
    host.start_socket()
    host.start("admin")
    own = [sock for sock, _ in host.running.sockets] if host.running is not None else []
    if not any(sock.address.startswith("unix://") for sock in (*host.held, *own)):
        # Nobody can ask a dockerd without a UNIX socket about its containers: the restart is held until they end.
        host.containers.clear()
