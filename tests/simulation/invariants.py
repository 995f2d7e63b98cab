"""The safety invariants of a host, checked after each step. Each check yields a message for each violation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.model.address import Tls, canonical
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.probes import Known
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.policy.model import Mode, Restart, declared_bindings
from dockerd_guard.rootfs import Rootfs
from tests.simulation.actions import DROPINS, OTHER_UNIT, OTHER_UNIT_TEXT, World
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager

MAX_PASS_S = 400.0
"""A pass may wait for one stop that hangs (240 s), and for verification."""


class Before(NamedTuple):
    """What is compared with what is so after a pass."""

    files: Mapping[str, bytes]
    was_running: bool
    killed: int
    starts: int
    resets: int
    seconds: float
    has_faults: bool


def files(host: SimulatedHost) -> dict[str, bytes]:
    """The content of every file below /etc that is not ours."""
    found = {}
    for path in sorted((host.root / "etc").rglob("*")):
        if path.is_symlink():
            found["/" + str(path.relative_to(host.root))] = f"link {path.readlink()}".encode()
        elif path.is_file():
            found["/" + str(path.relative_to(host.root))] = path.read_bytes()
    return found


def before(world: World) -> Before:
    """What is so before a pass."""
    host = world.host
    faults = bool(host.disk_errno or host.bus_is_gone or host.engine_is_silent or host.dies_after_s or host.stop_hangs
                  or host.crash_in is not None)
    return Before(files(host), host.running is not None, len(host.killed), len(host.starts), host.resets,
                  host.clock.seconds, faults)


def violations(world: World, then: Before) -> Iterator[str]:
    """Everything that a pass broke."""
    yield from _containers(world, then)
    yield from _budget(world, then)
    yield from _works(world, then)
    yield from _code(world)
    yield from _foreign(world, then)
    yield from _open(world)
    yield from _stated(world)
    yield from _time(world, then)


def _containers(world: World, then: Before) -> Iterator[str]:
    policy = world.agents[-1].controller.policy
    killed = [by for _, by in world.host.killed[then.killed:] if by == "us"]
    if killed and policy.correct.restart is not Restart.ALWAYS:
        yield f"I1: {len(killed)} containers were stopped under restart: {policy.correct.restart}"


def _budget(world: World, then: Before) -> Iterator[str]:
    policy, host = world.agents[-1].controller.policy, world.host
    ours = [start.at for start in host.starts if start.by == "us"]
    recent = [at for at in ours if host.clock.seconds - at < policy.correct.budget.per_s]
    # The last correction within the budget may have to be rolled back (I3).
    if len(host.starts) > then.starts and len(recent) > host.most_allowed(policy.correct.budget.restarts) + 1:
        yield f"I2: {len(recent)} starts by us, allowed are {policy.correct.budget}"
    if host.resets - then.resets > 1:
        yield f"I2: {host.resets - then.resets} times ResetFailedUnit in one pass"


def _works(world: World, then: Before) -> Iterator[str]:
    host = world.host
    if then.was_running and host.running is None and not then.has_faults and len(host.starts) > then.starts:
        yield f"I3: dockerd ran before the pass, and is {host.active} after it"


def _code(world: World) -> Iterator[str]:
    if wrong := [path for path in world.host.executed if path != "/usr/bin/dockerd"]:
        yield f"I4: executed {wrong}"


def _foreign(world: World, then: Before) -> Iterator[str]:
    host = world.host
    now = files(host)
    if host.text(OTHER_UNIT) != OTHER_UNIT_TEXT:
        yield f"I5: {OTHER_UNIT} was changed"
    kept = {hashlib.sha256(content).digest() for content in now.values()}
    for path, content in then.files.items():
        if path.endswith("/zz-dockerd-guard.conf") or "dockerd-guard" in path.rpartition("/")[0]:
            continue
        is_known = bool({hashlib.sha256(content).hexdigest(), content.decode(errors="replace")} & host.written)
        is_known |= hashlib.sha256(content).digest() in kept
        if now.get(path) != content and not is_known:
            yield f"I5: the content of {path} is lost"
        is_own = path.startswith((DROPINS, "/etc/systemd/system/docker.socket.d", "/etc/docker/daemon.json"))
        if now.get(path) != content and not is_own:
            yield f"I5: {path} was changed"


def _open(world: World) -> Iterator[str]:
    agent, host = world.agents[-1], world.host
    policy = agent.controller.policy
    if policy.mode is not Mode.ENFORCE or not policy.correct.contain or host.bus_is_gone:
        return
    declared = {canonical(socket.address) for socket in declared_bindings(policy)}
    for address in host.open_addresses():
        if canonical(address) in declared:
            continue
        if not host.nftables_is_gone:
            yield f"I7: {address} is open and not blocked"
    wrong = set(agent.controller.memory.contained.addresses) & set(host.open_addresses())
    if wrong and not host.nftables_is_gone:
        yield f"I7: reported as blocked, and open: {wrong}"


def _stated(world: World) -> Iterator[str]:
    """What is stated of the running dockerd, as the agent would observe it now."""
    host, controller = world.host, world.agents[-1].controller
    if host.running is None or host.bus_is_gone:
        return
    known = Known(controller.memory.start, world.agents[-1].state.load_probes())
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host), known=known)
    for layer in (part.layer for part in (seen.running, seen.listening) if part is not None):
        for binding in layer.bindings:
            if binding.is_tcp and binding.tls not in (host.running.tls, Tls.UNKNOWN):
                yield f"I6: {layer.name} has {binding.address} with TLS {binding.tls}, it is {host.running.tls}"
    if len(set(host.probes)) < len(host.probes):
        yield f"I6: an address was probed again: {host.probes}"


def _time(world: World, then: Before) -> Iterator[str]:
    if (took_s := world.host.clock.seconds - then.seconds) > MAX_PASS_S:
        yield f"I12: a pass took {took_s:.0f} s"


def settled(world: World) -> Iterator[str]:
    """I14, of a host where nothing holds anything and nobody interferes."""
    agent, host = world.agents[-1], world.host
    decision = agent.controller.decision
    if decision.required.anything or decision.verdict is not Verdict.NOTHING:
        yield f"I14: not settled: {decision.verdict}, {decision.required.steps()}, {decision.hold}"
    if host.open_addresses():
        yield f"I14: open: {host.open_addresses()}"
    if host.blocked:
        yield f"I14: blocked for ever: {host.blocked}"
    if host.running is None:
        yield "I14: dockerd does not run"
    then, starts = files(host), len(host.starts)
    host.clock.sleep(600)
    agent.run_pass()
    if files(host) != then or len(host.starts) != starts:
        yield "I14: a further pass changed something"
