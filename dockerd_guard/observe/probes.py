"""What listening TCP sockets of dockerd answered: the best evidence of their TLS (I6).

A handshake without a client certificate is what dockerd logs as an error if it requires one, on every release. So each
address is probed once for each start of dockerd, and the result is recorded for every later process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import NamedTuple, Protocol

from dockerd_guard.model.address import Evidence, Scope, ip_of, split_host_port
from dockerd_guard.observe.engine import Probe
from dockerd_guard.observe.observation import Layer, Observation, Running
from dockerd_guard.observe.started import INVOCATION, StartRecord

RETRY_S = 30.0
"""When an address that did not answer is probed again."""

MAX_PROBES = 16
"""Addresses that are probed for one start of dockerd."""


class Probes(NamedTuple):
    """The answers of one start of dockerd, by canonical address."""

    start: str = ""
    answers: Mapping[str, Probe] = MappingProxyType({})


class Known(NamedTuple):
    """What is known of a running dockerd from earlier observations."""

    start: StartRecord | None = None
    probes: Probes = Probes()


NOTHING_KNOWN = Known()


class ProbeStore(Protocol):
    """Where probes are recorded. `save_probes` raises OSError."""

    def probing(self) -> AbstractContextManager[None]:
        """Hold the lock of probing, so that two processes do not probe one address. Raises OSError without it."""

    def load_probes(self) -> Probes:
        """Return what was saved last, by whatever process."""

    def save_probes(self, probes: Probes) -> None:
        """Record these instead."""


def start_of(running: Running) -> str:
    """Return what identifies a start of dockerd."""
    return f"{running.process.environ.get(INVOCATION, '')}/{running.process.pid}"


def with_probes(seen: Observation, probes: Probes) -> Observation:
    """Return an observation whose running and listening layers have the TLS that was probed. Pure."""
    running, listening = seen.running, seen.listening
    if running is None or listening is None or probes.start != start_of(running) or not probes.answers:
        return seen
    # The API is where dockerd was told to listen, whatever answers there.
    hosts = {split_host_port(host.address)[1] for host in running.daemon.hosts if host.address.startswith("tcp://")}
    ports = {split_host_port(key)[1]: probe for key, probe in probes.answers.items()}

    def probed(layer: Layer) -> Layer:
        found = []
        for binding in layer.bindings:
            host, port = split_host_port(binding.address)
            # A host name is not resolved: the kernel shows its address.
            is_name = binding.is_tcp and binding.scope is not Scope.WILDCARD and ip_of(host) is None
            probe = probes.answers.get(binding.key) or (ports.get(port) if is_name else None)
            if probe is None or binding.namespace:
                found.append(binding)
            elif probe.is_api or port in hosts:
                found.append(binding._replace(tls=probe.tls, tls_evidence=Evidence.PROBE))
        return layer._replace(bindings=tuple(found))

    certificate = next((probe.certificate for probe in probes.answers.values() if probe.certificate), "")
    return seen._replace(running=running._replace(layer=probed(running.layer), certificate=certificate),
                         listening=listening._replace(layer=probed(listening.layer)))


class Prober:
    """Probes each TCP address of each start of dockerd once."""

    def __init__(self, probe: Callable[[str], Probe | None], store: ProbeStore,
                 monotonic: Callable[[], float] = time.monotonic,
                 is_active: Callable[[], bool] = lambda: True) -> None:
        """`probe` returns None without an answer, and may raise Unsupported. `is_active`: whether docker.service still
        is, called before each probe: a connection to a socket that systemd holds would start it."""
        self._probe = probe
        self._is_active = is_active
        self._store = store
        self._monotonic = monotonic
        self._silent: dict[str, float] = {}
        """When an address did not answer, by start and address."""
        self.probes = store.load_probes()

    def __call__(self, seen: Observation) -> Observation:
        """Probe what is not known yet, and return the observation with all answers.

        Nothing is probed where it cannot be recorded, and after an address that does not answer: a timeout in each pass
        would delay corrections (I12).
        """
        running, listening, loaded = seen.running, seen.listening, seen.loaded
        # While dockerd starts it does not answer.
        if running is None or listening is None or loaded is None or loaded.active_state not in ("active", "reloading"):
            return seen
        start = start_of(running)
        wanted = {binding.key: binding.address for binding in listening.layer.bindings
                  if binding.is_tcp and not binding.namespace}
        now = self._monotonic()
        wanted = {key: address for key, address in wanted.items()
                  if now - self._silent.get(f"{start} {key}", -RETRY_S) >= RETRY_S}
        if not wanted.keys() <= self._answers(start).keys():
            with contextlib.suppress(OSError), self._store.probing():
                answers = self._answers(start)
                self._store.save_probes(Probes(start, answers))
                for key in [key for key in wanted if key not in answers][:MAX_PROBES - len(answers)]:
                    if not self._is_active():
                        break
                    if (probe := self._probe(wanted[key])) is None:
                        self._silent = {f"{start} {key}": now}
                        break
                    answers[key] = probe
                    self._store.save_probes(Probes(start, answers))
        return with_probes(seen, self.probes)

    def _answers(self, start: str) -> dict[str, Probe]:
        """The answers of a start: those of this process, and those that any other has recorded. Further ones are added
        to the result in place."""
        answers: dict[str, Probe] = {}
        for probes in (self._store.load_probes(), self.probes):
            answers |= probes.answers if probes.start == start else {}
        self.probes = Probes(start, answers)
        return answers
