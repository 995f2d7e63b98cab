"""What is said of a machine, compared with what is so, at random moments of a random history.

Issue: status, lint, the journal and containment are believed by people who cannot check. A host outside, ss and /proc
show what is so, before and after every verb and the agent are asked; a statement is judged only if nothing changed
between the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine
from tests.support import host_facts, statements
from tests.support.correction import LIVE_RESTORE, POLICY, make_certificates
from tests.support.random_history import ANNOUNCED_S, API_PORTS, PORTS, UNANNOUNCED_S, History, prepare

MOMENTS = int(os.environ.get("MOMENTS", "200"))
"""The number of moments on each release at which nothing changed while it was looked at."""

SEED = int(os.environ.get("SEED", "1"))

MAX_LOOKS = 4 * MOMENTS

EXPOSED = {"DG101": ("it listens there now",), "DG105": ("it listens there now",),
           "DG107": ("another dockerd", "leads to the"), "DG108": ("the Docker API answers there",)}
"""What a drift says of an address that is counted as exposed, by its rule."""

# Prints the time and the ports, each time when other ports of the API accept connections and answer.
PROBER = f"""
import json, socket, threading, time
ports, now = {list(API_PORTS)}, {{}}
def is_open(address, port):
    try:
        with socket.create_connection((address, port), 0.5) as connection:
            connection.settimeout(0.5)
            connection.sendall(b"GET /_ping HTTP/1.0\\r\\nHost: docker\\r\\n\\r\\n")
            return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False
def watch(address, port):
    while True:
        now[address, port] = is_open(address, port)
        time.sleep(0.1)
for target in [(address, port) for address in ("{ADDRESS}", "{ADDRESS_IPV6}") for port in ports]:
    threading.Thread(target=watch, args=target, daemon=True).start()
before = None
while True:
    found = sorted({{port for (_, port), is_open in list(now.items()) if is_open}})
    if found != before:
        print(json.dumps([time.time(), found]), flush=True)
    before = found
    time.sleep(0.02)
"""


class Prober:
    """Connects from outside all the time, and knows since when which ports were open."""

    def __init__(self, machine: Machine) -> None:
        self._process = subprocess.Popen(machine.outside_command("python3", "-c", PROBER), text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._changes: list[tuple[float, tuple[int, ...]]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            at, ports = json.loads(line)
            self._changes.append((at, tuple(ports)))

    def open_s(self, begin: float, end: float, port: int | None = None) -> float:
        """For how many seconds between two times a port was open, by default any of them."""
        changes = [*self._changes, (end, ())]
        return sum(max(0.0, min(until, end) - max(at, begin)) for (at, ports), (until, _) in pairwise(changes)
                   if (port in ports if port is not None else ports))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Published(NamedTuple):
    """What the agent published of exposures: when (seconds since the epoch), the seconds that it has counted, and the
    ports that it then said to be exposed and not blocked."""

    at: float = 0.0
    seconds: float = 0.0
    ports: frozenset[int] = frozenset()


def published(agent: dict[str, Any]) -> Published:
    def ports(addresses: list[str]) -> set[int]:
        return {place.port for address in addresses for place in statements.places(address)}

    exposed = ports([drift["socket"] or "" for drift in agent["drifts"] if any(
        words in drift["message"] for words in EXPOSED.get(drift["code"], ()))])
    return Published(datetime.fromisoformat(agent["at"]).timestamp(), float(agent["counts"]["exposed_s"]),
                     frozenset(exposed - ports(agent["contained"])))


def miscounted(prober: Prober, begun: float, before: Published, now: Published) -> Iterator[str]:
    """Yield what is not plausible of the counted seconds."""
    elapsed, counted = now.at - before.at, now.seconds - before.seconds
    measured = prober.open_s(begun, now.at)
    if now.seconds > 1.1 * measured + UNANNOUNCED_S:
        yield f"exposed for {now.seconds:.1f} s in all, measured {measured:.1f} s"
    if before.at and not -0.001 <= counted <= elapsed + 0.5:
        yield f"exposed for {counted:.1f} s within {elapsed:.1f} s"
    for port in before.ports & now.ports:
        if prober.open_s(before.at, now.at, port) >= elapsed - 0.1 and counted < 0.9 * elapsed - 0.5:
            yield f"exposed for {counted:.1f} s within {elapsed:.1f} s, and port {port} was open all the time"


class Moment(NamedTuple):
    """What was said and what was so, and when the agent is to know of everything that has happened."""

    action: str
    before: host_facts.Facts
    said: statements.Said
    after: host_facts.Facts
    agent_knows: bool

    @property
    def is_judged(self) -> bool:
        """Whether nothing changed while the statements were read."""
        return self.before == self.after


class Story:
    """A history, and what is seen of it at random moments."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine = machine
        self._history = History(machine, seed)
        self._knows_at = time.time()
        self._noticed_s = 0.0
        self._last: host_facts.Facts | None = None

    def next(self) -> Moment:
        """Let something happen, or nothing, and look at a random moment of it."""
        history = self._history
        if not history.is_over:
            self._knows_at = max(self._knows_at, time.time() + self._noticed_s)
        if self._last is not None and history.is_later():
            action = "later"
            before = self._last
            time.sleep(history.pause_s() / 2)
        else:
            action = self._happen()
            before = host_facts.look(self._machine, PORTS)
        said = statements.ask(self._machine)
        agent_knows = history.is_over and time.time() > self._knows_at
        self._last = host_facts.look(self._machine, PORTS)
        return Moment(action, before, said, self._last, agent_knows)

    def _happen(self) -> str:
        """Begin an action and wait for a random time. Returns its name."""
        history = self._history
        history.finish()
        if history.is_quiet():
            time.sleep(UNANNOUNCED_S)
            return "nothing"
        begun = history.begin()
        time.sleep(history.pause_s())
        if history.is_nudged():
            history.finish()
            self._machine.run("systemctl reload dockerd-guard", check=False)
            time.sleep(ANNOUNCED_S)
            self._knows_at = time.time()
        else:
            # Its end is not known: it may be now.
            self._noticed_s = begun.noticed_s
            self._knows_at = max(self._knows_at, time.time() + begun.noticed_s)
        return begun.name

    def close(self) -> None:
        self._history.finish()


