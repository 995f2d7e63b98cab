"""What a correction would delete: the path of a UNIX socket at which something else is. Pure.

bind(2) fails with EADDRINUSE where anything is at the path, also a link, which it does not follow. systemd then calls
unlink(2) and tries again (src/shared/socket-label.c, socket_address_listen); dockerd calls unlink(2) first
(go-connections sockets/unix_socket.go, NewUnixSocketWithOpts), and when it stops (Go's net.UnixListener.Close).
unlink(2) fails for a directory. systemd makes missing parent directories, dockerd does not.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from dockerd_guard.model.address import Binding, Via
from dockerd_guard.observe.configured import passed_by
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.plan import Plan
from dockerd_guard.rootfs import Rootfs

NEXT_STEP = "Move this away, or declare another path in the policy; the agent retries automatically"


def occupied(seen: Observation, plan: Plan) -> tuple[str, ...]:
    """Return the paths of sockets at which something else than a socket is, as messages: of what the plan would have
    bound, and of what the running dockerd would remove when it stops."""
    running = seen.running.layer.bindings if seen.running is not None else ()
    programs = {
        **dict.fromkeys(_own(running), "dockerd"),
        **dict.fromkeys(_own(plan.after.layer.bindings), "dockerd"),
        **dict.fromkeys((address for address, _ in passed_by(plan.after.sockets)), "systemd"),
    }
    found = (_problem(seen.rootfs, address.removeprefix("unix://"), program)
             for address, program in programs.items() if address.startswith("unix:///"))
    return tuple(dict.fromkeys(filter(None, found)))


def _own(bindings: tuple[Binding, ...]) -> Iterator[str]:
    return (binding.address for binding in bindings if binding.via is not Via.SOCKET_UNIT)


def _problem(rootfs: Rootfs, path: str, program: str) -> str:
    entry = rootfs.stat_if_possible(path, follow=False)
    if entry is None:
        return _problem_above(rootfs, path, program)
    if stat.S_ISSOCK(entry.mode):
        return ""
    if entry.is_directory:
        return f"{path} is a directory; {program} could not listen there"
    return f"{path} is a {entry.kind}, not a socket; {program} would delete it"


def _problem_above(rootfs: Rootfs, path: str, program: str) -> str:
    """Why there can be no socket: the nearest parent that exists is no directory."""
    above = path.rpartition("/")[0]
    while above:
        entry = rootfs.stat_if_possible(above) or rootfs.stat_if_possible(above, follow=False)
        if entry is not None:
            return "" if entry.is_directory else (
                f"{above} is a {entry.kind}, not a directory; {program} could not listen on {path}")
        above = above.rpartition("/")[0]
    return ""
