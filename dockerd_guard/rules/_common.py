"""What the rules about bindings have in common: each place once, however many layers have it."""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.model.address import Binding, Scope, Tls, Via, canonical
from dockerd_guard.model.finding import Fix
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import LISTENING, RUNNING, Observation
from dockerd_guard.policy.model import DeclaredSocket, Policy, declared_bindings

STRENGTH = (Tls.NONE, Tls.SERVER, Tls.MUTUAL)
"""Weakest first."""


class Place(NamedTuple):
    """A binding as the first layer that has it shows it, and the names of all layers that have it.

    `is_foreign` says that it comes from where no drop-in of docker.service or docker.socket can overrule it.
    """

    binding: Binding
    layers: tuple[str, ...]
    is_foreign: bool


def places(seen: Observation) -> tuple[Place, ...]:
    """Every place of all layers, each once per strength of TLS."""
    found: dict[tuple[str, Tls], Place] = {}
    foreign = {listen.location for socket in seen.configured.sockets if socket.unit.name != "docker.socket"
               for listen in socket.listen}
    for layer in seen.layers:
        for binding in layer.bindings:
            key = (binding.key, binding.tls)
            known = found.setdefault(key, Place(binding, (), binding.via is Via.DAEMON_JSON or (
                binding.via is Via.SOCKET_UNIT and binding.source is not None and binding.source in foreign)))
            if layer.name not in known.layers:
                found[key] = known._replace(layers=(*known.layers, layer.name))
    return tuple(found.values())


def declared_places(policy: Policy) -> dict[str, DeclaredSocket]:
    """What the policy declares, by canonical address."""
    return {canonical(socket.address): socket for socket in declared_bindings(policy)}


def state(seen: Observation, layers: tuple[str, ...]) -> str:
    """How far something has come, as the end of a sentence; empty where only files are known."""
    if seen.running is None and seen.listening is None:
        return ""
    if LISTENING in layers:
        return "; it is open now"
    if RUNNING in layers:
        return "; the running dockerd was started so"
    return "; not in force yet, but from the next restart of docker.service on"


def fix_of_open(seen: Observation, policy: Policy | None, place: Place) -> Fix | None:
    """How `fix` would close a place or strengthen its TLS."""
    if policy is None:
        return None
    if place.is_foreign:
        return "unsafe" if policy.correct.foreign_files else None
    return _restarting(seen, RUNNING in place.layers or LISTENING in place.layers)


def fix_of_missing(seen: Observation, layers: tuple[str, ...]) -> Fix | None:
    """How `fix` would open a declared place that these layers lack."""
    if seen.configured.service.unit.load_state in ("not-found", "masked"):
        return None
    return _restarting(seen, RUNNING in layers or LISTENING in layers)


def _restarting(seen: Observation, restart: bool) -> Fix:
    if seen.running is None or not restart or seen.running.daemon.live_restore:
        return "safe"
    return "disruptive"


def how(place: Place) -> str:
    """How a binding came to be, in words and brackets; nothing where only the kernel shows it."""
    if place.layers[0] == LISTENING:
        return ""
    words = {
        Via.FLAG: "by -H",
        Via.DAEMON_JSON: "by hosts in daemon.json",
        Via.SOCKET_UNIT: "by ListenStream= of a socket unit",
        Via.DEFAULT: "by dockerd's default",
    }
    return f" ({words[place.binding.via]})"


def reach(binding: Binding) -> str:
    """From where a TCP binding can be reached, in words."""
    words = {
        Scope.WILDCARD: "on every address of this host",
        Scope.ADDRESS: "on a network address of this host",
        Scope.LOOPBACK: "to every process and user of this host",
        Scope.UNIX: "on a UNIX socket",
    }
    return words[binding.scope]


def argument_location(seen: Observation, index: int | None) -> Location | None:
    """Where an argument of dockerd stands in the files; the whole command where that is not known."""
    arguments = seen.configured.arguments
    if index is not None and index < len(arguments) and arguments[index].location is not None:
        return arguments[index].location
    return command_location(seen)


def command_location(seen: Observation) -> Location | None:
    """Where the command that starts dockerd stands, or else the unit."""
    if seen.configured.service.exec_start:
        return seen.configured.service.exec_start[-1].location
    fragment = seen.configured.service.unit.fragment
    return Location(fragment) if fragment else None
