"""I6: what is stated of a running dockerd rests on evidence, never on a file that may have changed since it started."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Evidence, Tls
from dockerd_guard.observe.certificates import fingerprint
from dockerd_guard.observe.engine import Probe
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.observation import Layer, Process
from dockerd_guard.observe.probes import Known, Prober, Probes, start_of, with_probes
from dockerd_guard.observe.started import INVOCATION, StartRecord, started
from dockerd_guard.plan.assessment import plan_for
from dockerd_guard.plan.exposures import exposures
from dockerd_guard.plan.pending_changes import start_record
from dockerd_guard.report.journal import JournalEntry
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager, SimulatedNetwork
from tests.support.pem import make_pair
from tests.support.situations import (
    Act,
    daemon_json,
    do,
    dropin,
    fault,
    listens,
    opened,
    policy,
    read_policy,
    reload,
    remove,
    restart,
    restart_socket,
    sleep,
    write,
)

TODAY = date(2026, 11, 23)

KEYS = '"tlscacert": "/etc/docker/ca.pem", "tlscert": "/etc/docker/cert.pem", "tlskey": "/etc/docker/key.pem"'
MUTUAL = '{"live-restore": true, "tlsverify": true, ' + KEYS + "}"
SERVER = '{"live-restore": true, "tlsverify": false, ' + KEYS + "}"
PLAIN = '{"live-restore": true}'
FLAGS = "--tlscacert=/etc/docker/ca.pem --tlscert=/etc/docker/cert.pem --tlskey=/etc/docker/key.pem"
TCP = "-H fd:// -H tcp://0.0.0.0:2375"
KEY = "tcp://*:2375"

DECLARED = "sockets: [fd://, {address: 'tcp://0.0.0.0:2375', tls: mutual}]"

NONE, SERVED, BOTH, UNKNOWN = Tls.NONE, Tls.SERVER, Tls.MUTUAL, Tls.UNKNOWN
PROC, RECORD, FILES, PROBE = Evidence.PROC, Evidence.START_RECORD, Evidence.UNCHANGED_FILES, Evidence.PROBE

MOUNTED = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
40 21 8:1 /root/other.json /etc/docker/daemon.json rw,relatime shared:1 - ext4 /dev/sda1 rw
"""


class Case(NamedTuple):
    """`since`: what happened since dockerd started. `without`, `recorded`, `probed`: the TLS of port 2375 and what it
    rests on, from the processes and files alone, with a record of the start, and with a probe."""

    name: str
    start: tuple[Act, ...]
    since: tuple[Act, ...]
    without: tuple[Tls, Evidence | None]
    recorded: tuple[Tls, Evidence | None]
    probed: Tls


CASES = (
    Case("unchanged", opened(TCP), (), (NONE, FILES), (NONE, RECORD), NONE),
    Case("TLS written into daemon.json", opened(TCP), (daemon_json(MUTUAL),), (UNKNOWN, None), (NONE, RECORD), NONE),
    Case("TLS taken out of daemon.json", (daemon_json(MUTUAL), *opened(TCP)), (daemon_json(PLAIN),),
         (UNKNOWN, None), (BOTH, RECORD), BOTH),
    Case("weakened in daemon.json", (daemon_json(MUTUAL), *opened(TCP)), (daemon_json(SERVER),),
         (UNKNOWN, None), (BOTH, RECORD), BOTH),
    Case("daemon.json removed", (daemon_json(MUTUAL), *opened(TCP)), (remove("/etc/docker/daemon.json"),),
         (UNKNOWN, None), (BOTH, RECORD), BOTH),
    Case("daemon.json damaged", opened(TCP), (daemon_json("{"),), (UNKNOWN, None), (NONE, RECORD), NONE),
    # The file below has not changed.
    Case("another file mounted over daemon.json", opened(TCP), (write("/proc/self/mountinfo", MOUNTED),),
         (UNKNOWN, None), (NONE, RECORD), NONE),
    Case("TLS by a flag", opened(f"{TCP} --tlsverify {FLAGS}"), (daemon_json(PLAIN),),
         (BOTH, PROC), (BOTH, PROC), BOTH),
    Case("TLS without client certificates by a flag", opened(f"{TCP} --tlsverify=false {FLAGS}"),
         (daemon_json(PLAIN),), (SERVED, PROC), (SERVED, PROC), SERVED),
    Case("a drop-in with TLS that dockerd was not started with", opened(TCP),
         (dropin(f"{TCP} --tlsverify {FLAGS}"), reload), (NONE, FILES), (NONE, RECORD), NONE),
    Case("hosts in daemon.json", (daemon_json('{"hosts": ["fd://", "tcp://0.0.0.0:2375"]}'), *opened("")),
         (daemon_json('{"hosts": ["fd://", "tcp://0.0.0.0:2375"], "tlsverify": true, ' + KEYS + "}"),),
         (UNKNOWN, None), (NONE, RECORD), NONE),
    Case("passed by systemd", (listens("/run/docker.sock", "0.0.0.0:2375"), reload, restart_socket),
         (daemon_json(MUTUAL),), (UNKNOWN, None), (NONE, RECORD), NONE),
)


