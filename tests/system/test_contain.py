"""Containment: an open port that cannot be corrected yet is blocked, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine, wait_for
from tests.support.containment import NEVER, OPEN, contained, is_open, open_up, shop_answers, table
from tests.support.correction import (
    DOCKERD,
    ENFORCE,
    LIVE_RESTORE,
    OBSERVE,
    OVERRIDE,
    POLICY,
    SOCKET_OVERRIDE,
    enforce,
    entries,
    repaired,
    rests,
)

STATE = "/var/lib/dockerd-guard"
UNITS = "/etc/systemd/system"
LISTS_A_PORT = "[Socket]\nListenStream=4243\nService=docker.service\n[Install]\nWantedBy=sockets.target\n"
FALLBACK_FILES = "/run/systemd/system.control/docker.service.d"

# One connection with two requests, the second after a line on standard input.
ASK_TWICE = f"""
import http.client, sys
connection = http.client.HTTPConnection("{ADDRESS}", 2375, timeout=5)
for _ in range(2):
    connection.request("GET", "/_ping")
    print(connection.getresponse().read().decode(), flush=True)
    sys.stdin.readline()
"""


# Connects until standard input ends, and prints how often that succeeded, and how often it did not.
PROBE = f"""
import select, socket, sys
counts = [0, 0]
while not select.select([sys.stdin], [], [], 0.002)[0]:
    try:
        socket.create_connection(("{ADDRESS}", 2375), timeout=5).close()
        counts[0] += 1
    except OSError:
        counts[1] += 1
