"""Which processes are counted as containers of Docker, and what may be a port of one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from dockerd_guard.observe import processes
from dockerd_guard.observe.kernel import HostKernel
from dockerd_guard.observe.listeners import ListenerTable
from dockerd_guard.observe.observation import Process, Running
from tests.support.hosts import Host

SLEEP = "/bin/sleep"


@pytest.mark.parametrize(("name", "identity", "counted"), [
    ("containerd-shim-runc-v2", (0, False), 1),
    ("docker-containerd-shim", (0, False), 1),
    ("containerd", (0, False), 0),
    # Whoever may start a program gives it any name, and would hold every restart.
    ("containerd-shim-runc-v2", (1000, False), 0),
    # docker-in-docker, or a container that wants to look like it.
    ("containerd-shim-runc-v2", (0, True), 0),
])
def test_what_is_counted_as_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, identity: tuple[int, bool], counted: int
) -> None:
    program = tmp_path / name
    program.write_bytes(Path(SLEEP).read_bytes())
    program.chmod(0o755)
    before = HostKernel().shims()
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            # The kernel closes the descriptors of the parent before it gives the process its name.
            while Path(f"/proc/{process.pid}/comm").read_text() != f"{name[:15]}\n":
                time.sleep(0.001)
            real = processes.uid_and_namespace
            monkeypatch.setattr(processes, "uid_and_namespace",
                                lambda pid: identity if pid == process.pid else real(pid))
            assert HostKernel().shims() - before == counted
        finally:
            process.kill()


BLOCKED = ("tcp://[::]:7000", "tcp://0.0.0.0:5000")


@pytest.mark.parametrize(("answered", "shims", "is_up", "held", "unverified"), [
    (False, 1, False, {}, BLOCKED),
    (True, 1, False, {}, ()),
    (False, 0, False, {}, ()),
    # socat of root: what it leads to is known by itself.
    (False, 1, False, {"tcp://0.0.0.0:5000": 0}, BLOCKED[:1]),
    # iptables forwards the port to the container all the same.
    (False, 1, False, {"tcp://[::]:7000": 1000}, BLOCKED),
    # docker-proxy listens, and dockerd is about to answer.
    (False, 1, True, {"tcp://[::]:7000": 0}, BLOCKED),
    # It has no UNIX socket, so it is never asked.
    (False, 1, None, {}, ()),
])
def test_what_a_container_may_publish_while_no_engine_has_answered(  # noqa: PLR0913, PLR0917 -- a row
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: bool, shims: int, is_up: bool | None,
    held: dict[str, int], unverified: tuple[str, ...]
) -> None:
    kernel = HostKernel()
    kernel._access.knows_containers = answered
    monkeypatch.setattr(HostKernel, "shims", lambda _: shims)
    monkeypatch.setattr(ListenerTable, "held_by_root",
                        lambda _: frozenset(address for address, uid in held.items() if not uid))
    seen = Host(tmp_path / "host").see()
    # The stock unit has fd://.
    layer = seen.configured.layer if is_up else seen.configured.layer._replace(bindings=())
    dockerd = Running(layer, Process(9, ("dockerd",), {}, 0, ""), seen.configured.daemon)
    running = None if is_up is False else dockerd
    assert kernel.unverified(seen._replace(running=running), BLOCKED) == unverified
    assert kernel.unverified(seen._replace(running=running), ()) == ()
