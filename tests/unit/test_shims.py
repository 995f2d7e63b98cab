"""Which processes are counted as containers of Docker."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from dockerd_guard.observe import processes
from dockerd_guard.observe.kernel import HostKernel

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