print(*counts)
"""


class Opened(NamedTuple):
    """How the API was opened, and the address in the kernel."""

    name: str
    files: Mapping[str, str]
    address: str


WAYS = (
    Opened("by -H", OPEN, "tcp://[::]:2375"),
    Opened("by docker.socket", {SOCKET_OVERRIDE: "[Socket]\nListenStream=0.0.0.0:2375\nListenStream=[fd77::2]:2375\n"},
           "tcp://0.0.0.0:2375"),
)


@pytest.mark.parametrize("opened", WAYS, ids=lambda opened: opened.name)
def test_held_exposure_is_blocked_until_corrected(machine: Machine, opened: Opened) -> None:
    open_up(machine, opened.files)
    dockerd, container = machine.main_pid(), machine.container_pid("shop")
    client = subprocess.Popen(machine.outside_command("python3", "-c", ASK_TWICE), text=True, bufsize=1,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == "OK\n"

    enforce(machine)
    contained(machine)
    assert not machine.api_answers(address=ADDRESS_IPV6)
    # Established connections are blocked too.
    assert "ConnectionResetError" in client.communicate("again\n", timeout=30)[1]
    assert machine.run("curl --silent http://127.0.0.1:2375/_ping").out == "OK"
    assert machine.run(f"curl --silent http://{ADDRESS}:2375/_ping").out == "OK"
    assert shop_answers(machine)
    assert (machine.main_pid(), machine.container_pid("shop")) == (dockerd, container)
    assert not machine.exists(FALLBACK_FILES)

    wait_for(lambda: entries(machine, "held"), "held correction")
    entry = wait_for(lambda: entries(machine, "contained"), "entry")[0]
    assert (entry["DOCKERD_GUARD_SOCKET"], entry["DOCKERD_GUARD_RULE"], entry["DOCKERD_GUARD_LAYER"]) == \
        (opened.address, "DG101", "listening")
    assert "by the nftables table inet dockerd_guard; containers, published ports" in entry["MESSAGE"]
    wait_for(lambda: f"blocked at the network: {opened.address}" in machine.run("systemctl status dockerd-guard").out,
             "STATUS= line")
    assert f"blocks at the network meanwhile: {opened.address}" in machine.run("dockerd-guard diff", check=False).out

    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    wait_for(lambda: repaired(machine), "correction")
    # One entry for each address.
    wait_for(lambda: len(entries(machine, "released")) >= len(entries(machine, "contained")), "release")
    released = entries(machine, "released")
    assert opened.address in {entry["DOCKERD_GUARD_SOCKET"] for entry in released}
    assert not is_open(machine)
    assert table(machine) == ""
    assert shop_answers(machine)
    assert machine.container_pid("shop") == container
    machine.run("systemctl restart dockerd-guard")
    assert len(entries(machine, "contained")) == len(released)


def test_what_a_starting_dockerd_is_going_to_open_is_blocked_before_it_listens(machine: Machine) -> None:
    """Written, reloaded and restarted in one go: nobody outside gets a single connection."""
    enforce(machine, NEVER)
    machine.run("mkdir -p /etc/systemd/system/docker.service.d")
    prober = subprocess.Popen(machine.outside_command("python3", "-c", PROBE), text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    # Without --tls=false dockerd waits 16 s before it opens the port.
    text = OPEN[OVERRIDE].replace(" --tls=false", "")
    machine.run(f"printf '{text}' > {OVERRIDE} && systemctl daemon-reload && systemctl restart --no-block docker")
    wait_for(lambda: "tcp dport 2375 reject" in table(machine), "block")
    assert machine.properties("docker.service", "ActiveState") == {"ActiveState": "activating"}
    assert ":2375" not in machine.run("ss -ltnH").out
    wait_for(lambda: machine.is_active("docker.service"), "start of dockerd")
    wait_for(lambda: any("it listens there now" in entry["MESSAGE"] for entry in entries(machine, "drift")), "a drift")
    succeeded, failed = map(int, prober.communicate("", timeout=30)[0].split())
    assert (succeeded, failed > 1000) == (0, True)
    assert machine.run("curl --silent http://127.0.0.1:2375/_ping").out == "OK"
    drift = entries(machine, "drift")
    assert not any("DOCKERD_GUARD_EXPOSED" in entry or "Anyone who can reach it" in entry["MESSAGE"] for entry in drift)
    assert json.loads(machine.read("/run/dockerd-guard/status.json"))["counts"]["exposed_s"] == 0.0


class Later(NamedTuple):
    """What is going to listen on port 4243: files, a line after which that is known, and one after which it listens."""

    name: str
    files: Mapping[str, str]
    known: str
    listens: str


SECOND = ("systemd-run --quiet --unit=two dockerd -H unix:///run/two.sock -H tcp://0.0.0.0:4243 --data-root=/srv/two "
          "--exec-root=/run/two --pidfile=/run/two.pid --bridge=none --iptables=false --ip6tables=false")
# Without `foreign_files` the hosts in daemon.json cannot be taken out, so nothing is corrected.
UNCORRECTED = {"/etc/docker/daemon.json": '{"hosts": ["fd://", "tcp://127.0.0.1:2399"]}\n',
               f"{UNITS}/docker-tcp.socket": LISTS_A_PORT}
LATER = (
    Later("a socket unit that is loaded", UNCORRECTED, "systemctl daemon-reload",
          "systemctl stop docker.service docker.socket; systemctl start docker-tcp.socket"),
    Later("a socket unit that systemd loads when it starts", UNCORRECTED,
          "systemctl reload dockerd-guard",
          "systemctl stop docker.service docker.socket; systemctl start docker-tcp.socket"),
    # It waits 16 s before it opens the port, and has opened another socket by then.
    Later("another dockerd", {}, SECOND, ""),
)


@pytest.mark.parametrize("later", LATER, ids=lambda later: later.name)
def test_what_is_going_to_be_opened_is_blocked_before_it_listens(machine: Machine, later: Later) -> None:
    """What is only blocked when it is seen to listen, is open for some 0.1 s to 1 s."""
    enforce(machine, f"{NEVER}  foreign_files: false\n")
    for path, text in later.files.items():
        machine.write(path, text)
    machine.run(later.known)
    wait_for(lambda: "tcp dport 4243 reject" in table(machine), "block")
    assert ":4243" not in machine.run("ss -ltnH").out
    prober = subprocess.Popen(machine.outside_command("python3", "-c", PROBE.replace("2375", "4243")), text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    machine.run(later.listens or "true")
    wait_for(lambda: ":4243" in machine.run("ss -ltnH").out, "listener")
    wait_for(lambda: rests(machine), "agent at rest")
    succeeded, failed = map(int, prober.communicate("", timeout=30)[0].split())
    assert (succeeded, failed > 100) == (0, True)
    assert {entry["DOCKERD_GUARD_SOCKET"] for entry in entries(machine, "contained")} == {"tcp://[::]:4243"}
    assert not entries(machine, "released")
    assert json.loads(machine.read("/run/dockerd-guard/status.json"))["counts"]["exposed_s"] == 0.0


def test_containment_stays_until_the_policy_changes(machine: Machine) -> None:
    open_up(machine)
    enforce(machine, NEVER)
    contained(machine)
    count = len(wait_for(lambda: entries(machine, "contained"), "entry"))

    for number, line in enumerate(("nft flush ruleset", "nft flush chain inet dockerd_guard input",
                                   "systemctl restart nftables")):
        machine.run(line)
        again = wait_for(lambda n=number: entries(machine, "contained")[count + n:], "entry")  # type: ignore[misc]
        assert "again: another program had removed or changed the nftables table" in again[0]["MESSAGE"]
        assert 0 < float(again[0]["DOCKERD_GUARD_OPEN_SECONDS"]) < 5
        assert not is_open(machine)
    (episode,) = (each for each in json.loads(machine.run("dockerd-guard history --format json", check=False).out)
                  ["episodes"] if each["rule"] == "DG101")
    assert len(episode["exposed"]) >= 3

    machine.run("systemctl stop dockerd-guard")
    assert not is_open(machine)
    machine.run("systemctl start dockerd-guard; systemctl kill --signal=KILL dockerd-guard")
    assert not is_open(machine)
    wait_for(lambda: machine.is_active("dockerd-guard"), "running agent")
    assert not is_open(machine)
    assert not entries(machine, "released")

    machine.write(POLICY, f"{NEVER}  contain: false\n")
    wait_for(lambda: is_open(machine), "release")
    assert table(machine) == ""
    machine.write(POLICY, NEVER)
    contained(machine)
    machine.write(POLICY, OBSERVE)
    wait_for(lambda: is_open(machine), "release")
    released = wait_for(lambda: entries(machine, "released")[1:], "second entry")
    assert "the policy no longer requests it" in released[0]["MESSAGE"]


def test_containment_survives_a_reboot_without_gap(machine: Machine) -> None:
    # A second socket unit, which a policy with `foreign_files: false` does not change, is open again after each boot.
    machine.write("/etc/docker/daemon.json", '{"hosts": ["fd://", "tcp://0.0.0.0:2375"], "tls": false}\n')
    open_up(machine, {OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD}\n"})
    enforce(machine, f"{ENFORCE}correct:\n  foreign_files: false\n")
    contained(machine)
    machine.run("systemctl restart docker")
    assert not is_open(machine)
    assert "tcp dport 2375" in table(machine)
    assert not entries(machine, "released")
    machine.reboot()
    wait_for(lambda: entries(machine, "contained")[1:], "entry after the reboot")
    wait_for(machine.socket_answers, "dockerd that listens")
    assert not is_open(machine)
    assert machine.run("curl --silent http://127.0.0.1:2375/_ping").out == "OK"


@pytest.mark.parametrize("verb", ["remove", "purge"])
def test_package_removal_ends_containment(machine: Machine, verb: str) -> None:
    open_up(machine)
    enforce(machine, NEVER)
    contained(machine)
    done = machine.run(f"apt-get {verb} --yes dockerd-guard")
    assert table(machine) == ""
    assert is_open(machine)
    assert "open to the network again: tcp://[::]:2375" in done.out + done.err
    assert machine.exists(STATE) is (verb == "remove")
    if verb == "remove":
        assert json.loads(machine.read(f"{STATE}/memory.json"))["contained"] == {"methods": [], "addresses": []}


def test_without_nftables_systemd_blocks_and_side_effects_are_reported(machine: Machine) -> None:
    modules = "/usr/lib/python3/dist-packages"
    machine.run(f"mv {modules}/nftables /root/")
    machine.run("systemctl restart dockerd-guard")
    open_up(machine)
    dockerd, container = machine.main_pid(), machine.container_pid("shop")
    enforce(machine)
    # The filter drops packets and does not refuse them.
    wait_for(lambda: not machine.api_answers(), "end of the exposure", timeout=30)
    assert not machine.api_answers(address=ADDRESS_IPV6)
    assert machine.run("curl --silent http://127.0.0.1:2375/_ping").out == "OK"
    assert shop_answers(machine)
    assert (machine.main_pid(), machine.container_pid("shop")) == (dockerd, container)
    entry = wait_for(lambda: entries(machine, "contained"), "entry")[-1]
    assert "by IPAddressDeny=any on docker.service, because python3-nftables is not installed" in entry["MESSAGE"]
    assert "pulls, and published ports by loopback or IPv6" in entry["MESSAGE"]
    assert table(machine) == ""
    for number, line in enumerate((
            f"rm -r {FALLBACK_FILES}; systemctl daemon-reload",
            "systemctl set-property --runtime docker.service IPAddressDeny= IPAddressAllow="), 1):
        machine.run(line)
        again = wait_for(lambda n=number: entries(machine, "contained")[n:], f"entry after {line}")  # type: ignore[misc]
        assert "again: another program had removed or changed IPAddressDeny= of" in again[0]["MESSAGE"]
        assert not machine.api_answers()

    blind = len(entries(machine, "blind"))
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    wait_for(lambda: repaired(machine), "correction")
    wait_for(lambda: entries(machine, "released"), "release")
    assert not machine.exists(FALLBACK_FILES)
    wait_for(lambda: rests(machine, 3), "agent at rest")
    assert len(entries(machine, "blind")) == blind, "what a pass does itself ends no watch"
    assert machine.properties("docker.service", "IPAddressDeny", "IPAddressAllow") == \
        {"IPAddressDeny": "", "IPAddressAllow": ""}
    assert machine.container_pid("shop") == container


def test_port_that_cannot_be_blocked_is_reported_as_open(machine: Machine) -> None:
    machine.run("mv /usr/lib/python3/dist-packages/nftables /root/")
    open_up(machine, WAYS[1].files)
    enforce(machine, NEVER)
    failed = wait_for(lambda: entries(machine, "failed"), "entry")
    assert failed[0]["MESSAGE"].startswith("tcp://0.0.0.0:2375 stays open to the network until it is corrected: ")
    assert "does not apply to sockets that systemd opened" in failed[0]["MESSAGE"]
    assert not entries(machine, "contained")
