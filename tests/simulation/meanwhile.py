"""What somebody does while a pass of the agent, or `fix`, is under way."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation import actions
from tests.simulation.actions import DAEMON_JSON, DROPINS, JSON, World
from tests.simulation.host import Meanwhile
from tests.simulation.packages import upgrade
from tests.simulation.watch import files

MOMENTS = 40
"""Calls of a pass that changes something, at the most: the one at which it happens is drawn from so many."""


def _down(world: World, variant: int) -> None:
    """Docker is down, and docker.socket listens on a port, or has not taken it up yet."""
    world.host.stop("admin")
    actions.socket_unit(world, 1)
    world.host.reload()
    if variant % 2:
        world.host.start_socket()


def _exposed(world: World, variant: int) -> None:
    """An administrator follows the usual guide."""
    world.host.put(f"{DROPINS}/override.conf", actions.exec_start(actions.ARGUMENTS[1 + variant % 2]))
    world.host.reload()
    world.host.restart("admin")


def _refused_next(world: World, variant: int) -> None:
    """The restart of the correction fails, and is undone."""
    _exposed(world, variant)
    world.host.next_starts = ["refuses"]


def _nothing(world: World, variant: int) -> None:
    """It happens in whatever pass comes next."""


def _edit_and_restart(world: World, variant: int) -> None:
    actions.override(world, variant)
    world.host.reload()
    world.host.restart("admin")


def _code(world: World, variant: int) -> None:
    """Code in a drop-in that nobody loads on purpose, or that is there only while systemd loads its units."""
    if variant % 3 == 2:
        world.host.while_loading = f"{DROPINS}/passing.conf", "[Service]\nExecStartPre=/bin/false\n"
    elif variant % 3:
        world.host.put(f"{DROPINS}/pre.conf", "[Service]\nExecStartPre=/bin/false\n")
    else:
        world.host.put(f"{DROPINS}/code.conf", "[Service]\nExecStart=\nExecStart=/srv/x/dockerd -H fd://\n")


def _no_live_restore(world: World, variant: int) -> None:
    world.host.put(DAEMON_JSON, JSON[1 + variant % 2])


def _run_containers(world: World, variant: int) -> None:
    """docker run, without live-restore."""
    if world.host.running is not None:
        world.host.containers, world.host.has_unseen = {1, 2}, True


def _exposed_without_live_restore(world: World, variant: int) -> None:
    world.host.put(DAEMON_JSON, JSON[1])
    _exposed(world, variant)


def _exposed_by_daemon_json(world: World, variant: int) -> None:
    world.host.put(f"{DROPINS}/override.conf", actions.exec_start(""))
    world.host.put(DAEMON_JSON, JSON[4])
    world.host.reload()
    world.host.restart("admin")


SITUATIONS: tuple[Callable[[World, int], None], ...] = (
    _exposed, _exposed, _down, _down, _refused_next, actions.late_dropin, actions.own_dropin, _nothing,
    _exposed_without_live_restore, _exposed_by_daemon_json)

EVENTS: tuple[Callable[[World, int], None], ...] = (
    actions.start, actions.restart, actions.stop, actions.reload, actions.override, actions.no_override, _code,
    _edit_and_restart, actions.daemon_json, _no_live_restore, actions.late_dropin, actions.own_dropin,
    actions.kill_dockerd, actions.socket_unit, upgrade, _run_containers)


def meanwhile(world: World, variant: int) -> None:
    """Something has to be corrected, and while that is done somebody does something else."""
    host = world.host
    moment, rest = variant % MOMENTS, variant // MOMENTS
    event, rest = EVENTS[rest % len(EVENTS)], rest // len(EVENTS)
    SITUATIONS[rest % len(SITUATIONS)](world, rest)

    def happen() -> None:
        was, starts = files(host), len(host.starts)
        event(world, rest)
        now = files(host)
        changed = {path for path in {*was, *now} if was.get(path) != now.get(path)}
        host.has_unseen |= DAEMON_JSON in changed
        host.met.append(Meanwhile(
            event.__name__, host.clock.seconds, host.running is not None and len(host.starts) > starts,
            {path: was.get(path) for path in changed}, {path: now.get(path) for path in changed},
            frozenset(was.values()) - frozenset(now.values())))

    host.meanwhile = moment, happen
