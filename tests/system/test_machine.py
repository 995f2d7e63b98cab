"""The machines on which all other system tests run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines import box
from tests.machines.machine import ADDRESS, OUTSIDE_ADDRESS, CommandFailed, Machine, wait_for
from tests.machines.network import machines_of_a_fleet

EXPECTED = {"bookworm": (252, "20.10."), "trixie": (257, "26.1."), "sid": (258, "")}
"""The minimum version of systemd, and the beginning of dockerd's version."""


def test_machine_runs_the_requested_release(bare_machine: Machine) -> None:
    systemd, docker = EXPECTED[bare_machine.release]
    assert bare_machine.run(["cat", "/proc/1/comm"]).out == "systemd\n"
    assert int(bare_machine.run(["systemctl", "--version"]).out.split()[1]) >= systemd
    assert bare_machine.run(["docker", "version", "--format", "{{.Server.Version}}"]).out.startswith(docker)
    assert f"VERSION_CODENAME={bare_machine.release}" in bare_machine.read("/etc/os-release") or \
        bare_machine.release == "sid"


def test_container_survives_a_docker_restart_only_with_live_restore(bare_machine: Machine) -> None:
    bare_machine.start_container()
    bare_machine.run("systemctl restart docker")
    assert bare_machine.container_pid() == 0

    bare_machine.write("/etc/docker/daemon.json", '{"live-restore": true}\n')
    # Without reset-failed, the third start within 60 s fails (StartLimitBurst= of docker.service).
    bare_machine.run("systemctl reset-failed docker; systemctl restart docker && docker start bystander")
    before = bare_machine.started_container_pid()
    dockerd = bare_machine.main_pid()
    bare_machine.run("systemctl restart docker")
    assert bare_machine.main_pid() not in (0, dockerd)
    assert bare_machine.container_pid() == before
    assert bare_machine.run("docker inspect --format '{{.State.Running}}' bystander").out == "true\n"


def test_machines_on_one_network_reach_each_other_by_name() -> None:
    answers = "curl --silent --max-time 2 http://web2:8000/etc/hostname"
    with machines_of_a_fleet(("bookworm", "trixie")) as (network, (first, second)):
        second.run("systemd-run --quiet --unit=web busybox httpd -f -p 8000 -h /")
        wait_for(lambda: first.run(answers, check=False).out == "web2\n", "answer of web2")
        network.cut(second)
        assert first.run(answers, check=False).status
        network.mend(second)
        wait_for(lambda: first.run(answers, check=False).out == "web2\n", "answer of web2")
        second.power_off()
        second.power_on()
        network.join(second)
        second.run("systemd-run --quiet --unit=web busybox httpd -f -p 8000 -h /")
        wait_for(lambda: first.run(answers, check=False).out == "web2\n", "answer of web2")
        assert first.read("/etc/machine-id") != second.read("/etc/machine-id")


def test_outside_is_another_host(bare_machine: Machine) -> None:
    assert bare_machine.socket_answers()
    assert not bare_machine.api_answers()
    # A listener on every address is reachable from outside, one on loopback is not.
    for address, reached in (("0.0.0.0", True), (ADDRESS, True), ("127.0.0.1", False)):
        bare_machine.run("systemd-run --quiet --collect --unit=door "
                         f"socat TCP-LISTEN:2375,bind={address},reuseaddr,fork UNIX-CONNECT:/run/docker.sock")
        wait_for(lambda: "2375" in bare_machine.run("ss -Htln").out, "listener on port 2375")
        assert bare_machine.api_answers() is reached, address
        bare_machine.run("systemctl stop door")
    assert OUTSIDE_ADDRESS in bare_machine.outside(["ip", "-4", "address"]).out
    assert bare_machine.outside("test -e /run/docker.sock", check=False).status == 1


def test_disk_persists_over_shutdown_and_power_cut(bare_machine: Machine) -> None:
    for number, down in enumerate((bare_machine.power_off, bare_machine.power_cut)):
        bare_machine.write(f"/root/{number}", "kept")
        boot = bare_machine.read("/proc/sys/kernel/random/boot_id"), bare_machine.leader
        down()
        assert not bare_machine.is_on
        bare_machine.power_on()
        assert bare_machine.leader != boot[1]
        assert bare_machine.read(f"/root/{number}") == "kept"
        assert bare_machine.is_active("docker.service")


def test_machines_are_isolated() -> None:
    with Machine.boot("bookworm") as one, Machine.boot("bookworm") as other:
        one.run("systemctl stop docker.socket docker.service")
        one.write("/root/mine", "")
        assert not other.exists("/root/mine")
        assert other.socket_answers()
        assert not one.socket_answers()


def test_commands_and_their_errors(bare_machine: Machine) -> None:
    assert bare_machine.run("echo $HOME; pwd").out == "/root\n/\n"
    assert bare_machine.run(["echo", "$HOME"]).out == "$HOME\n"
    assert bare_machine.run("cat", input="a\n").out == "a\n"
    assert bare_machine.run("exit 3", check=False).status == 3
    with pytest.raises(CommandFailed, match=r"\$ echo no >&2; exit 3\nno\n\(status 3\)"):
        bare_machine.run("echo no >&2; exit 3")
    with pytest.raises(TimeoutError, match="no end within 1 s"):
        bare_machine.run("sleep 12345", timeout=1)
    wait_for(lambda: bare_machine.run("pgrep -f 'sleep 1234[5]'", check=False).status == 1,
                          "end of the command that took too long")
    with pytest.raises(TimeoutError, match="no rain within 0 s; the last answer was False"):
        wait_for(lambda: False, "rain", timeout=0)
    bare_machine.run("logger --id=4711 --tag=harness hello")
    bare_machine.sync_journal()
    (entry,) = bare_machine.journal("--identifier=harness")
    assert entry["MESSAGE"] == "hello"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_machine_ends_with_its_owner(end: signal.Signals) -> None:
    # A shell starts background processes with SIGINT ignored.
    script = ("import signal\nimport time\nfrom tests.machines.machine import Machine\n"
              "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
              "with Machine.boot('bookworm') as machine:\n"
              "  print(machine.name, flush=True)\n  time.sleep(1000)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2], start_new_session=True) as owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        assert name in box.names()
        directory = Machine.attach(name).box.directory
        os.killpg(owner.pid, end)
    wait_for(lambda: name not in box.names(), f"end of {name}")
    assert not directory.exists()
    assert str(directory) not in Path("/proc/self/mounts").read_text()
    assert not [each for each in command_lines() if str(directory).encode() in each]


def command_lines() -> Iterator[bytes]:
    """The command lines of all processes of this host. Those of other tests come and go meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_bytes()