def test_what_is_said_is_so(machine: Machine) -> None:
    make_certificates(machine)
    host_facts.give_certificate_to_outside(machine)
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.write(POLICY, "version: 1\nmode: observe\nsockets: [fd://]\n")
    prepare(machine)
    begun, wrong, looks, count = time.time(), list[str](), 0, Counter[str]()
    prober, story, counted = Prober(machine), Story(machine, SEED), Published()
    try:
        while count["judged"] < MOMENTS and looks < MAX_LOOKS:
            looks += 1
            moment = story.next()
            found = statements.mismatches(moment.after, moment.said, agent_knows=moment.agent_knows) \
                if moment.is_judged else []
            if moment.said.agent:
                now = published(moment.said.agent)
                found += miscounted(prober, begun, counted, now)
                counted = now
            kinds = {"judged": moment.is_judged, "agent": moment.is_judged and moment.agent_knows,
                     "open": moment.is_judged and moment.after.is_open,
                     "blocked": moment.is_judged and bool(moment.said.status.get("contained"))}
            count.update(kind for kind, is_so in kinds.items() if is_so)
            print(f"{time.time() - begun:6.1f} {looks} {' '.join(kind for kind in kinds if kinds[kind]) or 'changed'}: "
                  f"{moment.action}", flush=True)
            for line in found:
                print(f"  WRONG {line}", flush=True)
            if found:
                print(json.dumps({"so": str(moment.after), "said": moment.said._asdict()}), flush=True)
            wrong += (f"{looks}: {line}" for line in found)
    finally:
        story.close()
        prober.close()
        print(f"{machine.release}: seed {SEED}, {count['judged']} of {looks} moments judged, {count['open']} with "
              f"an open API, {count['blocked']} with a blocked port, {count['agent']} at which the agent knew "
              f"everything; {len(wrong)} mismatches; counted {counted.seconds:.1f} s exposed, measured "
              f"{prober.open_s(begun, counted.at):.1f} s")
    assert wrong == []
    assert count["judged"] == MOMENTS
