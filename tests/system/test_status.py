"""`status` for root and other users, with the agent running, holding a correction, stopped, and without a valid policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.incidents import ENFORCE, OPEN, OVERRIDE, POLICY
from tests.machines.machine import Machine, wait_for
from tests.support.correction import DOCKERD

CLEAR_TEXT = """\
version: 1
sockets: [fd://, {address: "tcp://127.0.0.1:2376", tls: none}]
waive: [{rule: DG103, address: "tcp://127.0.0.1:2376", reason: loopback only}]
"""
JOE = "setpriv --reuid=joe --regid=joe --init-groups "


def status(machine: Machine, prefix: str = "") -> dict[str, Any]:
    """Return the JSON output with the exit code."""
    done = machine.run(f"{prefix}dockerd-guard status --format=json", check=False)
    assert done.err == ""
    answer: dict[str, Any] = json.loads(done.out)
    return {**answer, "exit": done.status}


def awaited(machine: Machine, condition: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
    return wait_for(lambda: now if condition(now := status(machine)) else None, what)


def expose(machine: Machine) -> None:
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n"))
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")


def enforce(machine: Machine) -> None:
    machine.write(POLICY, ENFORCE.replace("\\n", "\n"))
    machine.run("systemctl reload-or-restart dockerd-guard")


def test_status_of_a_compliant_host_for_root_and_others(machine: Machine) -> None:
    machine.run("useradd joe")
    well = awaited(machine, lambda now: now["exit"] == 0, "compliant host")
    assert well["agent"] | {"pid": 0, "looked": ""} == {
        "alive": True, "unit": "active", "pid": 0, "state": "watching", "looked": "", "blind": []}
    assert well["agent"]["pid"] == machine.main_pid("dockerd-guard.service")
    assert (well["policy"]["mode"], well["policy"]["problem"], well["wrong"], well["unseen"]) == (
        "observe", None, [], [])
    everywhere = dict.fromkeys(("configured", "loaded", "running", "listening"), "none")
    assert well["sockets"] == [{"address": "unix:///run/docker.sock", "declared": "none", "layers": everywhere}]

    # Other users cannot read dockerd's state; the agent's status file has it.
    seen = status(machine, JOE)
    assert (seen["exit"], seen["wrong"]) == (0, [])
    assert seen["sockets"][0]["layers"] == {**everywhere, "running": None, "listening": None}
    assert any("run as root" in text for text in seen["unseen"])

    # Only the files are left.
    machine.run("systemctl stop dbus.socket dbus.service", check=False)
    blind = awaited(machine, lambda now: now["agent"]["alive"] is None, "D-Bus that is gone")
    assert blind["exit"] == 2
    assert blind["sockets"][0]["layers"]["loaded"] is None
    assert any("D-Bus" in text for text in blind["unseen"])


def test_what_another_account_cannot_read_is_unknown(machine: Machine) -> None:
    """Nothing is reported as missing that a closed file configures."""
    machine.run("useradd joe")
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD}\n")
    machine.write("/etc/docker/daemon.json", '{"hosts": ["fd://", "tcp://127.0.0.1:2376"], "tls": false}\n', mode=0o600)
    machine.write(POLICY, CLEAR_TEXT)
    machine.run("systemctl daemon-reload; systemctl restart docker; systemctl reload dockerd-guard")
    well = awaited(machine, lambda now: now["exit"] == 0, "compliant host")
    assert [row["layers"]["configured"] for row in well["sockets"]] == ["none", "none"]
    seen = status(machine, JOE)
    assert (seen["exit"], seen["wrong"]) == (0, [])
    assert [row["layers"]["configured"] for row in seen["sockets"]] == ["none", None]
    assert "/etc/docker/daemon.json: cannot be read: Permission denied" in seen["unseen"]


def test_status_of_a_held_correction_a_stopped_agent_and_a_fixed_host(machine: Machine) -> None:
    machine.run("useradd joe")
    expose(machine)
    machine.start_container()
    enforce(machine)
    # While dockerd is slow to answer, that is the reason.
    held = awaited(machine, lambda now: now["contained"] and now["held"]
                   and "1 running container would be stopped" in now["held"]["reason"], "correction that is held")
    assert held["exit"] == 1
    assert held["agent"]["state"] == "holding"
    assert "live-restore" in held["held"]["next"]
    assert held["sockets"][1] == {"address": "tcp://0.0.0.0:2375", "declared": None, "layers": {
        "configured": False, "loaded": False, "running": "none", "listening": "none"}}
    exposure = next(finding for finding in held["findings"] if finding["code"] == "DG101")
    assert exposure["since"] is not None
    of_joe = status(machine, JOE)
    assert of_joe["exit"] == 1
    assert (of_joe["held"], of_joe["contained"]) == (held["held"], held["contained"])
    assert "DG101" in {finding["code"] for finding in of_joe["findings"]}
    script = "script -qc 'stty cols 40; dockerd-guard status' /dev/null"
    plain = machine.run(f"NO_COLOR=1 LC_ALL=C {script}", check=False).out
    assert "\x1b[1;31m" in machine.run(f"TERM=xterm {script}", check=False).out
    assert "\x1b" not in plain
    assert plain.isascii()
    assert max(map(len, plain.replace("\r", "").split("\n"))) <= 40
    line = machine.properties("dockerd-guard.service", "StatusText")["StatusText"]
    assert line.startswith("held: live-restore is off: 1 running container would be stopped; "
                           "blocked at the network: tcp://")

    # The agent is stopped. Containment stays, and is reported.
    machine.run("systemctl stop dockerd-guard")
    down = status(machine)
    assert (down["exit"], down["agent"]["alive"], down["held"]) == (1, False, None)
    assert down["contained"] == held["contained"]
    assert down["wrong"][0] == "no agent is running"

    # An invalid policy.
    machine.write(POLICY, "version: 1\nmode: enforce\nsockets: [fd://]\nmood: good\n")
    assert f"{POLICY}:4:1: unknown key 'mood'" in status(machine)["policy"]["problem"]

    machine.write("/etc/docker/daemon.json", '{"live-restore": true}\n')
    machine.run("systemctl reload docker")
    enforce(machine)
    fixed = awaited(machine, lambda now: now["exit"] == 0, "compliant host")
    assert (fixed["last"]["event"], fixed["last"]["outcome"]) == ("corrected", "repaired")
