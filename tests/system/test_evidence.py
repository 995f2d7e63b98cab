"""What is stated of a running dockerd rests on evidence, not on files that have changed since it started."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.containment import contained, is_open, table
from tests.support.correction import DOCKERD, ENFORCE, OBSERVE, OVERRIDE, POLICY, enforce, entries

CERTIFICATES = """
mkdir -p /etc/docker; cd /etc/docker
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -subj /CN=ca -days 100
openssl req -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr -subj /CN=localhost
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out server-cert.pem -days 50
"""
FILES = {"tlscacert": "/etc/docker/ca.pem", "tlscert": "/etc/docker/server-cert.pem",
         "tlskey": "/etc/docker/server-key.pem"}
TLS_FLAGS = " ".join(f"--{name}={path}" for name, path in FILES.items())
DECLARED = ("sockets:\n  - fd://\n  - address: tcp://0.0.0.0:2375\n    tls: mutual\n"
            "tls:\n  ca: /etc/docker/ca.pem\n  cert: /etc/docker/server-cert.pem\n  key: /etc/docker/server-key.pem\n")
HANDSHAKE_ERROR = "TLS handshake error"


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("openssl",)


def start_with(machine: Machine, arguments: str) -> None:
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// {arguments}\n")
    machine.run("systemctl daemon-reload; systemctl reset-failed docker.service; systemctl restart docker")


def bindings(machine: Machine, layer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        machine.run("dockerd-guard sockets --format json").out)["layers"][layer]["bindings"]
    return found


def binding(machine: Machine, layer: str, port: int = 2375) -> dict[str, Any]:
    """The only binding with this port; empty where the layer has none."""
    found = [each for each in bindings(machine, layer) if each["address"].endswith(f":{port}")]
    assert len(found) <= 1, found
    return found[0] if found else {}


def evidence(machine: Machine, layer: str) -> tuple[str, str, str]:
    """The TLS of port 2375, and what its address and its TLS rest on."""
    found = binding(machine, layer)
    return found["tls"], found["evidence"]["address"], found["evidence"]["tls"]


def stated(machine: Machine, port: int = 2375) -> str:
    """The TLS of a port that listens; empty where none does."""
    return str(binding(machine, "listening", port).get("tls", ""))


def errors(machine: Machine) -> int:
    """The handshakes that dockerd has logged as errors since it started."""
    invocation = machine.properties("docker.service", "InvocationID")["InvocationID"]
    log = machine.run(["journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat"]).out
    return log.count(HANDSHAKE_ERROR)


def test_tls_written_without_a_restart_is_not_stated(machine: Machine) -> None:
    machine.run(["sh", "-euc", CERTIFICATES])
    start_with(machine, "-H tcp://0.0.0.0:2375 --tls=false")
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375\n")
    machine.write("/etc/docker/daemon.json", json.dumps({"live-restore": True, "tlsverify": True, **FILES}))
    machine.run("systemctl daemon-reload")
    assert evidence(machine, "running") == ("none", "proc", "probe")
    assert evidence(machine, "listening") == ("none", "kernel", "probe")
    shown = machine.run("dockerd-guard sockets --verbose").out
    assert "tls by probe" in shown
    assert is_open(machine)

    machine.write(POLICY, f"version: 1\nmode: observe\n{DECLARED}")
    machine.run("systemctl reload dockerd-guard")
    fixed = machine.run("dockerd-guard fix", check=False)
    assert "Restarted docker.service" in fixed.out, fixed
    assert stated(machine) == "mutual"
    # dockerd logs it after it has ended the connection.
    wait_for(lambda: errors(machine) >= 1, "entry about the handshake")
    assert errors(machine) == 1
    assert machine.outside(["curl", "--silent", f"http://{ADDRESS}:2375/_ping"], check=False).out != "OK"


@pytest.mark.parametrize(("arguments", "tls", "logged"), [
    ("--tls=false", "none", 0), (f"--tlsverify=false {TLS_FLAGS}", "server", 0),
    (f"--tlsverify {TLS_FLAGS}", "mutual", 1)])
def test_one_start_is_probed_once(machine: Machine, arguments: str, tls: str, logged: int) -> None:
    machine.run(["sh", "-euc", CERTIFICATES])
    start_with(machine, f"-H tcp://0.0.0.0:2375 {arguments}")
    # It says something else now, for all processes.
    machine.write("/etc/docker/daemon.json", '{"live-restore": true}')
    for _ in range(2):
        machine.run("dockerd-guard lint; dockerd-guard status; dockerd-guard diff", check=False)
        assert (evidence(machine, "running"), evidence(machine, "listening")) == (
            (tls, "proc", "probe"), (tls, "kernel", "probe"))
        machine.run("systemctl restart dockerd-guard")
    wait_for(lambda: errors(machine) >= logged, "entry about the handshake")
    assert errors(machine) == logged
    machine.run("systemctl restart docker")
    wait_for(lambda: stated(machine) == tls, "probe of the new start")
    wait_for(lambda: errors(machine) >= logged, "entry about the handshake")
    assert errors(machine) == logged


def test_files_written_later_do_not_hide_the_api(machine: Machine) -> None:
    start_with(machine, "-H tcp://0.0.0.0:2375 --tls=false")
    enforce(machine, f"{ENFORCE}correct:\n  restart: never\n")
    contained(machine)
    machine.write("/etc/docker/daemon.json", '{"metrics-addr": "0.0.0.0:2375"}')
    machine.run("mkdir -p /var/lib/docker/swarm; touch /var/lib/docker/swarm/docker-state.json")
    machine.run("systemctl restart dockerd-guard; dockerd-guard lint", check=False)
    assert stated(machine) == "none"
    assert not is_open(machine)
    assert not entries(machine, "released")


def test_api_on_the_port_of_swarm_is_reported(machine: Machine) -> None:
    start_with(machine, "-H tcp://0.0.0.0:7946 --tls=false")
    machine.run("mkdir -p /var/lib/docker/swarm; touch /var/lib/docker/swarm/docker-state.json")
    enforce(machine, f"{ENFORCE}correct:\n  restart: never\n")
    wait_for(lambda: any("7946" in entry["DOCKERD_GUARD_SOCKET"] for entry in entries(machine, "contained")), "entry")
    assert machine.outside(["curl", "--silent", "--max-time", "5", f"http://{ADDRESS}:7946/_ping"], check=False).status


def test_metrics_and_swarm_are_not_the_api(machine: Machine) -> None:
    metrics = {"metrics-addr": "0.0.0.0:9323", "experimental": True}
    machine.write("/etc/docker/daemon.json", json.dumps(metrics))
    start_with(machine, "")
    assert machine.run("curl --silent --output /dev/null http://127.0.0.1:9323/metrics; echo $?").out == "0\n"
    assert not stated(machine, 9323)
    # What it was started with is no longer in the file.
    machine.remove("/var/lib/dockerd-guard/memory.json")
    machine.write("/etc/docker/daemon.json", json.dumps({**metrics, "metrics-addr": ""}))
    assert not stated(machine, 9323)
    machine.write("/etc/docker/daemon.json", json.dumps(metrics))
    machine.run("systemctl restart docker; docker swarm init --advertise-addr lo")
    assert (stated(machine, 2377), stated(machine, 7946)) == ("", "")


def test_served_certificate_that_is_older_than_its_file_is_a_finding(machine: Machine) -> None:
    machine.run(["sh", "-euc", CERTIFICATES])
    start_with(machine, f"-H tcp://0.0.0.0:2375 --tlsverify {TLS_FLAGS}")
    assert stated(machine) == "mutual"
    assert "serves an older certificate" not in machine.run("dockerd-guard lint", check=False).out
    machine.run(["sh", "-euc", CERTIFICATES])
    machine.run("systemctl reload docker")
    assert "dockerd serves an older certificate than the one in /etc/docker/server-cert.pem" in machine.run(
        "dockerd-guard lint", check=False).out
    machine.run("systemctl restart docker")
    assert stated(machine) == "mutual"
    assert "serves an older certificate" not in machine.run("dockerd-guard lint", check=False).out


def test_port_in_another_network_namespace_is_not_the_hosts(machine: Machine) -> None:
    machine.run("ip netns add vpn; ip -n vpn link set lo up")
    machine.write("/etc/systemd/system/docker.service.d/vpn.conf", "[Service]\nNetworkNamespacePath=/run/netns/vpn\n")
    start_with(machine, "-H tcp://0.0.0.0:2375 --tls=false")
    assert machine.run("ip netns exec vpn curl --silent http://127.0.0.1:2375/_ping").out == "OK"
    assert binding(machine, "listening")["network_namespace"] == "/run/netns/vpn"
    assert binding(machine, "running")["network_namespace"] == "/run/netns/vpn"
    assert "in the network namespace /run/netns/vpn" in machine.run("dockerd-guard sockets").out
    assert "network_namespace" not in next(each for each in bindings(machine, "listening") if each["scope"] == "unix")
    # The policy declares addresses of the host.
    machine.write(POLICY, f"{OBSERVE}  - {{address: 'tcp://0.0.0.0:2375', tls: none}}\n")
    missing = "tcp://0.0.0.0:2375 is declared, but dockerd has it in the network namespace /run/netns/vpn"
    assert missing in machine.run("dockerd-guard lint", check=False).out
    said = machine.run("dockerd-guard diff", check=False)
    assert "docker.service listens on tcp://0.0.0.0:2375 in the network namespace /run/netns/vpn" in said.out
    assert said.status == 1
    assert missing in machine.run("dockerd-guard status", check=False).out
    # A program of the host has the same port.
    machine.run("systemd-run --unit=shop python3 -m http.server 2375 --directory /etc/dockerd-guard")
    wait_for(lambda: machine.run("curl --silent http://127.0.0.1:2375/", check=False).status == 0, "that program")
    enforce(machine, f"{ENFORCE}correct:\n  restart: never\n")
    failed = wait_for(lambda: entries(machine, "failed"), "entry")
    assert "it is in the network namespace /run/netns/vpn" in failed[0]["MESSAGE"]
    assert failed[0]["DOCKERD_GUARD_SOCKET"] == "tcp://[::]:2375"
    assert not entries(machine, "contained")
    assert table(machine) == ""
    assert machine.outside(["curl", "--silent", f"http://{ADDRESS}:2375/"], check=False).status == 0


def test_a_port_on_which_dockerd_listens_for_a_container_is_not_its_api(machine: Machine) -> None:
    """With `userland-proxy: false` dockerd itself listens on published ports. Docker was restarted for that."""
    machine.write("/etc/docker/daemon.json", '{"live-restore": true, "userland-proxy": false}\n')
    machine.run("systemctl reset-failed docker.service; systemctl restart docker")
    machine.import_busybox()
    enforce(machine)
    dockerd = machine.main_pid()
    machine.run("docker run --detach --publish 8080:80 busybox "
                "/bin/sh -c 'echo open for business >/index.html; busybox httpd -f -p 80 -h /'")
    assert f"pid={dockerd}," in machine.run("ss -Hltnp sport = :8080").out
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: machine.outside(f"curl --silent --max-time 2 http://{ADDRESS}:8080/", check=False).out
             == "open for business\n", "answer of the container")
    assert [each["address"] for each in bindings(machine, "listening")] == ["unix:///run/docker.sock"]
    machine.run("dockerd-guard fix")
    assert (machine.main_pid(), table(machine), entries(machine, "drift")) == (dockerd, "", [])
