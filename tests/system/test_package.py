"""The package: the effects of install, remove and purge on a host."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.machines.machine import ADDRESS, OUTSIDE_ADDRESS, Machine, wait_for
from tests.support.network import processes

AGENT = "dockerd-guard.service"
POLICY = "/etc/dockerd-guard/config.yaml"
DROP_INS = ("/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf",
            "/etc/systemd/system/docker.socket.d/zz-dockerd-guard.conf")

CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19}
"""<linux/capability.h>."""

REFUSED, TIMED_OUT = 7, 28
"""curl(1), EXIT CODES."""

MOVING = (r"/(proc|sys|dev|run|tmp|var/(log|cache|tmp)|"
          r"var/lib/(dpkg|apt|docker|containerd|systemd/timers))(/|$)")
"""Paths that change without the package, and dpkg's databases."""

NETWORK = "dockerd-guard-network@.service"
FLEET = "dockerd-guard-fleet@.service"
HIGHEST_SCORE = 2.0

CONNECT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/dockerd-guard/network")
print("connected", flush=True)
sys.stdin.read()
"""

SANDBOX = (Path(__file__).resolve().parents[2] / "docs/sandbox.md").read_text()


def section(unit: str) -> str:
    """Return the section of docs/sandbox.md about a unit."""
    return next(text for text in SANDBOX.split("\n## ") if text.startswith(f"{unit}\n"))


def files(machine: Machine) -> set[str]:
    found = machine.run(["find", "/", "-xdev"], check=False).out.splitlines()
    return {path for path in found if not re.match(MOVING, path)}


def test_install_remove_and_purge_do_not_affect_docker_and_leave_no_files(
        bare_machine: Machine, package: Path) -> None:
    machine = bare_machine
    machine.start_container()
    dockerd, container, before = machine.main_pid(), machine.container_pid(), files(machine)

    def docker_is_untouched() -> bool:
        now = machine.main_pid(), machine.container_pid()
        return now == (dockerd, container) and machine.socket_answers()

    machine.install(package)
    assert machine.properties(AGENT, "ActiveState", "UnitFileState") == \
        {"ActiveState": "active", "UnitFileState": "enabled"}
    assert re.search("^mode: observe", machine.read(POLICY), re.MULTILINE)
    assert machine.run(["stat", "-c", "%U:%G %a", POLICY]).out == "root:root 644\n"
    assert docker_is_untouched()

    machine.run("apt-get remove --yes dockerd-guard")
    assert machine.properties(AGENT, "ActiveState")["ActiveState"] == "inactive"
    assert machine.run("pgrep -f docker-ap[i]", check=False).status == 1
    assert not machine.is_active("dockerd-guard-network.socket")
    assert machine.exists(POLICY)
    assert docker_is_untouched()

    machine.run("apt-get purge --yes dockerd-guard")
    assert docker_is_untouched()
    assert files(machine) - before == set()
    assert before - files(machine) == set()


def test_remove_keeps_corrections_and_purge_removes_them(machine: Machine) -> None:
    saved = "/etc/systemd/system/docker.service.d/open.conf.dockerd-guard-saved"
    for path in DROP_INS:
        machine.write(path, "# as the agent would write it\n")
    machine.write(saved, "# somebody else's\n")
    machine.write("/var/lib/dockerd-guard/state", "")
    dockerd = machine.main_pid()
    machine.run("apt-get remove --yes dockerd-guard")
    assert all(machine.exists(path) for path in DROP_INS)
    done = machine.run("apt-get purge --yes dockerd-guard")
    assert f"removed {DROP_INS[1]}; check with 'systemctl cat docker.socket'" in done.out
    assert not any(machine.exists(path) for path in (*DROP_INS, "/etc/systemd/system/docker.socket.d",
                                                      "/var/lib/dockerd-guard", "/etc/dockerd-guard"))
    assert machine.exists(saved)
    assert machine.properties("docker.service", "NeedDaemonReload")["NeedDaemonReload"] == "no"
    assert machine.main_pid() == dockerd


def test_reinstall_restarts_only_the_agent_and_keeps_the_policy(
        machine: Machine, package: Path) -> None:
    policy = machine.read(POLICY) + "# ours\n"
    machine.write(POLICY, policy)
    agent, dockerd = machine.main_pid(AGENT), machine.main_pid()
    machine.install(package)
    assert machine.main_pid(AGENT) not in (0, agent)
    assert machine.main_pid() == dockerd
    assert machine.read(POLICY) == policy


def test_search_for_dockerd_finds_only_dockerd(machine: Machine) -> None:
    dockerd = f"{machine.main_pid()}\n"
    assert machine.run(["pgrep", "-f", "dockerd"]).out == dockerd
    assert machine.run(["pgrep", "dockerd"]).out == dockerd
    assert machine.run(["pidof", "dockerd"]).out == dockerd
    assert machine.main_pid(AGENT) != 0


def test_invalid_policy_stops_the_agent_until_it_changes(machine: Machine) -> None:
    good = machine.read(POLICY)
    machine.write(POLICY, "version: 1\nsokcets: []\n")
    machine.run(["systemctl", "restart", AGENT], check=False)
    wait_for(lambda: machine.properties(AGENT, "ActiveState")["ActiveState"] == "failed", "end of the agent")
    shown = machine.properties(AGENT, "ExecMainStatus", "NRestarts")
    assert shown == {"ExecMainStatus": "2", "NRestarts": "0"}
    wait_for(lambda: any(f"{POLICY}:2:1" in entry["MESSAGE"] for entry in machine.journal(f"--unit={AGENT}", "--boot")),
             "entry about the policy")
    wait_for(lambda: machine.is_active("dockerd-guard-policy.path"), "watch on the policy")

    machine.write(POLICY, "version: 2\n")  # still invalid
    wait_for(lambda: machine.journal(f"--unit={AGENT}", "--grep=version"), "entry about the next policy")
    wait_for(lambda: machine.is_active("dockerd-guard-policy.path"), "watch on the policy again")

    machine.write(POLICY, good)
    wait_for(lambda: machine.is_active(AGENT), "running agent")
    wait_for(lambda: not machine.is_active("dockerd-guard-policy.path"), "end of the watch on the policy")


def test_agent_runs_without_docker(bare_machine: Machine, package: Path) -> None:
    machine = bare_machine
    machine.run("systemctl stop docker.socket docker; dpkg --purge --force-depends docker.io")
    machine.install(package)
    assert machine.is_active(AGENT)


@pytest.mark.parametrize("unit", [AGENT, NETWORK, FLEET])
def test_sandbox_matches_its_documentation(machine: Machine, unit: str) -> None:
    page, instance = section(unit), unit.replace("@", "@x")
    rows = json.loads(machine.run(["systemd-analyze", "security", "--json=short", instance]).out)
    assert {row["name"]: row["exposure"] for row in rows if row["exposure"] not in (None, "0.0")} == {
        name.replace("\\|", "|"): score
        for name, score in re.findall(r"^\| `(\S+)` \| ([0-9.]+) \|", page, re.MULTILINE)}
    output = machine.run(["systemd-analyze", "security", "--no-pager", instance]).out
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", output)
    assert overall is not None
    assert f"security {instance}` reports {overall[1]}:" in page
    assert float(overall[1]) <= HIGHEST_SCORE


def test_systemd_analyze_verify_reports_nothing(machine: Machine) -> None:
    # The machine has no man(1).
    units = (f"{AGENT} {NETWORK.replace('@', '@x')} dockerd-guard-network.socket {FLEET.replace('@', '@x')} "
             "dockerd-guard-fleet.socket dockerd-guard-policy.path")
    assert machine.run(f"systemd-analyze verify --man=no {units}").err == ""


def test_capabilities_match_the_documentation(machine: Machine) -> None:
    with machine.popen(["python3", "-c", CONNECT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        # The agent may have another one during a pass.
        network = wait_for(lambda: found[0] if len(found := processes(machine)) == 1 else "",
                           "process for the connection")
        for unit, pid in ((AGENT, machine.main_pid(AGENT)), (NETWORK, network)):
            numbers = {line.partition(":")[0]: int(line.split()[1], 16)
                       for line in machine.read(f"/proc/{pid}/status").splitlines()
                       if line.startswith(("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp:"))}
            listed = sum(1 << CAPABILITIES[name]
                         for name in re.findall(r"^\| `(CAP_\w+)` \|", section(unit), re.MULTILINE))
            assert numbers == {"CapPrm": listed, "CapEff": listed, "CapBnd": listed, "NoNewPrivs": 1, "Seccomp": 2}
        assert machine.run(["stat", "--format=%u", f"/proc/{network}"]).out != "0\n"


def test_helper_connects_only_to_this_host(machine: Machine) -> None:
    """curl with RestrictNetworkInterfaces= of the unit: this host refuses the connection, and other hosts cannot be
    reached."""
    only = machine.properties(NETWORK.replace("@", "@x"), "RestrictNetworkInterfaces")["RestrictNetworkInterfaces"]
    asked = ["systemd-run", "--quiet", "--wait", "--property", f"RestrictNetworkInterfaces={only}",
             "curl", "--silent", "--max-time", "2"]
    assert machine.run(["curl", "--silent", f"http://{OUTSIDE_ADDRESS}:1/"], check=False).status == REFUSED
    assert machine.run([*asked, f"http://{ADDRESS}:1/"], check=False).status == REFUSED
    restricts = "+BPF_FRAMEWORK" in machine.run(["systemctl", "--version"]).out
    assert restricts == (machine.release != "bookworm")
    assert machine.run([*asked, f"http://{OUTSIDE_ADDRESS}:1/"], check=False).status == (
        TIMED_OUT if restricts else REFUSED)