def tls_files() -> Iterator[Act]:
    pair = make_pair()
    for name, content in (("ca", pair.certificate), ("cert", pair.certificate), ("key", pair.key)):
        yield write(f"/etc/docker/{name}.pem", content.decode())


def at_2375(layer: Layer) -> tuple[Tls, Evidence | None]:
    return next((binding.tls, binding.tls_evidence) for binding in layer.bindings if binding.key == KEY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tls_of_a_running_dockerd_rests_on_evidence(host: SimulatedHost, case: Case) -> None:
    do(host, (*tls_files(), sleep(5), *case.start, sleep(60)))
    assert host.running is not None
    with Rootfs(str(host.root)) as rootfs:
        record = start_record(observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host)), None)
    assert record is not None
    do(host, case.since)
    with Rootfs(str(host.root)) as rootfs:
        manager, kernel = SimulatedManager(host), SimulatedKernel(host)
        for known, expected in ((Known(), case.without), (Known(record), case.recorded)):
            seen = observe_host(rootfs, manager, kernel, known=known)
            assert seen.running is not None and seen.listening is not None
            assert (at_2375(seen.running.layer), at_2375(seen.listening.layer)) == (expected, expected)
            assert seen.listening.layer.bindings[-1].evidence is Evidence.KERNEL
            probed = Prober(SimulatedNetwork(host).probe, SimulatedStateFiles(host))(seen)
            assert probed.running is not None and probed.listening is not None
            assert {at_2375(probed.running.layer), at_2375(probed.listening.layer)} == {(case.probed, PROBE)}
    assert case.probed is host.running.tls
    # dockerd logs the handshake as an error: once for each start, whichever process asks.
    assert len(host.probes) == 1


@pytest.mark.parametrize("record", [None, StartRecord("1", None, (), knows_daemon_json=False)])
@pytest.mark.parametrize("version", ["20.10.24", "26.1.5", "28.5.2"])
def test_arguments_are_evidence_without_a_record_whatever_the_file_says_now(
        tmp_path: Path, version: str, record: StartRecord | None) -> None:
    """dockerd 20.10 refuses an empty daemon.json, so an unknown one must not be taken for an empty one."""
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text(PLAIN)
    argv = ("dockerd", *TCP.split(), "--tls=false")
    process = Process(1, argv, {INVOCATION: "1"}, started_ns=0, unit="docker.service")
    with Rootfs(str(tmp_path)) as rootfs:
        start = started(process, rootfs, record, Version.parse(version))
    assert (start.knows_hosts, start.config, start.tls) == (True, None, (UNKNOWN, None))


LATER_NS = 2**62
"""After every file was written."""

TOO_LONG = " " * 2**21 + "{}"
"""dockerd reads it."""


