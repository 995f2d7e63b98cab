"""Three machines whose restarts of dockerd share one slot in an etcd on them, and when each of them restarted.

A gate makes the restarts slow: a phase of each start or stop of docker.service lasts until the gate is opened. All
machines have one kernel and one clock, so their journals can be compared.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.machines.machine import CommandFailed, Machine, wait_for
from tests.machines.network import Host, Network, machines_of_a_fleet
from tests.support.correction import LIVE_RESTORE, OBSERVE, OPEN, OVERRIDE, POLICY

AGENT = "dockerd-guard.service"
HOSTS = 3
LEASE_S = 35
"""`lease` of the policy; at least 30 s are allowed."""

LATEST_S = 240.0
"""A host asks again after a minute at the latest; until then a lease may have to end."""

ASK_EACH_S = 2.0

KEYS = "/etc/dockerd-guard/fleet"
ETCD = "lock.service"
GATE = "/run/gate-is-open"
GATE_DROPIN = "/etc/systemd/system/docker.service.d/gate.conf"
FILTER_DROPIN = "/etc/systemd/system/dockerd-guard-fleet@.service.d/lock.conf"

CERTIFICATES = """
mkdir -p {keys}; cd {keys}; umask 077
new() {{
    # Python 3.13 is strict: openssl makes a CA of everything, and a CA needs a key usage.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \\
        -addext keyUsage=keyCertSign,digitalSignature "$@" 2>/dev/null
}}
new -subj /CN=ca -keyout /root/ca.key -out ca.pem
new -subj /CN=fleet -CA ca.pem -CAkey /root/ca.key -addext subjectAltName={names} -keyout key.pem -out cert.pem
"""
"""One certificate for all: of each etcd, and of each host that asks it."""

STARTING, STARTED = "7d4958e842da4a758f6c1cdc7b36dcc5", "39f53479d3a045ac8e11786248231fbf"
STOPPING, FAILED = "de5b426a63be47a7b6ac3eaac82e2f6f", "be02cf6855d2428ba40df7e9d022f03d"
"""MESSAGE_ID of systemd (sd-messages.h)."""


class Restart(NamedTuple):
    """A restart of docker.service, from the begin of the stop to the end of the start, in seconds since the epoch."""

    host: str
    begin: float
    end: float

    def __str__(self) -> str:
        return f"{self.host} {self.begin:.3f}..{self.end:.3f} ({self.end - self.begin:.1f} s)"


class Gate(NamedTuple):
    """The phase of a restart that lasts until the gate is opened: SubState of docker.service, and the setting."""

    state: str
    setting: str


GATES = (Gate("stop", "ExecStop"), Gate("start-pre", "ExecStartPre"), Gate("start-post", "ExecStartPost"))


class Fleet(NamedTuple):
    """The machines, and the number of members of etcd, which are on the first of them."""

    network: Network
    members: int = 1

    @property
    def hosts(self) -> tuple[Host, ...]:
        return self.network.hosts

    def others(self, host: Host) -> tuple[Host, ...]:
        return tuple(each for each in self.hosts if each is not host)

    @property
    def endpoints(self) -> list[str]:
        return [f"https://{host.address}:2379" for host in self.hosts[:self.members]]

    def policy(self, *, has_lock: bool = True) -> str:
        """Restarts at any time, as many as a test needs; one after the other with the lock."""
        tls = {name: f"{KEYS}/{name}.pem" for name in ("ca", "cert", "key")}
        lock = {"lock": "etcd", "endpoints": self.endpoints, "group": "prod", "slots": 1, "timeout": "2s",
                "lease": f"{LEASE_S}s", "tls": tls}
        correct = {"restart": "always", "budget": "20/1h", **({"fleet": lock} if has_lock else {})}
        # JSON is YAML.
        return json.dumps({"version": 1, "mode": "enforce", "sockets": ["fd://"], "correct": correct}) + "\n"

    # --- etcd -----------------------------------------------------------------------------

    def start_etcd(self) -> None:
        """Start its members, which trust the hosts by their certificate."""
        names = ",".join(f"IP:{host.address}" for host in self.hosts)
        first = self.hosts[0].machine
        first.run(CERTIFICATES.format(keys=KEYS, names=names))
        for host in self.hosts:
            if host.machine is not first:
                for name in ("ca", "cert", "key"):
                    host.machine.write(f"{KEYS}/{name}.pem", first.read(f"{KEYS}/{name}.pem"), mode=0o600)
            host.machine.run("systemctl disable --now etcd")
        members = self.hosts[:self.members]
        cluster = ",".join(f"{host.name}=http://{host.address}:2380" for host in members)
        for host in members:
            client, peer = f"https://{host.address}:2379", f"http://{host.address}:2380"
            host.machine.run([
                "systemd-run", "--quiet", f"--unit={ETCD}", "etcd", "--name", host.name, "--data-dir", "/srv/etcd",
                "--client-cert-auth", "--trusted-ca-file", f"{KEYS}/ca.pem", "--cert-file", f"{KEYS}/cert.pem",
                "--key-file", f"{KEYS}/key.pem", "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster])
        for host in members:
            wait_for(lambda host=host: self.leader_by(host), f"leader of etcd, by {host.name}")  # type: ignore[misc]

    def leader_by(self, host: Host) -> str:
        """The ID of the leader, as the member on a host says; empty while there is none."""
        status = self.ask(host, "maintenance/status")
        return str(status.get("leader", ""))

    def leader(self) -> Host:
        """The host on which the leader of etcd is."""
        members = self.hosts[:self.members]
        ids = {str(self.ask(host, "maintenance/status")["header"]["member_id"]): host for host in members}
        return ids[self.leader_by(members[0])]

    def ask(self, host: Host, path: str, **data: Any) -> dict[str, Any]:
        """The answer of the member on a host, empty for none."""
        asked = host.machine.run(
            ["curl", "--silent", "--max-time", "5", "--cacert", f"{KEYS}/ca.pem", "--cert", f"{KEYS}/cert.pem",
             "--key", f"{KEYS}/key.pem", f"https://{host.address}:2379/v3/{path}", "--data", json.dumps(data)],
            check=False)
        with contextlib.suppress(ValueError):
            answer: dict[str, Any] = json.loads(asked.out)
            return answer
        return {}

    def holder_by(self, host: Host) -> str:
        """The name of the host that has the slot, by the member on a host; empty for none."""
        key = base64.b64encode(b"dockerd-guard/v1/prod/slot/0").decode()
        found = self.ask(host, "kv/range", key=key).get("kvs", [])
        return str(json.loads(base64.b64decode(found[0]["value"]))["host"]) if found else ""

    def signal_etcd(self, host: Host, name: str) -> None:
        """Send a signal to the member on a host."""
        host.machine.run(["systemctl", "kill", f"--signal={name}", ETCD])

    # --- restarts -------------------------------------------------------------------------

    def expose(self, gate: Gate) -> None:
        """Let each host need a restart, under a policy that only observes; the gate is closed afterwards."""
        for host in self.hosts:
            machine = host.machine
            machine.write(POLICY, OBSERVE)
            machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
            machine.write(OVERRIDE, OPEN)
            machine.write(GATE_DROPIN, f"[Service]\n{gate.setting}=/bin/sh -c 'until [ -e {GATE} ]; "
                                       "do sleep 0.05; done'\n")
            machine.write(FILTER_DROPIN, "[Service]\nIPAddressAllow=10.78.0.0/24\n")
            # Each agent sees the drift before any of them is asked to correct it.
            machine.run(f"touch {GATE}; systemctl daemon-reload; systemctl restart docker; "
                        "systemctl restart dockerd-guard")
            wait_for(machine.api_answers, f"API of {host.name} that is open to everyone")
            machine.remove(GATE)

    def enforce(self, *, has_lock: bool = True) -> float:
        """Let all of them correct it at the same time; returns when that began."""
        began = time.time()
        for host in self.hosts:
            host.machine.write(POLICY, self.policy(has_lock=has_lock))
        return began

    def open_gate(self, hosts: Sequence[Host] | None = None) -> None:
        for host in self.hosts if hosts is None else hosts:
            host.machine.run(["touch", GATE])

    def ask_now(self, hosts: Sequence[Host]) -> None:
        """Let hosts that wait ask for the slot at once."""
        for host in hosts:
            host.machine.run(["systemctl", "reload", "--no-block", AGENT], check=False)

    def at(self, gate: Gate) -> tuple[Host, ...]:
        """The hosts whose restart is at the gate."""
        return tuple(host for host in self.hosts
                     if host.machine.properties("docker.service", "SubState")["SubState"] == gate.state)

    def first_at(self, gate: Gate) -> Host:
        """Wait for a host whose restart is at the gate."""
        return wait_for(lambda: self.at(gate), f"restart that is at the gate, {gate.state}")[0]

    def keep_asking(self, hosts: Sequence[Host], seconds: float) -> None:
        """Let hosts ask for the slot again and again, for so long."""
        now = time.monotonic()
        end, next_at = now + seconds, now

        def is_over() -> bool:
            nonlocal next_at
            if time.monotonic() >= next_at:
                self.ask_now(hosts)
                next_at = time.monotonic() + ASK_EACH_S
            return time.monotonic() >= end
        wait_for(is_over, "end", timeout=seconds + 60)

    def corrected(self, hosts: Sequence[Host] | None = None) -> None:
        """Wait until these hosts listen as declared, docker.service is up, and its journal is written."""
        for host in self.hosts if hosts is None else hosts:
            try:
                wait_for(lambda machine=host.machine: _is_corrected(machine),  # type: ignore[misc]
                         f"correction of {host.name}", timeout=LATEST_S)
            except TimeoutError as error:
                raise AssertionError(f"{error}\n{self.journals()}") from error
            host.machine.sync_journal()

    def restarts(self, since: float) -> list[Restart]:
        """Every restart since then, in the order of their begin."""
        return sorted((each for host in self.hosts for each in restarts(host, since)), key=lambda each: each.begin)

    def journals(self) -> str:
        """What the agent, its helper and systemd wrote about Docker, on all hosts."""
        texts = []
        for host in self.hosts:
            shown = host.machine.run(
                "journalctl --boot --no-pager --output=short-precise --lines=60 SYSLOG_IDENTIFIER=dockerd-guard "
                "+ UNIT=docker.service + UNIT=dockerd-guard.service; dockerd-guard status; "
                "tail -c 2000 /var/lib/dockerd-guard/memory.json", check=False)
            texts.append(f"--- {host.name}\n{shown.out}")
        return "\n".join(texts)


@contextlib.contextmanager
def fleet_of(release: str, package: Path, members: int) -> Iterator[Fleet]:
    """Boot the machines, with etcd on the first `members` of them."""
    with machines_of_a_fleet((release,) * HOSTS, package=package, debian=("etcd-server",)) as (network, _):
        fleet = Fleet(network, members)
        fleet.start_etcd()
        yield fleet


def restarts(host: Host, since: float) -> list[Restart]:
    """The restarts of one host. One that has not ended has no end; a start without a stop before it counts as well."""
    found: list[Restart] = []
    begin: float | None = None
    for entry in host.machine.journal("_PID=1", "UNIT=docker.service"):
        at, kind = int(entry["_SOURCE_REALTIME_TIMESTAMP"]) / 1e6, entry.get("MESSAGE_ID")
        if at < since:
            continue
        if kind in (STOPPING, STARTING) and begin is None:
            begin = at
        if kind in (STARTED, FAILED):
            found.append(Restart(host.name, at if begin is None else begin, at))
            begin = None
    if begin is not None:
        found.append(Restart(host.name, begin, float("inf")))
    return found


def overlaps(found: Sequence[Restart]) -> list[tuple[Restart, Restart]]:
    """Each two restarts of different hosts that were under way at the same time."""
    return [(one, other) for number, one in enumerate(found) for other in found[number + 1:]
            if one.host != other.host and one.begin <= other.end and other.begin <= one.end]


def _is_corrected(machine: Machine) -> bool:
    try:
        shown = machine.properties("docker.service", "ActiveState", "SubState")
    except CommandFailed:
        return False
    # `diff` asks what is there, and the agent may not have ended its pass; status is what it has published.
    return (shown == {"ActiveState": "active", "SubState": "running"}
            and machine.run("dockerd-guard diff && dockerd-guard status", check=False).status == 0
            and bool(machine.journal("DOCKERD_GUARD_EVENT=corrected")))
