"""TCP addresses that are open to the network against the policy. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from typing import NamedTuple

from dockerd_guard.model.address import Binding, Scope, Tls, Via, canonical, ip_of, scope_of, split_host_port
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.observation import AccessKind, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._access_paths import dockerd_finding, finding_of, observed_paths
from dockerd_guard.rules._common import declared_places
from dockerd_guard.rules.unused_waiver import is_waived

FORWARDING = (AccessKind.FORWARDER, AccessKind.CONTAINER)
"""Access paths that answer by means of a dockerd."""


class Exposure(NamedTuple):
    """A TCP address open to the network against the policy.

    `address` is spelled as the kernel reports it. `rule` is DG101 or DG105 for the dockerd of docker.service, and that
    of the access path for any other listener. `spared`: addresses of this host on which the policy declares the same
    port with the protection that it has now. `is_published`: a published port of a container. `namespace`: the network
    namespace that it is in, "" for the host's own. Only there ports can be blocked. `is_idle`: it leads to a dockerd,
    and none is up.
    """

    address: str
    rule: str
    via: Via
    spared: tuple[str, ...] = ()
    is_published: bool = False
    namespace: str = ""
    is_idle: bool = False

    @property
    def is_of_docker_service(self) -> bool:
        """Whether the dockerd of docker.service, or systemd for it, listens there."""
        return self.rule in ("DG101", "DG105")

    @property
    def rejection(self) -> Rejection:
        """The nftables rejection of this exposure."""
        return Rejection(self.address, self.spared, self.is_published)


def exposures(
    seen: Observation, policy: Policy, today: date, contained: Collection[str] = ()
) -> tuple[Exposure, ...]:
    """What is open to the network against the policy, with the waivers in effect on `today`. Pure.

    Addresses in `contained` stay if the next start of docker.service would open them again, so that a restart
    of dockerd does not release them.
    """
    if seen.listening is None:
        return ()
    declared = declared_places(policy)
    found: dict[tuple[str, str], Exposure] = {}
    namespaces = {binding.address: binding.namespace for binding in seen.listening.layer.bindings}
    for address, tls, via in _open(seen, contained):
        key = address, namespaces.get(address, "")
        if not address.startswith("tcp://") or scope_of(address) is Scope.LOOPBACK or key in found:
            continue
        wanted = declared.get(canonical(address))
        if wanted is None:
            exposure = Exposure(address, "DG101", via, tuple(_spared(address, tls, policy)), namespace=key[1])
        elif tls is not None and tls.is_weaker(wanted.tls):
            exposure = Exposure(address, "DG105", via, namespace=key[1])
        else:
            continue
        found[key] = exposure
    for exposure in _other_exposures(seen, policy, today):
        found.setdefault((exposure.address, ""), exposure)
    return tuple(found.values())


def openings(seen: Observation, policy: Policy, today: date, *, is_starting: bool) -> tuple[Exposure, ...]:
    """TCP addresses against the policy on which nothing listens yet, or only just: of socket units, which systemd opens
    as soon as it starts them, of a dockerd of docker.service that `is_starting`, and of others that start. Pure.

    One of docker.service with TLS that is not known is looked at when it listens, and can be probed.
    """
    declared = declared_places(policy)
    listed = seen.listening.opening if seen.listening is not None else ()
    started = seen.running.opening if seen.running is not None and is_starting else ()
    of_docker_service = (
        Exposure(binding.address, "DG101" if wanted is None else "DG105", binding.via,
                 tuple(_spared(binding.address, binding.tls, policy)) if wanted is None else ())
        for binding in (*started, *listed)
        if (wanted := declared.get(binding.key)) is None
        or (binding.tls is not Tls.UNKNOWN and binding.tls.is_weaker(wanted.tls)))
    of_others = (Exposure(binding.address, "DG107", binding.via) for other in seen.others
                 if not is_waived(dockerd_finding(other), policy, today) for binding in other.opening)
    return tuple({each.address: each for each in (*of_others, *of_docker_service)
                  if scope_of(each.address) is not Scope.LOOPBACK
                  and ip_of(split_host_port(each.address)[0]) is not None}.values())


def _other_exposures(seen: Observation, policy: Policy, today: date) -> Iterator[Exposure]:
    """Access paths whose port is known to lead to an API, and other dockerds in the network namespace of the host."""
    is_up = seen.running is not None or bool(seen.others) or (
        seen.listening is not None and bool(seen.listening.held_by_systemd))
    for path in observed_paths(seen, policy):
        if path.serves_api and path.address and scope_of(path.address) is not Scope.LOOPBACK:
            finding = finding_of(path)
            if not is_waived(finding, policy, today):
                is_idle = not is_up and path.kind in FORWARDING and not path.is_apart
                yield Exposure(path.address, finding.code, Via.FLAG, (), path.is_published, is_idle=is_idle)
    for other in seen.others:
        if not is_waived(dockerd_finding(other), policy, today):
            for binding in other.bindings:
                if binding.is_tcp and not binding.namespace and binding.scope is not Scope.LOOPBACK:
                    yield Exposure(binding.address, "DG107", binding.via)


def _open(seen: Observation, contained: Collection[str]) -> Iterator[tuple[str, Tls | None, Via]]:
    """Addresses with their TLS (None: no accepted connection yet) and their origin."""
    if seen.listening is not None:
        for binding in seen.listening.layer.bindings:
            yield binding.address, binding.tls, Via.SOCKET_UNIT if _is_passed(binding, seen) else binding.via
        for address in seen.listening.held_by_systemd:
            yield address, None, Via.SOCKET_UNIT
    if seen.loaded is not None:
        next_time = {binding.key: binding for binding in seen.loaded.layer.bindings}
        for address in contained:
            if (same := next_time.get(canonical(address))) is not None:
                yield address, same.tls, same.via


def _is_passed(binding: Binding, seen: Observation) -> bool:
    """Whether systemd opened it. After a reload systemd no longer reports sockets that no unit lists."""
    hosts = seen.running.layer.hosts if seen.running is not None else ()
    return binding.via is Via.SOCKET_UNIT or (
        any(host.startswith("fd://") for host in hosts) and binding.key not in map(canonical, hosts))


def _spared(address: str, tls: Tls | None, policy: Policy) -> Iterator[str]:
    """Specific addresses on which the policy declares the port of a wildcard address."""
    if scope_of(address) is not Scope.WILDCARD or tls is None:
        return
    port = split_host_port(address)[1]
    for declared in declared_places(policy).values():
        if declared.is_tcp and not tls.is_weaker(declared.tls):
            host, declared_port = split_host_port(declared.address)
            if declared_port == port and (ip := ip_of(host)) is not None and not ip.is_unspecified:
                yield str(ip)
