"""Check from outside what a correction achieved: the kernel's sockets, and an answer to a ping."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from dockerd_guard.apply.context import Context
from dockerd_guard.model.address import Evidence, Tls, canonical
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.network import HelperUnavailable, Network
from dockerd_guard.observe.observation import Configured, Observation
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.plan import Change, complies, content_at, files_of
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rootfs import DEV_NULL, FileStatus, Rootfs

TIMEOUT_S = 10.0
"""How long the sockets may take once systemd reports dockerd as started: it binds before READY=1."""

TIMEOUT_UNNOTIFIED_S = 40.0
"""The same where Type= is not notify: it includes dockerd's own pause of 16 s on plain TCP."""

POLL_S = 0.1


class Verification(NamedTuple):
    """What differs from the policy, as a message (empty: nothing), and the observation that shows it."""

    problem: str
    seen: Observation


def verify(policy: Policy, service_type: str, context: Context) -> Verification:
    """Observe until the host complies and every declared socket answers. Raises HelperUnavailable, Unavailable."""
    timeout_s = TIMEOUT_S if service_type in ("notify", "notify-reload") else TIMEOUT_UNNOTIFIED_S
    begun = context.clock.now()
    while True:
        seen = context.probe(context.observe())
        problem = _problem(seen, policy, context.network)
        if not problem or context.clock.now().seconds_since(begun) > timeout_s:
            return Verification(problem, seen)
        context.clock.sleep(POLL_S)


def _problem(seen: Observation, policy: Policy, network: Network) -> str:
    if seen.running is None or seen.listening is None:
        return "dockerd is not running"
    if not complies(seen.listening.layer, policy):
        listening = ", ".join(binding.address for binding in seen.listening.layer.bindings) or "nothing"
        return f"dockerd listens on {listening}"
    probed = {binding.key for binding in seen.listening.layer.bindings if binding.tls_evidence is Evidence.PROBE}
    return "; ".join(unanswered(policy, network, probed))


def unanswered(policy: Policy, network: Network, probed: Collection[str] = ()) -> Iterable[str]:
    """Try every declared socket; return a message for each that does not answer as declared.

    Addresses in `probed` have answered, and their TLS is compared already. Raises HelperUnavailable.
    """
    for socket in declared_bindings(policy):
        if canonical(socket.address) in probed:
            continue
        answer = network.ping(socket.address, socket.tls)
        if not answer.answers:
            yield f"{socket.address} does not answer: {answer.reason}"
        elif socket.tls is Tls.MUTUAL and answer.tls is not Tls.MUTUAL:
            yield f"{socket.address} accepts clients without a certificate"


def unverifiable(error: HelperUnavailable) -> Hold:
    """The hold where the network helper is missing, which alone can check TCP sockets."""
    return Hold(f"{error}; cannot verify that Docker answers over TCP", next_step=HelperUnavailable.next_step)


def changed_since(seen: Observation, root: str) -> str:
    """Return what a start of dockerd reads anew, and that differs from the observation; empty for nothing."""
    before = seen.configured
    with Rootfs(root) as rootfs:
        now = observe_configured(rootfs, dockerd=before.known_dockerd, systemd=before.systemd_version,
                                 manager_environment=before.manager_environment)
        if now.environment.assigned != before.environment.assigned:
            return f"the environment of {SERVICE}"
        path = now.daemon.config_file
        return path if rootfs.read_if_possible(path) != seen.rootfs.read_if_possible(path) else ""


def identities(seen: Observation) -> Mapping[str, FileStatus | None]:
    """Return what an observation saw of each path that it looked up, None for nothing. Reads nothing anew."""
    return {path: seen.rootfs.stat(path, follow=False) for path in tuple(seen.rootfs.consulted)}


def changed_meanwhile(  # noqa: PLR0913, PLR0917 -- what was, what was done, and what is
    changes: Iterable[Change], decided_on: Observation, before: Mapping[str, FileStatus | None], now: Configured,
    policy: Policy, root: str
) -> str:
    """Return a file that another program changed since the observation that was decided on, as identities() of it
    shows; empty if none did.

    That is a file that differs from what was just written; or, where the files no longer comply, the one that changed
    last of those that determine where Docker listens.
    """
    written = {change.path for change in changes}
    with Rootfs(root) as rootfs:
        for change in changes:
            if content_at(rootfs, change.path) != change.after:
                return change.path
        if complies(now.layer, policy):
            return ""
        found: dict[str, int] = {}
        for path in (*files_of(decided_on.configured), *files_of(now)):
            for real in (rootfs.resolve(path, follow=False), rootfs.resolve(path)):
                if real is None or real == DEV_NULL or real in written:
                    continue
                entry = rootfs.stat(real, follow=False)
                if entry != before.get(real):
                    found[real] = entry.ctime_ns if entry is not None else 0
        return max(found, key=lambda path: found[path], default="")
