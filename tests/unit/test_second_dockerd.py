"""A dockerd beside that of docker.service is one drift from its start on, and apart from those elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dockerd_guard.agent.drift_tracker import CONFIRM_S, DriftTracker
from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.observation import Observation, Other, Process
from dockerd_guard.policy.model import Policy
from dockerd_guard.report.journal import Cause
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules._access_paths import dockerd_finding
from tests.simulation.agent import RecordedJournal
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager
from tests.support.situations import read_policy

POLICY: Policy = read_policy("sockets: [fd://]")
VPN = "/run/netns/vpn"


def dockerd(
    *listens: str, hosts: tuple[str, ...] = (), is_starting: bool = False, namespace: str = "", pid: int = 99,
    uid: int = 0,
) -> Other:
    bindings = tuple(
        Binding(address, scope_of(address), Tls.NONE, Via.FLAG,
                namespace="" if address.startswith("unix:///") else namespace) for address in listens)
    return Other(Process(pid, (), {}, 0, "", uid=uid), bindings, is_starting, hosts, namespace)


class Story(NamedTuple):
    """What is seen of other dockerds, one look after another, and the entries about it."""

    name: str
    looks: tuple[tuple[Other, ...], ...]
    entries: tuple[str, ...]


WILD, LOCAL, UNIX, NAME = "tcp://0.0.0.0:4243", "tcp://127.0.0.1:4244", "unix:///run/2.sock", "tcp://myhost:4243"
ADDRESS = "tcp://10.0.0.5:4243"

STORIES = (
    Story("its command line says where it will listen",
          ((dockerd(hosts=(WILD,), is_starting=True),), (dockerd("tcp://[::]:4243", hosts=(WILD,)),)),
          ("drift DG107 tcp://*:4243", "drift DG107 tcp://*:4243")),
    Story("it opens a UNIX socket first",
          ((dockerd(UNIX, hosts=(UNIX, WILD)),), (dockerd(UNIX, "tcp://[::]:4243", hosts=(UNIX, WILD)),)),
          ("drift DG107 tcp://*:4243", "drift DG107 tcp://*:4243")),
    Story("it opens the address that fewer can reach first",
          ((dockerd(LOCAL, hosts=(LOCAL, WILD)),), (dockerd("tcp://[::]:4243", LOCAL, hosts=(LOCAL, WILD)),)),
          ("drift DG107 tcp://*:4243", "drift DG107 tcp://*:4243")),
    Story("the kernel lists its sockets in another order",
          ((dockerd("tcp://[::]:4243", LOCAL),), (dockerd(LOCAL, "tcp://[::]:4243"),)),
          ("drift DG107 tcp://*:4243", "drift DG107 tcp://*:4243")),
    Story("its command line is not known",
          ((dockerd(uid=1000, is_starting=True),), (dockerd("unix:///run/user/1000/docker.sock", uid=1000),)),
          ("drift DG107 unix:///run/user/1000/docker.sock",)),
    Story("its command line has a name",
          ((dockerd(hosts=(NAME,), is_starting=True),), (dockerd(ADDRESS, hosts=(NAME,)),)),
          (f"drift DG107 {ADDRESS}",)),
    Story("it never listens", ((dockerd(is_starting=True),), (dockerd(),)), ("drift DG107 running",)),
    Story("another one never listens",
          ((dockerd(),), (dockerd(), dockerd(is_starting=True, pid=100))), ("drift DG107 running",)),
    Story("it ends before it listens", ((dockerd(is_starting=True),), ()), ()),
    Story("it ends", ((dockerd(WILD),), ()), ("drift DG107 tcp://*:4243", "corrected DG107 tcp://*:4243")),
    Story("one listens on the same address of another network namespace",
          ((dockerd(WILD), dockerd(WILD, namespace=VPN, pid=100)), (dockerd(WILD),)),
          ("drift DG107 tcp://*:4243", f"drift DG107 tcp://*:4243 in {VPN}",
           f"corrected DG107 tcp://*:4243 in {VPN}")),
    Story("one is to listen on the same address of another network namespace",
          ((dockerd(WILD), dockerd(hosts=(WILD,), is_starting=True, namespace=VPN, pid=100)),),
          ("drift DG107 tcp://*:4243", f"drift DG107 tcp://*:4243 in {VPN}")),
    Story("the file of a UNIX socket is in no network namespace", ((dockerd(UNIX, namespace=VPN),),),
          (f"drift DG107 {UNIX}",)),
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_another_dockerd_is_one_drift(story: Story) -> None:
    journal, now = RecordedJournal(), [0.0]
    tracker = DriftTracker(journal, lambda: now[0])
    for others in story.looks:
        seen = Observation(None, None, others=others)  # type: ignore[arg-type]
        for _ in range(2):
            # A start is confirmed first.
            tracker.report_drifts(seen, tuple(map(dockerd_finding, others)), (), POLICY, Cause.DRIFT,
                                  is_contested=False)
            now[0] += CONFIRM_S
    assert [f"{entry.event} {' '.join(entry.episodes)}" for entry in journal.entries] == list(story.entries)


@pytest.mark.parametrize(("namespace", "exposed"), [("", True), (VPN, False)])
def test_only_a_port_of_the_hosts_network_namespace_is_exposed(namespace: str, exposed: bool) -> None:
    journal, now = RecordedJournal(), [0.0]
    tracker = DriftTracker(journal, lambda: now[0])
    others = (dockerd(WILD, namespace=namespace),)
    for _ in range(2):
        tracker.report_drifts(Observation(None, None, others=others),  # type: ignore[arg-type]
                              tuple(map(dockerd_finding, others)), ("tcp://*:4243",), POLICY, Cause.DRIFT,
                              is_contested=False)
        now[0] += CONFIRM_S
    assert [entry.exposed for entry in journal.entries] == [exposed]


@pytest.mark.parametrize(("argv", "in_container", "hosts"), [
    ("dockerd -H unix:///run/2.sock -H 0.0.0.0:4243", False, ("tcp://0.0.0.0:4243", "unix:///run/2.sock")),
    ("dockerd -H unix:///run/2.sock --host=tcp://127.0.0.1:4244", True, ("tcp://127.0.0.1:4244",)),
    ("dockerd -H fd:// -H tcp://[::]:4243", False, ("tcp://[::]:4243",)),
    ("dockerd --config-file=/etc/2.json", False, ()),
    ("dockerd", False, ()),
    ("/usr/local/sbin/engine -H tcp://10.0.0.5:4243", False, ("tcp://10.0.0.5:4243",)),
    ("", False, ()),
])
def test_where_it_will_listen_is_read_from_its_command_line(
    host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, argv: str, in_container: bool, hosts: tuple[str, ...]
) -> None:
    process = Process(7, tuple(argv.split()), {}, 0, "two.service", in_container=in_container)
    monkeypatch.setattr(SimulatedKernel, "daemons", lambda *_: {7: process})
    monkeypatch.setattr(SimulatedKernel, "network_namespace", lambda _, pid: VPN if pid == 7 else "")
    monkeypatch.setattr("dockerd_guard.observe.processes.START_PAUSE_S", float("inf"))
    with Rootfs(str(host.root)) as rootfs:
        other, = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host)).others
    assert (other.hosts, other.namespace, other.is_starting) == (hosts, VPN, True)
