"""The rules about other access paths (DG107, DG108, DG110), and waivers by unit, container and image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import LISTENING, AccessKind, AccessPath, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rules.judge import judge
from tests.support.hosts import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    before = os.umask(0o022)
    yield Host(tmp_path)
    os.umask(before)


def policy(text: str) -> Policy:
    return parse_policy(f"version: 1\n{text}".encode(), "/policy.yaml")


def only(code: str, seen: Observation, with_policy: Policy | None = None) -> list[Finding]:
    return [finding for finding in judge(seen, with_policy, date(2026, 11, 23)) if finding.code == code]


def summaries(findings: list[Finding]) -> list[str]:
    """Return location, severity, code and fix of each finding."""
    return [f"{finding.location} {finding.severity} {finding.code} {finding.fix}" for finding in findings]


def path(kind: AccessKind, address: str = "tcp://0.0.0.0:5000", **fields: Any) -> AccessPath:
    return AccessPath(kind, address, **fields)


RELAY = path(AccessKind.FORWARDER, evidence="its command line names /run/docker.sock", pid=7, program="socat",
             unit="relay.service")
AGENT = path(AccessKind.CONTAINER, evidence="/run/docker.sock", container="agent", image="portainer/agent:2",
             is_published=True)


@pytest.mark.parametrize(("one", "code", "severity", "message"), [
    (RELAY, "DG107", "warning",
     "socat (pid 7, relay.service) listens on tcp://0.0.0.0:5000: its command line names /run/docker.sock"),
    (RELAY._replace(serves_api=True), "DG107", "error",
     "socat (pid 7, relay.service) listens on tcp://0.0.0.0:5000: its command line names /run/docker.sock; it leads to "
     "the Docker API: anyone who can reach it has root access"),
    (RELAY._replace(serves_api=True, address="tcp://127.0.0.1:5000"), "DG107", "warning", "socat (pid 7, relay"),
    (path(AccessKind.API_PORT, "tcp://[::]:2375", pid=7, program="nc", uid=1000), "DG107", "warning",
     "nc (pid 7, uid 1000) listens on tcp://[::]:2375, a port of the Docker API that is not declared"),
    (path(AccessKind.API_PORT, "tcp://[::]:2375", pid=7, program="nc", uid=1000, serves_api=True), "DG107", "error",
     "nc (pid 7, uid 1000) listens on tcp://[::]:2375, where the Docker API answers"),
    (path(AccessKind.API_PORT, "tcp://[::]:2375", pid=7, program="nc", uid=1000, serves_api=True, is_assumed=True),
     "DG107", "error", "nc (pid 7, uid 1000) listens on tcp://[::]:2375, where the API has answered; whether the "
     "Docker API answers there is not known now"),
    (RELAY._replace(serves_api=True, is_assumed=True), "DG107", "error",
     "socat (pid 7, relay.service) listens on tcp://0.0.0.0:5000: its command line names /run/docker.sock; whether "
     "the Docker API answers there is not known now"),
    (AGENT._replace(serves_api=True, is_assumed=True), "DG108", "error",
     "container agent (portainer/agent:2) mounts /run/docker.sock and publishes tcp://0.0.0.0:5000; whether the Docker "
     "API answers there is not known now"),
    (path(AccessKind.IN_DOCKER_SERVICE, pid=7, program="nc", unit="docker.service", evidence="it runs there"), "DG107",
     "error", "nc (pid 7, docker.service) listens on tcp://0.0.0.0:5000: it runs there"),
    (AGENT, "DG108", "error", "container agent (portainer/agent:2) mounts /run/docker.sock and publishes "
     "tcp://0.0.0.0:5000"),
    (AGENT._replace(is_published=False, address=""), "DG108", "error",
     "container agent (portainer/agent:2) mounts /run/docker.sock and uses the host's network"),
    (AGENT._replace(container="a\x1b[31m\nb\udcff'" * 100), "DG108", "error",
     "container a??31m?b??a??31m?b??a??31m?b??"),
], ids=str)
def test_access_path_is_reported(host: Host, one: AccessPath, code: str, severity: str, message: str) -> None:
    finding, = (each for each in judge(host.see()._replace(access_paths=(one,)), None) if each.code in (
        "DG107", "DG108", "DG110"))
    assert (finding.code, finding.severity, finding.layer) == (code, severity, LISTENING)
    assert finding.message.startswith(message)
    assert finding.message.isprintable()


def test_published_port_of_both_families_is_one_finding(host: Host) -> None:
    both = (AGENT, AGENT._replace(address="tcp://[::]:5000"))
    assert len(only("DG108", host.see()._replace(access_paths=both))) == 1


def test_declared_address_is_no_access_path_unless_it_is_a_known_one(host: Host) -> None:
    wanted = policy("sockets: [{address: 'tcp://0.0.0.0:2375', tls: none}]")
    one = path(AccessKind.API_PORT, "tcp://0.0.0.0:2375", program="nc")
    assert only("DG107", host.see()._replace(access_paths=(one,)), wanted) == []
    assert len(only("DG107", host.see()._replace(access_paths=(one._replace(serves_api=True),)), wanted)) == 1


@pytest.mark.parametrize(("files", "expected"), [
    ({"config.toml": '[grpc]\n  tcp_address = "0.0.0.0:9000"\n'}, ["/etc/containerd/config.toml:2:3 error DG110 None"]),
    ({"config.toml": "grpc = {tcp_address = '[::]:9000'}\n"}, ["/etc/containerd/config.toml:1:9 error DG110 None"]),
    ({"config.toml": '[grpc]\ntcp_address = "127.0.0.1:9000"\n'},
     ["/etc/containerd/config.toml:2:1 warning DG110 None"]),
    ({"config.toml": '[grpc]\ntcp_tls_ca = "/ca"\ntcp_address = ":9000"\n'},
     ["/etc/containerd/config.toml:3:1 warning DG110 None"]),
    ({"config.toml": '[debug]\naddress = "10.0.0.1:9001"\n'}, ["/etc/containerd/config.toml:2:1 warning DG110 None"]),
    ({"config.toml": 'version = 4\n[plugins."io.containerd.server.v1.grpc-tcp"]\naddress = "0.0.0.0:9000"\n'},
     ["/etc/containerd/config.toml:3:1 error DG110 None"]),
    ({"config.toml": 'imports = ["/etc/containerd/conf.d/*.toml"]\n', "conf.d/a.toml": '[grpc]\ntcp_address = ":9"\n'},
     ["/etc/containerd/conf.d/a.toml:2:1 error DG110 None"]),
    ({"config.toml": '[grpc]\naddress = "/run/containerd/containerd.sock"\ntcp_address = ""\n[metrics]\n'
                     'address = "0.0.0.0:1338"\n[debug]\naddress = "/run/debug.sock"\n'}, []),
    ({"config.toml": '# [grpc]\n# tcp_address = "0.0.0.0:9000"\n'}, []),
    ({"config.toml": '[grpc\ntcp_address = "0.0.0.0:9000"\n'}, []),
    ({"config.toml": "address = " + "[" * 100_000}, []),
    ({"config.toml": '[grpc]\ntcp_address = 9000\n[debug]\naddress = true\n'}, []),
    ({"config.toml": b"\xff address"}, []),
])
def test_tcp_endpoint_of_containerd(host: Host, files: dict[str, str | bytes], expected: list[str]) -> None:
    for name, text in files.items():
        host.put(f"/etc/containerd/{name}", text)
    assert summaries(only("DG110", host.see())) == expected


@pytest.mark.parametrize("option", ["--config /srv/c.toml", "-c=/srv/c.toml", "--config=/srv/../srv/c.toml"])
def test_configuration_of_containerd_is_that_of_its_unit(host: Host, option: str) -> None:
    host.put("/usr/lib/systemd/system/containerd.service", f"[Service]\nExecStart=/usr/bin/containerd {option}\n")
    host.put("/srv/c.toml", '[grpc]\ntcp_address = ":9000"\n')
    assert summaries(only("DG110", host.see())) == ["/srv/c.toml:2:1 error DG110 None"]


@pytest.mark.parametrize(("waiver", "count"), [
    ("{rule: DG107, unit: relay.service, reason: x}", 0),
    ("{rule: DG107, unit: other.service, reason: x}", 1),
    ("{rule: DG107, unit: relay.service, address: 'tcp://[::]:5000', reason: x}", 0),
    ("{rule: DG107, unit: relay.service, address: 'tcp://[::]:5001', reason: x}", 1),
    ("{rule: DG108, container: agent, reason: x}", 0),
    ("{rule: DG108, container: agents, reason: x}", 1),
    ("{rule: DG108, image: portainer/agent, reason: x}", 0),
    ("{rule: DG108, image: 'portainer/agent:2', reason: x}", 0),
    ("{rule: DG108, image: portainer/age, reason: x}", 1),
    ("{rule: DG108, image: portainer/agent, until: 2026-11-22, reason: x}", 1),
    ("{rule: DG107, container: agent, reason: x}", 1),
])
def test_waiver_by_unit_container_and_image(host: Host, waiver: str, count: int) -> None:
    seen = host.see()._replace(access_paths=(RELAY if "DG107" in waiver else AGENT,))
    found = judge(seen, policy(f"sockets: [fd://]\nwaive:\n  - {waiver}"), date(2026, 11, 23))
    assert len([finding for finding in found if finding.code in ("DG107", "DG108")]) == count
    assert len([finding for finding in found if finding.code == "DG501"]) == min(count, 1)


@pytest.mark.parametrize(("line", "is_found"), [
    ("ExecStartPost=/usr/bin/dockerd -H 0.0.0.0:4243 --data-root /x", True),
    ("ExecStartPost=-+/usr/bin/dockerd --data-root=/x --host=tcp://0.0.0.0:2375", True),
    ("ExecStartPost=/usr/bin/systemd-run --unit=d2 /usr/bin/dockerd -H :4243", True),
    ("ExecReload=/bin/sh -c 'true; dockerd -DH 10.0.0.5:2375 &'", True),
    ("ExecStartPost=/usr/bin/dockerd --host unix:///run/2.sock -H0.0.0.0", True),
    ("ExecStartPre=/usr/bin/dockerd --validate -H tcp://0.0.0.0:2375", False),
    ("ExecStartPre=/usr/bin/dockerd -H tcp://0.0.0.0:2375 --validate", False),
    ("ExecStartPost=/usr/bin/dockerd -H unix:///run/second.sock --data-root /x", False),
    ("ExecStartPost=/usr/bin/docker run --privileged docker:dind dockerd -H tcp://0.0.0.0:2375", False),
    ("ExecStartPost=/usr/bin/pkill dockerd", False),
])
@pytest.mark.parametrize("unit", ["docker.service", "other.service"])
def test_dockerd_in_a_command_beside_the_main_one(host: Host, unit: str, line: str, is_found: bool) -> None:
    host.put("/etc/systemd/system/other.service", "[Service]\nExecStart=/bin/true\n")
    host.put(f"/etc/systemd/system/{unit}.d/a.conf", f"[Service]\n{line}\n")
    found = [finding.message for finding in only("DG107", host.see())]
    key = line.partition("=")[0]
    assert found == [f"{key}= of {unit} starts a second dockerd that listens on TCP; the policy for docker.service "
                     "does not cover it"] * is_found


MUTUAL = " --tlsverify --tlscacert=/ca --tlscert=/cert --tlskey=/key"


@pytest.mark.parametrize(("host_options", "lines", "is_found"), [
    ("127.0.0.1:2375", "ExecStart=/usr/bin/socat TCP-LISTEN:5000,fork TCP:127.0.0.1:2375", True),
    ("127.0.0.1:2375", "ExecStart=/usr/bin/socat tcp-l:5000,fork tcp:localhost:2375", True),
    ("0.0.0.0:2375", "ExecStart=/usr/lib/systemd/systemd-socket-proxyd localhost:2375", True),
    ("0.0.0.0:2375", "ExecStart=/usr/bin/ncat -lk 5000 -c 'ncat 127.0.0.1 2375'", True),
    ("127.0.0.1:2375", "Environment=API=127.0.0.1:2375\nExecStart=/usr/bin/socat TCP-LISTEN:5000 TCP:${API}", True),
    # It waits for dockerd.
    ("127.0.0.1:2375", "ExecStart=/bin/sh -c 'until nc -z localhost 2375; do sleep 1; done'", False),
    ("127.0.0.1:2375", "ExecStart=/usr/bin/socat TCP-LISTEN:5000,fork TCP:127.0.0.1:8080", False),
    ("127.0.0.1:2375", "ExecStart=/usr/bin/socat TCP-LISTEN:5000,fork TCP:build.example:2375", False),
    ("127.0.0.1:2376" + MUTUAL, "ExecStart=/usr/bin/socat TCP-LISTEN:5000,fork TCP:127.0.0.1:2376", False),
])
def test_forwarder_to_a_tcp_address_of_docker_service(
        host: Host, host_options: str, lines: str, is_found: bool) -> None:
    """It needs no UNIX socket: the policy may declare an address on loopback without TLS."""
    host.start(f"-H fd:// -H tcp://{host_options}")
    host.put("/etc/systemd/system/relay.service", f"[Service]\n{lines}\n")
    assert [finding.message.partition(":")[0] for finding in only("DG107", host.see())] == [
        "ExecStart= of relay.service forwards to the API socket"] * is_found
