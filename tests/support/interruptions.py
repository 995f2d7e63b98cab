"""Interruptions of a correction: failing disks, D-Bus, systemd and dockerd."""

from __future__ import annotations

from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.support.correction import entries
from tests.support.crash import STATE, hold_at, host_state, open_up, prepare, settled
from tests.support.crash_points import ORDER_FILE


class Interruption(NamedTuple):
    """An interruption: the step, the shell line that causes it, the one that ends it, and the state of the host
    meanwhile (`before`, `after`, `written`, or `down` if systemd cannot be asked to start dockerd). `slow` ones run
    only in `make slow-test`. `setup` is run before dockerd is started: what is loaded later holds its restart."""

    name: str
    step: str
    line: str
    undo: str
    meanwhile: str
    slow: bool = True
    setup: str = ""


def on_a_disk(directory: str, failure: str) -> str:
    """Return a shell line that mounts a small file system over the directory, with its content, and then runs
    `failure`."""
    return (f"cp -a {directory} /root/away; mount -t tmpfs -o size=32k tmpfs {directory}; "
            f"cp -a /root/away/. {directory}; {failure}")


def full(directory: str) -> str:
    return on_a_disk(directory, f"head -c 1M /dev/zero > {directory}/filler || :")


def read_only(directory: str) -> str:
    return on_a_disk(directory, f"mount -o remount,ro {directory}")


def slow_stop(seconds: float) -> str:
    """Return a shell script that makes each stop of docker.service slow."""
    return f"""
        mkdir -p /run/systemd/system/docker.service.d
        printf '[Service]\\nExecStop=/bin/sleep 1000\\nTimeoutStopSec={seconds}s\\n' \\
            > /run/systemd/system/docker.service.d/slow.conf
        systemctl daemon-reload
    """


SERVICE_D = "/etc/systemd/system/docker.service.d"
STOP_BUS, START_BUS = "systemctl stop dbus.socket dbus.service", "systemctl start dbus.socket dbus.service"
FIRST_WRITE = f"create {STATE}/.dockerd-guard."
INTERRUPTIONS = (
    Interruption("no room for the intent", FIRST_WRITE, full(STATE), f"umount {STATE}", "before"),
    Interruption("no room after the first files", FIRST_WRITE, full("/etc/docker"), "umount /etc/docker", "before",
                 slow=False),
    Interruption("no room for the first file", FIRST_WRITE, full("/etc/systemd/system/docker.socket.d"),
                 "umount /etc/systemd/system/docker.socket.d", "before"),
    Interruption("a read-only state directory", FIRST_WRITE, read_only(STATE), f"umount {STATE}", "before"),
    Interruption("a read-only directory after the first files", FIRST_WRITE, read_only(SERVICE_D),
                 f"umount {SERVICE_D}", "before"),
    Interruption("an immutable directory", FIRST_WRITE, f"chattr +i {SERVICE_D}", f"chattr -i {SERVICE_D}", "before"),
    Interruption("no D-Bus before the reload", "call Reload", STOP_BUS, START_BUS, "written"),
    Interruption("no D-Bus while docker.service is down", "call StartUnit", STOP_BUS, START_BUS, "down"),
    Interruption("systemd re-executed before the reload", "call Reload", "systemctl daemon-reexec", "", "after"),
    Interruption("systemd re-executed while docker.service stops", "call StopUnit",
                 "systemd-run --quiet --on-active=1 systemctl daemon-reexec", "", "after", slow=False,
                 setup=slow_stop(4)),
    Interruption("a docker.service whose stop hangs", "call StopUnit", "true", "", "after", setup=slow_stop(6)),
    Interruption("a dockerd that is stopped by SIGSTOP", "call StopUnit",
                 "systemctl kill --signal=STOP --kill-who=main docker", "", "after"),
)


def interrupt(machine: Machine, interruption: Interruption) -> None:
    prepare(machine)
    container = machine.container_pid()
    if interruption.setup:
        machine.run(interruption.setup)
    open_up(machine)
    before = host_state(machine)
    hold_at(machine, interruption.step)
    machine.run(interruption.line)
    machine.remove(ORDER_FILE)
    if interruption.meanwhile == "before":
        wait_for(lambda: entries(machine, "failed") + entries(machine, "rolled-back"), "entry about the failure")
        now = host_state(machine)
        files = {path: text for path, text in now.files.items() if not path.endswith("/filler")}
        assert (files, *now[1:4], now.left) == (before.files, *before[1:4], ())
        assert machine.socket_answers()
        assert len(entries(machine, "failed") + entries(machine, "rolled-back")) == 1
    elif interruption.meanwhile in ("written", "down"):
        wait_for(lambda: any("cannot query systemd" in entry["MESSAGE"] for entry in entries(machine, "blind")),
                 "entry about D-Bus")
    if interruption.undo:
        # The agent may be using it: retry.
        wait_for(lambda: machine.run(interruption.undo, check=False).status == 0, "end of the failure")
    # No event reports free space: the next resync retries.
    settled(machine)
    now = host_state(machine)
    assert (now.listening, now.left) == (("/run/docker.sock", "127.0.0.1:2376"), ())
    assert machine.socket_answers()
    assert machine.container_pid() == container
