"""Invalid input and failures of other services: one clear message each, no hang, and the agent continues."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import ENFORCE, OBSERVE, OVERRIDE, POLICY, entries, repaired

DROPIN_DIRECTORY = "/etc/systemd/system/docker.service.d"

BAD_POLICIES = {
    "not YAML": ("version: 1\nsockets: [fd://\n", f"{POLICY}:3:1: "),
    "an unknown key": ("version: 1\nsockets: [fd://]\nmoed: enforce\n", f"{POLICY}:3:1: "),
    "a key twice": ("version: 1\nsockets: [fd://]\nsockets: []\n", f"{POLICY}:3:1: "),
    "a wrong type": ("version: 1\nsockets: fd://\n", f"{POLICY}:2:10: "),
    "an unparsable duration": ("version: 1\nsockets: [fd://]\nwatch: {settle: soon}\n", f"{POLICY}:3:17: "),
}


def policy_messages(machine: Machine) -> list[str]:
    return [entry["MESSAGE"] for entry in entries(machine, "policy")]


def test_invalid_policy_is_reported_with_location_and_last_valid_one_stays(machine: Machine) -> None:
    agent = machine.main_pid("dockerd-guard.service")
    for name, (text, place) in BAD_POLICIES.items():
        before = len(policy_messages(machine))
        machine.write(POLICY, text)
        assert machine.run("systemctl reload dockerd-guard", check=False).status != 0
        # On a busy host the agent may read a partly written file first, and report that.
        wait_for(lambda n=before, p=place: any(  # type: ignore[misc]
            p in message and message.startswith("The last valid policy stays in force: ")
            for message in policy_messages(machine)[n:]), f"entry about {name}")
    machine.write(POLICY, OBSERVE, mode=0o666)
    wait_for(lambda: any("writable" in message for message in policy_messages(machine)), "entry about the mode")
    assert machine.main_pid("dockerd-guard.service") == agent
    machine.remove(POLICY)
    machine.write(POLICY, ENFORCE)
    wait_for(lambda: "mode enforce" in policy_messages(machine)[-1], "the good policy in force")


@pytest.mark.parametrize("text", ["version: 1\nsockets: [fd://]\nmoed: x\n", None], ids=["bad", "missing"])
def test_agent_starts_only_with_a_valid_policy(
        machine: Machine, text: str | None) -> None:
    machine.run("systemctl stop dockerd-guard")
    machine.remove(POLICY)
    if text is not None:
        machine.write(POLICY, text)
    started = machine.run("systemctl start dockerd-guard", check=False)
    assert started.status != 0
    assert machine.properties("dockerd-guard.service", "ExecMainStatus")["ExecMainStatus"] == "2"
    wait_for(lambda: any(message.startswith("No valid policy") and POLICY in message
                         for message in policy_messages(machine)), "entry about the policy")
    wait_for(lambda: machine.is_active("dockerd-guard-policy.path"), "watch on the policy")
    machine.write(POLICY, OBSERVE)
    wait_for(lambda: machine.is_active("dockerd-guard.service"), "agent with the valid policy")


BAD_FILES = {
    "a FIFO": "mkfifo {path}",
    "a dangling link": "ln -s /nowhere/at/all {path}",
    "a directory": "mkdir {path}",
    "a link to itself": "ln -s {path} {path}",
    "binary": "head -c 100000 /dev/urandom > {path}",
    "huge": "head -c 20M /dev/zero > {path}",
    "one long line": "(printf '[Service]\\nExecStart='; head -c 3M /dev/zero | tr '\\0' a) > {path}",
}


def test_unreadable_dropin_is_reported_without_a_hang(machine: Machine) -> None:
    agent = machine.main_pid("dockerd-guard.service")
    machine.run(f"mkdir -p {DROPIN_DIRECTORY}")
    for number, (name, command) in enumerate(BAD_FILES.items()):
        path = f"{DROPIN_DIRECTORY}/{number}.conf"
        machine.run(command.format(path=path))
        done = machine.run("timeout 20 dockerd-guard lint", check=False)
        assert done.status in (1, 2), (name, done)
        assert path in done.out + done.err, (name, done)
        assert "Traceback" not in done.err, (name, done)
        assert machine.run("timeout 20 dockerd-guard sockets --format json", check=False).status in (0, 2), name
        wait_for(lambda p=path: any(p in entry["MESSAGE"] or p == entry.get("DOCKERD_GUARD_FILE")  # type: ignore[misc]
                                    for entry in machine.journal("SYSLOG_IDENTIFIER=dockerd-guard")),
                 f"entry about {name}")
        machine.run(f"rm -rf {path}")
    assert machine.main_pid("dockerd-guard.service") == agent
    assert "internal error" not in machine.run("journalctl -u dockerd-guard").out


@pytest.mark.parametrize(("fifo", "command"), [
    (f"{DROPIN_DIRECTORY}/a.conf", "mkfifo {path}"),
    ("/etc/systemd/system/dbus.service.d/a.conf", "mkfifo {path}"),
    ("/etc/systemd/system/dbus.service.d/a.conf", "ln -s /dev/zero {path}"),
    ("/etc/systemd/system.conf.d/a.conf", "mkfifo /root/fifo; ln -s /root/fifo {path}"),
    ("/etc/systemd/system.conf", "rm -f {path}; mkfifo {path}"),
], ids=["docker.service", "another unit", "without an end", "the manager's drop-in", "the manager itself"])
def test_reload_is_held_while_systemd_would_read_a_fifo(machine: Machine, fifo: str, command: str) -> None:
    # PID 1 opens it like any file, and waits for a writer forever (seen in 252, 257 and 262).
    machine.run(f"mkdir -p {Path(fifo).parent} {DROPIN_DIRECTORY}; {command.format(path=fifo)}")
    machine.write(OVERRIDE, "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.write(POLICY, ENFORCE)
    wait_for(lambda: any(fifo in entry["MESSAGE"] for entry in entries(machine, "held") + entries(machine, "failed")),
             "entry about the FIFO")
    done = machine.run("timeout 60 dockerd-guard fix", check=False)
    assert (done.status, fifo in done.out + done.err) == (1, True), done
    machine.run("timeout 20 systemctl show --property=Version")
    machine.run(f"rm {fifo}")
    wait_for(lambda: repaired(machine), "correction, once that is gone")
    assert machine.properties("docker.service", "NeedDaemonReload") == {"NeedDaemonReload": "no"}


def test_stopped_or_missing_docker_is_reported_and_detected_when_it_starts(machine: Machine) -> None:
    machine.write(POLICY, ENFORCE)
    machine.run("systemctl stop docker.socket docker.service")
    shown = machine.run("dockerd-guard sockets", check=False)
    assert "dockerd is not running" in shown.out + shown.err
    # Without the unit, systemd-sysv-generator creates one from the init script.
    machine.run("mkdir /root/away; mv /lib/systemd/system/docker.* /etc/init.d/docker /root/away/; "
                "systemctl daemon-reload")
    gone = machine.run("dockerd-guard lint", check=False)
    assert "docker.service" in gone.err
    assert "not found" in gone.err
    wait_for(lambda: "docker.service is not-found" in machine.run("systemctl status dockerd-guard").out, "status line")

    machine.run("mv /root/away/docker.* /lib/systemd/system/")
    machine.write(OVERRIDE, "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.run("systemctl daemon-reload; systemctl start docker.socket docker.service")
    wait_for(lambda: repaired(machine), "correction of what came")
    wait_for(lambda: not machine.api_answers(), "closed port")
    wait_for(machine.socket_answers, "dockerd that answers")


def test_lost_dbus_is_reported_and_used_again_when_it_returns(machine: Machine) -> None:
    machine.write(POLICY, ENFORCE)
    agent = machine.main_pid("dockerd-guard.service")
    machine.run("systemctl stop dbus.socket dbus.service")
    machine.run("touch /etc/docker/daemon.json; rm /etc/docker/daemon.json")
    wait_for(lambda: any("cannot query systemd" in entry["MESSAGE"] for entry in entries(machine, "blind")),
             "entry about D-Bus")
    machine.write(OVERRIDE, "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H tcp://0.0.0.0:2375 --tls=false\n")
    wait_for(lambda: entries(machine, "drift"), "drift seen without D-Bus")
    machine.run("systemctl start dbus.socket dbus.service")
    wait_for(lambda: any(entry["MESSAGE"].startswith("Visibility restored") for entry in entries(machine, "blind")),
             "entry about the return of D-Bus")
    wait_for(lambda: repaired(machine), "correction once systemd can be asked")
    assert machine.main_pid("dockerd-guard.service") == agent
    machine.run("systemctl restart docker")
    assert not machine.api_answers()
