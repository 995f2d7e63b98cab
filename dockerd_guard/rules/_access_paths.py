"""The findings about access paths, which three rules and containment share."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Binding, Scope, canonical, ip_of, scope_of, split_host_port
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.observe.observation import LISTENING, RUNNING, AccessKind, AccessPath, Observation, Other
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import declared_places

CODES = {AccessKind.CONTAINER: "DG108", AccessKind.CONTAINERD: "DG110"}
"""The rule of each kind; DG107 for all others."""

ASSUMED = "whether the Docker API answers there is not known now"
"""Said of what gave no answer when it was asked last, or was blocked by an earlier process and cannot be asked, as
where Docker is down."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@\\+")


def shown(name: str) -> str:
    """The name of a process or container, which anybody may choose, for a message: at most 100 plain characters."""
    return "".join(char if char in _PLAIN else "?" for char in name[:100])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:300])


def code_of(path: AccessPath) -> str:
    return CODES.get(path.kind, "DG107")


def observed_paths(seen: Observation, policy: Policy | None) -> Iterator[AccessPath]:
    """Yield the access paths, without a declared address of which nothing but the port is known."""
    declared = {} if policy is None else declared_places(policy)
    for path in seen.access_paths:
        if path.kind is not AccessKind.API_PORT or path.serves_api or canonical(path.address) not in declared:
            yield path


def finding_of(path: AccessPath) -> Finding:
    """The finding about an access path."""
    message = _container_message(path) if path.kind is AccessKind.CONTAINER else _process_message(path)
    return Finding(code_of(path), _severity(path), message, LISTENING, path.location, None, path.address or None,
                   path.unit, path.container, path.image)


def dockerd_finding(other: Other) -> Finding:
    """The finding about another dockerd."""
    process, bindings = other.process, other.bindings
    addresses = ", ".join(_in_namespace(binding) for binding in bindings) or "no address"
    owner = [f"pid {process.pid}", shown(process.unit)]
    if process.container:
        owner.append(f"container {process.container[:12]}")
    elif process.in_container:
        owner.append("in a PID namespace of its own")
    if process.uid:
        owner.append(f"uid {process.uid}")
    address = _address_of(other)
    is_in_namespace = address is not None and not address.startswith("unix:///")
    return Finding(
        "DG107", "error" if any(binding.is_tcp for binding in bindings) else "warning",
        f"another dockerd is running ({', '.join(filter(None, owner))}) and listens on {addresses}"
        + (f"; it gives access to the account with uid {process.uid}" if process.uid else ""),
        RUNNING, None, None, address, process.unit, process.container[:12],
        namespace=_printable(other.namespace) if is_in_namespace else "")


def _address_of(other: Other) -> str | None:
    """The address that identifies another dockerd: of all that it listens on, or is to listen on, a TCP one, of these
    the one that most can reach, and of these the first of its command line.

    It opens its sockets one after the other, before TCP without TLS with a pause of 16 s. Its identity must not change
    meanwhile. The host names of its command line are left out: the kernel reports what they were resolved to.
    """
    hosts = (host for host in other.hosts if not host.startswith("tcp://") or scope_of(host) is not Scope.ADDRESS
             or ip_of(split_host_port(host)[0]) is not None)
    addresses = (*hosts, *(binding.address for binding in other.bindings))
    scopes = list(Scope)
    return max(addresses, key=lambda address: (address.startswith("tcp://"), scopes.index(scope_of(address))),
               default=None)


def _in_namespace(binding: Binding) -> str:
    """The address, with the network namespace where it is not that of the host."""
    return binding.address + f" in the network namespace {_printable(binding.namespace)}" * bool(binding.namespace)


def _severity(path: AccessPath) -> Severity:
    if path.address and scope_of(path.address) is Scope.LOOPBACK:
        return "warning"
    return "error" if path.serves_api or path.kind not in (AccessKind.API_PORT, AccessKind.FORWARDER) else "warning"


def _process_message(path: AccessPath) -> str:
    owner = [f"pid {path.pid}" if path.pid else "", shown(path.unit),
             f"container {shown(path.container)}" if path.container else "", f"uid {path.uid}" if path.uid else ""]
    subject = f"{shown(path.program)} ({', '.join(filter(None, owner))}) listens on {path.address}"
    if path.kind is AccessKind.API_PORT:
        what = "where the Docker API answers" if path.serves_api else "a port of the Docker API that is not declared"
        return f"{subject}, where the API has answered; {ASSUMED}" if path.is_assumed else f"{subject}, {what}"
    proof = "; it leads to the Docker API: anyone who can reach it has root access" if path.serves_api else ""
    proof = f"; {ASSUMED}" if path.is_assumed else proof
    return f"{subject}: {_printable(path.evidence)}{proof}"


def _container_message(path: AccessPath) -> str:
    image = f" ({shown(path.image)})" if path.image else ""
    if path.is_published:
        where = f"publishes {path.address}" if path.address else "publishes a port"
    else:
        where = f"uses the host's network{f' and listens on {path.address}' if path.address else ''}"
    proof = f"; {ASSUMED}" if path.is_assumed else "; the Docker API answers there" if path.serves_api else ""
    return f"container {shown(path.container)}{image} mounts {_printable(path.evidence)} and {where}{proof}"
