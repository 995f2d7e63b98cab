"""The rules: places and words, layers that files do not show, and waivers."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dockerd_guard.bindings import Binding, Tls, Via, scope_of
from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.judge import dg207
from dockerd_guard.judge.finding import Finding
from dockerd_guard.judge.judge import judge
from dockerd_guard.observe.observation import (
    LISTENING,
    LOADED,
    RUNNING,
    Configured,
    Layer,
    Listening,
    Loaded,
    Observation,
    Other,
    Process,
    Running,
)
from dockerd_guard.policy import Policy, parse_policy
from dockerd_guard.tree import Tree
from tests.support import pem
from tests.support.hosts import OVERRIDE, SERVICE, Host

SOCKET = "/usr/lib/systemd/system/docker.socket"
FD = "unix:///run/docker.sock"
TLS = "--tlsverify --tlscacert=/ca --tlscert=/cert --tlskey=/key"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    before = os.umask(0o022)
    yield Host(tmp_path)
    os.umask(before)


def policy(text: str) -> Policy:
    return parse_policy(f"version: 1\n{text}".encode(), "/policy.yaml")


def told(findings: tuple[Finding, ...] | list[Finding]) -> list[str]:
    """Findings as one reads them: place, severity, code, fix."""
    return [f"{finding.location} {finding.severity} {finding.code} {finding.fix}" for finding in findings]


def only(code: str, seen: Observation, with_policy: Policy | None = None) -> list[Finding]:
    return [finding for finding in judge(seen, with_policy, date(2026, 11, 23)) if finding.code == code]


# -- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "found"), [
    ("-H fd://", []),
    ("-H fd:// -H tcp://0.0.0.0:2375", [f"{OVERRIDE}:3:40 error DG103 None"]),
    ("-H fd:// -H=tcp://10.0.0.5:2375", [f"{OVERRIDE}:3:40 error DG103 None"]),
    ("-H fd:// --host=127.0.0.1:2375", [f"{OVERRIDE}:3:44 warning DG103 None"]),
    ("-H tcp://:2375", [f"{OVERRIDE}:3:31 warning DG103 None", f"{OVERRIDE}:3:31 warning DG203 None"]),
    ("-H fd:// -H unix:///var/run/docker.sock", [f"{OVERRIDE}:3:40 warning DG208 None"]),
    ("-H fd:// -H tpc://0.0.0.0:2375", [f"{OVERRIDE}:3:40 error DG203 None"]),
    ("-H fd:// --no-such-flag", [f"{OVERRIDE}:3:37 error DG205 None"]),
    ("-H fd:// -H tcp://10.0.0.5:2376 --tlsverify=false --tlscert=/cert --tlskey=/key",
     [f"{OVERRIDE}:3:40 error DG103 None", f"{OVERRIDE}:3:60 error DG105 None",
      f"{OVERRIDE}:3:78 error DG206 None", f"{OVERRIDE}:3:94 error DG206 None"]),
    ("-H fd:// -H tcp://10.0.0.5:2376 --tlscert=/cert",
     [f"{OVERRIDE}:3:40 error DG103 None", f"{OVERRIDE}:3:60 error DG105 None"]),
])
def test_the_exact_words_are_named(host: Host, arguments: str, found: list[str]) -> None:
    host.start(arguments)
    assert told(judge(host.see(), None)) == found


def test_words_out_of_a_variable_are_named_where_it_is_set(host: Host) -> None:
    host.put("/etc/default/docker", "# options\nDOCKER_OPTS='-H tcp://0.0.0.0:2375'\n")
    host.put(OVERRIDE, "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=\n"
                       "ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n")
    finding, = judge(host.see(), None)
    assert (finding.code, finding.location and finding.location[:2]) == ("DG103", ("/etc/default/docker", 2))


@pytest.mark.parametrize(("text", "found"), [
    ("sockets: [fd://]", []),
    ("sockets: [unix:///var/run/docker.sock]", []),
    ("sockets: [unix:///run/other.sock]",
     ["/policy.yaml:2:11 error DG102 safe", f"{SOCKET}:2:1 error DG101 safe"]),
    ("sockets: [fd://, tcp://127.0.0.1:2376]", ["/policy.yaml:2:18 error DG102 safe"]),
])
def test_the_policy_is_held_against_a_stock_host(host: Host, text: str, found: list[str]) -> None:
    assert told(judge(host.see(), policy(text))) == found


@pytest.mark.parametrize(("text", "found"), [
    # Declared as it is: still said what it means.
    ("sockets: [fd://, {address: tcp://10.0.0.5:2375, tls: none}]", [f"{OVERRIDE}:3:40 warning DG103 None"]),
    ("sockets: [fd://, {address: tcp://10.0.0.5:2375, tls: server}]",
     [f"{OVERRIDE}:3:40 error DG103 safe", f"{OVERRIDE}:3:40 error DG105 safe"]),
    ("sockets: [fd://]", [f"{OVERRIDE}:3:40 error DG101 safe", f"{OVERRIDE}:3:40 error DG103 safe"]),
])
def test_tls_is_held_against_the_policy(host: Host, text: str, found: list[str]) -> None:
    host.start("-H fd:// -H tcp://10.0.0.5:2375")
    assert told(judge(host.see(), policy(text))) == found


@pytest.mark.parametrize(("foreign_files", "fix"), [("true", "unsafe"), ("false", "None")])
def test_what_no_drop_in_can_overrule(host: Host, foreign_files: str, fix: str) -> None:
    host.start("")
    host.put("/etc/docker/daemon.json", '{"hosts": ["unix:///run/docker.sock", "tcp://10.0.0.5:2375"]}')
    found = only("DG101", host.see(), policy(f"sockets: [fd://]\ncorrect: {{foreign_files: {foreign_files}}}"))
    assert told(found) == [f"/etc/docker/daemon.json:1:40 error DG101 {fix}"]


def test_tcp_through_fd_is_fine_where_it_is_declared(host: Host) -> None:
    host.put("/etc/systemd/system/docker.socket.d/tcp.conf", "[Socket]\nListenStream=10.0.0.5:2376\n")
    host.start(f"-H fd:// {TLS}")
    assert told(only("DG104", host.see())) == ["/etc/systemd/system/docker.socket.d/tcp.conf:2:1 warning DG104 None"]
    declared = policy("sockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, '10.0.0.5:2376']}")
    assert [finding.code for finding in judge(host.see(), declared)] == ["DG206", "DG206", "DG206"]


@pytest.mark.parametrize(("make", "said"), [
    (lambda host: (host.root / SERVICE[1:]).unlink(), "Unit docker.service not found."),
    (lambda host: host.put(SERVICE, ""), "Unit docker.service is masked."),
    (lambda host: host.put(OVERRIDE, "[Service]\nExecStart=/usr/bin/dockerd\n"), "more than one ExecStart="),
    (lambda host: host.put("/etc/docker/daemon.json", "{"), "unexpected end of JSON input"),
])
def test_what_does_not_start_has_no_declared_socket(host: Host, make: object, said: str) -> None:
    make(host)  # type: ignore[operator]
    finding, = only("DG102", host.see(), policy("sockets: [fd://]"))
    assert said in finding.message


def test_certificates(host: Host) -> None:
    host.start(f"-H fd:// -H tcp://10.0.0.5:2376 {TLS}")
    soon, late, server = pem.make_pair(7), pem.make_pair(-1, since=-9), pem.make_pair(since=3)
    host.put("/ca", soon.certificate)
    host.put("/cert", late.certificate)
    host.put("/key", server.key, 0o400)
    messages = [finding.message for finding in only("DG206", host.see())]
    assert [message.split(" on ")[0] for message in messages] == [
        "tlscacert /ca expires", "tlscert /cert expired",
        "tlskey /key does not belong to tlscert /cert: dockerd will not start with TLS"]
    host.put("/cert", server.certificate)
    assert "is not valid before" in only("DG206", host.see())[1].message
    host.put("/cert", server.key)
    assert "tlscert /cert cannot be used, there is no PEM certificate in it" in only("DG206", host.see())[1].message


@pytest.mark.parametrize(("path", "text", "mode", "found"), [
    (OVERRIDE, "[Service]\n", 0o646, f"{OVERRIDE}:1:1 error DG401 None"),
    (OVERRIDE, "[Service]\n", 0o664, f"{OVERRIDE}:1:1 warning DG401 None"),
    ("/key", pem.make_pair().key, 0o644, "/key:1:1 error DG401 None"),
    ("/key", pem.make_pair().key, 0o640, "/key:1:1 warning DG401 None"),
    ("/key", pem.make_pair().key, 0o600, None),
])
@pytest.mark.skipif(os.geteuid() != 0, reason="below a directory of another user, that user's group is fine")
def test_modes(host: Host, path: str, text: str | bytes, mode: int, found: str | None) -> None:
    host.put("/etc/systemd/system/docker.service.d/tls.conf",
             f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://10.0.0.5:2376 {TLS}\n")
    host.put(path, text, mode)
    assert told(only("DG401", host.see())) == ([found] if found else [])


@pytest.mark.parametrize(("command", "bad"), [
    ("ExecStartPost=/bin/chmod 666 /var/run/docker.sock", True),
    ("ExecStartPost=/bin/chmod 0777 /run/docker.sock", True),
    ("ExecStartPost=/bin/chmod o+rw /run/docker.sock", True),
    ("ExecStartPost=/bin/chmod a+w /run/docker.sock", True),
    ("ExecStartPost=/bin/chmod +w /run/docker.sock", True),
    ("ExecStartPost=/bin/chmod 660 /run/docker.sock", False),
    ("ExecStartPost=/bin/chmod g+rw /run/docker.sock", False),
    ("ExecStartPost=/bin/chmod o-rwx /run/docker.sock", False),
])
def test_a_command_that_opens_the_socket(host: Host, command: str, bad: bool) -> None:
    host.put(OVERRIDE, f"[Service]\n{command}\n")
    assert bool(only("DG106", host.see())) is bad


def test_a_socket_file_open_to_all(host: Host) -> None:
    path = host.root / "run/docker.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert told(only("DG106", host.see())) == ["/run/docker.sock:1:1 error DG106 None"]
        path.chmod(0o660)
        assert only("DG106", host.see()) == []


# -- live layers ----------------------------------------------------------------------------------


def layer(name: str, argv: tuple[str, ...], *addresses: str, tls: Tls = Tls.NONE) -> Layer:
    bindings = tuple(
        Binding(address, scope_of(address), tls if address.startswith("tcp://") else Tls.NONE, Via.FLAG)
        for address in addresses)
    return Layer(name, True, None, None, argv, addresses, bindings)


def live(  # noqa: PLR0913
    configured: Configured, tree: Tree, running: str, *listening: str, daemon_json: str = "{}",
    loaded: str | None = None, started_ns: int = 1 << 62,
) -> Observation:
    """A live host: what systemd has loaded (as on disk, unless told), what dockerd was started with, and
    where it listens."""
    argv = ("/usr/bin/dockerd", *running.split())
    loaded_argv = configured.layer.argv if loaded is None else ("/usr/bin/dockerd", *loaded.split())
    daemon = resolve_daemon(argv, {}, lambda _: daemon_json.encode())
    return Observation(
        tree, configured,
        Loaded(configured.layer._replace(name=LOADED, argv=loaded_argv), configured.service, configured.sockets,
               configured.arguments, configured.daemon, "active", 1, False, {"docker.socket": "active"}, ()),
        Running(layer(RUNNING, argv, *listening), Process(1, argv, {}, started_ns, "docker.service"), daemon),
        Listening(layer(LISTENING, argv, *listening), (FD,)))


STOCK_ARGUMENTS = "-H fd:// --containerd=/run/containerd/containerd.sock"


def test_a_healthy_live_host(host: Host) -> None:
    seen = host.see()
    assert judge(live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD), policy("sockets: [fd://]")) == ()


@pytest.mark.parametrize(("daemon_json", "fix"), [('{"live-restore": true}', "safe"), ("{}", "disruptive")])
def test_one_finding_for_a_place_however_many_layers_have_it(host: Host, daemon_json: str, fix: str) -> None:
    host.start("-H fd:// -H tcp://0.0.0.0:2375")
    seen = host.see()
    found = only("DG101", live(seen.configured, seen.tree, "-H fd:// -H tcp://0.0.0.0:2375", FD, "tcp://[::]:2375",
                               daemon_json=daemon_json), policy("sockets: [fd://]"))
    assert told(found) == [f"{OVERRIDE}:3:40 error DG101 {fix}"]
    assert found[0].message.endswith("; it is open now")


def test_a_place_that_is_only_on_disk(host: Host) -> None:
    host.start("-H fd:// -H tcp://0.0.0.0:2375")
    seen = host.see()
    finding, = only("DG101", live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD), policy("sockets: [fd://]"))
    assert (finding.fix, finding.layer) == ("safe", "configured")
    assert finding.message.endswith("; not in force yet, but from the next restart of docker.service on")


def test_a_place_that_is_gone_from_disk_but_open(host: Host) -> None:
    seen = host.see()
    finding, = only("DG103", live(seen.configured, seen.tree, "-H fd:// -H tcp://0.0.0.0:2375", FD, "tcp://[::]:2375"))
    assert (finding.layer, finding.location) == ("running", None)
    assert finding.message.endswith("; it is open now")


@pytest.mark.parametrize(("running", "loaded", "codes"), [
    (STOCK_ARGUMENTS, None, []),
    (STOCK_ARGUMENTS, STOCK_ARGUMENTS + " -D", ["DG307", "DG308"]),
    (STOCK_ARGUMENTS + " -D", None, ["DG308"]),
    (STOCK_ARGUMENTS + " -D", STOCK_ARGUMENTS + " -D", ["DG307"]),
])
def test_what_is_not_in_force(host: Host, running: str, loaded: str | None, codes: list[str]) -> None:
    seen = host.see()
    assert sorted(finding.code for finding in judge(
        live(seen.configured, seen.tree, running, FD, loaded=loaded), None)) == codes


@pytest.mark.parametrize(("daemon_json", "started_ns", "count"), [
    ('{"tlsverify": true}', 0, 1), ('{"tlsverify": true}', 1 << 62, 0), ('{"debug": true}', 0, 0),
])
def test_a_daemon_json_newer_than_the_process(
    host: Host, daemon_json: str, started_ns: int, count: int
) -> None:
    host.put("/etc/docker/daemon.json", daemon_json)
    seen = host.see()
    assert len(only("DG308", live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD, daemon_json=daemon_json,
                                  started_ns=started_ns))) == count


def test_a_listen_stream_that_is_not_loaded(host: Host) -> None:
    loaded = host.see()
    host.put("/etc/systemd/system/docker.socket.d/more.conf", "[Socket]\nListenStream=/run/more.sock\n")
    seen = live(loaded.configured, loaded.tree, STOCK_ARGUMENTS, FD)._replace(configured=host.see().configured)
    assert told(only("DG307", seen)) == ["/etc/systemd/system/docker.socket.d/more.conf:2:1 warning DG307 None"]


def test_a_socket_unit_without_a_socket(host: Host) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD)
    assert only("DG309", alive) == []
    assert alive.listening is not None
    dead = alive._replace(listening=alive.listening._replace(held_by_systemd=()))
    assert told(only("DG309", dead)) == [f"{SOCKET}:2:1 error DG309 None"]


@pytest.mark.parametrize(("sockets", "expected"), [
    (None, [f"{SOCKET}:2:1 info DG309 None"]),
    ("[fd://]", [f"{SOCKET}:2:1 info DG309 None"]),
    ("['unix:///var/run/docker.sock']", []),
])
def test_a_dockerd_that_took_the_place_of_docker_socket(host: Host, sockets: str | None, expected: list[str]) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD)
    assert alive.listening is not None
    taken = alive._replace(listening=alive.listening._replace(taken=alive.listening.held_by_systemd))
    assert told(only("DG309", taken, policy(f"sockets: {sockets}") if sockets else None)) == expected


@pytest.mark.parametrize(("daemon_json", "text", "count"), [
    ("{}", "mode: enforce", 1),
    ("{}", "mode: observe", 0),
    ("{}", "mode: enforce\ncorrect: {restart: never}", 0),
    ('{"live-restore": true}', "mode: enforce", 0),
])
def test_live_restore(host: Host, daemon_json: str, text: str, count: int) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD, daemon_json=daemon_json)
    assert len(only("DG402", alive, policy(f"sockets: [fd://]\n{text}"))) == count


def test_another_dockerd(host: Host) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD)
    other = Other(Process(99, ("dockerd",), {}, 0, "user@1000.service"), layer("", (), "tcp://0.0.0.0:2375").bindings)
    # docker.service itself may be down.
    finding, = only("DG107", alive._replace(running=None, others=(other,)))
    assert finding.message == ("another dockerd of user@1000.service runs (pid 99) and listens on "
                               "tcp://0.0.0.0:2375")


@pytest.mark.parametrize(("lines", "message"), [
    ("ExecStart=/usr/bin/dockerd -H 0.0.0.0:2375", "runs a dockerd of its own that listens on TCP"),
    ("ExecStart=/usr/bin/dockerd --pidfile=/run/2.pid -H unix:///run/2.sock", "runs a dockerd of its own: what"),
    ("Environment=A='-H :2375'\nExecStart=/bin/sh -c 'exec dockerd $A'", "runs a dockerd of its own that listens on"),
    ("ExecStart=@/usr/bin/dockerd any -H tcp://:2375", "runs a dockerd of its own that listens on TCP"),
    ("ExecStart=/usr/bin/docker -d -H tcp://:2375", "runs a dockerd of its own that listens on TCP"),
    ("ExecStart=/usr/bin/pgrep dockerd", None),
    ("ExecStart=/usr/bin/docker run x dockerd -H tcp://:2375", None),
    ("ExecStart=/bin/sh -c 'systemctl is-active docker && pkill dockerd'", None),
])
def test_a_service_with_a_dockerd_of_its_own(host: Host, lines: str, message: str | None) -> None:
    host.put("/etc/systemd/system/other.service", "[Service]\nExecStart=/bin/true\n")
    host.put("/etc/systemd/system/other.service.d/a.conf", f"[Service]\nExecStart=\n{lines}\n")
    found = [finding.message for finding in only("DG107", host.see())]
    assert len(found) == (message is not None) and all(message in each for each in found if message), found


@pytest.mark.parametrize(("address", "is_here"), [
    ("10.0.0.5", True), ("10.0.0.6", False), ("[2001:db8::1]", True), ("[2001:db8::2]", False),
    ("127.0.0.9", True), ("0.0.0.0", True), ("name", True),
])
def test_addresses_of_the_host(host: Host, address: str, is_here: bool) -> None:
    host.put("/proc/sys/net/ipv4/ip_nonlocal_bind", "0\n")
    host.put("/proc/net/fib_trie", "Local:\n  +-- 10.0.0.0/24 2 0 2\n     |-- 10.0.0.0\n        /24 link UNICAST\n"
                                   "     |-- 10.0.0.5\n        /32 host LOCAL\n")
    host.put("/proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80     eth0\n")
    host.start(f"-H fd:// -H tcp://{address}:2376")
    seen = host.see()
    assert only("DG207", seen) == []
    alive = live(seen.configured, seen.tree, STOCK_ARGUMENTS, FD)
    assert bool(list(dg207.check(alive, None))) is not is_here


# -- waivers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waiver", "left"), [
    ("{rule: DG103, reason: r}", []),
    ("{rule: DG103, address: 'tcp://127.0.0.1:2375', reason: r, until: 2026-11-23}", []),
    ("{rule: DG103, address: 'tcp://localhost:2375', reason: r}", []),
    ("{rule: DG103, reason: r, until: 2026-11-22}", ["DG103", "DG501"]),
    ("{rule: DG103, address: 'tcp://127.0.0.1:2376', reason: r}", ["DG103", "DG501"]),
    ("{rule: DG104, reason: r}", ["DG103", "DG501"]),
    ("{rule: DG999, reason: r}", ["DG103", "DG501"]),
])
def test_waivers(host: Host, waiver: str, left: list[str]) -> None:
    host.start("-H fd:// -H tcp://127.0.0.1:2375")
    declared = "sockets: [fd://, {address: tcp://127.0.0.1:2375, tls: none}]\n"
    found = judge(host.see(), policy(f"{declared}waive:\n  - {waiver}"), date(2026, 11, 23))
    assert sorted(finding.code for finding in found) == left


# -- what a sceptical user found --------------------------------------------------------------------


def test_our_own_drop_in_names_no_variable_for_the_unit_it_stands_in_for(host: Host) -> None:
    """What it keeps of $DOCKER_OPTS it gives word by word."""
    vendor = "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n"
    host.put(SERVICE, vendor)
    host.put("/etc/default/docker", "DOCKER_OPTS='-H tcp://0.0.0.0:2375'\n")
    host.put("/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf",
             "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd://\n")
    assert only("DG305", host.see()) == []
    host.start("-H fd://")
    assert len(only("DG305", host.see())) == 1


@pytest.mark.parametrize(("daemon_json", "expected"), [
    ('{"debug": true,}', ["/etc/docker/daemon.json:1:16 error DG205 None"]),
    ('{\n  "debug": true\n', ["/etc/docker/daemon.json:2:16 error DG205 None"]),
    ('{"nothing": 1}', ["/etc/docker/daemon.json:1:3 error DG205 None"]),
    ('{"host": []}', ["/etc/docker/daemon.json:1:3 warning DG306 None"]),
])
def test_a_daemon_json_is_told_once_and_where(host: Host, daemon_json: str, expected: list[str]) -> None:
    host.put("/etc/docker/daemon.json", daemon_json)
    assert told(judge(host.see(), None)) == expected


def test_a_number_that_no_resolver_takes_is_told_once(host: Host) -> None:
    host.put("/etc/nsswitch.conf", "hosts: files dns\n")
    host.start("--tls=false -H fd:// -H 2375")
    found = [finding for finding in judge(host.see(), None) if finding.code in ("DG203", "DG205")]
    assert told(found) == [f"{OVERRIDE}:3:52 error DG203 None"]
    assert "will not start" in found[0].message