@pytest.mark.parametrize(("argv", "content", "started_ns", "is_known"), [
    ("dockerd", '{"hosts": ["tcp://0.0.0.0:2375"]}', LATER_NS, True),
    ("dockerd", None, LATER_NS, True),
    ("dockerd -H fd://", "{", 0, True),
    # daemon.json was changed since: what it was is not known.
    ("dockerd", "{}", 0, False),
    ("dockerd --log-level=info", "{}", 0, False),
    # dockerd cannot have started with this file, so it was another one.
    ("dockerd", '{"hosts": 1}', LATER_NS, False),
    ("dockerd -H fd://", '{"hosts": ["fd://"]}', LATER_NS, False),
    pytest.param("dockerd", TOO_LONG, LATER_NS, False, id="too long"),
    ("python3 -H fd://", None, LATER_NS, False),
    # Another command may follow.
    (("sh", "-c", "dockerd -H fd:// &"), None, LATER_NS, False),
])
def test_whether_all_hosts_are_known(
        tmp_path: Path, argv: str | tuple[str, ...], content: str | None, started_ns: int, *, is_known: bool) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    if content is not None:
        (tmp_path / "etc/docker/daemon.json").write_text(content)
    words = tuple(argv.split()) if isinstance(argv, str) else argv
    process = Process(1, words, {}, started_ns=started_ns, unit="docker.service")
    with Rootfs(str(tmp_path)) as rootfs:
        assert started(process, rootfs, None, Version.parse("28.5.2")).knows_hosts is is_known


def test_served_certificate_that_is_older_than_its_file_is_reported(host: SimulatedHost) -> None:
    do(host, (*tls_files(), *opened(f"{TCP} --tlsverify {FLAGS}"), sleep(60)))
    served = fingerprint((host.root / "etc/docker/cert.pem").read_bytes())

    def found() -> list[str]:
        with Rootfs(str(host.root)) as rootfs:
            seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
            assert seen.running is not None
            probes = Probes(start_of(seen.running), {KEY: Probe(Tls.MUTUAL, certificate=served)})
            return [finding.message for finding in judge(with_probes(seen, probes), None) if finding.code == "DG206"]

    assert found() == []
    do(host, tls_files())
    assert found() == ["dockerd serves an older certificate than the one in /etc/docker/cert.pem; it reads the file "
                       "only when it starts: restart docker.service"]
    do(host, (write("/etc/docker/cert.pem", "damaged"),))
    assert not any("serves" in message for message in found())


def test_unknown_counts_as_exposed_without_tls(host: SimulatedHost) -> None:
    do(host, (*tls_files(), *opened(TCP), sleep(60), daemon_json(MUTUAL)))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        found = read_policy(DECLARED)
        assert [(exposure.address, exposure.rule) for exposure in exposures(seen, found, TODAY)] == [
            ("tcp://0.0.0.0:2375", "DG105")]
        messages = [finding.message for finding in judge(seen, found) if finding.code in ("DG103", "DG105")]
        assert any("TLS that cannot be determined, but the policy declares tls: mutual" in text for text in messages)
        assert any("with TLS that cannot be determined" in text for text in messages)
        plan_for(seen, found)


def test_what_is_written_without_a_restart_is_corrected_by_a_restart(host: SimulatedHost) -> None:
    do(host, (*tls_files(), *opened(TCP), sleep(60), daemon_json(MUTUAL), policy(f"mode: enforce\n{DECLARED}")))
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    assert host.running is not None
    assert host.running.tls is Tls.MUTUAL
    assert agent.controller.decision.required.restart


def test_unprobed_start_is_blocked_under_restart_never(host: SimulatedHost) -> None:
    do(host, (*tls_files(), *opened(TCP), sleep(60), daemon_json(MUTUAL), fault(network_is_gone=True),
              policy(f"mode: enforce\n{DECLARED}\ncorrect: {{restart: never}}")))
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    assert [rejection.address for rejection in host.blocked] == ["tcp://0.0.0.0:2375"]


METRICS = '{"live-restore": true, "metrics-addr": "0.0.0.0:2375"}'


@pytest.mark.parametrize("is_recorded", [False, True])
def test_metrics_addr_written_later_does_not_hide_the_api(host: SimulatedHost, is_recorded: bool) -> None:
    do(host, (*opened(TCP), sleep(60), policy("mode: enforce\nsockets: [fd://]\ncorrect: {restart: never}")))
    agent = SimulatedAgent(host, RecordedJournal())
    if is_recorded:
        agent.run_pass()
        assert host.blocked
    do(host, (daemon_json(METRICS), sleep(1)))
    agent.run_pass()
    assert [rejection.address for rejection in host.blocked] == ["tcp://0.0.0.0:2375"]
    assert "released" not in [entry.event for entry in agent.journal.entries]


