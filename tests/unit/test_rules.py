"""The rules: locations, severities and fixes of findings, live layers, waivers."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.model.address import Binding, Evidence, Tls, Via, scope_of
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.configured import observe_configured
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
from dockerd_guard.policy.model import Policy
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules import unavailable_address
from dockerd_guard.rules.judge import judge
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


def summaries(findings: tuple[Finding, ...] | list[Finding]) -> list[str]:
    """Return location, severity, code and fix of each finding."""
    return [f"{finding.location} {finding.severity} {finding.code} {finding.fix}" for finding in findings]


def only(code: str, seen: Observation, with_policy: Policy | None = None) -> list[Finding]:
    return [finding for finding in judge(seen, with_policy, date(2026, 11, 23)) if finding.code == code]


# -- locations ------------------------------------------------------------------------------------


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
    # The certificate and its key are missing too, which dockerd says of its default paths.
    ("-H fd:// -H tcp://10.0.0.5:2376 --tlsverify --tlscacert=/etc/ssl/cert.pem",
     [f"{OVERRIDE}:3:60 error DG206 None"] * 2 + [f"{OVERRIDE}:3:72 error {code} None" for code in ("DG105", "DG206")]),
    ("-H fd:// -H tcp://10.0.0.5:2376 --tlscert=/cert",
     [f"{OVERRIDE}:3:40 error DG103 None", f"{OVERRIDE}:3:60 error DG105 None"]),
])
def test_location_is_the_exact_argument(host: Host, arguments: str, found: list[str]) -> None:
    host.start(arguments)
    assert summaries(judge(host.see(), None)) == found


def test_location_of_an_expanded_variable_is_its_assignment(host: Host) -> None:
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
def test_stock_host_against_policy(host: Host, text: str, found: list[str]) -> None:
    assert summaries(judge(host.see(), policy(text))) == found


@pytest.mark.parametrize(("text", "found"), [
    # Declared without TLS: DG103 is a warning.
    ("sockets: [fd://, {address: tcp://10.0.0.5:2375, tls: none}]", [f"{OVERRIDE}:3:40 warning DG103 None"]),
    ("sockets: [fd://, {address: tcp://10.0.0.5:2375, tls: server}]",
     [f"{OVERRIDE}:3:40 error DG103 safe", f"{OVERRIDE}:3:40 error DG105 safe"]),
    ("sockets: [fd://]", [f"{OVERRIDE}:3:40 error DG101 safe", f"{OVERRIDE}:3:40 error DG103 safe"]),
])
def test_tls_against_policy(host: Host, text: str, found: list[str]) -> None:
    host.start("-H fd:// -H tcp://10.0.0.5:2375")
    assert summaries(judge(host.see(), policy(text))) == found


@pytest.mark.parametrize(("foreign_files", "fix"), [("true", "unsafe"), ("false", "None")])
def test_fix_of_hosts_in_daemon_json(host: Host, foreign_files: str, fix: str) -> None:
    host.start("")
    host.put("/etc/docker/daemon.json", '{"hosts": ["unix:///run/docker.sock", "tcp://10.0.0.5:2375"]}')
    found = only("DG101", host.see(), policy(f"sockets: [fd://]\ncorrect: {{foreign_files: {foreign_files}}}"))
    assert summaries(found) == [f"/etc/docker/daemon.json:1:40 error DG101 {fix}"]


def test_declared_tcp_through_fd_is_no_finding(host: Host) -> None:
    host.put("/etc/systemd/system/docker.socket.d/tcp.conf", "[Socket]\nListenStream=10.0.0.5:2376\n")
    host.start(f"-H fd:// {TLS}")
    assert summaries(only("DG104", host.see())) == [
        "/etc/systemd/system/docker.socket.d/tcp.conf:2:1 warning DG104 None"]
    declared = policy("sockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, '10.0.0.5:2376']}")
    assert [finding.code for finding in judge(host.see(), declared)] == ["DG206", "DG206", "DG206"]


@pytest.mark.parametrize(("change", "reason"), [
    (lambda host: (host.root / SERVICE[1:]).unlink(), "Unit docker.service not found."),
    (lambda host: host.put(SERVICE, ""), "Unit docker.service is masked."),
    (lambda host: host.put(OVERRIDE, "[Service]\nExecStart=/usr/bin/dockerd\n"), "more than one ExecStart="),
    (lambda host: host.put("/etc/docker/daemon.json", "{"), "unexpected end of JSON input"),
])
def test_declared_socket_is_missing_where_docker_service_cannot_start(host: Host, change: object, reason: str) -> None:
    change(host)  # type: ignore[operator]
    finding, = only("DG102", host.see(), policy("sockets: [fd://]"))
    assert reason in finding.message


def test_tls_files(host: Host) -> None:
    host.start(f"-H fd:// -H tcp://10.0.0.5:2376 {TLS}")
    soon, late, server = pem.make_pair(7), pem.make_pair(-1, since=-9), pem.make_pair(since=3)
    host.put("/ca", soon.certificate)
    host.put("/cert", late.certificate)
    host.put("/key", server.key, 0o400)
    messages = [finding.message for finding in only("DG206", host.see())]
    assert [message.split(" on ")[0] for message in messages] == [
        "tlscacert /ca expires", "tlscert /cert expired",
        "tlskey /key does not match tlscert /cert: dockerd will not start with TLS"]
    host.put("/cert", server.certificate)
    assert "is not valid before" in only("DG206", host.see())[1].message
    host.put("/cert", server.key)
    assert "tlscert /cert cannot be used (" in only("DG206", host.see())[1].message


@pytest.mark.parametrize(("path", "text", "mode", "found"), [
    (OVERRIDE, "[Service]\n", 0o646, f"{OVERRIDE}:1:1 error DG401 None"),
    (OVERRIDE, "[Service]\n", 0o664, f"{OVERRIDE}:1:1 warning DG401 None"),
    ("/key", pem.make_pair().key, 0o644, "/key:1:1 error DG401 None"),
    ("/key", pem.make_pair().key, 0o640, "/key:1:1 warning DG401 None"),
    ("/key", pem.make_pair().key, 0o600, None),
])
@pytest.mark.skipif(os.geteuid() != 0, reason="in a root directory of another user, the group of that user is accepted")
def test_file_modes(host: Host, path: str, text: str | bytes, mode: int, found: str | None) -> None:
    host.put("/etc/systemd/system/docker.service.d/tls.conf",
             f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://10.0.0.5:2376 {TLS}\n")
    host.put(path, text, mode)
    assert summaries(only("DG401", host.see())) == ([found] if found else [])


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
def test_command_that_makes_the_socket_writable(host: Host, command: str, bad: bool) -> None:
    host.put(OVERRIDE, f"[Service]\n{command}\n")
    assert bool(only("DG106", host.see())) is bad


def test_world_writable_socket_file(host: Host) -> None:
    path = host.root / "run/docker.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert summaries(only("DG106", host.see())) == ["/run/docker.sock:1:1 error DG106 None"]
        path.chmod(0o660)
        assert only("DG106", host.see()) == []


# -- live layers ----------------------------------------------------------------------------------


def layer(name: str, argv: tuple[str, ...], *addresses: str, tls: Tls = Tls.NONE) -> Layer:
    bindings = tuple(
        Binding(address, scope_of(address), tls if address.startswith("tcp://") else Tls.NONE, Via.FLAG)
        for address in addresses)
    return Layer(name, True, None, None, argv, addresses, bindings)


def live(  # noqa: PLR0913
    configured: Configured, rootfs: Rootfs, running: str, *listening: str, daemon_json: str = "{}",
    loaded: str | None = None, started_ns: int = 1 << 62,
) -> Observation:
    """Return the observation of a live host.

    `running`: arguments of the running dockerd. `listening`: its addresses. `loaded`: arguments in the loaded
    docker.service; None: those on disk.
    """
    argv = ("/usr/bin/dockerd", *running.split())
    loaded_argv = configured.layer.argv if loaded is None else ("/usr/bin/dockerd", *loaded.split())
    daemon = resolve_daemon(argv, {}, lambda _: daemon_json.encode())
    return Observation(
        rootfs, configured,
        Loaded(configured.layer._replace(name=LOADED, argv=loaded_argv), configured.service, configured.sockets,
               configured.arguments, configured.daemon, "active", 1, False, {"docker.socket": "active"}, ()),
        Running(layer(RUNNING, argv, *listening), Process(1, argv, {}, started_ns, "docker.service"), daemon),
        Listening(layer(LISTENING, argv, *listening), (FD,)))


@pytest.mark.parametrize(("now", "place"), [
    ({}, "/etc/systemd/system.conf.d/x.conf:2:36"),
    ({"DOCKER_OPTS": "-H tcp://0.0.0.0:2375"}, "/etc/systemd/system.conf.d/x.conf:2:36"),
    # `systemctl set-environment` overrides the file.
    ({"DOCKER_OPTS": "-H tcp://0.0.0.0:2376"}, f"{OVERRIDE}:3:37"),
    ({"DOCKER_OPTS": "-D"}, ""),
])
def test_default_environment_that_the_next_reload_applies(host: Host, now: dict[str, str], place: str) -> None:
    host.start("-H fd:// $DOCKER_OPTS")
    host.put("/etc/systemd/system.conf.d/x.conf", '[Manager]\nDefaultEnvironment="DOCKER_OPTS=-H tcp://0.0.0.0:2375"\n')
    rootfs = Rootfs(str(host.root))
    seen = Observation(rootfs, observe_configured(rootfs, manager_environment=now))
    found = only("DG101", seen, policy("sockets: [fd://]"))
    assert [str(finding.location) for finding in found] == ([place] if place else [])


STOCK_ARGUMENTS = "-H fd:// --containerd=/run/containerd/containerd.sock"


def test_compliant_live_host(host: Host) -> None:
    seen = host.see()
    assert judge(live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD), policy("sockets: [fd://]")) == ()


@pytest.mark.parametrize(("daemon_json", "fix"), [('{"live-restore": true}', "safe"), ("{}", "disruptive")])
def test_one_finding_for_an_address_in_several_layers(host: Host, daemon_json: str, fix: str) -> None:
    host.start("-H fd:// -H tcp://0.0.0.0:2375")
    seen = host.see()
    found = only("DG101", live(seen.configured, seen.rootfs, "-H fd:// -H tcp://0.0.0.0:2375", FD, "tcp://[::]:2375",
                               daemon_json=daemon_json), policy("sockets: [fd://]"))
    assert summaries(found) == [f"{OVERRIDE}:3:40 error DG101 {fix}"]
    assert found[0].message.endswith("; it listens there now")


def test_address_that_is_only_configured(host: Host) -> None:
    host.start("-H fd:// -H tcp://0.0.0.0:2375")
    seen = host.see()
    finding, = only("DG101", live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD), policy("sockets: [fd://]"))
    assert (finding.fix, finding.layer) == ("safe", "configured")
    assert finding.message.endswith("; takes effect at the next restart of docker.service")


def test_open_address_that_is_no_longer_configured(host: Host) -> None:
    seen = host.see()
    finding, = only("DG103", live(seen.configured, seen.rootfs, "-H fd:// -H tcp://0.0.0.0:2375", FD, "tcp://[::]:2375"))
    assert (finding.layer, finding.location) == ("running", None)
    assert finding.message.endswith("; it listens there now")


@pytest.mark.parametrize(("running", "loaded", "codes"), [
    (STOCK_ARGUMENTS, None, []),
    (STOCK_ARGUMENTS, STOCK_ARGUMENTS + " -D", ["DG307", "DG308"]),
    (STOCK_ARGUMENTS + " -D", None, ["DG308"]),
    (STOCK_ARGUMENTS + " -D", STOCK_ARGUMENTS + " -D", ["DG307"]),
])
def test_pending_reload_and_restart(host: Host, running: str, loaded: str | None, codes: list[str]) -> None:
    seen = host.see()
    assert sorted(finding.code for finding in judge(
        live(seen.configured, seen.rootfs, running, FD, loaded=loaded), None)) == codes


@pytest.mark.parametrize(("daemon_json", "started_ns", "count"), [
    ('{"tlsverify": true}', 0, 1), ('{"tlsverify": true}', 1 << 62, 0), ('{"debug": true}', 0, 0),
])
def test_daemon_json_newer_than_the_process(
    host: Host, daemon_json: str, started_ns: int, count: int
) -> None:
    host.put("/etc/docker/daemon.json", daemon_json)
    seen = host.see()
    assert len(only("DG308", live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD, daemon_json=daemon_json,
                                  started_ns=started_ns))) == count


@pytest.mark.parametrize(("running", "loaded", "at_start", "now", "count"), [
    # The same in other words.
    ("-H fd://", "", "{}", '{"hosts": ["fd://"]}', 0),
    ("", "-H fd://", '{"hosts": ["fd://"]}', "{}", 0),
    ("-H fd:// -D", "-D --host=fd://", "{}", "{}", 0),
    ("-H unix:///var/run/docker.sock", "-H unix:///run/docker.sock", "{}", "{}", 0),
    # TLS without a TCP socket.
    ("-H fd://", "-H fd://", "{}", '{"tlsverify": true}', 0),
    # Written and taken back.
    ("-H fd://", "-H fd://", '{"debug": true}', "{}", 0),
    ("-H fd://", "", "{}", '{"hosts": ["fd://", "tcp://127.0.0.1:2375"]}', 1),
    ("", "", '{"hosts": ["fd://"]}', "{}", 1),
    ("-H fd://", "-H fd:// -D", "{}", "{}", 1),
    ("-H fd:// -H tcp://127.0.0.1:2376", "-H fd:// -H tcp://127.0.0.1:2376", "{}", '{"tlsverify": true}', 1),
])
def test_a_restart_that_would_change_nothing_is_not_pending(  # noqa: PLR0913, PLR0917
        host: Host, running: str, loaded: str, at_start: str, now: str, count: int) -> None:
    host.start(loaded)
    host.put("/etc/docker/daemon.json", now)
    seen = host.see()
    alive = live(seen.configured, seen.rootfs, running, FD, *(
        word for word in running.split() if word.startswith("tcp://")), daemon_json=at_start, started_ns=0)
    assert alive.running is not None
    alive = alive._replace(running=alive.running._replace(config=Evidence.START_RECORD))
    assert len(only("DG308", alive)) == count


def test_drop_in_of_set_property_is_loaded(host: Host) -> None:
    """systemd appends it to its list, which makes NeedDaemonReload true."""
    control = "/run/systemd/system.control/docker.service.d/50-IPAddressDeny.conf"
    host.start(STOCK_ARGUMENTS)
    host.put(control, "[Service]\nIPAddressDeny=any\n")
    seen = host.see()
    alive = live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD)
    assert alive.loaded is not None
    unit = alive.loaded.service.unit

    def found(*dropins: str) -> int:
        assert alive.loaded is not None
        service = alive.loaded.service._replace(unit=unit._replace(dropins=dropins))
        loaded = alive.loaded._replace(service=service, need_daemon_reload=True)
        return len(only("DG307", alive._replace(loaded=loaded)))

    assert set(unit.dropins) == {control, OVERRIDE}
    assert found(OVERRIDE, control) == 0
    assert found(OVERRIDE) == 1
    assert found(control, OVERRIDE) == 1, "another reason"


def test_listen_stream_that_is_not_loaded(host: Host) -> None:
    loaded = host.see()
    host.put("/etc/systemd/system/docker.socket.d/more.conf", "[Socket]\nListenStream=/run/more.sock\n")
    seen = live(loaded.configured, loaded.rootfs, STOCK_ARGUMENTS, FD)._replace(configured=host.see().configured)
    assert summaries(only("DG307", seen)) == ["/etc/systemd/system/docker.socket.d/more.conf:2:1 warning DG307 None"]


def test_active_socket_unit_without_open_socket(host: Host) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD)
    assert only("DG309", alive) == []
    assert alive.listening is not None
    dead = alive._replace(listening=alive.listening._replace(held_by_systemd=()))
    assert summaries(only("DG309", dead)) == [f"{SOCKET}:2:1 error DG309 None"]


@pytest.mark.parametrize(("sockets", "expected"), [
    (None, [f"{SOCKET}:2:1 info DG309 None"]),
    ("[fd://]", [f"{SOCKET}:2:1 info DG309 None"]),
    ("['unix:///var/run/docker.sock']", []),
])
def test_dockerd_has_replaced_the_socket_of_docker_socket(host: Host, sockets: str | None, expected: list[str]) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD)
    assert alive.listening is not None
    taken = alive._replace(listening=alive.listening._replace(taken=alive.listening.held_by_systemd))
    assert summaries(only("DG309", taken, policy(f"sockets: {sockets}") if sockets else None)) == expected


@pytest.mark.parametrize(("daemon_json", "text", "count"), [
    ("{}", "mode: enforce", 1),
    ("{}", "mode: observe", 0),
    ("{}", "mode: enforce\ncorrect: {restart: never}", 0),
    ('{"live-restore": true}', "mode: enforce", 0),
])
def test_live_restore(host: Host, daemon_json: str, text: str, count: int) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD, daemon_json=daemon_json)
    assert len(only("DG402", alive, policy(f"sockets: [fd://]\n{text}"))) == count


@pytest.mark.parametrize(("namespace", "where"), [("", ""), ("/run/netns/b", " in the network namespace /run/netns/b")])
def test_other_dockerd_process(host: Host, namespace: str, where: str) -> None:
    seen = host.see()
    alive = live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD)
    binding, = layer("", (), "tcp://0.0.0.0:2375").bindings
    other = Other(Process(99, ("dockerd",), {}, 0, "b.service"), (binding._replace(namespace=namespace),),
                  namespace=namespace)
    # docker.service itself may be down.
    finding, = only("DG107", alive._replace(running=None, others=(other,)))
    assert finding.message == f"another dockerd is running (pid 99, b.service) and listens on tcp://0.0.0.0:2375{where}"


@pytest.mark.parametrize(("lines", "message"), [
    ("ExecStart=/usr/bin/dockerd -H 0.0.0.0:2375", "runs a second dockerd that listens on TCP"),
    ("ExecStart=/usr/bin/dockerd --pidfile=/run/2.pid -H unix:///run/2.sock", "runs a second dockerd; the policy"),
    ("Environment=A='-H :2375'\nExecStart=/bin/sh -c 'exec dockerd $A'", "runs a second dockerd that listens on TCP"),
    ("ExecStart=@/usr/bin/dockerd any -H tcp://:2375", "runs a second dockerd that listens on TCP"),
    ("ExecStart=/usr/bin/docker -d -H tcp://:2375", "runs a second dockerd that listens on TCP"),
    ("ExecStart=/usr/bin/pgrep dockerd", None),
    ("ExecStart=/usr/bin/docker run x dockerd -H tcp://:2375", None),
    ("ExecStart=/bin/sh -c 'systemctl is-active docker && pkill dockerd'", None),
])
def test_service_that_runs_a_second_dockerd(host: Host, lines: str, message: str | None) -> None:
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
    alive = live(seen.configured, seen.rootfs, STOCK_ARGUMENTS, FD)
    assert bool(list(unavailable_address.check(alive, None))) is not is_here


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


# -- regressions ----------------------------------------------------------------------------------


def test_variable_used_by_the_vendor_unit_under_our_drop_in(host: Host) -> None:
    """The drop-in of dockerd-guard contains the expanded value of $DOCKER_OPTS. The variable is still used."""
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
def test_error_in_daemon_json_is_reported_once_with_location(host: Host, daemon_json: str, expected: list[str]) -> None:
    host.put("/etc/docker/daemon.json", daemon_json)
    assert summaries(judge(host.see(), None)) == expected


def test_host_that_is_a_number_is_reported_once(host: Host) -> None:
    host.put("/etc/nsswitch.conf", "hosts: files dns\n")
    host.start("--tls=false -H fd:// -H 2375")
    found = [finding for finding in judge(host.see(), None) if finding.code in ("DG203", "DG205")]
    assert summaries(found) == [f"{OVERRIDE}:3:52 error DG203 None"]
    assert "will not start" in found[0].message
