"""Configurations that systemd or dockerd skips or refuses without a message that is easy to see, one table per rule.

Observed on Debian 13: `systemd-analyze verify` of 257 reports each skipped line, and the file in place of a link.
dockerd 26.1.5 reports `failed to lookup 0.0.0.0.2375 address in host specification`, `bind: cannot assign requested
address` for 172.17.0.1 without docker0, and `bind: address already in use` for 127.0.0.1 beside 0.0.0.0.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules import unavailable_address
from dockerd_guard.rules.judge import judge
from tests.support.hosts import OVERRIDE, SERVICE, Host

SOCKET_OVERRIDE = "/etc/systemd/system/docker.socket.d/override.conf"
DAEMON_JSON = "/etc/docker/daemon.json"

Files = dict[str, str]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    before = os.umask(0o022)
    yield Host(tmp_path)
    os.umask(before)


def command(arguments: str) -> Files:
    return {OVERRIDE: f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n"}


def listen(*addresses: str) -> Files:
    return {SOCKET_OVERRIDE: "[Socket]\n" + "".join(f"ListenStream={address}\n" for address in addresses)}


def summaries(host: Host, files: Files, code: str) -> list[str]:
    """Return location, severity and fix of each finding of a rule."""
    for path, text in files.items():
        host.put(path, text)
    return [f"{finding.location} {finding.severity} {finding.fix}" for finding in found(host.see(), code)]


def found(seen: Observation, code: str) -> list[Finding]:
    return [finding for finding in judge(seen, None, date(2026, 11, 26)) if finding.code == code]


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H tcp://0.0.0.0:2375 -H tcp://127.0.0.1:2375"), [f"{OVERRIDE}:3:62 error None"]),
    (command("-H fd:// -H tcp://127.0.0.1:2375 -H tcp://127.0.0.1:2376"), []),
    (command("-H fd:// -H tcp://127.0.0.1:2375 -H tcp://127.0.0.2:2375"), []),
    (command("-H fd:// -H tcp://[::1]:2375 -H tcp://127.0.0.1:2375"), []),
    (command("-H fd:// -H tcp://[::]:2375 -H tcp://127.0.0.1:2375"), [f"{OVERRIDE}:3:40 error None"]),
    ({**command("-H fd:// -H tcp://0.0.0.0:2375"), **listen("2375")}, [f"{OVERRIDE}:3:40 error None"]),
    ({**command("-H fd:// -H tcp://10.0.0.5:2375"), **listen("10.0.0.6:2375")}, []),
    # Within docker.socket: systemd cannot open the second one.
    (listen("0.0.0.0:2375", "2375"), [f"{SOCKET_OVERRIDE}:3:1 error None"]),
    (listen("0.0.0.0:2375", "[::1]:2375"), []),
    ({DAEMON_JSON: '{"hosts": ["fd://", "tcp://:2375", "tcp://127.0.0.1:2375"]}', **command("")},
     [f"{DAEMON_JSON}:1:22 error None"]),
])
def test_port_claimed_twice(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG209") == expected


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H tcp://0.0.0.0.2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H 192.168.1.300:2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H tcp://1.2.3.4.5:2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H tcp://docker.invalid:2375"), [f"{OVERRIDE}:3:40 error None"]),
    # inet_aton(3) reads these, and a label may contain digits.
    (command("-H fd:// -H tcp://127.1:2375"), []),
    (command("-H fd:// -H tcp://host4:2375"), []),
    (command("-H fd:// -H tcp://docker.example.org:2375"), []),
    ({**command("-H fd:// -H tcp://docker.test:2375"), "/etc/hosts": "10.0.0.5 a docker.test # b\n"}, []),
    ({**command("-H fd:// -H tcp://docker.test:2375"), "/etc/hosts": "10.0.0.5 a # docker.test\n"},
     [f"{OVERRIDE}:3:40 error None"]),
    ({**command(""), DAEMON_JSON: '{"hosts": ["fd://",\n"tcp://0.0.0.0.2375"]}'}, [f"{DAEMON_JSON}:2:2 error None"]),
])
def test_host_that_does_not_resolve(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG203") == expected


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H unix:///var/run/docker.sock"), [f"{OVERRIDE}:3:40 warning None"]),
    (command("-H unix:///var/run/docker.sock"), [f"{OVERRIDE}:3:31 info None"]),
    (command("-H unix:///run/other.sock"), []),
    (command(""), []),
])
def test_path_of_docker_socket(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG208") == expected


@pytest.mark.parametrize(("files", "expected", "words"), [
    (listen("tcp://0.0.0.0:2375"), [f"{SOCKET_OVERRIDE}:2:1 warning None"], "without a scheme, such as 127.0.0.1:2375"),
    (listen("localhost:2376"), [f"{SOCKET_OVERRIDE}:2:1 warning None"], "127.0.0.1:2376"),
    (listen("*:2375"), [f"{SOCKET_OVERRIDE}:2:1 warning None"], "an IP address and a port, such as 127.0.0.1:2375"),
    (listen("0.0.0.0"), [f"{SOCKET_OVERRIDE}:2:1 warning None"], "ADDRESS:PORT"),
    (listen("unix:///run/x.sock"), [f"{SOCKET_OVERRIDE}:2:1 warning None"], "without unix://"),
    (listen("0.0.0.0:2375", "/var/run/x.sock", "2376"), [], ""),
    ({OVERRIDE: "[service]\nUser=root\n"}, [f"{OVERRIDE}:1:1 warning None"], "[Service]"),
    ({OVERRIDE: "[Serivce]\nUser=root\n"}, [f"{OVERRIDE}:1:1 warning None"], "did you mean [Service]"),
    ({OVERRIDE: "[Socket]\nListenStream=2375\n"}, [f"{OVERRIDE}:1:1 warning None"], "a drop-in of docker.socket"),
    ({SOCKET_OVERRIDE: "[Service]\nUser=root\n"}, [f"{SOCKET_OVERRIDE}:1:1 warning None"],
     "a drop-in of docker.service"),
    ({OVERRIDE: "[Service]\nUser=root\n[X-Service]\na=b\n[Install]\nWantedBy=x.target\n"}, [], ""),
    # Only the first line above the first section.
    ({OVERRIDE: "# \nExecStart=\nExecStart=/usr/bin/dockerd\n"}, [f"{OVERRIDE}:2:1 warning None"], "[Service]"),
    ({OVERRIDE: "[Service]\nExecStart\n"}, [f"{OVERRIDE}:2:1 warning None"], "Missing '='"),
    ({OVERRIDE: "[Service]\nExectStart=/usr/bin/dockerd\n"}, [f"{OVERRIDE}:2:1 warning None"],
     "did you mean ExecStart="),
    ({OVERRIDE: "[Service]\nStartLimitIntervalSec=0\n"}, [f"{OVERRIDE}:2:1 info None"], "StartLimitInterval="),
    # systemd 262 has the key, and older ones skip it; X- is for other programs.
    ({OVERRIDE: "[Service]\nX-Key=1\nRestartMode=direct\n"}, [], ""),
    ({OVERRIDE: "[Service]\nEnvironment='A=b' SECRET\n"}, [f"{OVERRIDE}:2:19 warning None"], "environment assignment"),
])
def test_line_that_systemd_skips(host: Host, files: Files, expected: list[str], words: str) -> None:
    assert summaries(host, files, "DG302") == expected
    messages = [finding.message for finding in found(host.see(), "DG302")]
    assert all(words in message and "SECRET" not in message for message in messages), messages


UNITS = "/etc/systemd/system"
MARKER = "### Edits below this comment will be discarded\n"
DROP_IN = "[Service]\nUser=root\n"


@pytest.mark.parametrize(("files", "expected"), [
    ({f"{UNITS}/docker.d/a.conf": DROP_IN}, [f"{UNITS}/docker.d/a.conf:1:1"]),
    ({f"{UNITS}/docker.service.d/sub/a.conf": DROP_IN}, [f"{UNITS}/docker.service.d/sub/a.conf:1:1"]),
    ({f"{UNITS}/docker.service.d/sub/a": DROP_IN}, []),
    ({f"{UNITS}/dockerd.service.d/a.conf": DROP_IN}, [f"{UNITS}/dockerd.service.d/a.conf:1:1"]),
    ({f"{UNITS}/docker-service.d/a.conf": DROP_IN}, [f"{UNITS}/docker-service.d/a.conf:1:1"]),
    ({"/etc/systemd/docker.service.d/a.conf": DROP_IN}, ["/etc/systemd/docker.service.d/a.conf:1:1"]),
    ({"/etc/systemd/docker.service": DROP_IN}, ["/etc/systemd/docker.service:1:1"]),
    ({f"{UNITS}/docker.service.d/a.conf": DROP_IN, f"{UNITS}/docker-proxy.service.d/a.conf": DROP_IN}, []),
    # A unit of this name exists.
    ({f"{UNITS}/dockerd.service.d/a.conf": DROP_IN, f"{UNITS}/dockerd.service": "[Service]\nExecStart=/bin/true\n"},
     []),
    ({f"{UNITS}/multi-user.target.wants/docker.service": DROP_IN},
     [f"{UNITS}/multi-user.target.wants/docker.service:1:1"]),
    ({f"{UNITS}/sockets.target.wants/docker.socket": DROP_IN}, [f"{UNITS}/sockets.target.wants/docker.socket:1:1"]),
    ({f"{UNITS}/multi-user.target.wants/nginx.service": DROP_IN}, []),
    ({OVERRIDE: f"### Editing\n\n{MARKER}\n# [Service]\n# User=root\n"}, [f"{OVERRIDE}:3:1"]),
    ({OVERRIDE: f"{MARKER}{DROP_IN}"}, [f"{OVERRIDE}:1:1"]),
    ({OVERRIDE: f"{DROP_IN}### Lines below this comment will be discarded\n"}, []),
    ({OVERRIDE: "# [Service]\n# User=root\n"}, []),
    ({"/etc/docker/deamon.json": "{}"}, ["/etc/docker/deamon.json:1:1"]),
    ({"/etc/docker/daemon.conf": "{}"}, ["/etc/docker/daemon.conf:1:1"]),
    ({"/etc/docker/daemon.json.d/10.json": "{}"}, ["/etc/docker/daemon.json.d/10.json:1:1"]),
    ({"/etc/default/daemon.json": "{}"}, ["/etc/default/daemon.json:1:1"]),
    ({DAEMON_JSON: "{}", "/etc/docker/daemon.json.bak": "{}", "/etc/docker/key.json": "{}"}, []),
    ({"/etc/docker/docker.json": "{}", **command("--config-file /etc/docker/docker.json -H fd://")}, []),
])
def test_file_without_effect(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG301") == [f"{location} warning None" for location in expected]


def test_places_of_files_without_effect_are_not_watched(host: Host) -> None:
    """/run/systemd changes with each start of a service with a sandbox, /var/lib/docker with each container."""
    (host.root / "run/systemd").mkdir(parents=True)
    (host.root / "var/lib/docker").mkdir(parents=True)
    seen = host.see()
    judge(seen, None, date(2026, 11, 26))
    assert "/run/systemd" not in seen.rootfs.listed
    assert not {path for path in seen.rootfs.consulted if path.startswith("/var/lib/docker/")}


def test_link_to_a_unit_is_no_finding(host: Host) -> None:
    wants = host.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "docker.service").symlink_to(SERVICE)
    assert found(host.see(), "DG301") == []


@pytest.mark.parametrize(("text", "place", "words"), [
    ('{\n  "hosts": ["fd://"]\n  "debug": true\n}', "3:3", "(a comma is probably missing before it)"),
    ('{"hosts": ["fd://" "tcp://:1"]}', "1:20", "(a comma is probably missing before it)"),
    ('{"debug": true}\n{"hosts": []}', "2:1",
     "(a second JSON document begins here, and dockerd accepts one: merge them)"),
    ('{"debug": true}}', "1:16", "(a closing bracket too many)"),
    ('{"debug": true,}', "1:16", "(the comma before it is not allowed)"),
    ('{"debug": True}', "1:11", "(JSON has true and false in lower case)"),
    ('{// all\n"debug": true}', "1:2", "(JSON has no comments)"),
    ("{'debug': true}", "1:2", "(JSON needs double quotes)"),
    ('{"debug": true', "1:15", "(a closing bracket or quote is missing)"),
    ('{\u201cdebug\u201d: true}', "1:2", "line 1 has typographic quotes, and JSON needs \")"),
    ('{"debug"; true}', "1:9", "after object key"),
])
def test_likely_cause_of_an_error_in_daemon_json(host: Host, text: str, place: str, words: str) -> None:
    assert summaries(host, {DAEMON_JSON: text}, "DG205") == [f"{DAEMON_JSON}:{place} error None"]
    [finding] = found(host.see(), "DG205")
    assert finding.message.endswith(words)


def test_host_without_its_flag_is_named(host: Host) -> None:
    assert summaries(host, command("fd:// --debug"), "DG205") == [f"{OVERRIDE}:3:11 error None"]
    assert found(host.see(), "DG205")[0].message.endswith("fd:// is not preceded by -H")


@pytest.mark.parametrize(("files", "expected"), [
    (command("-H fd:// -H tcp://172.17.0.1:2375"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H tcp://172.17.0.2:2375"), []),
    (command("-H fd:// -H tcp://172.17.0.1:2375 --bridge=br0"), []),
    (command("-H fd:// -H tcp://10.9.0.1:2375 --bip 10.9.0.1/24"), [f"{OVERRIDE}:3:40 error None"]),
    (command("-H fd:// -H tcp://172.17.0.1:2375 --bip 10.9.0.1/24"), []),
    ({**command("-H fd://"), DAEMON_JSON: '{"bip": "10.9.0.1/24"}'}, []),
    ({**command("-H fd:// -H 10.9.0.1:2375"), DAEMON_JSON: '{"bip": "10.9.0.1/24"}'}, [f"{OVERRIDE}:3:40 error None"]),
])
def test_address_of_docker0(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG207") == expected


@pytest.mark.parametrize(("interface", "expected"), [("wg0", 1), ("tailscale0", 1), ("eth0", 0), ("enp3s0", 0)])
def test_address_of_an_interface_that_comes_up_late(host: Host, interface: str, expected: int) -> None:
    number = socket.inet_aton("10.8.0.0")
    mask = socket.inet_aton("255.255.255.0")
    row = [int.from_bytes(each, sys.byteorder) for each in (number, mask)]
    host.put("/proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
             f"{interface}\t{row[0]:08X}\t00000000\t0001\t0\t0\t0\t{row[1]:08X}\t0\t0\t0\n")
    with Rootfs(str(host.root)) as rootfs:
        late = unavailable_address.late_interface(rootfs, ipaddress.ip_address("10.8.0.5"))
        other = unavailable_address.late_interface(rootfs, ipaddress.ip_address("10.9.0.5"))
    assert (late, other) == (interface if expected else None, None)


def rootless(arguments: str, *environment: str) -> Files:
    lines = "".join(f'Environment="DOCKERD_ROOTLESS_ROOTLESSKIT_{each}"\n' for each in environment)
    return {OVERRIDE: f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd-rootless.sh {arguments}\n{lines}"}


@pytest.mark.parametrize(("files", "expected"), [
    (rootless("-H tcp://0.0.0.0:2375"), [f"{OVERRIDE}:3:43 warning None"]),
    (rootless("-H tcp://127.0.0.1:2375"), []),
    (rootless("-H tcp://0.0.0.0:2376 --tlsverify"), []),
    (rootless("-H tcp://0.0.0.0:2375", "FLAGS=-p 0.0.0.0:2375:2375/tcp"), []),
    (rootless("-H tcp://0.0.0.0:2375", "FLAGS=-p 0.0.0.0:80:80/tcp"), [f"{OVERRIDE}:3:43 warning None"]),
    (rootless("-H tcp://0.0.0.0:2375", "DETACH_NETNS=false"), []),
    (rootless(""), []),
    (command("-H tcp://0.0.0.0:2375"), []),
])
def test_rootless_tcp_host(host: Host, files: Files, expected: list[str]) -> None:
    assert summaries(host, files, "DG109") == expected


@pytest.mark.parametrize(("arguments", "expected"), [
    # dockerd loads the files whatever its hosts are.
    ("-H fd:// --tlsverify --tlscacert=/ca --tlscert=/cert --tlskey=/key",
     [f"{OVERRIDE}:3:{column} error None" for column in (49, 65, 81)]),
    ("-H fd:// --tlscacert=/ca --tlscert=/cert --tlskey=/key", []),
])
def test_missing_tls_files_without_a_tcp_host(host: Host, arguments: str, expected: list[str]) -> None:
    assert summaries(host, command(arguments), "DG206") == expected