def test_metrics_of_the_start_are_not_reported(host: SimulatedHost) -> None:
    """They are not the API by daemon.json at the start, and by their answer where that has changed."""
    do(host, (daemon_json('{"metrics-addr": "0.0.0.0:9323"}'), *opened("-H fd://"), sleep(60),
              fault(not_api=("9323",))))
    assert host.running is not None
    sockets = host.running.sockets
    metrics = (sockets[0][0]._replace(address="tcp://0.0.0.0:9323", inode=99), False)
    host.running = host.running._replace(sockets=(*sockets, metrics))
    for since in ((), (daemon_json(PLAIN),)):
        do(host, since)
        with Rootfs(str(host.root)) as rootfs:
            seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
            seen = Prober(SimulatedNetwork(host).probe, SimulatedStateFiles(host))(seen)
            assert seen.listening is not None
            assert [binding.address for binding in seen.listening.layer.bindings] == ["unix:///run/docker.sock"]


@pytest.mark.parametrize(("arguments", "more", "listen_fds", "exposed"), [
    # dockerd itself listens on published ports with userland-proxy: false, and for swarm.
    ("-H fd://", "tcp://0.0.0.0:8080", None, []),
    ("-H fd://", "tcp://[::]:7946", None, []),
    ("-H fd://", "tcp://0.0.0.0:2375", None, []),
    ("-H fd:// -H tcp://0.0.0.0:7946", "tcp://0.0.0.0:8080", None, ["tcp://0.0.0.0:7946"]),
    # A socket that systemd had passed and has closed since.
    ("-H fd://", "tcp://0.0.0.0:8080", "2", ["tcp://0.0.0.0:8080"]),
    ("-H fd://", "tcp://0.0.0.0:8080", "x", ["tcp://0.0.0.0:8080"]),
    ("-H unix:///run/docker.sock", "tcp://0.0.0.0:8080", "0", []),
])
def test_a_dockerd_serves_its_api_on_its_hosts_alone(
    host: SimulatedHost, arguments: str, more: str, listen_fds: str | None, exposed: list[str]
) -> None:
    do(host, (*opened(arguments), sleep(60)))
    assert host.running is not None
    process, sockets = host.running.process, host.running.sockets
    if listen_fds is not None:
        process = process._replace(environ={**process.environ, "LISTEN_FDS": listen_fds})
    other = (sockets[0][0]._replace(address=more, inode=99), False)
    host.running = host.running._replace(process=process, sockets=(*sockets, other))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        assert [exposure.address for exposure in exposures(seen, read_policy(""), TODAY)] == exposed


@pytest.mark.parametrize("argv", [
    ("python3", "-c", "import socket"), ("/usr/bin/socat", "TCP-LISTEN:8080,fork", "UNIX:/run/docker.sock"),
    ("/usr/local/bin/relay", "-H", "fd://"), (),
])
def test_every_socket_of_another_program_counts(host: SimulatedHost, argv: tuple[str, ...]) -> None:
    do(host, (*opened("-H fd://"), sleep(60)))
    assert host.running is not None
    other = (host.running.sockets[0][0]._replace(address="tcp://0.0.0.0:8080", inode=99), False)
    process = host.running.process._replace(argv=argv, executable=argv[0] if argv else "")
    host.running = host.running._replace(process=process, sockets=(*host.running.sockets, other))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        assert [exposure.address for exposure in exposures(seen, read_policy(""), TODAY)] == ["tcp://0.0.0.0:8080"]
        assert seen.running is not None and "cannot determine" in (seen.running.layer.reason or "")


def test_where_the_hosts_are_not_known_every_socket_counts(host: SimulatedHost) -> None:
    do(host, (daemon_json(PLAIN), dropin(""), reload, restart, sleep(60), daemon_json(METRICS)))
    assert host.running is not None
    other = (host.running.sockets[0][0]._replace(address="tcp://0.0.0.0:8080", inode=99), False)
    host.running = host.running._replace(sockets=(*host.running.sockets, other))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        assert [exposure.address for exposure in exposures(seen, read_policy(""), TODAY)] == ["tcp://0.0.0.0:8080"]


