"""What diff, fix and the journal report of files that comply, where Docker does not run or was not seen (I10)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest

from dockerd_guard.agent.reconcile import Pass, assess, by_hand, reconcile
from dockerd_guard.apply.context import Context
from dockerd_guard.commands import diff, fix
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.observation import AccessKind, AccessPath, Observation, Trouble
from dockerd_guard.plan.assessment import Assessment
from dockerd_guard.plan.decide import Result
from dockerd_guard.policy.model import Policy
from dockerd_guard.report import plan
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import (
    SimulatedFiles,
    SimulatedKernel,
    SimulatedManager,
    SimulatedNetwork,
    validate_nothing,
)
from tests.simulation.lock import SimulatedLock
from tests.support.situations import (
    OPEN,
    Act,
    do,
    dropin,
    fault,
    guarded,
    listens,
    opened,
    policy,
    read_policy,
    seen_on,
    stop,
)

DECLARED = "Docker listens as declared."
COMPLY = "the files comply with the policy."
START = "Next: `systemctl start docker.service`, if Docker should run on this host."
STATUS = "Next: `systemctl status docker.service` shows why; then `systemctl start docker.service`."
SOCK = "unix:///run/docker.sock"
VPN = "/run/netns/vpn"
ELSEWHERE = "Next: Take the network namespace out of docker.service (NetworkNamespacePath=, PrivateNetwork=), or the " \
            "address out of the policy."


def stop_socket(host: SimulatedHost) -> None:
    """systemctl stop docker.socket."""
    host.held = ()
    host.active[SOCKET] = "inactive"


def state(name: str) -> Act:
    return lambda host: host.active.update({SERVICE: name})


See = Callable[[Observation], Observation]


def as_user(seen: Observation) -> Observation:
    """An ordinary user cannot read the sockets of dockerd."""
    return seen._replace(running=None, listening=None, troubles=(
        Trouble(Location("(systemd)", 0, 0, 0), "cannot read the sockets of dockerd: Permission denied"),))


def without_bus(seen: Observation) -> Observation:
    return seen._replace(loaded=None, troubles=(
        Trouble(Location("(systemd)", 0, 0, 0), "cannot query systemd over D-Bus: the loaded layer is unknown"),))


def files_alone(seen: Observation) -> Observation:
    """As with --root."""
    return seen._replace(loaded=None, running=None, listening=None)


def unchanged(seen: Observation) -> Observation:
    return seen


RELAY = AccessPath(AccessKind.FORWARDER, "tcp://0.0.0.0:5000", "it is connected to the API socket", 7, "relay",
                   serves_api=True)


def with_relay(seen: Observation) -> Observation:
    """Another program leads to the API, and a third one does so on loopback."""
    return seen._replace(access_paths=(RELAY, RELAY._replace(address="tcp://127.0.0.1:5001")))


class Row(NamedTuple):
    """What happened, how the host is seen, the exit code of `diff`, its last lines."""

    name: str
    happened: tuple[Act, ...]
    code: int
    lines: tuple[str, ...]
    see: See = unchanged
    policy: str = ""


ROWS = (
    Row("it runs", (), 0, (f"Nothing to change: {DECLARED}",)),
    Row("it runs, and another program leads to it", (), 0, (
        "Nothing to change: docker.service listens as declared; other ways to the API: tcp://0.0.0.0:5000 "
        "(`dockerd-guard lint`).",), with_relay),
    Row("all is stopped", (stop, stop_socket), 1, (
        f"Nothing to change: {COMPLY}", f"docker.service is not running: nothing listens on {SOCK}.", START)),
    Row("two sockets, all is stopped", (*opened("-H fd:// -H unix:///run/b.sock"), stop, stop_socket), 1, (
        f"Nothing to change: {COMPLY}", f"docker.service is not running: nothing listens on {SOCK}, "
        "unix:///run/b.sock.", START), policy='sockets: [fd://, "unix:///run/b.sock"]'),
    Row("systemd listens for it", (stop,), 1, (
        f"Nothing to change: {COMPLY}", f"docker.service is not running: systemd listens for it on {SOCK}.", START)),
    Row("it failed", (stop, stop_socket, state("failed")), 1, (
        f"Nothing to change: {COMPLY}", f"docker.service has failed: nothing listens on {SOCK}.", STATUS)),
    Row("it is starting", (stop, state("activating")), 1, (
        f"Nothing to change: {COMPLY}", f"docker.service is starting: systemd listens for it on {SOCK}.",
        "Next: Wait.")),
    Row("stopped, and that is waived", (stop, stop_socket), 0, (
        f"Nothing to change: {COMPLY}", f"docker.service is not running: nothing listens on {SOCK}.", START),
        policy="waive: [{rule: DG102, reason: laptop}]"),
    Row("a TCP address", (*opened("-H tcp://127.0.0.1:2375 --tls=false"), stop, stop_socket), 1, (
        "docker.service is not running: nothing listens on tcp://127.0.0.1:2375.", START),
        policy="sockets: [{address: 'tcp://127.0.0.1:2375', tls: none}]"),
    Row("a TCP address in another network namespace",
        (*opened("-H fd:// -H tcp://127.0.0.1:2375 --tls=false"), fault(namespace=VPN)), 1, (
        f"Nothing to change: {COMPLY}", "docker.service listens on tcp://127.0.0.1:2375 in the network namespace "
        f"{VPN}, not in that of the host.", ELSEWHERE),
        policy="sockets: [fd://, {address: 'tcp://127.0.0.1:2375', tls: none}]"),
    Row("no declared address is in the other network namespace", (fault(namespace=VPN),), 0, (
        f"Nothing to change: {DECLARED}",)),
    Row("files alone", (), 0, (f"Nothing to change: {COMPLY}",), files_alone),
    Row("an ordinary user", (), 2, (
        f"Nothing to change: {COMPLY}", "Unknown: where Docker listens now; this was not seen."), as_user),
    Row("no D-Bus", (), 2, (
        f"Nothing to change: {COMPLY}", "Unknown: where Docker listens now; this was not seen."), without_bus),
    Row("an ordinary user, and files differ", (dropin(OPEN),), 1, (
        "Cost: unknown; the sockets of dockerd were not seen.",), as_user),
)


def assessed(host: SimulatedHost, row: Row) -> Assessment:
    policy = read_policy(row.policy)
    with Rootfs(str(host.root)) as rootfs:
        seen = row.see(seen_on(host, rootfs))
        return assess(seen, judge(seen, policy), policy, SimulatedStateFiles(host).load(), host.clock.now(),
                      SimulatedKernel(host), None, by_hand)[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_diff_reports_only_what_was_seen(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    found = assessed(host, row)
    assert plan.diff_text(found, ()).splitlines()[-len(row.lines):] == list(row.lines)
    assert diff.exit_code(found) == row.code
    held = plan.diff_json(found, ())["held"]
    assert (held is None) == (row.lines[-1] not in (START, STATUS, ELSEWHERE, "Next: Wait."))
    if row.see is as_user:
        assert plan.diff_json(found, ())["cost"] is None


@pytest.mark.parametrize(("namespace", "found"), [
    ("", []),
    (VPN, [("tcp://127.0.0.1:2375 is declared, but dockerd has it in the network namespace /run/netns/vpn, not in that "
            "of the host", "running", None)]),
])
def test_a_declared_address_is_one_of_the_host(
    host: SimulatedHost, namespace: str, found: list[tuple[str, str, None]]
) -> None:
    row = next(row for row in ROWS if row.name == "a TCP address in another network namespace")
    do(host, (*row.happened, fault(namespace=namespace)))
    assert [(finding.message, finding.layer, finding.fix) for finding in assessed(host, row).findings
            if finding.code == "DG102"] == found


def fixed(host: SimulatedHost, policy: Policy) -> Pass:
    files, manager, kernel, state_files = (
        SimulatedFiles(host), SimulatedManager(host), SimulatedKernel(host), SimulatedStateFiles(host))
    with Rootfs(str(host.root)) as rootfs:
        context = Context(manager, files, lambda: seen_on(host, Rootfs(str(host.root))), SimulatedNetwork(host),
                          host.clock, validate_nothing(host), SimulatedLock(host))
        seen = seen_on(host, rootfs)
        return reconcile(seen, judge(seen, policy), policy, state_files.load(), context, kernel, state_files, by_hand)


class Fix(NamedTuple):
    """What happened, the exit code of `fix`, its outcome, and its last lines."""

    name: str
    happened: tuple[Act, ...]
    code: int
    outcome: str
    lines: tuple[str, ...]


@pytest.mark.parametrize("row", [
    Fix("it runs", (), 0, "kept", (DECLARED,)),
    Fix("stopped", (stop, stop_socket), 1, "held", (
        "The files comply with the policy.", f"docker.service is not running: nothing listens on {SOCK}.", START)),
    Fix("stopped, and files differ", (dropin(OPEN), stop, stop_socket), 1, "repaired", (
        "Reloaded systemd.", "The files comply with the policy.",
        f"docker.service is not running: nothing listens on {SOCK}.", START)),
    Fix("only docker.service is stopped", (stop, dropin(OPEN)), 1, "repaired", (
        "The files comply with the policy.", f"docker.service is not running: systemd listens for it on {SOCK}.",
        START)),
    Fix("open", opened(), 0, "repaired", (
        "Verified that every declared socket answers and no other listens.", DECLARED)),
], ids=lambda row: row.name)
def test_fix_reports_only_what_was_seen(
    host: SimulatedHost, row: Fix, capsys: pytest.CaptureFixture[str]
) -> None:
    do(host, row.happened)
    done = fixed(host, read_policy(""))
    assert fix.show(done, "text") == row.code
    assert capsys.readouterr().out.splitlines()[-len(row.lines):] == list(row.lines)
    assert fix.show(done, "json") == row.code
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == row.outcome
    assert (found["held"] is None) == (row.lines[-1] != START)


@pytest.mark.parametrize(("found", "again"), [
    ((), "Docker listens as declared again: "), ((RELAY,), "docker.service listens as declared again: ")])
def test_nothing_is_as_declared_while_another_program_leads_to_the_api(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, found: tuple[AccessPath, ...], again: str) -> None:
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: found)
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    do(host, opened())
    agent.run_pass()
    entry = next(entry for entry in agent.journal.entries if entry.outcome == "repaired")
    assert entry.message.startswith(again)
    assert ("tcp://0.0.0.0:5000" in entry.message) == bool(found)
    assert plan.outcome_text(Result(True), None).endswith("Docker listens as declared.\n")
    assert plan.outcome_text(Result(True), None, (RELAY.address,)).startswith("docker.service listens as declared; ")


def test_the_journal_does_not_report_that_a_stopped_docker_listens(host: SimulatedHost) -> None:
    do(host, (*opened(), stop, stop_socket))
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    entry = next(entry for entry in agent.journal.entries if entry.outcome == "repaired")
    assert entry.event == "corrected"
    assert entry.message.startswith("The files comply with the policy again: wrote ")
    assert entry.message.endswith(f"; docker.service is not running: nothing listens on {SOCK}.")


def test_what_a_socket_unit_opens_at_the_end_of_a_correction_is_blocked_in_the_same_pass(host: SimulatedHost) -> None:
    """I7: the new policy needs no drop-in of docker.socket, which listens on the port of another one without it."""
    do(host, (stop, listens("/run/docker.sock", "2375"), guarded, dropin(""), guarded,
              policy("mode: enforce\nsockets: [unix:///run/docker.sock]\n")))
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    assert "tcp://[::]:2375" in {sock.address for sock in host.held}
    assert host.open_addresses() == ()
    assert not any("was started during the correction" in entry.message for entry in agent.journal.entries)
