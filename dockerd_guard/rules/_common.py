"""Functions that several rules share: bindings merged over the layers, parts of messages, locations."""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.model.address import Binding, Scope, Tls, Via, canonical
from dockerd_guard.model.finding import Finding, Fix, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import LISTENING, RUNNING, Layer, Observation
from dockerd_guard.policy.model import DeclaredSocket, Policy, declared_bindings


class MergedBinding(NamedTuple):
    """One binding and the layers that have it.

    `binding` is taken from the first of these layers. `layers` holds their names, in the order of
    `Observation.layers`. `is_foreign`: no drop-in of docker.service or docker.socket can override it, because it
    comes from daemon.json or from another socket unit.
    """

    binding: Binding
    layers: tuple[str, ...]
    is_foreign: bool


def merged_bindings(seen: Observation) -> tuple[MergedBinding, ...]:
    """Return the bindings of all layers, one entry for each address and TLS mode."""
    found: dict[tuple[str, Tls], MergedBinding] = {}
    foreign = {listen.location for socket in seen.configured.sockets if socket.unit.name != "docker.socket"
               for listen in socket.listen}
    for layer in seen.layers:
        for binding in layer.bindings:
            key = (binding.key, binding.tls)
            known = found.setdefault(key, MergedBinding(binding, (), binding.via is Via.DAEMON_JSON or (
                binding.via is Via.SOCKET_UNIT and binding.source is not None and binding.source in foreign)))
            if layer.name not in known.layers:
                found[key] = known._replace(layers=(*known.layers, layer.name))
    return tuple(found.values())


def declared_places(policy: Policy) -> dict[str, DeclaredSocket]:
    """Return the sockets that the policy declares, by canonical address."""
    return {canonical(socket.address): socket for socket in declared_bindings(policy)}


def namespace_of(layer: Layer, key: str) -> str | None:
    """Return the network namespace in which a layer has an address, "" for the host's own, None where it has not. What
    a policy declares are addresses of the host."""
    return min((binding.namespace for binding in layer.bindings if binding.key == key), default=None)


def effect(seen: Observation, merged: MergedBinding) -> str:
    """Return whether a binding is in effect, and in which network namespace, as the end of a message.

    Empty where only files were observed (`--root`).
    """
    if seen.running is None and seen.listening is None:
        return ""
    if LISTENING in merged.layers:
        bindings = seen.listening.layer.bindings if seen.listening is not None else ()
        namespace = next((binding.namespace for binding in bindings if binding.key == merged.binding.key), "")
        return "; it listens there now" + f" in the network namespace {namespace}" * bool(namespace)
    if RUNNING in merged.layers:
        return "; the running dockerd was started with it"
    return "; takes effect at the next restart of docker.service"


def binding_finding(  # noqa: PLR0913, PLR0917 -- the fields of a finding
    code: str, severity: Severity, message: str, seen: Observation, merged: MergedBinding, fix: Fix | None
) -> Finding:
    """Return a finding about a binding, located where it is configured. Its message ends with the effect."""
    return Finding(code, severity, f"{message}{effect(seen, merged)}", merged.layers[0], merged.binding.source,
                   fix, merged.binding.address)


def fix_for_binding(seen: Observation, policy: Policy | None, merged: MergedBinding) -> Fix | None:
    """Return how `fix` would remove a binding or strengthen its TLS."""
    if policy is None:
        return None
    if merged.is_foreign:
        return fix_for_foreign_file(policy)
    return _restarting(seen, RUNNING in merged.layers or LISTENING in merged.layers)


def fix_for_foreign_file(policy: Policy | None) -> Fix | None:
    """Return how `fix` would resolve what only a change of a foreign file resolves."""
    return "unsafe" if policy is not None and policy.correct.foreign_files else None


def fix_for_missing(seen: Observation, layers: tuple[str, ...]) -> Fix | None:
    """Return how `fix` would add a declared socket that these layers lack."""
    if seen.configured.service.unit.load_state in ("not-found", "masked"):
        return None
    return _restarting(seen, RUNNING in layers or LISTENING in layers)


def _restarting(seen: Observation, restart: bool) -> Fix:
    if seen.running is None or not restart or seen.running.daemon.live_restore:
        return "safe"
    return "disruptive"


def origin(merged: MergedBinding) -> str:
    """Return the setting that a binding comes from, in parentheses; empty where only the kernel has the binding."""
    if merged.layers[0] == LISTENING:
        return ""
    settings = {
        Via.FLAG: "-H",
        Via.DAEMON_JSON: "hosts in daemon.json",
        Via.SOCKET_UNIT: "ListenStream= of a socket unit",
        Via.DEFAULT: "dockerd's default",
    }
    return f" ({settings[merged.binding.via]})"


def scope_text(binding: Binding) -> str:
    """Return who can reach a binding, as part of a message."""
    texts = {
        Scope.WILDCARD: "on every address of this host",
        Scope.ADDRESS: "on a network address of this host",
        Scope.LOOPBACK: "to every process and user of this host",
        Scope.UNIX: "on a UNIX socket",
    }
    return texts[binding.scope]


def argument_location(seen: Observation, index: int | None) -> Location | None:
    """Return the location of an argument of dockerd; the location of the whole command if that is unknown."""
    arguments = seen.configured.arguments
    if index is not None and index < len(arguments) and arguments[index].location is not None:
        return arguments[index].location
    return command_location(seen)


def command_location(seen: Observation) -> Location | None:
    """Return the location of the command that starts dockerd; the unit file if there is none."""
    if seen.configured.service.exec_start:
        return seen.configured.service.exec_start[-1].location
    fragment = seen.configured.service.unit.fragment
    return Location(fragment) if fragment else None