def test_answers_of_another_start_count_for_nothing(host: SimulatedHost) -> None:
    do(host, (*opened(TCP), sleep(60)))
    state = SimulatedStateFiles(host)
    state.save_probes(Probes("another/1", {KEY: Probe(Tls.MUTUAL)}))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host),
                            known=Known(probes=state.load_probes()))
        assert seen.listening is not None
        assert at_2375(seen.listening.layer) == (Tls.NONE, Evidence.UNCHANGED_FILES)
    do(host, (restart,))
    assert host.running is not None and host.running.process.environ[INVOCATION] != "another"


def test_a_port_in_another_network_namespace_is_not_the_hosts(host: SimulatedHost) -> None:
    do(host, (listens("/run/docker.sock", "10.0.0.5:2376"), reload, restart_socket, *opened(TCP), sleep(60),
              fault(namespace="/run/netns/vpn"),
              policy("mode: enforce\nsockets: [fd://]\ncorrect: {restart: never}")))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        assert seen.running is not None and seen.listening is not None
        for layer in (seen.running.layer, seen.listening.layer):
            assert {binding.address: binding.namespace for binding in layer.bindings} == {
                "unix:///run/docker.sock": "", "tcp://10.0.0.5:2376": "", "tcp://0.0.0.0:2375": "/run/netns/vpn"}
        assert any("2375" in finding.message and "listens there now in the network namespace /run/" in finding.message
                   for finding in judge(seen, read_policy("")))
    agent = SimulatedAgent(host, RecordedJournal())
    for _ in range(2):
        agent.run_pass()
        assert [rejection.address for rejection in host.blocked] == ["tcp://10.0.0.5:2376"]
    assert agent.controller.exposed == 1
    entries = [entry for entry in agent.journal.entries if entry.event in ("contained", "failed")]
    assert [(entry.event, entry.socket) for entry in entries] == [
        ("contained", "tcp://10.0.0.5:2376"), ("failed", "tcp://0.0.0.0:2375")]
    # A connection to the same port of the host would reach somebody else.
    assert not any("2375" in probe for probe in host.probes)


@pytest.mark.parametrize("state", ["activating", "deactivating", "failed"])
def test_nothing_is_probed_unless_dockerd_is_up(host: SimulatedHost, state: str) -> None:
    do(host, (*opened(TCP), sleep(60)))
    host.active["docker.service"] = state
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        assert Prober(SimulatedNetwork(host).probe, SimulatedStateFiles(host))(seen) is seen
    assert not host.probes


def test_nothing_is_probed_that_cannot_be_recorded(host: SimulatedHost) -> None:
    do(host, (*opened(TCP), sleep(60), fault(disk_errno=28)))
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        Prober(SimulatedNetwork(host).probe, SimulatedStateFiles(host))(seen)
    assert not host.probes


@pytest.mark.parametrize(("since", "count"), [((), 0), ((daemon_json(MUTUAL),), 1)], ids=["known", "unknown"])
def test_a_drift_entry_waits_for_a_probe_only_where_the_tls_is_unknown(
        host: SimulatedHost, since: tuple[Act, ...], count: int) -> None:
    probed: list[int] = []

    class Watched(RecordedJournal):
        def write(self, entry: JournalEntry) -> None:
            if entry.event == "drift":
                probed.append(len(host.probes))

    do(host, (*tls_files(), *opened(TCP), sleep(60), *since, policy(f"mode: observe\n{DECLARED}")))
    SimulatedAgent(host, Watched()).run_pass()
    assert set(probed) == {count}
    assert len(host.probes) == 1


def test_an_address_that_does_not_answer_delays_one_pass_of_many(host: SimulatedHost) -> None:
    do(host, (*opened(TCP), sleep(60)))
    asked: list[float] = []

    def silent(address: str) -> None:
        asked.append(host.clock.seconds)

    probe = Prober(silent, SimulatedStateFiles(host), lambda: host.clock.seconds)
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
        begun = host.clock.seconds
        for _ in range(100):
            probe(seen)
            host.clock.sleep(1)
    assert [at - begun for at in asked] == [0, 30, 60, 90]
