"""Dockerds beside that of docker.service: each is one drift, from its start to its end."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.access_paths import BRIDGE
from tests.support.correction import OBSERVE, POLICY, entries

HOST, VPN = "DG107 tcp://*:4243", "DG107 tcp://*:4243 in /run/netns/vpn"
NAMESPACE = "ip netns add vpn; ip -n vpn link set lo up; ip -n vpn link add two0 type bridge; " \
            "ip -n vpn address add 172.31.0.1/24 dev two0; ip -n vpn link set two0 up"


def start(machine: Machine, name: str, program: str) -> None:
    """Start a dockerd that opens a UNIX socket first. On TCP without TLS it listens after a pause."""
    machine.run(f"systemd-run --quiet --unit={name} {program} --host=unix:///run/{name}.sock "
                f"--host=tcp://0.0.0.0:4243 --tls=false --data-root=/srv/{name} --exec-root=/run/{name} "
                f"--pidfile=/run/{name}.pid --bridge=two0 --iptables=false --ip6tables=false")


def episodes(machine: Machine, event: str, words: str = "") -> set[str]:
    """The episodes of the entries about another dockerd whose message contains these words."""
    return {entry["DOCKERD_GUARD_EPISODE"] for entry in entries(machine, event)
            if "nother dockerd is running" in entry["MESSAGE"] and words in entry["MESSAGE"]}


def test_a_dockerd_is_one_drift_in_each_network_namespace(machine: Machine) -> None:
    machine.write(POLICY, OBSERVE)
    machine.run("systemctl reload dockerd-guard")
    machine.run(f"{BRIDGE}{NAMESPACE}")
    start(machine, "two", "/usr/sbin/dockerd")
    wait_for(lambda: episodes(machine, "drift", ":4243"), "drift entry", timeout=90)
    start(machine, "three", "nsenter --net=/run/netns/vpn /usr/sbin/dockerd")
    wait_for(lambda: episodes(machine, "drift", ":4243 in the network namespace"), "drift entry", timeout=90)
    assert episodes(machine, "drift", ":4243") == episodes(machine, "drift") == {HOST, VPN}
    assert episodes(machine, "corrected") == set()
    machine.run("systemctl stop three")
    wait_for(lambda: VPN in episodes(machine, "corrected"), "end of one")
    machine.run("systemctl stop two")
    wait_for(lambda: episodes(machine, "corrected") == {HOST, VPN}, "end of both")
